"""Names and URLs that users choose, checked before anything is rendered."""

from __future__ import annotations

import keyword
import re
from urllib.parse import urlsplit

from khotan_cli.errors import UsageError

RESERVED = frozenset({"vars", "rotate", "list", "plugs", "khotan", "renew", "sample"})
"""Words with a meaning of their own in the command line's grammar, or in the paths of the management API."""


def check_plug_name(name: str) -> str:
    """Raises UsageError that offers a name which would do."""
    if "/" in name or "\\" in name or ".." in name:
        raise UsageError(
            f"{name!r} is a path, not a name", code="path_outside_project", hint="Give only the plug's name, like shop."
        )
    if not name.isidentifier() or not name.isascii():
        raise _refused(f"{name!r} is not a Python identifier", name)
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise _refused(f"{name!r} is a Python keyword", name)
    if name.startswith("_"):
        raise _refused(f"{name!r} starts with an underscore", name)
    if name in RESERVED:
        raise _refused(f"{name!r} has a meaning of its own on the command line", name)
    return name


def _refused(message: str, name: str) -> UsageError:
    return UsageError(message, code="invalid_name", hint=f"Try {suggest(name)!r}.")


def suggest(name: str) -> str:
    """A name near the given one that is allowed."""
    made = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "plug"
    if made[0].isdigit():
        made = f"plug_{made}"
    if keyword.iskeyword(made) or keyword.issoftkeyword(made) or made in RESERVED:
        made = f"{made}_api"
    return made


def class_name(name: str) -> str:
    """`myShop` and `my_shop` → `MyShop`."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_") if part)


def module_name(name: str) -> str:
    """`myShop` → `my_shop`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def check_base_url(text: str) -> str:
    """Raises UsageError for what is no base URL of an API."""
    example = "It looks like https://api.example.com/v1."
    try:
        parts = urlsplit(text.strip())
        host = parts.hostname
        parts.port  # noqa: B018 -- raises for a port that is none
    except ValueError:
        raise UsageError(f"--base-url {text!r} is not a URL", hint=example) from None
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\"'<>\\]", text.strip()):
        raise UsageError("--base-url is not an http(s) URL with a host", hint=example)
    if parts.username or parts.password:
        raise UsageError("--base-url holds credentials", hint="They belong into variables: --auth basic.")
    if parts.query or parts.fragment:
        raise UsageError("--base-url holds a query or a fragment", hint=example)
    return text.strip().rstrip("/")


def check_package(name: str) -> str:
    """A dotted package name. Raises UsageError."""
    if not name or not all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split(".")):
        if "/" in name or ".." in name:
            raise UsageError(f"--package {name!r} is a path", code="path_outside_project", hint="Give a dotted name.")
        raise UsageError(
            f"--package {name!r} is not a package name", code="invalid_name", hint="Like khotan, or app.khotan."
        )
    if name.partition(".")[0] == "khotan_cli":
        raise UsageError("khotan_cli is the library's own package", code="invalid_name", hint="Like khotan.")
    return name
