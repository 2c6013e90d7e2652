"""Mappings and their refs. Bulk operations use a few statements with one JSON parameter, not one per record."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ARRAY, Text, and_, any_, bindparam, delete, func, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import MappingConflict
from khotan_cli.runtime.database.ambient_session import session_scope
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.tables import MAPPING_REFS, MAPPINGS
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.store.canonical_key import decode_key, encode_key
from khotan_cli.runtime.store.ref_changes import KnownRef, NewRef, Slot, WantedRef, ref_changes

_AT_A_TIME = 1000


@dataclass(frozen=True)
class MappingEntry:
    """A mapping: the parts of the canonical key, and the id of each plug."""

    id: str
    resource: str
    key: tuple[str, ...]
    refs: dict[str, str]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class MappingChanges:
    """Refs to set: canonical key → plug → id. With `replace`, the ids of other plugs are removed."""

    resource: str
    refs: Mapping[str, Mapping[str, str]]
    replace: bool = False
    origin: str = "read"
    fields: Mapping[tuple[str, str], Mapping[str, str]] = field(
        default_factory=dict[tuple[str, str], Mapping[str, str]]
    )
    """Digests of field values at the plug's system: (key, plug) → field → digest."""


class MappingCounts(NamedTuple):
    created: int = 0
    updated: int = 0
    unchanged: int = 0


