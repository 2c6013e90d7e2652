"""`Client`: the part of a plug that the calls of an endpoint need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

import httpx

from khotan_cli.runtime.content.error_body import ErrorBody
from khotan_cli.runtime.content.parsers import Parser
from khotan_cli.runtime.http.sender import Sender
from khotan_cli.runtime.http.variables import ResolvedVars, Var
from khotan_cli.runtime.paging.base import Paginator


class Client(Sender, Protocol):
    """A sender with variables, parsers and defaults for its endpoints, which sends bound calls."""

    @property
    def paginator(self) -> Paginator | None: ...
    @property
    def error_body(self) -> ErrorBody | None: ...
    @property
    def parsers(self) -> Mapping[str, Parser]: ...

    def with_options(self, **options: Any) -> Self: ...
    async def resolve(self) -> ResolvedVars: ...
    def declared_vars(self) -> Mapping[str, Var]: ...

    async def exchange(
        self,
        endpoint: Any,
        path: Mapping[str, str],
        query: Mapping[str, Any],
        body: Any,
        *,
        url: str | None = None,
    ) -> httpx.Response: ...
