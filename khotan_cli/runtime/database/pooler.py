"""Detects connection poolers that use another PostgreSQL session for each transaction.

PgBouncer in transaction mode does (https://www.pgbouncer.org/features.html): advisory locks do not stay with a client, and
statements that a client prepared may be missing in its next transaction. Prepared statements are then switched off
(psycopg's `prepare_threshold=None`), and workers, which hold an advisory lock as long as they live, refuse to start.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import URL

from khotan_cli.errors import ConfigError

if TYPE_CHECKING:
    import psycopg

OPTION = "pgbouncer"
"""Parameter of DATABASE_URL that replaces the detection: `?pgbouncer=true` or `false`. It is not passed to the driver."""
_TRUE, _FALSE = frozenset(("true", "1", "yes", "on")), frozenset(("false", "0", "no", "off"))
_ATTEMPTS = 3
_SECONDS = 10.0


def declared(url: URL) -> bool | None:
    """Return whether the URL declares a pooler in transaction mode, or None. Raises ConfigError for an invalid value."""
    value = url.query.get(OPTION)
    if value is None:
        return None
    word = value.lower() if isinstance(value, str) else ""
    if word not in _TRUE | _FALSE:
        raise ConfigError(
            f"DATABASE_URL: invalid {OPTION}={value!r}",
            hint=f"Use ?{OPTION}=true for a pooler in transaction mode, or remove the parameter.",
        )
    return word in _TRUE


def without_option(url: URL) -> URL:
    """Return the URL for the driver."""
    return url.difference_update_query([OPTION])


async def changes_sessions(url: str, arguments: dict[str, Any]) -> bool:
    """Whether a pooler in transaction mode is between this process and the server.

    A pooler sends a backend's number of its own when a client connects (PostgreSQL manual, 54.2.1, BackendKeyData): where it
    is the server's, there is none. Else the number is compared between two clients: where both meet one server process, or a
    client meets two, sessions do not stay. Raises psycopg.Error.
    """
    import psycopg

    async with await psycopg.AsyncConnection.connect(url, autocommit=True, **arguments) as first:
        process = await _process(first)
        if process == first.info.backend_pid:
            return False
        try:
            async with asyncio.timeout(_SECONDS):
                return await _differs(url, arguments, first, process)
        except TimeoutError:  # a pool in session mode that has no session left for a second client
            return False


async def _differs(url: str, arguments: dict[str, Any], first: psycopg.AsyncConnection[Any], process: int) -> bool:
    import psycopg

    async with await psycopg.AsyncConnection.connect(url, **arguments) as second:
        for _ in range(_ATTEMPTS):
            met = await _process(second)  # in a transaction, which keeps its server process
            if met == process:
                return True
            if await _process(first) != process:
                return True
            await second.rollback()
    return False


async def _process(connection: psycopg.AsyncConnection[Any]) -> int:
    row = await (await connection.execute("SELECT pg_backend_pid()", prepare=False)).fetchone()
    assert row is not None
    return int(row[0])
