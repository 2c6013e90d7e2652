"""Variables of plugs in the database, encrypted."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from khotan_cli.errors import KhotanError, SecretMissing, UsageError
from khotan_cli.runtime.plugs.vars import HIDDEN_PREFIX, EnvVarStore
from khotan_cli.runtime.store.crypto import MAKE_SECRET, Cipher
from khotan_cli.runtime.store.database import Database
from khotan_cli.runtime.store.leases import lease
from khotan_cli.runtime.store.tables import PlugRow, VarRow, utc_now


@dataclass(frozen=True)
class Entry:
    """A stored value: decrypted, or the error that decrypting it raised."""

    plug: str
    key: str
    updated_at: datetime
    value: str | None = None
    error: KhotanError | None = None

    def __repr__(self) -> str:
        return f"Entry({self.plug}.{self.key})"


@dataclass(frozen=True)
class Rotation:
    """What `rotate` did: values re-encrypted, values already under the present secret, and those it could not read."""

    rotated: int
    current: int
    failed: list[tuple[str, str]]


class DatabaseVarStore:
    """VarStore over the table khotan_vars. `cipher` is None where KHOTAN_SECRET is not set."""

    def __init__(self, database: Database, cipher: Cipher | None) -> None:
        self.database = database
        self._cipher = cipher
        self._local = EnvVarStore()

    async def load(self, plug: str) -> Mapping[str, str]:
        """All stored values. Raises SecretMissing, SecretMismatch or CiphertextInvalid naming the value; never fewer."""
        found: dict[str, str] = {}
        for entry in await self.entries(plug, hidden=True):
            if entry.error is not None and not entry.key.startswith(HIDDEN_PREFIX):
                raise entry.error
            if entry.value is not None:
                found[entry.key] = entry.value
        return found

    async def entries(self, plug: str | None = None, *, hidden: bool = False) -> list[Entry]:
        """Stored values of a plug, or of all, one by one decrypted."""
        statement = select(VarRow.plug, VarRow.key, VarRow.ciphertext, VarRow.updated_at)  # type: ignore[call-overload]
        if plug is not None:
            statement = statement.where(VarRow.plug == plug)
        async with self.database.session() as session:
            rows = (await session.execute(statement.order_by(VarRow.plug, VarRow.key))).all()
        return [self._entry(*row) for row in rows if hidden or not row[1].startswith(HIDDEN_PREFIX)]

    def _entry(self, plug: str, key: str, ciphertext: str, updated_at: datetime) -> Entry:
        try:
            return Entry(plug, key, updated_at, value=self._need_cipher(plug, key).decrypt(plug, key, ciphertext))
        except KhotanError as exc:
            return Entry(plug, key, updated_at, error=exc)

    async def save(self, plug: str, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            if not value:
                raise UsageError(
                    f"The value of {plug}.{key} is empty", code="empty_value", hint="To remove a value, clear it."
                )
        now = utc_now()
        table = VarRow.__table__  # type: ignore[attr-defined]
        async with self.database.session() as session:
            # In one order, so that two savers of the same keys do not wait for each other.
            for key in sorted(values):
                sealed = self._need_cipher(plug, key).encrypt(plug, key, values[key])
                insert = (sqlite if self.database.sqlite else postgresql).insert(table)
                await session.execute(
                    insert.values(plug=plug, key=key, ciphertext=sealed, updated_at=now).on_conflict_do_update(
                        index_elements=["plug", "key"], set_={"ciphertext": sealed, "updated_at": now}
                    )
                )

    async def delete(self, plug: str, keys: Iterable[str]) -> list[str]:
        table = VarRow.__table__  # type: ignore[attr-defined]
        statement = delete(table).where(table.c.plug == plug, table.c.key.in_(list(keys))).returning(table.c.key)
        async with self.database.session() as session:
            return sorted((await session.execute(statement)).scalars())

    async def forget_tokens(self, plug: str) -> None:
        """Remove the tokens of a plug: they belong to credentials that have changed."""
        table = VarRow.__table__  # type: ignore[attr-defined]
        hidden = table.c.key.startswith(f"{HIDDEN_PREFIX}token.", autoescape=True)
        async with self.database.session() as session:
            await session.execute(delete(table).where(table.c.plug == plug, hidden))

    async def undecryptable(self) -> list[Entry]:
        """Stored values that the present secret cannot decrypt."""
        return [entry for entry in await self.entries(hidden=True) if entry.error is not None]

    async def rotate(self) -> Rotation:
        """Encrypt every value anew under the present secret; one that changes meanwhile is left to its writer."""
        table = VarRow.__table__  # type: ignore[attr-defined]
        rotated, current, failed = 0, 0, list[tuple[str, str]]()
        async with self.database.session() as session:
            rows = (await session.execute(select(table.c.plug, table.c.key, table.c.ciphertext))).all()
            for plug, key, ciphertext in rows:
                cipher = self._need_cipher(plug, key)
                entry = self._entry(plug, key, ciphertext, utc_now())
                if entry.value is None:
                    failed.append((plug, key))
                elif cipher.current(ciphertext):
                    current += 1
                else:
                    row = (table.c.plug == plug) & (table.c.key == key) & (table.c.ciphertext == ciphertext)
                    sealed = cipher.encrypt(plug, key, entry.value)
                    await session.execute(update(table).where(row).values(ciphertext=sealed, updated_at=utc_now()))
                    rotated += 1
        return Rotation(rotated, current, failed)

    async def enabled(self, plug: str) -> bool:
        """Whether a plug may be called; one that was never touched may."""
        async with self.database.session() as session:
            row = await session.get(PlugRow, plug)
            return row is None or row.enabled

    async def set_enabled(self, plug: str, enabled: bool) -> None:
        table = PlugRow.__table__  # type: ignore[attr-defined]
        now = utc_now()
        insert = (sqlite if self.database.sqlite else postgresql).insert(table)
        async with self.database.session() as session:
            await session.execute(
                insert.values(name=plug, enabled=enabled, created_at=now, updated_at=now).on_conflict_do_update(
                    index_elements=["name"], set_={"enabled": enabled, "updated_at": now}
                )
            )

    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        return self._lock(name)

    @asynccontextmanager
    async def _lock(self, name: str) -> AsyncIterator[None]:
        # One task per process asks the database; the others stand in line behind it.
        async with self._local.lock(name), lease(self.database, [f"lock:{name}"]):
            yield

    def fingerprint(self, text: str) -> str:
        if self._cipher is not None:
            return self._cipher.fingerprint(text)
        return hashlib.blake2b(text.encode(), digest_size=16, person=b"khotan").hexdigest()

    def _need_cipher(self, plug: str, key: str) -> Cipher:
        if self._cipher is None:
            raise SecretMissing(
                f"KHOTAN_SECRET is not set: {plug}.{key} can be neither read nor stored",
                hint=f"Set it in the environment or in .env. A new one: {MAKE_SECRET}",
                next=["khotan doctor"],
            )
        return self._cipher
