"""Sources of pushed records: rows of a select, items of an endpoint, or any iterable. Read in resumable pages."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from pydantic_core import to_jsonable_python
from sqlalchemy import Select, and_, not_, tuple_

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.bulk.table_schema import as_python
from khotan_cli.runtime.database.ambient_session import session_scope
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint
from khotan_cli.runtime.plugs.page_iterator import PageIterator, PagePosition
from khotan_cli.runtime.transfer.records import PageReader, without_secrets

_WITHOUT_KEY = "without_key"
"""Key of a position after the last row with a key: the number of rows without a key that were read."""


@dataclass(frozen=True)
class Chunk:
    """A page of records, invalid items with reasons, and the next position (JSON, None at the end).

    gap: why the source may have more records than it returned, or "".
    """

    records: Sequence[Any]
    following: Any
    invalid: Sequence[tuple[Any, str]] = ()
    gap: str = ""


class Source(Protocol):
    """Reads chunks by position; `read(None)` returns the first. `name` is the same in every run."""

    name: str

    async def read(self, position: Any) -> Chunk: ...
    def passed(self, position: Any) -> None:
        """Note that an earlier execution reached this position."""
        ...


def source_of(
    source: Any, database: Database, key: Sequence[str], page: int, params: Mapping[str, Any], *, skip_invalid: bool
) -> Source:
    """Return a Source for a select, an endpoint or an iterable. Raises ConfigError for anything else."""
    if isinstance(source, Select):
        return SelectSource(source, database, key, page)
    if isinstance(source, BoundEndpoint):
        return EndpointSource(source, params, skip_invalid=skip_invalid)
    if isinstance(source, (Iterable, AsyncIterable)) and not isinstance(source, (str, bytes, Mapping)):
        return IterableSource(source, page)
    raise ConfigError(
        f"push cannot read records from {type(source).__name__}", hint="Use a select(…), an endpoint, or a list."
    )


class SelectSource:
    """Rows in key order. Each chunk starts after the last key of the previous one, so that no row is skipped.

    Rows without a key come last, by offset: they cannot be sent, and are reported as failed.
    """

    def __init__(self, statement: Select[Any], database: Database, key: Sequence[str], page: int) -> None:
        self._database, self._key, self._page = database, key, page
        self.name = ", ".join(sorted(str(getattr(table, "name", "rows")) for table in statement.get_final_froms()))
        self._columns = [_column(statement, name) for name in key]
        if statement._has_row_limiting_clause:  # pyright: ignore[reportPrivateUsage] - there is no public name
            raise ConfigError(
                "push cannot read a select with a limit or an offset",
                hint="Restrict it with where(…), or read the rows and push the list.",
            )
        entities = [column for column in statement.column_descriptions if column.get("entity") is column.get("type")]
        if entities and len(statement.column_descriptions) > 1:
            raise ConfigError(
                "push cannot read a select that combines a whole table with other columns",
                hint="Use select(Table) or select(Table.id, Other.name, …).",
            )
        self._whole = (
            len(statement.column_descriptions) == 1
            and isinstance(statement.column_descriptions[0].get("type"), type)
            and statement.column_descriptions[0].get("entity") is statement.column_descriptions[0].get("type")
        )
        plain, complete = statement.order_by(None), and_(*[column.is_not(None) for column in self._columns])
        self._with_key = plain.where(complete).order_by(*self._columns)
        self._without_key = plain.where(not_(complete)).order_by(*self._columns)
        self._may_be_null = any(getattr(column, "nullable", True) for column in self._columns)

    async def read(self, position: Any) -> Chunk:
        if isinstance(position, dict):
            return await self._read_without_key(position[_WITHOUT_KEY])
        statement = self._with_key.limit(self._page)
        if position is not None:
            after = [as_python(column)(value) for column, value in zip(self._columns, position, strict=True)]
            statement = statement.where(tuple_(*self._columns) > tuple_(*after))
        records = await self._records(statement)
        if len(records) == self._page:
            last = records[-1]
            return Chunk(records, to_jsonable_python([getattr(last, name) for name in self._key]))
        if not self._may_be_null:
            return Chunk(records, None)
        rest = await self._read_without_key(0)
        return Chunk([*records, *rest.records], rest.following)

    async def _read_without_key(self, offset: int) -> Chunk:
        records = await self._records(self._without_key.limit(self._page).offset(offset))
        following = {_WITHOUT_KEY: offset + self._page} if len(records) == self._page else None
        return Chunk(records, following)

    async def _records(self, statement: Select[Any]) -> list[Any]:
        async with session_scope(self._database) as session:  # includes tables that a dry run has created
            result = await session.execute(statement)
            return list(result.scalars()) if self._whole else list(result.all())

    def passed(self, position: Any) -> None:
        """Do nothing: a select is read by key."""


class EndpointSource:
    def __init__(self, endpoint: BoundEndpoint[Any], params: Mapping[str, Any], *, skip_invalid: bool) -> None:
        self.name = f"{endpoint.plug.name}.{endpoint.endpoint.name}"
        self._walk = PageIterator(endpoint, (), params)
        self._reader = PageReader(self._walk, skip_invalid=skip_invalid)

    async def read(self, position: Any) -> Chunk:
        fetched = await self._walk.fetch(self._walk.start if position is None else PagePosition.from_json(position))
        page = self._reader.read(fetched)
        following = None
        if fetched.following is not None:
            following = (await without_secrets(fetched.following, self._walk.bound.plug)).to_json()
        gap = fetched.doubt or ("max_pages stopped the pass" if fetched.cut else "")
        gap = gap or (f"{len(page.invalid)} records could not be read" if page.invalid else "")
        return Chunk(page.items, following, page.invalid, gap)

    def passed(self, position: Any) -> None:
        self._walk.passed(PagePosition.from_json(position))


class IterableSource:
    """Reads an iterable once; the position counts records. A resumed run needs the same records again."""

    name = "records"

    def __init__(self, records: Iterable[Any] | AsyncIterable[Any], page: int) -> None:
        self._records: Any = records.__aiter__() if isinstance(records, AsyncIterable) else iter(records)
        self._page, self._taken = page, 0

    async def read(self, position: Any) -> Chunk:
        await self._take((position or 0) - self._taken)
        records = await self._take(self._page)
        return Chunk(records, self._taken if len(records) == self._page else None)

    async def _take(self, count: int) -> list[Any]:
        taken: list[Any] = []
        if hasattr(self._records, "__anext__"):
            while len(taken) < count:
                try:
                    taken.append(await anext(self._records))
                except StopAsyncIteration:
                    break
        elif count > 0:
            taken = list(islice(self._records, count))
        self._taken += len(taken)
        return taken

    def passed(self, position: Any) -> None:
        """Do nothing: a resumed run skips the earlier records."""


def _column(statement: Select[Any], name: str) -> Any:
    column = statement.selected_columns.get(name)
    if column is None:
        raise ConfigError(
            f"The select has no column {name!r} for the key",
            hint=f"Its columns: {', '.join(str(column.key) for column in statement.selected_columns)}",
        )
    return column
