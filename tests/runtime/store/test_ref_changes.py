"""What changes between stored and wanted refs, without a database."""

from __future__ import annotations

import pytest

from khotan_cli.runtime.store.ref_changes import KnownRef, NewRef, RefChanges, WantedRef, ref_changes

SHOP, ERP = ("m1", "shop"), ("m1", "erp")


@pytest.mark.parametrize(
    ("wanted", "known", "replace", "expected"),
    [
        ({SHOP: WantedRef("1", None)}, {}, False, RefChanges(set(), {SHOP: NewRef("1", None)}, {"m1"})),
        ({SHOP: WantedRef("1", None)}, {SHOP: KnownRef("1", None, "read")}, False, RefChanges(set(), {}, set())),
        (
            {SHOP: WantedRef("2", None)},
            {SHOP: KnownRef("1", {"name": "a"}, "read")},
            False,
            RefChanges({SHOP}, {SHOP: NewRef("2", None)}, {"m1"}),
        ),
        (
            {SHOP: WantedRef("1", {"name": "b"})},
            {SHOP: KnownRef("1", {"name": "a", "sku": "s"}, "read")},
            False,
            RefChanges({SHOP}, {SHOP: NewRef("1", {"name": "b", "sku": "s"})}, set()),
        ),
        (
            {SHOP: WantedRef("1", None)},
            {ERP: KnownRef("9", None, "read")},
            False,
            RefChanges(set(), {SHOP: NewRef("1", None)}, {"m1"}),
        ),
        (
            {SHOP: WantedRef("1", None)},
            {SHOP: KnownRef("1", None, "read"), ERP: KnownRef("9", None, "read")},
            True,
            RefChanges({ERP}, {}, {"m1"}),
        ),
    ],
    ids=["new", "same", "another id forgets the fields", "fields alone", "another plug's stays", "replace"],
)  # fmt: skip
def test_refs_that_differ(
    wanted: dict[tuple[str, str], WantedRef],
    known: dict[tuple[str, str], KnownRef],
    replace: bool,
    expected: RefChanges,
) -> None:
    assert ref_changes(wanted, known, replace=replace, written=False) == expected
