"""The base URL of a plug, with variables filled in safely."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import httpx

from khotan_cli.errors import ConfigError, UnknownName
from khotan_cli.runtime.http.parameters import Template, encode_segment
from khotan_cli.runtime.http.variables import Var

_HOST_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")


class BaseUrl:
    """`https://{shop}.example.com/v1`, or `{url}` for a service whose whole address is a variable."""

    def __init__(self, owner: str, text: str, variables: Mapping[str, Var]) -> None:
        self.owner, self.text = owner, text.rstrip("/")
        self._template = Template(self.text)
        for name in self._template.names:
            if name not in variables:
                unknown = UnknownName("var", name, variables, where=f"{owner}.base_url")
                raise ConfigError(unknown.message, hint=f"Declare it: {name} = Var(). {unknown.hint}")
        self._whole = self.text.startswith("{")
        if not self._whole:
            checked(owner, self.text if not self._template.names else re.sub(r"\{\w+\}", "x", self.text))
        self._host_names = {
            name for name in self._template.names if "{" + name + "}" in self.text.partition("://")[2].partition("/")[0]
        }

    def fill(self, values: Mapping[str, str]) -> str:
        """The URL with variables filled in. Raises ConfigError for a variable that is missing or has an unsuitable value."""
        if not self._template.names:
            return self.text
        filled = self.text
        for name in self._template.names:
            value = values.get(name)
            if value is None:
                raise ConfigError(
                    f"{self.owner}.base_url needs the variable {name!r}, which has no value",
                    code="var_missing",
                    hint="Set it in the database or in the environment.",
                )
            if self._whole and filled.startswith("{" + name + "}"):
                checked(f"{self.owner}: variable {name!r}", value)
                part = value.rstrip("/")
            elif name in self._host_names:
                if not _HOST_PART.fullmatch(value):
                    raise ConfigError(
                        f"{self.owner}: the variable {name!r} is not a valid part of a host name",
                        hint="Use only letters, digits, '-' and '.'.",
                    )
                part = value
            else:
                part = encode_segment(value)
            filled = filled.replace("{" + name + "}", part)
        return filled

    def parsed(self, values: Mapping[str, str]) -> httpx.URL:
        """The filled URL, parsed."""
        return _parsed(self.fill(values))


def checked(owner: str, text: str) -> httpx.URL:
    """The parsed URL. Raises ConfigError for a URL that is unsuitable as a base URL."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(
            f"{owner}: base_url is not an http(s) URL", hint="Use a URL such as https://api.example.com/v1."
        )
    if url.userinfo or url.query or url.fragment:
        raise ConfigError(
            f"{owner}: base_url contains credentials, a query or a fragment",
            hint="Put credentials in variables: auth = BasicAuth(user, password).",
        )
    return url


@lru_cache(maxsize=256)
def _parsed(text: str) -> httpx.URL:
    return httpx.URL(text)
