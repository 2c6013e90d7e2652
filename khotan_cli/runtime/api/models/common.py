"""What goes over the wire: camelCase in JSON, ids as strings, times as ISO 8601 in UTC."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

T = TypeVar("T")


class ApiModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Ok(ApiModel):
    ok: bool = True


class ErrorDocument(BaseModel):
    """What a failed request is answered with; some errors have more members, which their docs name."""

    model_config = ConfigDict(extra="allow")

    ok: Literal[False] = False
    error: str
    """Code of the error."""
    message: str
    hint: str
    next: list[str] = []
    """Commands that can be run as they stand."""


class Listing(ApiModel, Generic[T]):
    """A page of a list: `total` counts all there are."""

    ok: bool = True
    items: list[T]
    total: int
    limit: int
    offset: int


def listing(items: list[T], limit: int, offset: int) -> Listing[T]:
    return Listing(items=items[offset : offset + limit], total=len(items), limit=limit, offset=offset)


class DatabaseHealth(ApiModel):
    reachable: bool
    migrated: bool


class Health(ApiModel):
    """Exempt from authorization, so it names nothing."""

    ok: bool = True
    status: str
    version: str
    env: str
    database: DatabaseHealth
    plugs: int


class VarInfo(ApiModel):
    """A variable and where its value comes from. `masked` shows at most four characters of a secret; `value` only on request."""

    plug: str
    key: str
    label: str
    description: str
    secret: bool
    required: bool
    env: str
    source: str
    is_set: bool
    masked: str | None = None
    value: str | None = None
    updated_at: datetime | None = None
    error: str | None = None


class QueryField(ApiModel):
    name: str
    required: bool
    type: str


class EndpointInfo(ApiModel):
    name: str
    method: str
    path: str
    path_params: list[str]
    query: list[QueryField]
    body: str | None
    returns: str | None
    responses: dict[str, str]
    paginated: bool


class PlugFacts(ApiModel):
    name: str
    doc: str
    module: str
    base_url: str
    enabled: bool
    auth: dict[str, Any]


class PlugSummary(PlugFacts):
    endpoint_count: int
    missing_vars: list[str]


class PlugInfo(PlugFacts):
    """paused_seconds: how long the service's request to wait still holds calls back; 0 where it does not."""

    ok: bool = True
    paused_seconds: float = 0.0
    vars: list[VarInfo]
    endpoints: list[EndpointInfo]


class PlugResumed(Ok):
    """released: how many accounts of the plug were held."""

    plug: str
    released: int


class PlugPatch(ApiModel):
    enabled: bool


class VarValues(ApiModel):
    values: dict[str, str] = Field(min_length=1)


class VarsSet(Ok):
    plug: str
    set: list[str]


class VarsCleared(Ok):
    plug: str
    cleared: list[str]
    message: str


class VarsRotated(Ok):
    rotated: int
    current: int
    failed: list[dict[str, str]]


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""Names of methods and headers: a token of RFC 9110 5.6.2."""
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


BodyKind = Literal["none", "json", "text", "base64"]


class DebugRequest(ApiModel):
    """A call to make, or, with `response`, a saved one to judge."""

    endpoint: str | None = None
    method: str | None = None
    path: str | None = None
    params: dict[str, Any] = {}
    body: Any = None
    headers: dict[str, str] = {}
    compare: bool = False
    fail_on: str | None = None
    pages: int = Field(default=2, ge=1)
    """How many pages a comparison of a paginated endpoint walks through at most; 1 does not walk."""
    response: dict[str, Any] | None = None

    @field_validator("method")
    @classmethod
    def _a_method(cls, value: str | None) -> str | None:
        if value and not _TOKEN.fullmatch(value):
            raise ValueError("is not an HTTP method")
        return value

    @field_validator("path")
    @classmethod
    def _a_path(cls, value: str | None) -> str | None:
        if value and _CONTROL.search(value):
            raise ValueError("holds a control character: percent-encode it")
        return value

    @field_validator("headers")
    @classmethod
    def _fields(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError("one of the names cannot be that of a header (RFC 9110 5.1)")
            if not _FIELD_VALUE.fullmatch(text):
                raise ValueError(f"the value of {name} holds a line break or characters other than ASCII")
        return value


class Timing(ApiModel):
    total_ms: float
    attempts: int


class DebugResponse(Ok):
    """What was sent and what came, secrets masked. `body` is JSON or text; other bytes are in bodyBase64.

    `body_kind` says which: a text that is not JSON may come with the content type of JSON.
    """

    plug: str
    endpoint: str | None
    request: dict[str, str]
    status: int
    headers: dict[str, str]
    content_type: str
    size: int
    body: Any = None
    body_base64: str | None = None
    body_kind: BodyKind = "none"
    timing: Timing
    contract: dict[str, Any] | None = None


class OAuthStart(ApiModel):
    redirect_uri: str


class OAuthStarted(Ok):
    url: str
    state: str


class OAuthFinish(ApiModel):
    callback_url: str
