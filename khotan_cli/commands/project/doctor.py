"""`khotan doctor`: checks the setup. The checks are independent, so that a broken app does not stop the others."""

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
    """The result of one check, with a hint and commands to run."""

    name: str
    outcome: Outcome
    message: str
    hint: str = ""
    next: list[str] = field(default_factory=list[str])


def doctor() -> None:
    """Check configuration, secret, database, migrations, app and variables, and show what to do.

    Exits with 0 if no check failed (warnings are allowed), otherwise with 1.
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
        hint="Follow the hint of each failed check.",
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
        missing = "no khotan.toml in this folder or a parent folder"
        yield Check("configuration", "failed", missing, "Create a project.", ["khotan init"])
    yield _secret(settings)
    yield from _database(settings)
    if settings.found:
        yield from _app(settings)


def _secret(settings: Any) -> Check:
    from khotan_cli.runtime.database.crypto import MAKE_SECRET, check_secret

    secret = settings.secret.get_secret_value()
    if not secret:
        return Check(
            "secret", "failed", "KHOTAN_SECRET is not set: variables cannot be stored", f"Generate one: {MAKE_SECRET}"
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
        yield Check("migrations", "failed", f"pending: {titles}", "Apply the migrations.", ["khotan migrate"])
        return
    yield Check("migrations", "ok", f"up to date (revision {status.current})")
    yield _stored_values(settings)
    yield from _pauses(settings)


def _pooler(settings: Any) -> Iterator[Check]:
    """Checks whether workers can avoid a pooler in transaction mode. Yields nothing without such a pooler."""
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
        pooled = "DATABASE_URL points to a connection pooler in transaction mode: prepared statements are off"
        worker_url = settings.worker_database_url
        if worker_url and not event_loop.run(look(worker_url)):
            yield Check("pooler", "ok", f"{pooled}; workers use KHOTAN_WORKER_DATABASE_URL")
            return
    except KhotanError as exc:
        yield _failed("pooler", exc)
        return
    problem = "KHOTAN_WORKER_DATABASE_URL points to one too" if worker_url else "workers cannot use it"
    hint = "For khotan worker, set KHOTAN_WORKER_DATABASE_URL to the database server, or to a pool in session mode."
    yield Check("pooler", "warning", f"{pooled}, and {problem}", hint)


def _pauses(settings: Any) -> Iterator[Check]:
    """Checks for plugs that are paused at their service's request. Yields nothing if there are none."""
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
        yield Check("pauses", "warning", f"paused by their services: {listed}", "Wait, or end the pause.", steps)


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
        "Khotan() has no authorize: the app does not start in production",
        "Pass a function that takes the request: Khotan(__package__, authorize=is_admin).",
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
    yield Check("variables", "warning", f"not set: {', '.join(missing)}", "Set the variables.", steps)


def _workers() -> Iterator[Check]:
    """Checks whether the workers run the project's current code. Yields nothing if no worker runs."""
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
        message = f"{number} an older version of the project's code (started {since})"
        yield Check("workers", "warning", message, "Restart khotan worker, or the served app.")
    elif workers:
        yield Check("workers", "ok", f"{len(workers)} of {len(workers)} run the project's current code")


def _webhooks() -> Iterator[Check]:
    try:
        with options.client() as client:
            wires = client.wires()["items"]
    except KhotanError as exc:
        yield _failed("webhooks", exc)
        return
    if not wires:
        return
    unsubscribed = [wire for wire in wires if wire["managed"] and not wire["subscribed"]]
    unverifiable = [wire for wire in wires if wire["missingVars"] and wire not in unsubscribed]
    if not unsubscribed and not unverifiable:
        yield Check("webhooks", "ok", f"events can be verified: {', '.join(wire['id'] for wire in wires)}")
        return
    problems = [f"{wire['id']}: {', '.join(wire['missingVars'])} not set" for wire in unverifiable]
    problems += [f"{wire['id']} is not subscribed" for wire in unsubscribed]
    steps = [f"khotan wire vars {wire['id']} set {key} --stdin" for wire in unverifiable for key in wire["missingVars"]]
    steps += [f"khotan wire create {wire['id']}" for wire in unsubscribed]
    yield Check("webhooks", "warning", "; ".join(problems), "These wires receive nothing until this is done.", steps)


def _run(name: str, function: Callable[[], object], message: str) -> Check:
    try:
        function()
    except KhotanError as exc:
        return _failed(name, exc)
    return Check(name, "ok", message)


def _failed(name: str, exc: KhotanError) -> Check:
    steps = [step for step in exc.next if step != "khotan doctor"]
    return Check(name, "failed", exc.message, exc.hint, steps)
