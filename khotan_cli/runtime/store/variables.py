"""Variables of plugs in the database, encrypted."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from sqlalchemy import delete, select, text, update

from khotan_cli.errors import KhotanError, SecretMissing, UsageError
from khotan_cli.runtime.database.crypto import MAKE_SECRET, Cipher
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.locks import LEASE_SECONDS, lease
from khotan_cli.runtime.database.tables import PLUGS, VARS
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.http.variables import HIDDEN_PREFIX, EnvVarStore


@dataclass(frozen=True)
class Entry:
    """A stored value: decrypted, or the error of its decryption."""

    plug: str
    key: str
    updated_at: datetime
    value: str | None = None
    error: KhotanError | None = None

    def __repr__(self) -> str:
        return f"Entry({self.plug}.{self.key})"


@dataclass(frozen=True)
class Rotation:
    """The result of `rotate`: number of re-encrypted and of current values, and the values that could not be decrypted."""

    rotated: int
    current: int
    failed: list[tuple[str, str]]


class DatabaseVarStore:
    """A VarStore in the table khotan_vars. `cipher` is None if KHOTAN_SECRET is not set."""

    def __init__(self, database: Database, cipher: Cipher | None, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self.database = database
        self._cipher = cipher
        self._lease_seconds = lease_seconds
        self._local = EnvVarStore()

    async def load(self, plug: str) -> Mapping[str, str]:
        """Return all stored values. Raises SecretMissing, SecretMismatch or CiphertextInvalid, which name the value.

        A token that cannot be decrypted is ignored: a new one is fetched.
        """
        found: dict[str, str] = {}
        for entry in await self.entries(plug, hidden=True):
            if entry.error is not None and not entry.key.startswith(HIDDEN_PREFIX):
                raise entry.error
            if entry.value is not None:
                found[entry.key] = entry.value
        return found

    async def entries(self, plug: str | None = None, *, hidden: bool = False) -> list[Entry]:
        """Return the stored values of one plug or all plugs, each decrypted separately."""
        statement = select(VARS.c.plug, VARS.c.key, VARS.c.ciphertext, VARS.c.updated_at)
        if plug is not None:
            statement = statement.where(VARS.c.plug == plug)
        async with self.database.session() as session:
            rows = (await session.execute(statement.order_by(VARS.c.plug, VARS.c.key))).all()
        return [self._entry(*row) for row in rows if hidden or not row.key.startswith(HIDDEN_PREFIX)]

    def _entry(self, plug: str, key: str, ciphertext: str, updated_at: datetime) -> Entry:
        try:
            return Entry(plug, key, updated_at, value=self._need_cipher(plug, key).decrypt(plug, key, ciphertext))
        except KhotanError as exc:
            return Entry(plug, key, updated_at, error=exc)

    async def save(self, plug: str, values: Mapping[str, str]) -> None:
        """Store the values, all or none. Raises UsageError for an empty value, SecretMissing without KHOTAN_SECRET."""
        for key, value in values.items():
            if not value:
                raise UsageError(
                    f"The value of {plug}.{key} is empty",
                    code="empty_value",
                    hint="Set a value, or clear the variable to remove it.",
                )
        # Sorted, so that two writers of the same keys do not deadlock.
        sealed = {key: self._need_cipher(plug, key).encrypt(plug, key, values[key]) for key in sorted(values)}
        now = utc_now()
        async with self.database.session() as session:
            for key, ciphertext in sealed.items():
                await session.execute(
                    self.database.insert(VARS)
                    .values(plug=plug, key=key, ciphertext=ciphertext, updated_at=now)
                    .on_conflict_do_update(
                        index_elements=["plug", "key"], set_={"ciphertext": ciphertext, "updated_at": now}
                    )
                )

    async def delete(self, plug: str, keys: Iterable[str]) -> list[str]:
        """Remove the values. Returns the removed keys, sorted."""
        statement = delete(VARS).where(VARS.c.plug == plug, VARS.c.key.in_(list(keys))).returning(VARS.c.key)
        async with self.database.session() as session:
            return sorted((await session.execute(statement)).scalars())

    async def forget_tokens(self, plug: str) -> None:
        """Remove the tokens of a plug after its credentials have changed."""
        hidden = VARS.c.key.startswith(f"{HIDDEN_PREFIX}token.", autoescape=True)
        async with self.database.session() as session:
            await session.execute(delete(VARS).where(VARS.c.plug == plug, hidden))

    async def undecryptable(self) -> list[Entry]:
        """Return the stored values that cannot be decrypted."""
        return [entry for entry in await self.entries(hidden=True) if entry.error is not None]

    async def rotate(self) -> Rotation:
        """Re-encrypt every value with the current secret, all or none.

        Writers wait meanwhile, so that no value is missed or overwritten. Values that cannot be decrypted are not changed and
        are listed in the result. Raises SecretMissing without KHOTAN_SECRET if any value is stored.
        """
        current, failed, renewed = 0, list[tuple[str, str]](), list[tuple[str, str, str]]()
        statement = select(VARS.c.plug, VARS.c.key, VARS.c.ciphertext).order_by(VARS.c.plug, VARS.c.key)
        async with self.database.session() as session:
            if self.database.sqlite:
                await session.execute(text("BEGIN IMMEDIATE"))
            for plug, key, ciphertext in (await session.execute(statement.with_for_update())).all():
                cipher = self._need_cipher(plug, key)
                try:
                    value = cipher.decrypt(plug, key, ciphertext)
                except KhotanError:
                    failed.append((plug, key))
                    continue
                if cipher.current(ciphertext):
                    current += 1
                else:
                    renewed.append((plug, key, cipher.encrypt(plug, key, value)))
            for plug, key, ciphertext in renewed:
                row = (VARS.c.plug == plug) & (VARS.c.key == key)
                await session.execute(update(VARS).where(row).values(ciphertext=ciphertext))
        return Rotation(len(renewed), current, failed)

    async def enabled(self, plug: str) -> bool:
        """Whether a plug is enabled. A plug without a row is enabled."""
        async with self.database.session() as session:
            stored = (await session.execute(select(PLUGS.c.enabled).where(PLUGS.c.name == plug))).scalar()
        return stored is not False

    async def set_enabled(self, plug: str, enabled: bool) -> None:
        now = utc_now()
        async with self.database.session() as session:
            await session.execute(
                self.database.insert(PLUGS)
                .values(name=plug, enabled=enabled, created_at=now, updated_at=now)
                .on_conflict_do_update(index_elements=["name"], set_={"enabled": enabled, "updated_at": now})
            )

    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        """A named lock shared by all processes of the database; see database/locks.py for its guarantees."""
        return self._lock(name)

    @asynccontextmanager
    async def _lock(self, name: str) -> AsyncIterator[None]:
        # One task per process polls the database; the others queue behind it.
        async with self._local.lock(name), lease(self.database, [f"lock:{name}"], seconds=self._lease_seconds):
            yield

    def fingerprint(self, text: str) -> str:
        """See VarStore. Without KHOTAN_SECRET there is no key, so a slow digest protects weak passwords."""
        return self._cipher.fingerprint(text) if self._cipher is not None else _unkeyed_fingerprint(text)

    def _need_cipher(self, plug: str, key: str) -> Cipher:
        if self._cipher is None:
            raise SecretMissing(
                f"KHOTAN_SECRET is not set: {plug}.{key} can be neither read nor stored",
                hint=f"Set it in the environment or in .env. Create one: {MAKE_SECRET}",
                next=["khotan doctor"],
            )
        return self._cipher


@lru_cache(maxsize=256)
def _unkeyed_fingerprint(text: str) -> str:
    # scrypt (RFC 7914), 16 MiB. The digest is the same in all processes, because it names a shared bucket.
    plain = text.encode(errors="surrogatepass")
    return hashlib.scrypt(plain, salt=b"khotan fingerprint", n=2**14, r=8, p=1, dklen=16).hex()
