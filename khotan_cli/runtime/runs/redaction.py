"""Redaction: keeps the secrets of the app's plugs out of what khotan stores of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import FlowError, KhotanError
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.redaction.masker import SHORTEST_REPLACED, Masker
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store.runs import Reject, RunStore

_SHORTEST_FOUND = 12
"""Minimum length of a secret that is searched inside longer texts: a shorter one may be a common word."""


class Redaction:
    """The secrets known to one execution. Variables are read once, at first use; tokens are read every time."""

    def __init__(self, env: Environment, flow: Flow | None = None) -> None:
        plugs = [*env.plugs.values(), *(flow.plugs if flow is not None else ())]
        self._plugs = list({id(plug): plug for plug in plugs}.values())
        self._unread = list(self._plugs)
        self._more = env.more_secrets
        self._known: dict[str, str] = {}
        self._masker = Masker()
        self._masked = 0

    async def masker(self) -> Masker:
        await self._learn()
        if len(self._known) != self._masked:
            self._masker, self._masked = Masker(self._known), len(self._known)
        return self._masker

    async def check_result(self, step: str, result: Any) -> None:
        """Raises FlowError if a JSON result contains a secret, which would be stored unencrypted."""
        texts = list(_texts(result))
        if not texts:
            return
        await self._learn()
        for secret, owner in self._known.items():
            inside = len(secret) >= _SHORTEST_FOUND
            if len(secret) >= SHORTEST_REPLACED and any(secret in text if inside else secret == text for text in texts):
                raise FlowError(
                    f"The result of step {step!r} contains {owner} and was not stored, because results are not encrypted",
                    code="secret_in_result",
                    hint="Return a result without the secret. Read variables with await ctx.vars() where you need them.",
                )

    def add(self, plug: Plug, values: Mapping[str, str]) -> None:
        """Add variables that were read again or set."""
        for name, var in plug.declared_vars().items():
            if var.secret and name in values:
                self._known[values[name]] = f"the variable {name!r} of plug {plug.name!r}"

    async def _learn(self) -> None:
        unread, self._unread = self._unread, []
        for plug in unread:
            try:
                self.add(plug, (await plug.resolve()).values)
            except KhotanError:
                self._unread.append(plug)  # no text can contain variables that cannot be read
        for more in self._more:
            self._known |= await more()
        for plug in self._plugs:
            self._known |= dict.fromkeys(plug.shared.tokens.secrets(), f"a token of plug {plug.name!r}")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


class RedactedRunStore(RunStore):
    """A RunStore that masks secrets in rejected records."""

    def __init__(self, env: Environment, redaction: Redaction) -> None:
        super().__init__(env.database)
        self._redaction = redaction

    async def reject(self, session: AsyncSession, run_id: str, rejects: Sequence[Reject]) -> None:
        if rejects:
            masker = await self._redaction.masker()
            rejects = [replace(r, reason=masker.text(r.reason), record=masker.value(r.record)) for r in rejects]
        await super().reject(session, run_id, rejects)
