"""Column types, and khotan's own metadata and registry, separate from the application's models."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Integer,
    MetaData,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB
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
    """Timezone-aware UTC on every database. SQLite stores it without time zone, which is added when it is read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            # Without a time zone, the time would depend on the host.
            raise ValueError("a datetime needs a time zone")
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


JSON_VALUE = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A JSON column: JSONB on PostgreSQL."""
BIG_ID = BigInteger().with_variant(Integer(), "sqlite")
"""An auto-increment id: SQLite increments only INTEGER columns."""
SORTED_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that sorts by code point on both databases, as canonical keys must."""


_NOT_STORED = re.compile("[\x00\ud800-\udfff]")
"""Characters that PostgreSQL cannot store (8.14, JSON Types), and half surrogate pairs, which cannot be encoded."""


class ReadableText(TypeDecorator[str]):
    """Text for people to read. Characters that cannot be stored become U+FFFD, so that storing never fails."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else _NOT_STORED.sub("\ufffd", value)


class ReadableJson(TypeDecorator[Any]):
    """JSON for people to read: like ReadableText, and numbers that JSON does not support become text."""

    impl = JSON
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(none_as_null=True)

    def load_dialect_impl(self, dialect: Any) -> Any:
        return dialect.type_descriptor(JSON_VALUE.dialect_impl(dialect))

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return _readable(value)


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return _NOT_STORED.sub("\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {_readable(key): _readable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_readable(one) for one in value]
    return value


def json_column(kind: Any = JSON_VALUE) -> Any:
    """Return a nullable JSON field."""
    return Field(default=None, sa_type=kind, nullable=True)
