"""What goes over the wire: camelCase in JSON, ids as strings, times as ISO 8601 in UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

T = TypeVar("T")


class Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Ok(Wire):
    ok: bool = True


class Listing(Wire, Generic[T]):
    """A page of a list: `total` counts all there are."""

    ok: bool = True
    items: list[T]
    total: int
    limit: int
    offset: int


def listing(items: list[T], limit: int, offset: int) -> Listing[T]:
    return Listing(items=items[offset : offset + limit], total=len(items), limit=limit, offset=offset)


class DatabaseHealth(Wire):
    reachable: bool
    migrated: bool


class Health(Wire):
    """Exempt from authorization, so it names nothing."""

    ok: bool = True
    status: str
    version: str
    env: str
    database: DatabaseHealth
    plugs: int


class VarInfo(Wire):
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


class QueryField(Wire):
    name: str
    required: bool
    type: str


class EndpointInfo(Wire):
    name: str
    method: str
    path: str
    path_params: list[str]
    query: list[QueryField]
    body: str | None
    returns: str | None
    responses: dict[str, str]
    paginated: bool


class PlugFacts(Wire):
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
    ok: bool = True
    vars: list[VarInfo]
    endpoints: list[EndpointInfo]


class PlugPatch(Wire):
    enabled: bool


class VarValues(Wire):
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


class DebugRequest(Wire):
    """A call to make, or, with `response`, a saved one to judge."""

    endpoint: str | None = None
    method: str | None = None
    path: str | None = None
    params: dict[str, Any] = {}
    body: Any = None
    headers: dict[str, str] = {}
    compare: bool = False
    fail_on: str | None = None
    response: dict[str, Any] | None = None


class DebugResponse(Ok):
    """What was sent and what came, secrets masked. `body` is JSON or text; other bytes are in bodyBase64."""

    plug: str
    endpoint: str | None
    request: dict[str, str]
    status: int
    headers: dict[str, str]
    content_type: str
    size: int
    body: Any = None
    body_base64: str | None = None
    timing: dict[str, float]
    contract: dict[str, Any] | None = None


class OAuthStart(Wire):
    redirect_uri: str


class OAuthStarted(Ok):
    url: str
    state: str


class OAuthFinish(Wire):
    callback_url: str
