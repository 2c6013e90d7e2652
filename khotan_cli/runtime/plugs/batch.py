"""Sends many records in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from khotan_cli.errors import ParameterError, PlugError
from khotan_cli.runtime.content.present import jsonable

R = TypeVar("R")


@dataclass(frozen=True)
class BatchResult(Generic[R]):
    """The result of one batch: its records from position `start`, and either the response or the error."""

    start: int
    records: Sequence[Any]
    response: R | None = None
    error: PlugError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


async def batch_post(
    call: Callable[..., Awaitable[R]],
    records: Sequence[Any],
    *,
    size: int,
    concurrency: int,
    key: str | None,
    params: Mapping[str, Any],
) -> AsyncIterator[BatchResult[R]]:
    """Post the records in batches; the results are in the order of the records.

    The body is the list of records, or `{key: list}`. A failed batch yields a result with its error; the others continue.
    Raises ParameterError for a size or concurrency below 1, before anything is sent.
    """
    if size < 1 or concurrency < 1:
        raise ParameterError("batch_post: size and concurrency must be 1 or more")

    async def send_batch(start: int) -> BatchResult[R]:
        batch = records[start : start + size]
        body: Any = [jsonable(record) for record in batch]
        try:
            return BatchResult(start, batch, await call(body={key: body} if key else body, **params))
        except PlugError as exc:
            return BatchResult(start, batch, error=exc)

    running: list[asyncio.Task[BatchResult[R]]] = []
    try:
        for start in range(0, len(records), size):
            if len(running) >= concurrency:
                yield await running.pop(0)
            running.append(asyncio.create_task(send_batch(start)))
        while running:
            yield await running.pop(0)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
