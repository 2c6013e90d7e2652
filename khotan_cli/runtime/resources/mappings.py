"""Resources: entities that several systems know, and the mappings between their ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from khotan_cli.errors import ConfigError, UnknownName, UsageError
from khotan_cli.runtime.content.json_path import dig
from khotan_cli.runtime.http.dry_run import report_write
from khotan_cli.runtime.store.canonical_key import Key, encode_key
from khotan_cli.runtime.store.mappings import MappingChanges, MappingCounts, MappingEntry, MappingStore


class Resource:
    """An entity that several systems know.

        products = Resource("products", connect_field="sku", plugs={"shopify": "id", "cin7": "id"})

    connect_field: the field or fields (dotted paths) of a record that hold the canonical key. plugs: plug name → the field of
    its records that holds its id. Raises ConfigError for an invalid declaration.
    """

    def __init__(self, name: str, *, connect_field: str | Sequence[str], plugs: Mapping[str, str]) -> None:
        fields = (connect_field,) if isinstance(connect_field, str) else tuple(connect_field)
        if not name or not name.replace("-", "_").isidentifier():
            raise ConfigError(f"Invalid resource name {name!r}", hint='Use a name such as Resource("products", …).')
        if not fields or not all(fields) or len(set(fields)) != len(fields):
            raise ConfigError(f"Resource {name!r} needs one or more different connect_field values")
        if not plugs or not all(plugs) or not all(plugs.values()):
            raise ConfigError(
                f"Resource {name!r} needs plugs, each with the field of its id", hint='Add plugs={"shop": "id"}.'
            )
        self.name, self.connect_field, self.plugs = name, fields, dict(plugs)

    def key_of(self, record: Mapping[str, Any]) -> str | None:
        """Return the canonical key of a record, or None if a part is absent, null or empty."""
        parts = self.parts_of(record)
        return None if parts is None else encode_key(parts)

    def parts_of(self, record: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the parts of a record's key, or None if a part is absent, null or empty."""
        parts = tuple(dig(record, field) for field in self.connect_field)
        return None if any(part is None or part == "" for part in parts) else parts

    def ref_of(self, plug: str, record: Mapping[str, Any]) -> str | None:
        """Return the id in a plug's record, or None if it is absent."""
        ref = dig(record, self.plugs[self.check_plug(plug)])
        return None if ref is None or ref == "" else str(ref)

    def check_plug(self, plug: str) -> str:
        """Return the plug's name. Raises UnknownName if the resource does not include the plug."""
        if plug not in self.plugs:
            raise UnknownName("plug", plug, self.plugs, where=f"resource {self.name!r}")
        return plug

    def check_key(self, key: Key) -> str:
        """Return the canonical text of a key. Raises UsageError for a wrong number of parts."""
        parts = 1 if isinstance(key, (str, int)) else len(key)
        if parts != len(self.connect_field):
            raise UsageError(
                f"A key of {self.name!r} has {len(self.connect_field)} parts ({', '.join(self.connect_field)}), not {parts}",
                hint="Use these parts in that order.",
            )
        return encode_key(key)

    def __repr__(self) -> str:
        return f"Resource({self.name!r})"


class Mappings:
    """The mappings of one resource: `ctx.mapping("products")`, `khotan.mapping("products")`.

    Inside `async with ctx.session()` they use that session. In a dry run nothing is written.
    """

    def __init__(self, resource: Resource, store: MappingStore) -> None:
        self.resource, self._store, self._table = resource, store, f"mappings of {resource.name}"

    async def upsert(self, key: Key, *, replace: bool = False, **refs: str | int) -> MappingEntry | None:
        """Map ids to a key: `upsert("SKU-1", shopify="gid://1")`. Ids of other plugs are kept, unless `replace`.

        Raises MappingConflict if an id belongs to another key; UnknownName if the resource does not include a plug.
        """
        await self.upsert_many([(key, refs)], replace=replace)
        return await self.lookup(key)

    async def upsert_many(
        self, items: Iterable[tuple[Key, Mapping[str, str | int]]], *, replace: bool = False
    ) -> MappingCounts:
        """Map ids to many keys, all or none. A repeated key gets the ids of all its items."""
        wanted: dict[str, dict[str, str]] = {}
        for key, refs in items:
            ids = wanted.setdefault(self.resource.check_key(key), {})
            ids |= {self.resource.check_plug(plug): _ref(plug, ref) for plug, ref in refs.items()}
        changes = MappingChanges(self.resource.name, wanted, replace=replace)
        counts = await self._store.upsert(changes)  # rolled back in a dry run, see database/ambient_session.py
        report_write(self._table, counts._asdict())
        return counts

    async def lookup(self, key: Key) -> MappingEntry | None:
        text = self.resource.check_key(key)
        return (await self._store.by_keys(self.resource.name, [text])).get(text)

    async def lookup_many(self, keys: Iterable[Key]) -> dict[tuple[str, ...], MappingEntry]:
        """Return the existing mappings by the parts of their key."""
        texts = [self.resource.check_key(key) for key in keys]
        return {entry.key: entry for entry in (await self._store.by_keys(self.resource.name, texts)).values()}

    async def lookup_ref(self, plug: str, ref: str | int) -> MappingEntry | None:
        return (await self.lookup_refs(plug, [ref])).get(str(ref))

    async def lookup_refs(self, plug: str, refs: Iterable[str | int]) -> dict[str, MappingEntry]:
        """Return the existing mappings by the plug's id."""
        self.resource.check_plug(plug)
        return await self._store.by_refs(self.resource.name, plug, [str(ref) for ref in refs])

    async def delete(self, key: Key) -> bool:
        """Remove a mapping. Returns False if it does not exist."""
        text = self.resource.check_key(key)
        entry = (await self._store.by_keys(self.resource.name, [text])).get(text)
        if entry is None:
            return False
        return report_write(self._table, {"deleted": 1}, [entry.key]) or await self._store.delete(entry.id)

    async def search(self, text: str = "", *, limit: int = 100, offset: int = 0) -> tuple[list[MappingEntry], int]:
        """Return mappings whose key or ids contain the text, sorted by key, and the total number."""
        return await self._store.search(self.resource.name, text, limit=limit, offset=offset)


def _ref(plug: str, ref: object) -> str:
    if isinstance(ref, bool) or not isinstance(ref, (str, int)) or ref == "":
        raise UsageError(
            f"The id of {plug!r} must be a non-empty str or a whole number",
            hint="Use the id as the service returns it.",
        )
    return str(ref)