class MappingStore:
    def __init__(self, database: Database) -> None:
        self.database = database

    # -- writing -----------------------------------------------------------------------------------------------------

    async def upsert(self, changes: MappingChanges) -> MappingCounts:
        """Write the changes. Raises MappingConflict if nothing was written because of a conflict."""
        async with session_scope(self.database, writing=True) as session:
            return await self.write(session, changes)

    async def write(self, session: AsyncSession, changes: MappingChanges) -> MappingCounts:
        """Write in the caller's transaction, which must not commit if this raises MappingConflict."""
        keys = sorted(changes.refs)
        created = updated = 0
        for start in range(0, len(keys), _AT_A_TIME):
            part = {key: changes.refs[key] for key in keys[start : start + _AT_A_TIME]}
            try:
                made, changed = await self._write_part(session, changes, part)
            except IntegrityError:
                raise _raced(changes.resource) from None
            created, updated = created + made, updated + changed
        return MappingCounts(created, updated, len(keys) - created - updated)

    async def _write_part(
        self, session: AsyncSession, changes: MappingChanges, part: Mapping[str, Mapping[str, str]]
    ) -> tuple[int, int]:
        """Write the refs of some keys. Returns how many mappings were created and how many changed."""
        resource, keys = changes.resource, list(part)
        created_keys = await self._make(session, resource, keys)
        ids = await self._ids(session, resource, keys)
        wanted = {
            (ids[key], plug): WantedRef(ref, changes.fields.get((key, plug)))
            for key, refs in part.items()
            for plug, ref in refs.items()
        }
        await self._check_free(session, resource, wanted, {value: key for key, value in ids.items()})
        known = await self._refs_of(session, list(ids.values()))
        difference = ref_changes(wanted, known, replace=changes.replace, written=changes.origin == "write")
        await self._remove_refs(session, difference.remove)
        await self._add_refs(session, resource, difference.add, changes.origin)
        created = {ids[key] for key in created_keys}
        updated = difference.changed - created
        if updated:
            await session.execute(update(MAPPINGS).where(MAPPINGS.c.id.in_(updated)).values(updated_at=utc_now()))
        return len(created), len(updated)

    async def _make(self, session: AsyncSession, resource: str, keys: Sequence[str]) -> set[str]:
        """Create the missing mappings and return their keys."""
        now = utc_now()
        there = set(await self._ids(session, resource, keys))
        rows = [
            {"id": str(uuid.uuid4()), "resource": resource, "key": key, "created_at": now, "updated_at": now}
            for key in keys
            if key not in there
        ]
        if not rows:
            return set()
        statement = self.database.insert(MAPPINGS).on_conflict_do_nothing()
        await session.execute(statement, rows)
        return {str(row["key"]) for row in rows}

    async def _ids(self, session: AsyncSession, resource: str, keys: Sequence[str]) -> dict[str, str]:
        statement = select(MAPPINGS.c.key, MAPPINGS.c.id).where(
            MAPPINGS.c.resource == resource, self._among(MAPPINGS.c.key, keys)
        )
        return {row.key: row.id for row in (await session.execute(statement)).all()}

    def _among(self, column: Any, values: Sequence[str]) -> Any:
        """Return `column IN values` with one parameter for any number of values."""
        if not self.database.sqlite:
            # PostgreSQL looks up an array in the index; for a subquery of unknown size it would scan the table.
            return column == any_(bindparam("among", list(values), ARRAY(Text), unique=True))
        payload = orjson.dumps(list(values)).decode()
        rows = text("SELECT value FROM json_each(:among)").bindparams(bindparam("among", payload, unique=True))
        return column.in_(rows.columns(value=MAPPINGS.c.id.type).scalar_subquery())

    async def _refs_of(self, session: AsyncSession, ids: Sequence[str]) -> dict[tuple[str, str], KnownRef]:
        statement = select(MAPPING_REFS).where(self._among(MAPPING_REFS.c.mapping_id, ids))
        rows = (await session.execute(statement)).all()
        return {(row.mapping_id, row.plug): KnownRef(row.ref, row.fields, row.origin) for row in rows}

    async def _check_free(
        self, session: AsyncSession, resource: str, wanted: Mapping[Slot, WantedRef], keys: Mapping[str, str]
    ) -> None:
        """Raises MappingConflict for an id that belongs to another mapping, or to two of the new refs."""
        claims: dict[tuple[str, str], str] = {}
        for (mapping, plug), (ref, _) in wanted.items():
            other = claims.setdefault((plug, ref), mapping)
            if other != mapping:
                raise _conflict(resource, plug, ref, keys[other], keys[mapping])
        for plug in {plug for plug, _ in claims}:
            refs = [ref for name, ref in claims if name == plug]
            statement = select(MAPPING_REFS.c.ref, MAPPING_REFS.c.mapping_id, MAPPINGS.c.key).join(
                MAPPINGS, MAPPINGS.c.id == MAPPING_REFS.c.mapping_id
            )
            of_plug = (MAPPING_REFS.c.resource == resource) & (MAPPING_REFS.c.plug == plug)
            stored = await session.execute(statement.where(of_plug, self._among(MAPPING_REFS.c.ref, refs)))
            for row in stored.all():
                if claims[plug, row.ref] != row.mapping_id:
                    raise _conflict(resource, plug, row.ref, row.key, keys[claims[plug, row.ref]])

    async def _remove_refs(self, session: AsyncSession, slots: Iterable[Slot]) -> None:
        by_plug: dict[str, list[str]] = {}
        for mapping, plug in slots:
            by_plug.setdefault(plug, []).append(mapping)
        for plug, ids in by_plug.items():
            of_plug = (MAPPING_REFS.c.plug == plug) & self._among(MAPPING_REFS.c.mapping_id, ids)
            await session.execute(delete(MAPPING_REFS).where(of_plug))

    async def _add_refs(self, session: AsyncSession, resource: str, refs: Mapping[Slot, NewRef], origin: str) -> None:
        if not refs:
            return
        common = {"resource": resource, "origin": origin, "updated_at": utc_now()}
        values = [
            {"mapping_id": mapping, "plug": plug, "ref": ref, "fields": fields, **common}
            for (mapping, plug), (ref, fields) in refs.items()
        ]
        await session.execute(self.database.insert(MAPPING_REFS), values)

    async def change(self, mapping_id: str, refs: Mapping[str, str], *, replace: bool) -> MappingEntry | None:
        """Set refs of a mapping by its id. Returns None if it does not exist. Raises MappingConflict."""
        found = await self.get(mapping_id)
        if found is None:
            return None
        async with self.database.session() as session:
            statement = select(MAPPINGS.c.key).where(MAPPINGS.c.id == mapping_id)
            key: str | None = (await session.execute(statement)).scalar()
        if key is not None:
            await self.upsert(MappingChanges(found.resource, {key: refs}, replace=replace))
        return await self.get(mapping_id)

    async def drop_refs(self, session: AsyncSession, resource: str, plug: str, keys: Sequence[str]) -> None:
        """Remove a plug's ids from mappings, in the caller's transaction. Mappings without any id are deleted."""
        ids = list((await self._ids(session, resource, keys)).values()) if keys else []
        if not ids:
            return
        await self._remove_refs(session, [(mapping_id, plug) for mapping_id in ids])
        others = select(MAPPING_REFS.c.mapping_id).where(MAPPING_REFS.c.mapping_id == MAPPINGS.c.id)
        await session.execute(delete(MAPPINGS).where(self._among(MAPPINGS.c.id, ids), ~others.exists()))

    async def delete(self, mapping_id: str) -> bool:
        statement = delete(MAPPINGS).where(MAPPINGS.c.id == mapping_id).returning(MAPPINGS.c.id)
        async with session_scope(self.database) as session:
            return (await session.execute(statement)).scalar() is not None

    # -- reading -----------------------------------------------------------------------------------------------------

    async def get(self, mapping_id: str) -> MappingEntry | None:
        found = await self._entries(MAPPINGS.c.id == mapping_id)
        return found[0] if found else None

    async def by_keys(self, resource: str, keys: Sequence[str]) -> dict[str, MappingEntry]:
        """Return mappings by canonical key."""
        if not keys:
            return {}
        found = await self._entries(and_(MAPPINGS.c.resource == resource, self._among(MAPPINGS.c.key, keys)))
        return {encode_key(entry.key): entry for entry in found}

    async def by_refs(self, resource: str, plug: str, refs: Sequence[str]) -> dict[str, MappingEntry]:
        """Return mappings by a plug's id."""
        if not refs:
            return {}
        same = MAPPING_REFS.c.ref == refs[0] if len(refs) == 1 else self._among(MAPPING_REFS.c.ref, refs)
        mine = and_(MAPPING_REFS.c.resource == resource, MAPPING_REFS.c.plug == plug, same)
        found = await self._entries(MAPPINGS.c.id.in_(select(MAPPING_REFS.c.mapping_id).where(mine)))
        return {entry.refs[plug]: entry for entry in found if plug in entry.refs}

    async def known(self, session: AsyncSession, resource: str, plug: str, keys: Sequence[str]) -> dict[str, KnownRef]:
        """Return the known refs of a plug by canonical key."""
        statement = (
            select(MAPPINGS.c.key, MAPPING_REFS.c.ref, MAPPING_REFS.c.fields, MAPPING_REFS.c.origin)
            .join(MAPPING_REFS, MAPPING_REFS.c.mapping_id == MAPPINGS.c.id)
            .where(MAPPINGS.c.resource == resource, MAPPING_REFS.c.plug == plug, self._among(MAPPINGS.c.key, keys))
        )
        rows = (await session.execute(statement)).all()
        return {row.key: KnownRef(row.ref, row.fields, row.origin) for row in rows}

    async def search(
        self, resource: str, text: str = "", *, limit: int = 100, offset: int = 0
    ) -> tuple[list[MappingEntry], int]:
        """Return mappings whose key or ids contain the text, sorted by key, and the total number."""
        matching = MAPPINGS.c.resource == resource
        if text:
            refs = select(MAPPING_REFS.c.mapping_id).where(
                MAPPING_REFS.c.resource == resource, MAPPING_REFS.c.ref.icontains(text, autoescape=True)
            )
            matching &= or_(MAPPINGS.c.key.icontains(text, autoescape=True), MAPPINGS.c.id.in_(refs))
        async with session_scope(self.database) as session:
            total = (await session.execute(select(func.count()).select_from(MAPPINGS).where(matching))).scalar() or 0
        page = select(MAPPINGS.c.id).where(matching).order_by(MAPPINGS.c.key).limit(limit).offset(offset)
        return await self._entries(MAPPINGS.c.id.in_(page)), total

    async def counts(self) -> dict[str, int]:
        """Return the number of mappings of each resource."""
        statement = select(MAPPINGS.c.resource, func.count()).group_by(MAPPINGS.c.resource)
        async with self.database.session() as session:
            return {row[0]: row[1] for row in (await session.execute(statement)).all()}

    async def _entries(self, condition: Any) -> list[MappingEntry]:
        """Return mappings with their refs, sorted by key, with one statement."""
        statement = (
            select(MAPPINGS, MAPPING_REFS.c.plug, MAPPING_REFS.c.ref)
            .outerjoin(MAPPING_REFS, MAPPING_REFS.c.mapping_id == MAPPINGS.c.id)
            .where(condition)
            .order_by(MAPPINGS.c.key, MAPPING_REFS.c.plug)
        )
        async with session_scope(self.database) as session:
            rows = (await session.execute(statement)).all()
        return _grouped(rows)


def _grouped(rows: Iterable[Any]) -> list[MappingEntry]:
    found: dict[str, MappingEntry] = {}
    for row in rows:
        entry = found.get(row.id)
        if entry is None:
            entry = MappingEntry(row.id, row.resource, decode_key(row.key), {}, row.created_at, row.updated_at)
            found[row.id] = entry
        if row.plug is not None:
            entry.refs[row.plug] = row.ref
    return list(found.values())


def _conflict(resource: str, plug: str, ref: str, holder: str, claimant: str) -> MappingConflict:
    shown = [" / ".join(key.split("\x01")) for key in (holder, claimant)]
    return MappingConflict(
        f"{resource}: the id {ref!r} of {plug} already belongs to {shown[0]!r} and cannot be mapped to {shown[1]!r}",
        hint="Nothing was written. Delete or change the existing mapping, or correct the records.",
        details={"resource": resource, "plug": plug, "ref": ref, "keys": shown},
    )


def _raced(resource: str) -> MappingConflict:
    return MappingConflict(
        f"{resource}: another process mapped one of these ids at the same time",
        hint="Nothing was written. Try again.",
        details={"resource": resource},
    )
