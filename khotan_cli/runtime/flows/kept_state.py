"""Shows and resets the state that a flow keeps between runs: cursors and sent records.

Sent records are stored per destination: privately for the flow, endpoint and source, or, if the flow has a resource, as digests
in the resource's mappings (`transfer/sent_state.py`). Resetting the latter keeps the ids, so the next run updates the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import KhotanError, UnknownName, UsageError
from khotan_cli.runtime.runs.cursors import CURSORS
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store import sent_refs
from khotan_cli.runtime.store.canonical_key import SEPARATOR, decode_key, encode_key
from khotan_cli.runtime.transfer.sent_state import SENT

_FORMS = "cursor:NAME, sent:DESTINATION, sent:DESTINATION:KEY, or all"


@dataclass(frozen=True)
class KeptCursor:
    name: str
    value: Any
    updated_at: datetime


@dataclass(frozen=True)
class KeptRecord:
    """A sent record: its key, and its id at the service (empty if the service returned none)."""

    key: str
    ref: str
    updated_at: datetime


@dataclass(frozen=True)
class KeptDestination:
    """A destination of sent records. Its name is `PLUG.ENDPOINT SOURCE` (kept_in "flow") or `RESOURCE.PLUG` ("mappings")."""

    name: str
    kept_in: Literal["flow", "mappings"]
    records: int
    items: Sequence[KeptRecord] = field(default_factory=tuple[KeptRecord, ...])


@dataclass(frozen=True)
class Removed:
    cursors: int = 0
    records: int = 0


class KeptState:
    """The state of one flow."""

    def __init__(self, env: Environment, flow: Flow) -> None:
        self._env, self._flow = env, flow

    async def cursors(self) -> list[KeptCursor]:
        """Return the cursors, sorted by name."""
        entries, _ = await self._env.entries.entries(CURSORS, self._flow.name)
        return [KeptCursor(entry.key, entry.value, entry.updated_at) for entry in entries]

    async def destinations(self, limit: int, offset: int, only: str | None = None) -> list[KeptDestination]:
        """Return the destinations sorted by name, each with a page of its records sorted by key.

        Raises UnknownName if `only` is not a destination.
        """
        names = [name for name, _ in await self._named()]
        if only is not None and only not in names:
            raise UnknownName("destination", only, names, where=f"flow {self._flow.name!r}")
        private = [await self._private(name, limit, offset) for name in await self._owned() if only in (None, name)]
        mapped = [await self._mapped(plug, limit, offset) for name, plug in self._targets() if only in (None, name)]
        used = [destination for destination in mapped if destination.records or only is not None]
        return sorted([*private, *used], key=lambda destination: destination.name)

    async def reset(self, what: Sequence[str]) -> Removed:
        """Delete parts of the state, all or none: `cursor:NAME`, `sent:DESTINATION`, `sent:DESTINATION:KEY`, `all`.

        Raises KhotanError (flow_active) while a run of the flow is pending or running, UnknownName, UsageError for an invalid
        part.
        """
        if not what:
            raise UsageError("Missing the parts of the state to reset", hint=f"Use {_FORMS}.")
        for row in await self._env.runs.active(self._flow.name):
            raise KhotanError(
                f"Flow {self._flow.name!r} has an active run: {row.id} is {row.status}",
                code="flow_active",
                hint="Wait until the run has ended, or cancel it first.",
                next=[f"khotan flows cancel {row.id}"],
            )
        parts = await self._everything() if "all" in what else [await self._parsed(part) for part in what]
        cursors = records = 0
        async with self._env.database.writing() as session:
            for kind, name, key in parts:
                if kind == "cursor":
                    cursors += await self._forget_cursor(session, name)
                else:
                    records += await self._forget_sent(session, name, key)
        return Removed(cursors, records)

    # -- reading -----------------------------------------------------------------------------------------------------

    def _targets(self) -> list[tuple[str, str]]:
        """Return name and plug of each destination in the resource's mappings."""
        resource = self._env.resources.get(self._flow.resource or "")
        if resource is None or self._flow.kind == "inflow":
            return []
        return [(f"{resource.name}.{plug}", plug) for plug in resource.plugs]

    async def _owned(self) -> list[str]:
        prefix = f"{self._flow.name}/"
        return [owner.removeprefix(prefix) for owner in await self._env.entries.owners(SENT, prefix)]

    async def _named(self) -> list[tuple[str, str | None]]:
        """Return the name of each destination, and its plug if it is stored in mappings."""
        return [*[(name, None) for name in await self._owned()], *self._targets()]

    async def _private(self, name: str, limit: int, offset: int) -> KeptDestination:
        owner = f"{self._flow.name}/{name}"
        entries, total = await self._env.entries.entries(SENT, owner, limit=limit, offset=offset)
        refs: dict[str, str] = {}
        mapped = [entry.key for entry in entries if entry.value.get("mapped")]
        if mapped and self._flow.resource:
            async with self._env.database.session() as session:
                plug = name.partition(".")[0]
                known = await self._env.mappings.known(session, self._flow.resource, plug, mapped)
                refs = {key: one.ref for key, one in known.items()}
        items = [KeptRecord(_shown(e.key), refs.get(e.key) or str(e.value["ref"]), e.updated_at) for e in entries]
        return KeptDestination(name, "flow", total, items)

    async def _mapped(self, plug: str, limit: int, offset: int) -> KeptDestination:
        resource = self._flow.resource or ""
        async with self._env.database.session() as session:
            rows, total = await sent_refs.page(session, resource, plug, limit, offset)
        items = [KeptRecord(_shown(row.key), row.ref, row.updated_at) for row in rows]
        return KeptDestination(f"{resource}.{plug}", "mappings", total, items)

    # -- reset -------------------------------------------------------------------------------------------------------

    async def _everything(self) -> list[tuple[str, str, str | None]]:
        cursors = [("cursor", cursor.name, None) for cursor in await self.cursors()]
        return [*cursors, *[("sent", name, None) for name, _ in await self._named()]]

    async def _parsed(self, what: str) -> tuple[str, str, str | None]:
        """Parse a part into kind ("cursor" or "sent"), name and key."""
        kind, _, rest = what.partition(":")
        if kind not in ("cursor", "sent") or not rest:
            raise UsageError(f"Invalid part of a flow's state {what!r}", hint=f"Use {_FORMS}.")
        where = f"flow {self._flow.name!r}"
        if kind == "cursor":
            names = [cursor.name for cursor in await self.cursors()]
            if rest not in names:
                raise UnknownName("cursor", rest, names, where=where)
            return "cursor", rest, None
        names = [name for name, _ in await self._named()]
        if rest in names:
            return "sent", rest, None
        name = max((name for name in names if rest.startswith(f"{name}:")), key=len, default=None)
        if name is None:
            raise UnknownName("destination", rest, names, where=where)
        return "sent", name, rest.removeprefix(f"{name}:")

    async def _forget_cursor(self, session: AsyncSession, name: str) -> int:
        return int(await self._env.entries.delete_in(session, CURSORS, self._flow.name, name))

    async def _forget_sent(self, session: AsyncSession, name: str, key: str | None) -> int:
        plug = dict(self._targets()).get(name)
        keys = None if key is None else _spellings(key)
        entries, owner = self._env.entries, f"{self._flow.name}/{name}"
        if plug is not None:
            count = await sent_refs.forget_fields(session, self._flow.resource or "", plug, keys)
        elif keys is None:
            count = await entries.clear_in(session, SENT, owner)
        else:
            count = sum([await entries.delete_in(session, SENT, owner, spelling) for spelling in keys])
        if key is not None and not count:
            raise UsageError(
                f"Destination {name!r} of flow {self._flow.name!r} has no record {key!r}",
                code="unknown_key",
                hint="Nothing was reset.",
                next=[f"khotan flows state {self._flow.name}"],
            )
        return count


def _shown(key: str) -> str:
    """Format a key. Parts of a composite key are joined with a slash."""
    return "/".join(decode_key(key)) if SEPARATOR in key else key


def _spellings(key: str) -> list[str]:
    """Return the keys that a text may mean: the text itself, and the composite key of its slash-separated parts."""
    parts = key.split("/")
    return [key, encode_key(parts)] if len(parts) > 1 and all(parts) else [key]
