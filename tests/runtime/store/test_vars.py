"""Variables in the database: encrypted, one row each, never silently fewer."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from khotan_cli.errors import CiphertextInvalid, DatabaseNotMigrated, SecretMismatch, SecretMissing, UsageError
from khotan_cli.runtime.database.crypto import Cipher
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.tables import VARS
from khotan_cli.runtime.store.variables import DatabaseVarStore
from tests.runtime.store.conftest import Spawn

_SAVE = """
import asyncio, sys
from khotan_cli.runtime.database.crypto import Cipher
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.store.variables import DatabaseVarStore

async def main(url, secret, mine):
    database = Database(url)
    store = DatabaseVarStore(database, Cipher(secret))
    await database.ping()
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(15):
        await store.save("shop", {mine: f"{mine}-{number}", "shared": f"{mine}-{number}"})
    await database.dispose()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_is_saved_is_loaded_per_plug(store: DatabaseVarStore) -> None:
    await store.save("shop", {"api_key": "sk_live_1234", "tenant": "acme"})
    await store.save("bank", {"api_key": "other"})
    assert await store.load("shop") == {"api_key": "sk_live_1234", "tenant": "acme"}
    assert await store.load("bank") == {"api_key": "other"}
    assert await store.load("nobody") == {}


async def test_saving_again_replaces_only_what_is_named(store: DatabaseVarStore) -> None:
    await store.save("shop", {"api_key": "old", "tenant": "acme"})
    await store.save("shop", {"api_key": "new"})
    assert await store.load("shop") == {"api_key": "new", "tenant": "acme"}


async def test_nothing_is_stored_in_clear(store: DatabaseVarStore, database: Database) -> None:
    await store.save("shop", {"api_key": "sk_live_1234"})
    async with database.session() as session:
        rows = (await session.execute(select(VARS))).all()
    assert "sk_live_1234" not in str(rows)


async def test_an_empty_value_is_refused_and_nothing_of_it_stored(store: DatabaseVarStore) -> None:
    with pytest.raises(UsageError) as caught:
        await store.save("shop", {"tenant": "acme", "api_key": ""})
    assert caught.value.code == "empty_value"
    assert await store.load("shop") == {}


async def test_a_value_that_cannot_be_stored_leaves_the_others_unstored(store: DatabaseVarStore) -> None:
    with pytest.raises(UsageError, match="Unicode"):
        await store.save("shop", {"a": "fine", "b": "\ud800"})
    assert await store.load("shop") == {}


async def test_delete_says_what_was_there(store: DatabaseVarStore) -> None:
    await store.save("shop", {"a": "1", "b": "2"})
    assert await store.delete("shop", ["b", "a", "b", "never"]) == ["a", "b"]
    assert await store.delete("shop", ["a"]) == []
    assert await store.delete("shop", []) == []


async def test_hidden_values_are_loaded_but_not_listed(store: DatabaseVarStore) -> None:
    await store.save("shop", {"_token.abc": "t", "_oauth.state": "s", "api_key": "k"})
    assert set(await store.load("shop")) == {"_token.abc", "_oauth.state", "api_key"}
    assert [entry.key for entry in await store.entries("shop")] == ["api_key"]
    await store.forget_tokens("shop")
    assert set(await store.load("shop")) == {"_oauth.state", "api_key"}


async def test_entries_show_time_and_value_but_not_in_their_repr(store: DatabaseVarStore) -> None:
    await store.save("shop", {"api_key": "sk_live_1234"})
    [entry] = await store.entries()
    assert (entry.plug, entry.key, entry.value, entry.error) == ("shop", "api_key", "sk_live_1234", None)
    assert entry.updated_at.utcoffset() is not None
    assert "sk_live_1234" not in repr(entry)


async def test_without_a_secret_an_empty_plug_has_no_values_and_a_stored_one_is_an_error(
    store: DatabaseVarStore, database: Database
) -> None:
    keyless = DatabaseVarStore(database, None)
    assert await keyless.load("shop") == {}
    await store.save("shop", {"api_key": "sk_live_1234"})
    with pytest.raises(SecretMissing, match=r"shop\.api_key"):
        await keyless.load("shop")
    with pytest.raises(SecretMissing):
        await keyless.save("shop", {"api_key": "other"})
    with pytest.raises(SecretMissing):
        await keyless.rotate()
    assert await store.load("shop") == {"api_key": "sk_live_1234"}


async def test_the_wrong_secret_names_the_value(store: DatabaseVarStore, database: Database) -> None:
    await store.save("shop", {"api_key": "sk_live_1234"})
    stranger = DatabaseVarStore(database, Cipher(secrets.token_urlsafe(48)))
    with pytest.raises(SecretMismatch, match=r"shop\.api_key"):
        await stranger.load("shop")
    assert [(entry.plug, entry.key) for entry in await stranger.undecryptable()] == [("shop", "api_key")]
    assert await store.undecryptable() == []


