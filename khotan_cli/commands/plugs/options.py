"""The options of `khotan plug`: which combinations are valid, and the call that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from khotan_cli.commands.arguments import read_json, read_object
from khotan_cli.errors import UsageError

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_DEFAULT_PAGES = 2


@dataclass(frozen=True, kw_only=True)
class PlugOptions:
    """The options as Typer parses them; `commands/plugs/plug.py` documents each."""

    name: str
    method: str
    path: str
    list_all: bool
    info: bool
    endpoint: str
    compare: bool
    params: str
    body: str
    headers: str
    save: str
    source: str
    fail_on: str
    pages: int | None
    enable: bool
    disable: bool
    resume: bool
    sign_in: bool
    port: int | None
    timeout: int | None
    no_browser: bool
    redirect_uri: str

    @property
    def calls(self) -> bool:
        """Whether the options request a call."""
        return bool(self.endpoint or self.method)

    def call(self) -> dict[str, Any]:
        """The request body for the debug API. Raises UsageError for invalid JSON."""
        target = {"endpoint": self.endpoint} if self.endpoint else {"method": self.method.upper(), "path": self.path}
        return {
            **target,
            "params": read_object("--params", self.params),
            "headers": {key: str(value) for key, value in read_object("--headers", self.headers).items()},
            "body": read_json("--body", self.body) if self.body else None,
            "compare": self.compare or bool(self.source),
            "pages": self.pages or _DEFAULT_PAGES,
            "failOn": self.fail_on or None,
        }

    def check(self) -> None:
        """Raises UsageError for options that exclude each other, or that need another option."""
        actions = {
            "--list": self.list_all, "--info": self.info, "--enable": self.enable, "--disable": self.disable,
            "--resume": self.resume, "--login": self.sign_in,
        }  # fmt: skip
        self._check_one_action(actions)
        self._check_needs()
        self._check_target()
        if self.list_all and self.name:
            raise UsageError("--list shows every plug", hint=f"To show one plug: khotan plug {self.name}")
        if not self.name and (self.calls or any(actions[action] for action in actions if action != "--list")):
            raise UsageError("Missing plug name", hint="khotan plug NAME …", next=["khotan plug --list"])

    def _check_one_action(self, actions: Mapping[str, bool]) -> None:
        selected = [action for action, is_set in actions.items() if is_set] + (["a call"] if self.calls else [])
        if len(selected) > 1:
            raise UsageError(f"{selected[0]} and {selected[1]} exclude each other", hint="Give one of them.")

    def _check_needs(self) -> None:
        calling = {"--params": self.params, "--body": self.body, "--headers": self.headers, "--save": self.save}
        comparing = {"--compare": self.compare, "--from": self.source, "--fail-on": self.fail_on}
        login = {
            "--port": self.port, "--timeout": self.timeout, "--no-browser": self.no_browser,
            "--redirect-uri": self.redirect_uri,
        }  # fmt: skip
        called = self.calls and not self.source
        _need(calling, called, "a call", "khotan plug NAME --endpoint E, or NAME METHOD PATH.")
        _need(comparing, bool(self.endpoint), "an endpoint", "khotan plug NAME --endpoint E --compare")
        if self.pages and self.source:
            raise UsageError("--pages and --from exclude each other", hint="--from compares one saved response.")
        _need({"--fail-on": self.fail_on}, self.compare or bool(self.source), "--compare", "Add --compare.")
        _need({"--pages": self.pages}, self.compare, "--compare", "Add --compare.")
        _need(login, self.sign_in, "--login", "khotan plug NAME --login")

    def _check_target(self) -> None:
        if self.method and self.endpoint:
            raise UsageError("--endpoint and a method exclude each other", hint="Give one of them.")
        if self.method and self.method.upper() not in METHODS:
            raise UsageError(
                f"{self.method!r} is not an HTTP method",
                hint=f"khotan plug NAME METHOD PATH, with one of {', '.join(METHODS)}.",
            )
        if self.method and not self.path:
            raise UsageError(
                f"{self.method.upper()} needs a path", hint=f"khotan plug {self.name} {self.method.upper()} /path"
            )


def _need(values: Mapping[str, Any], present: bool, other: str, hint: str) -> None:
    """Raises UsageError for an option that is set without the option it needs."""
    for option, value in values.items():
        if value not in ("", False, None) and not present:
            raise UsageError(f"{option} needs {other}", hint=hint)
