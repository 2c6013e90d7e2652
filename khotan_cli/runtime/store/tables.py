"""The rows. One metadata and registry of khotan's own: the application's models and these never mix."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Float, MetaData, Text
from sqlalchemy.orm import registry
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware UTC on every database; SQLite, which knows no zones, keeps it without and gets it back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            # Which moment it means would depend on where the process runs.
            raise ValueError("a moment needs a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def utc_now() -> datetime:
    return datetime.now(UTC)


class KhotanTable(SQLModel, registry=registry(metadata=metadata)):
    """Base of khotan's tables."""

    metadata = metadata


class PlugRow(KhotanTable, table=True):
    """What is stored of a plug besides its code. A plug without a row is enabled."""

    __tablename__ = "khotan_plugs"  # pyright: ignore[reportAssignmentType]

    name: str = Field(primary_key=True, sa_type=Text)
    enabled: bool = True
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class VarRow(KhotanTable, table=True):
    """One value of a variable, encrypted. One row each, so that concurrent updates do not overwrite one another."""

    __tablename__ = "khotan_vars"  # pyright: ignore[reportAssignmentType]

    plug: str = Field(primary_key=True, sa_type=Text)
    key: str = Field(primary_key=True, sa_type=Text)
    ciphertext: str = Field(sa_type=Text)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class LeaseRow(KhotanTable, table=True):
    """A lock or a slot held by one process; expires_at is in seconds since the epoch, by `Database.now`."""

    __tablename__ = "khotan_leases"  # pyright: ignore[reportAssignmentType]

    name: str = Field(primary_key=True, sa_type=Text)
    owner: str = Field(sa_type=Text)
    expires_at: float = Field(sa_type=Float(53))


class RateRow(KhotanTable, table=True):
    """State of a rate bucket: theoretical arrival time and end of a hold, in seconds since the epoch, by `Database.now`."""

    __tablename__ = "khotan_rates"  # pyright: ignore[reportAssignmentType]

    key: str = Field(primary_key=True, sa_type=Text)
    arrival_at: float = Field(sa_type=Float(53))
    held_until: float = Field(sa_type=Float(53))


PLUGS = metadata.tables["khotan_plugs"]
VARS = metadata.tables["khotan_vars"]
LEASES = metadata.tables["khotan_leases"]
RATES = metadata.tables["khotan_rates"]