async def test_a_token_of_another_secret_counts_as_none(store: DatabaseVarStore, database: Database) -> None:
    await store.save("shop", {"_token.abc": "t"})
    stranger = DatabaseVarStore(database, Cipher(secrets.token_urlsafe(48)))
    assert await stranger.load("shop") == {}


@pytest.mark.parametrize("column", ["plug", "key"])
async def test_a_ciphertext_moved_between_rows_is_an_error(
    store: DatabaseVarStore, database: Database, column: str
) -> None:
    await store.save("shop", {"api_key": "sk_live_1234"})
    async with database.session() as session:
        await session.execute(update(VARS).values({column: "elsewhere"}))
    with pytest.raises(CiphertextInvalid, match="elsewhere"):
        await store.load("elsewhere" if column == "plug" else "shop")


async def test_rotate_moves_everything_under_the_present_secret(
    store: DatabaseVarStore, database: Database, secret: str
) -> None:
    await store.save("shop", {"a": "1", "b": "2", "_token.x": "t"})
    [before, *_] = await store.entries("shop")
    fresh = secrets.token_urlsafe(48)
    both = DatabaseVarStore(database, Cipher(fresh, [secret]))
    await both.save("shop", {"c": "3"})
    done = await both.rotate()
    assert (done.rotated, done.current, done.failed) == (3, 1, [])
    only = DatabaseVarStore(database, Cipher(fresh))
    assert await only.load("shop") == {"a": "1", "b": "2", "c": "3", "_token.x": "t"}
    assert (await only.entries("shop"))[0].updated_at == before.updated_at
    again = await only.rotate()
    assert (again.rotated, again.current) == (0, 4)


async def test_rotate_leaves_and_names_what_it_cannot_read(store: DatabaseVarStore, database: Database) -> None:
    await store.save("shop", {"a": "1", "b": "2"})
    async with database.session() as session:
        await session.execute(
            update(VARS).where(VARS.c.key == "a").values(ciphertext="k1.00000000.QUJDREVGR0hJSktMTU5P")
        )
        await session.execute(update(VARS).where(VARS.c.key == "b").values(key="c"))
    done = await store.rotate()
    assert (done.rotated, done.current, done.failed) == (0, 0, [("shop", "a"), ("shop", "c")])


async def test_rotating_and_saving_at_once_loses_no_update(
    store: DatabaseVarStore, database: Database, secret: str
) -> None:
    old = {f"k{number:02}": "old" for number in range(20)}
    await store.save("shop", old)
    both = DatabaseVarStore(database, Cipher(secrets.token_urlsafe(48), [secret]))

    async def write() -> None:
        for key in old:
            await store.save("shop", {key: "new"})

    await asyncio.gather(write(), *(both.rotate() for _ in range(5)))
    assert set((await both.load("shop")).values()) == {"new"}


async def test_processes_that_save_at_once_do_not_overwrite_each_other(
    store: DatabaseVarStore, migrated_url: str, secret: str, spawn: Spawn
) -> None:
    writers = [spawn(_SAVE, migrated_url, secret, f"mine{number}") for number in range(3)]
    for writer in writers:
        assert writer.stdout is not None
        assert await asyncio.to_thread(writer.stdout.readline) == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        assert await asyncio.to_thread(writer.wait, 60) == 0
    loaded = await store.load("shop")
    assert {key: value for key, value in loaded.items() if key != "shared"} == {
        f"mine{number}": f"mine{number}-14" for number in range(3)
    }
    assert loaded["shared"].endswith("-14")


async def test_plugs_are_enabled_until_disabled(store: DatabaseVarStore) -> None:
    assert await store.enabled("shop")
    await store.set_enabled("shop", False)
    assert not await store.enabled("shop")
    assert await store.enabled("bank")
    await store.set_enabled("shop", True)
    assert await store.enabled("shop")


async def test_without_tables_the_error_says_to_migrate(database_url: str, tmp_path: Path, secret: str) -> None:
    database = Database(database_url, tmp_path)
    with pytest.raises(DatabaseNotMigrated):
        await DatabaseVarStore(database, Cipher(secret)).load("shop")
    await database.dispose()


async def test_one_bad_row_of_another_plug_does_not_matter(store: DatabaseVarStore, database: Database) -> None:
    await store.save("shop", {"a": "1"})
    await store.save("bank", {"a": "1"})
    async with database.session() as session:
        await session.execute(text("UPDATE khotan_vars SET ciphertext = 'x' WHERE plug = 'bank'"))
    assert await store.load("shop") == {"a": "1"}


async def test_fingerprints_agree_between_stores(store: DatabaseVarStore, database: Database, secret: str) -> None:
    assert store.fingerprint("key") == DatabaseVarStore(database, Cipher(secret)).fingerprint("key")
    keyless = DatabaseVarStore(database, None)
    assert keyless.fingerprint("key") == DatabaseVarStore(database, None).fingerprint("key")
    assert len({store.fingerprint("key"), keyless.fingerprint("key"), keyless.fingerprint("other")}) == 3
    assert len(keyless.fingerprint("key")) == 32
