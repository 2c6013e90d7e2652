"""khotan's tables and the application's do not mix."""

from __future__ import annotations

from sqlmodel import Field, SQLModel

from khotan_cli.runtime.database.tables import VarRow, metadata
from khotan_cli.runtime.database.types import KhotanTable


class VarRowOfTheApplication(SQLModel, table=True):
    """A user's own model, in SQLModel's own metadata."""

    id: int | None = Field(default=None, primary_key=True)


def test_metadata_and_registry_are_our_own() -> None:
    assert not [name for name in SQLModel.metadata.tables if name.startswith("khotan_")]
    assert all(name.startswith("khotan_") for name in metadata.tables)
    assert KhotanTable._sa_registry is not SQLModel._sa_registry
    assert VarRow.metadata is metadata
