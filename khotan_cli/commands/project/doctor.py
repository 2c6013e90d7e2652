"""`khotan doctor`: is everything set up? Each check stands alone, so that a broken app is no obstacle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any, Literal

from khotan_cli.commands.times import when
from khotan_cli.console import console
from khotan_cli.errors import KhotanError, SecretMissing
from khotan_cli.options import options
from khotan_cli.runtime import event_loop

Outcome = Literal["ok", "warning", "failed"]
_MARKS: dict[Outcome, tuple[str, str]] = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "bold red")}


@dataclass
class Check:
    """One check: what was looked at, how it stands, what to do."""

    name: str
    outcome: Outcome
    message: str
    hint: str = ""
    next: list[str] = field(default_factory=list[str])


def doctor() -> None:
    """Check configuration, secret, database, migrations, app and variables, and say what to do.

    Exit 0 where nothing failed (warnings allowed), else 1.
    """
    checks = list(_checks())
    failed = [check for check in checks if check.outcome == "failed"]
    steps = list(dict.fromkeys(step for check in checks for step in check.next))
    document: dict[str, Any] = {"ok": not failed, "checks": [check.__dict__ for check in checks], "next": steps}

    def render() -> None:
        for check in checks:
            mark, style = _MARKS[check.outcome]
            console.line(f"{mark} {check.name}: {check.message}", style)
            if check.hint and check.outcome != "ok":
                console.line(f"    {check.hint}")
            if check.outcome != "ok":
                console.next_steps(check.next)

    if not failed:
        console.result(document, render)
        return
    if not console.machine:
        render()
    names = ", ".join(check.name for check in failed)
    raise KhotanError(
        f"{len(failed)} of {len(checks)} checks failed: {names}",
        code="checks_failed",
        hint="What to do stands with each check.",
        details={"checks": document["checks"]},
        next=steps,
    )


def _checks() -> Iterator[Check]:
    try:
        settings = options.settings()
    except KhotanError as exc:
        yield _failed("configuration", exc)
        return
    if settings.found:
        yield Check("configuration", "ok", f"{settings.root / 'khotan.toml'}")
    else:
        missing = "there is no khotan.toml here or in a folder above"
        yield Check("configuration", "failed", missing, "Start a project.", ["khotan init"])
    yield _secret(settings)
    yield from _database(settings)
    if settings.found:
        yield from _app(settings)


def _secret(settings: Any) -> Check:
    from khotan_cli.runtime.database.crypto import MAKE_SECRET, check_secret

    secret = settings.secret.get_secret_value()
    if not secret:
        return Check(
            "secret", "failed", "KHOTAN_SECRET is not set: variables cannot be stored", f"Make one: {MAKE_SECRET}"
        )
    return _run("secret", lambda: check_secret(secret), "KHOTAN_SECRET is set")


def _database(settings: Any) -> Iterator[Check]:
    from khotan_cli.runtime.store import migrate

    try:
        status = migrate.status(settings.database_url, settings.root)
    except KhotanError as exc:
        yield _failed("database", exc)
        return
    yield Check("database", "ok", status.database)
    yield from _pooler(settings)
    if not status.up_to_date:
        titles = "; ".join(step["title"] for step in status.pending)
        yield Check("migrations", "failed", f"pending: {titles}", "Apply them.", ["khotan migrate"])
        return
    yield Check("migrations", "ok", f"up to date (revision {status.current})")
    yield _stored_values(settings)
    yield from _pauses(settings)


def _pooler(settings: Any) -> Iterator[Check]:
    """A pooler in transaction mode, and whether workers have another way; nothing where there is none."""
    from khotan_cli.runtime.database.database import Database

    async def look(url: str) -> bool:
        database = Database(url, settings.root)
        try:
            return await database.detect_pooler()
        finally:
            await database.dispose()

    try:
        if not event_loop.run(look(settings.database_url)):
            return
        found = "DATABASE_URL leads to a connection pooler in transaction mode: prepared statements are off"
        own = settings.worker_database_url
        if own and not event_loop.run(look(own)):
            yield Check("pooler", "ok", f"{found}; workers use KHOTAN_WORKER_DATABASE_URL")
            return
    except KhotanError as exc:
        yield _failed("pooler", exc)
        return
    lacks = "KHOTAN_WORKER_DATABASE_URL leads to one too" if own else "workers cannot run there"
    hint = "Set KHOTAN_WORKER_DATABASE_URL to the server itself, or to a pool in session mode, for khotan worker."
    yield Check("pooler", "warning", f"{found}, and {lacks}", hint)


def _pauses(settings: Any) -> Iterator[Check]:
    """Plugs whose calls wait because their service asked for it; nothing where there is none."""
    from khotan_cli.runtime.database.database import Database
    from khotan_cli.runtime.store.rate_limits import DatabaseRateStore

    async def look() -> dict[str, float]:
        database = Database(settings.database_url, settings.root)
        try:
            return await DatabaseRateStore(database).paused()
        finally:
            await database.dispose()

    try:
        paused = event_loop.run(look())
    except KhotanError as exc:
        yield _failed("pauses", exc)
        return
    if paused:
        listed = ", ".join(f"{plug} ({seconds:.0f} s)" for plug, seconds in sorted(paused.items()))
        steps = [f"khotan plug {plug} --resume" for plug in sorted(paused)]
        yield Check("pauses", "warning", f"paused by their services: {listed}", "Wait, or lift the pause.", steps)


def _stored_values(settings: Any) -> Check:
    from khotan_cli.runtime.database.crypto import Cipher
    from khotan_cli.runtime.database.database import Database
    from khotan_cli.runtime.store.variables import DatabaseVarStore, Entry

    async def look() -> tuple[int, list[Entry]]:
        secret = settings.secret.get_secret_value()
        cipher = Cipher(secret, settings.previous_secrets) if secret else None
        database = Database(settings.database_url, settings.root)
        try:
            store = DatabaseVarStore(database, cipher)
            return len(await store.entries(hidden=True)), await store.undecryptable()
        finally:
            await database.dispose()

    try:
        total, broken = event_loop.run(look())
    except KhotanError as exc:
        return _failed("stored values", exc)
    if not broken:
        return Check("stored values", "ok", f"{total} can be decrypted")
    names = ", ".join(f"{entry.plug}.{entry.key}" for entry in broken)
    first = broken[0].error
    hint = "Set KHOTAN_SECRET." if isinstance(first, SecretMissing) else first.hint if first else ""
    return Check("stored values", "failed", f"{len(broken)} of {total} cannot be decrypted: {names}", hint)


def _app(settings: Any) -> Iterator[Check]:
    import sys

    from khotan_cli.in_process import load_khotan

    try:
        with redirect_stdout(sys.stderr):
            khotan = load_khotan(settings)
            plugs = khotan.plugs
    except KhotanError as exc:
        yield _failed("app", exc)
        return
    yield Check("app", "ok", f"{settings.app_import} imports; plugs: {', '.join(plugs) or 'none yet'}")
    yield _access(khotan, settings)
    yield from _variables()
    yield from _workers()
    yield from _webhooks()


def _access(khotan: Any, settings: Any) -> Check:
    if callable(khotan.services.authorize):
        return Check("authorize", "ok", "the app decides who may use the management API")
    return Check(
        "authorize",
        "warning",
        "Khotan() has no authorize: the app will not start in production",
        "Give it a function of the request: Khotan(__package__, authorize=is_admin).",
    )


def _variables() -> Iterator[Check]:
    try:
        with options.client() as client:
            plugs = client.plugs()["items"]
    except KhotanError as exc:
        yield _failed("variables", exc)
        return
    missing = [f"{plug['name']}.{key}" for plug in plugs for key in plug["missingVars"]]
    if not missing:
        yield Check("variables", "ok", "every required variable has a value")
        return
    steps = [f"khotan plug vars {plug['name']} set" for plug in plugs if plug["missingVars"]]
    yield Check("variables", "warning", f"no value: {', '.join(missing)}", "Set them.", steps)


def _workers() -> Iterator[Check]:
    """Whether the processes that run flows run the code that the project has now; nothing where there is none."""
    try:
        with options.client() as client:
            workers = client.workers()["items"]
    except KhotanError as exc:
        yield _failed("workers", exc)
        return
    older = [worker for worker in workers if worker["outdated"]]
    if older:
        since = ", ".join(when(worker["startedAt"]) for worker in older)
        number = f"{len(older)} of {len(workers)} run" + ("s" if len(older) == 1 else "")
        message = f"{number} an older version of the code than the project has now (started {since})"
        yield Check("workers", "warning", message, "Restart khotan worker, or the served app.")
    elif workers:
        yield Check("workers", "ok", f"{len(workers)} of {len(workers)} run the project's code")


def _webhooks() -> Iterator[Check]:
    try:
        with options.client() as client:
            wires = client.wires()["items"]
    except KhotanError as exc:
        yield _failed("webhooks", exc)
        return
    if not wires:
        return
    waiting = [wire for wire in wires if wire["managed"] and not wire["subscribed"]]
    deaf = [wire for wire in wires if wire["missingVars"] and wire not in waiting]
    if not waiting and not deaf:
        yield Check("webhooks", "ok", f"what {', '.join(wire['id'] for wire in wires)} receives can be verified")
        return
    lacks = [f"{wire['id']} has no {' and no '.join(wire['missingVars'])}" for wire in deaf]
    lacks += [f"{wire['id']} is not subscribed" for wire in waiting]
    steps = [f"khotan wire vars {wire['id']} set {key} --stdin" for wire in deaf for key in wire["missingVars"]]
    steps += [f"khotan wire create {wire['id']}" for wire in waiting]
    yield Check("webhooks", "warning", "; ".join(lacks), "Until then nothing is received.", steps)


def _run(name: str, function: Callable[[], object], message: str) -> Check:
    try:
        function()
    except KhotanError as exc:
        return _failed(name, exc)
    return Check(name, "ok", message)


def _failed(name: str, exc: KhotanError) -> Check:
    steps = [step for step in exc.next if step != "khotan doctor"]
    return Check(name, "failed", exc.message, exc.hint, steps)
