"""Names and URLs that users choose, checked before anything is rendered."""

from __future__ import annotations

import keyword
import re
from urllib.parse import urlsplit

from khotan_cli.errors import UsageError

RESERVED = frozenset({"vars", "rotate", "list", "plugs", "khotan", "renew", "sample"})
"""Reserved words of the command line, or of paths of the management API."""


def check_plug_name(name: str) -> str:
    """The valid name. Raises UsageError, which suggests a valid name."""
    if "/" in name or "\\" in name or ".." in name:
        raise UsageError(
            f"{name!r} is a path, not a name", code="path_outside_project", hint="Use a name such as shop."
        )
    if not name.isidentifier() or not name.isascii():
        raise _invalid_name(f"{name!r} is not a Python identifier", name)
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise _invalid_name(f"{name!r} is a Python keyword", name)
    if name.startswith("_"):
        raise _invalid_name(f"{name!r} starts with an underscore", name)
    if name in RESERVED:
        raise _invalid_name(f"{name!r} is a reserved word of the command line", name)
    return name


def _invalid_name(message: str, name: str) -> UsageError:
    return UsageError(message, code="invalid_name", hint=f"Try {suggest(name)!r}.")


def suggest(name: str) -> str:
    """A valid name similar to the given one."""
    candidate = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "plug"
    if candidate[0].isdigit():
        candidate = f"plug_{candidate}"
    if keyword.iskeyword(candidate) or keyword.issoftkeyword(candidate) or candidate in RESERVED:
        candidate = f"{candidate}_api"
    return candidate


def class_name(name: str) -> str:
    """`myShop` and `my_shop` → `MyShop`."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_") if part)


def module_name(name: str) -> str:
    """`myShop` → `my_shop`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def check_base_url(text: str) -> str:
    """The valid base URL. Raises UsageError."""
    example = "It looks like https://api.example.com/v1."
    try:
        parts = urlsplit(text.strip())
        host = parts.hostname
        parts.port  # noqa: B018 -- raises for a port that is none
    except ValueError:
        raise UsageError(f"Invalid --base-url {text!r}", hint=example) from None
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\"'<>\\]", text.strip()):
        raise UsageError("--base-url must be an http(s) URL with a host", hint=example)
    if parts.username or parts.password:
        raise UsageError("--base-url contains credentials", hint="Use variables for credentials: --auth basic.")
    if parts.query or parts.fragment:
        raise UsageError("--base-url contains a query or a fragment", hint=example)
    return text.strip().rstrip("/")


def check_package(name: str) -> str:
    """A dotted package name. Raises UsageError."""
    if not name or not all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split(".")):
        if "/" in name or ".." in name:
            raise UsageError(f"--package {name!r} is a path", code="path_outside_project", hint="Use a dotted name.")
        raise UsageError(
            f"Invalid package name --package {name!r}",
            code="invalid_name",
            hint="Use for example khotan, or app.khotan.",
        )
    if name.partition(".")[0] == "khotan_cli":
        raise UsageError("khotan_cli is the library's own package", code="invalid_name", hint="Use for example khotan.")
    return name
