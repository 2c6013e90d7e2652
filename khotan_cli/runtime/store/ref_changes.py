"""What has to change in the refs of some mappings: compares the wanted refs with the stored ones. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple

from khotan_cli.runtime.store.field_state import merge_state

Slot = tuple[str, str]
"""A mapping's id and a plug: a mapping holds one id of each plug."""


class KnownRef(NamedTuple):
    """The id of a key at a system, and the known field state (field_state.py)."""

    ref: str
    fields: dict[str, str] | None
    origin: str


class WantedRef(NamedTuple):
    """An id to store, and digests of the field values that came with it."""

    ref: str
    fields: Mapping[str, str] | None


class NewRef(NamedTuple):
    """A ref as it is to be stored."""

    ref: str
    fields: dict[str, str] | None


@dataclass(frozen=True)
class RefChanges:
    """Refs to remove, refs to add, and the ids of the mappings that change: of those whose fields alone change, none."""

    remove: Set[Slot]
    add: Mapping[Slot, NewRef]
    changed: Set[str]


def ref_changes(
    wanted: Mapping[Slot, WantedRef], known: Mapping[Slot, KnownRef], *, replace: bool, written: bool
) -> RefChanges:
    """Compare the refs. replace: remove known refs that are not wanted. written: the fields were written to the system."""
    add: dict[Slot, NewRef] = {}
    moved: set[Slot] = set()
    for slot, (ref, fields) in wanted.items():
        before = known.get(slot)
        kept = before if before is not None and before.ref == ref else None
        state = merge_state(kept.fields if kept else None, fields or {}, written=written) if fields or kept else None
        if kept is None:
            moved.add(slot)
        if kept is None or (kept.fields or {}) != (state or {}):
            add[slot] = NewRef(ref, state)
    gone = known.keys() - wanted.keys() if replace else set[Slot]()
    return RefChanges(gone | (add.keys() & known.keys()), add, {mapping for mapping, _ in moved | gone})
