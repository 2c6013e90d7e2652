"""The options of `ctx.push`, checked before anything is read or sent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.content.json_path import Path, path_text
from khotan_cli.runtime.paging.declared_path import is_open, types_at
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint

DEFAULT_REF = "id"

Body = Callable[[Any], Mapping[str, Any] | BaseModel | None]
ByRecord = Callable[..., Mapping[str, Any]]
"""A function of a record, or of a record and its `SentRecord` (None before it was sent)."""
Outcomes = Callable[[Any, Sequence[Any]], Sequence[str | None]]
OnError = Literal["fail", "skip"]


@dataclass(frozen=True)
class PushOptions:
    """The options of one `ctx.push`; see there."""

    key: tuple[str, ...]
    body: Body | None = None
    update: BoundEndpoint[Any] | None = None
    delete: BoundEndpoint[Any] | None = None
    ref: Path | None = None
    ids: ByRecord | None = None
    headers: ByRecord | None = None
    etag: bool = False
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    batch: int = 1
    batch_key: str | None = None
    outcomes: Outcomes | None = None
    concurrency: int = 4
    page: int = 200
    skip_unchanged: bool = True
    on_error: OnError = "skip"
    max_delete: float | None = None
    name: str = ""

    @property
    def needs_ref(self) -> bool:
        """Whether later runs need the service's id of a record."""
        return self.update is not None or self.delete is not None or self.ref is not None

    def check(self, endpoint: Any) -> None:
        """Raises ConfigError for invalid options."""
        for what, value in (("an endpoint", endpoint), ("update", self.update), ("delete", self.delete)):
            if not isinstance(value, BoundEndpoint) and (value is not None or what == "an endpoint"):
                raise ConfigError(
                    f"push needs {what} of a plug, not {type(value).__name__}",
                    hint="Use ctx.push(select(…), shop.create, update=shop.update, …).",
                )
        if not self.key:
            raise ConfigError("push needs a key: the field or fields that identify a record", hint='Add key="id".')
        if min(self.batch, self.concurrency, self.page) < 1 or self.on_error not in ("fail", "skip"):
            raise ConfigError("push: batch, concurrency and page must be 1 or more, and on_error must be fail or skip")
        if self.batch > 1:
            by_one = [name for name in ("update", "ids", "headers") if getattr(self, name) is not None]
            by_one += ["etag"] if self.etag else []
            if by_one:
                raise ConfigError(
                    f"push: {by_one[0]} works for single records and cannot be used with batch above 1",
                    hint="Use batch=1.",
                )
        elif self.batch_key or self.outcomes:
            raise ConfigError("push: batch_key and outcomes need batch above 1")
        if self.etag and self.update is None:
            raise ConfigError("push: etag needs update", hint="Add update=….")
        if self.max_delete is not None and (self.delete is None or not 0 < self.max_delete <= 1):
            raise ConfigError(
                f"push: invalid max_delete={self.max_delete}",
                hint="Use a share of the records, above 0 and up to 1, together with delete=….",
            )

    def check_ref(self, endpoint: BoundEndpoint[Any], ref: Path) -> None:
        """Raises ConfigError if the declared response has no field for the id that later runs need."""
        declared = endpoint.endpoint.model_for(201)
        if not self.needs_ref or self.batch > 1 or declared is None or is_open(declared):
            return
        if not types_at(declared, ref):
            name = getattr(declared, "__name__", str(declared))
            raise ConfigError(
                f"push: {name}, the response of {endpoint.endpoint.name}, has no field ref={path_text(ref)!r}",
                hint="Set the path of the id in the response, such as ref='objectId' or ref='data.id'.",
            )

    def ref_param(self, endpoint: BoundEndpoint[Any] | None, option: str) -> str:
        """Return the endpoint's path parameter for the id. Raises ConfigError unless there is exactly one."""
        if endpoint is None:
            return ""
        names = [name for name in endpoint.endpoint.path.names if name not in endpoint.plug.declared_vars()]
        if len(names) != 1 and (self.ids is None or option == "delete"):
            raise ConfigError(
                f"push: {endpoint.endpoint.name} has {len(names)} path parameters; the id fills exactly one",
                hint="Set the others with ids=…."
                if option == "update"
                else "Use a delete=… endpoint with one path parameter.",
            )
        return names[-1] if names else ""


def by_record(function: ByRecord | None, record: Any, known: Any) -> dict[str, Any]:
    """Call a function of a record, or of a record and its SentRecord."""
    if function is None:
        return {}
    required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    positional = [p for p in required if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return dict(function(record, known) if len(positional) > 1 else function(record))
