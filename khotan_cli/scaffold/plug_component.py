"""`khotan add plug`: a client of an API, from its base URL and its kind of authentication."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from khotan_cli.errors import UsageError, WouldOverwrite, nearest
from khotan_cli.scaffold.apply import apply
from khotan_cli.scaffold.catalog import component
from khotan_cli.scaffold.manifest import Manifest, digest
from khotan_cli.scaffold.names import check_base_url, check_plug_name, class_name, module_name
from khotan_cli.scaffold.plan import Change, plan
from khotan_cli.scaffold.project_component import Written
from khotan_cli.scaffold.render import render

COMPONENT = "plug"
ENV_TEMPLATE = ".env.template"


@dataclass(frozen=True)
class PlugOptions:
    """The answers: see the template's copier.yml."""

    name: str
    base_url: str
    auth: str = "bearer"
    title: str = ""
    auth_param: str = ""
    token_url: str = ""
    authorize_url: str = ""


def auth_kinds() -> list[str]:
    return component(COMPONENT).choices("auth")


def check_auth(kind: str) -> str:
    """Raises UsageError with the nearest kind."""
    kinds = auth_kinds()
    if kind not in kinds:
        near = nearest(kind, kinds)
        hint = f"Did you mean {near!r}?" if near else f"Use one of {', '.join(kinds)}."
        raise UsageError(f"Unknown --auth {kind!r}", hint=hint)
    return kind


def add_plug(
    root: Path, package_path: str, asked: PlugOptions, *, force: bool = False, dry_run: bool = False
) -> Written:
    """Write the plug. Raises WouldOverwrite, with nothing written, where the user's changes would be lost."""
    name, auth = check_plug_name(asked.name), check_auth(asked.auth)
    _check_options(asked)
    module = module_name(name)
    env = re.sub(r"\W", "_", module).upper()
    template = component(COMPONENT)
    answers = {
        "package_path": package_path,
        "name": name,
        "module": module,
        "class_name": class_name(name),
        "title": _one_line(asked.title) or f"Client of {name}",
        "base_url": check_base_url(asked.base_url),
        "auth": auth,
        "auth_param": asked.auth_param,
        "env": env,
        **{key: value for key in ("token_url", "authorize_url") if (value := getattr(asked, key))},
    }
    staged = render(template, answers)
    manifest = Manifest.load(root)
    changes = plan(root, staged, manifest, force=force)
    variables = _variables(staged)
    extra, notes = _env_template(root, manifest, name, variables)
    conflicts = [change.path for change in changes if change.action == "conflict"]
    if conflicts and not dry_run:
        raise WouldOverwrite(
            f"{', '.join(conflicts)} differs from what would be written: nothing was written",
            hint="--diff shows the difference, --force overwrites.",
            next=[f"khotan add plug {name} --base-url {answers['base_url']} --auth {auth} --diff"],
            details={"files": [change.to_json() for change in changes]},
        )
    if not dry_run:
        records = manifest.record(COMPONENT, name, version=template.version, answers=answers, files=staged)
        if extra is not None:
            entry = manifest.components.get("project")
            if entry is not None:
                records |= manifest.record(
                    "project", "", version=entry["version"], answers=entry["answers"], files={ENV_TEMPLATE: extra.text}
                )
        apply(root, [*changes, *([extra] if extra else [])], records)
    steps = [f"khotan plug vars {name} set {key} --stdin" for key, _ in variables]
    if auth == "oauth2-authorization-code":
        steps.append(f"khotan plug {name} --login")
    steps.append(f"khotan plug {name} --endpoint list_items --compare")
    return Written([*changes, *([extra] if extra else [])], notes, steps)


def _check_options(asked: PlugOptions) -> None:
    """Raises UsageError for options that the chosen authentication does not use."""
    used = {
        "auth_param": ("api-key", "api-key-query"),
        "token_url": ("oauth2-client-credentials", "oauth2-authorization-code", "token"),
        "authorize_url": ("oauth2-authorization-code",),
    }
    for option, kinds in used.items():
        if getattr(asked, option) and asked.auth not in kinds:
            raise UsageError(
                f"--{option.replace('_', '-')} is not valid with --auth {asked.auth}",
                hint=f"It is valid with {', '.join(kinds)}.",
            )
    if asked.auth_param and not re.fullmatch(r"[A-Za-z0-9_.\-]+", asked.auth_param):
        raise UsageError(
            f"Invalid --auth-param {asked.auth_param!r}", hint="Use a header or parameter name such as X-API-Key."
        )
    for option in ("token_url", "authorize_url"):
        if re.search(r"[\s\"\\]", getattr(asked, option)):
            raise UsageError(
                f"--{option.replace('_', '-')} must be a URL or a path", hint="Use for example /oauth/token."
            )


def _one_line(text: str) -> str:
    return " ".join(text.replace('"', "'").replace("\\", "/").split()).rstrip(".")


def _variables(staged: dict[str, str]) -> list[tuple[str, str]]:
    """Name and environment variable of each variable that the rendered plug declares."""
    text = "\n".join(staged.values())
    return re.findall(r"^    (\w+) = Var\([^)]*env=\"(\w+)\"", text, re.MULTILINE)


def _env_template(
    root: Path, manifest: Manifest, name: str, variables: list[tuple[str, str]]
) -> tuple[Change | None, list[str]]:
    """.env.template grows with the plug where it is as khotan wrote it; else the lines to add are said."""
    if not variables:
        return None, []
    lines = "".join(f"# {name}: {key}\n# {env}=\n" for key, env in variables)
    target = root / ENV_TEMPLATE
    present = target.read_text(encoding="utf-8", errors="replace") if target.is_file() else None
    if present is not None and all(f"{env}=" in present for _, env in variables):
        return None, []
    if present is None or manifest.written(ENV_TEMPLATE) != digest(present):
        wanted = ", ".join(env for _, env in variables)
        return None, [f"You changed {ENV_TEMPLATE}: add {wanted} to it."]
    heading = f"\n# Variables of the plug {name}, where they are not in the database.\n"
    return Change(ENV_TEMPLATE, "update", present + heading + lines, present), []
