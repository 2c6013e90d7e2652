"""The demo's steps: the real commands, run one after the other in a fresh project beside a running sandbox.

Nothing here draws: `commands/project/demo.py` tells the story, this runs it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from khotan_cli.error_codes import EXIT_CONTRACT, EXIT_OK
from khotan_cli.errors import KhotanError, WouldOverwrite
from khotan_cli.sandbox.access import BEARER_TOKEN
from khotan_cli.sandbox.listings import corrected, correction, documented, product_as_documented

DEFAULT_FOLDER = "khotan-demo"
MODULE = Path("khotan") / "plugs" / "shop.py"
FIRST_SKU = "PLA-LAM-001"
_SIGNING_SECRET = "whsec_of_the_demo_only"
_OUR_VARIABLES = ("KHOTAN_", "SHOP_", "DATABASE_URL")
_FINDS_PORT = re.compile(r'base_url = "http://127\.0\.0\.1:(\d+)/')


@dataclass(frozen=True)
class Step:
    """One thing that happens. `typed` is what a person would type; `arguments` what is run; `write` a file's new text.

    `shown` is (syntax, text) to look at; `expected` the exit code without which the demo has failed.
    """

    name: str
    title: str
    why: str
    typed: str = ""
    arguments: tuple[str, ...] = ()
    stdin: str = ""
    expected: int = EXIT_OK
    write: str = ""
    shown: tuple[str, str] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a step: its exit code, its JSON document where output was captured, and seconds."""

    exit_code: int
    document: Mapping[str, Any] | None
    seconds: float


def steps(sandbox: str) -> list[Step]:
    """The steps of the tour through a sandbox at that URL."""
    base_url = f"{sandbox}/bearer"
    compare = "plug shop --endpoint list_products --compare"
    return [
        _command(
            "init",
            "Start a project",
            "khotan finds every declaration in the package.",
            "init",
        ),
        _command(
            "add-plug",
            "Add a plug",
            "The client of one API. The code is written into your repository, for you to edit.",
            f"add plug shop --base-url {base_url} --auth bearer",
        ),
        Step(
            name="declare",
            title="Declare what the documentation says",
            why=f"Models written from {sandbox}/docs, exactly as documented: {MODULE}",
            write=documented(base_url),
            shown=("python", product_as_documented()),
        ),
        _command("migrate", "Create the database", "SQLite here; PostgreSQL with DATABASE_URL.", "migrate"),
        Step(
            name="set-variable",
            title="Store the credential",
            why="Encrypted with AES-256-GCM under KHOTAN_SECRET, which init wrote into .env. (This token is a public one.)",
            typed=f"echo {BEARER_TOKEN} | khotan plug vars shop set token --stdin",
            arguments=("plug", "vars", "shop", "set", "token", "--stdin"),
            stdin=BEARER_TOKEN + "\n",
        ),
        Step(
            name="compare",
            title="Check the declaration",
            why="One call of the live API, compared with the declared model. Exit code 3 means that they differ.",
            typed=f"khotan {compare}",
            arguments=tuple(compare.split()),
            expected=EXIT_CONTRACT,
        ),
        Step(
            name="correct",
            title="Correct the model",
            why=f"The documentation was wrong in six places. The models in {MODULE} now describe the actual responses.",
            write=corrected(base_url),
            shown=("diff", correction(base_url, str(MODULE))),
        ),
        _command(
            "compare-again",
            "Check again",
            "The same call; exit code 0. In CI, this command guards the integration.",
            compare,
        ),
        *_flow_steps(),
        *_wire_steps(sandbox),
    ]


def _flow_steps() -> list[Step]:
    """On an endpoint that is known to be true: records into the database, once, and again."""
    return [
        _command(
            "add-resource",
            "Declare what identifies a product",
            "A product has the same SKU in every system. khotan stores its id in each system.",
            "add resource products --connect-field sku --plug shop=id",
        ),
        _command(
            "add-inflow",
            "Add a flow",
            "Copies products into this application's database: pages are validated and upserted, each page as a durable step.",
            "add inflow products --plug shop --endpoint list_products --resource products",
        ),
        _command(
            "flow",
            "Run it",
            "The run survives a kill -9: it resumes after its last finished page, and counts the database changes.",
            "flows trigger products --wait",
        ),
        _command(
            "flow-again", "Run it again", "Nothing has changed, so no row is written.", "flows trigger products --wait"
        ),
        _command("mapping", "Look up a mapping", "The shop's id of a SKU.", f"mappings lookup products {FIRST_SKU}"),
    ]


def _wire_steps(sandbox: str) -> list[Step]:
    """The other direction: the service sends an event, and somebody else tries to."""
    event = """{"data":{"object":{"order":"ord_00001"}}}"""
    return [
        _command(
            "add-wire",
            "Receive events",
            "A wire is a webhook endpoint: verify, store, and only then acknowledge. Here as Stripe signs.",
            "add wire shop --plug shop --signature stripe --type order.paid",
        ),
        Step(
            name="set-secret",
            title="Store the signing secret",
            why="As before: stored encrypted, and shown masked.",
            typed=f"echo {_SIGNING_SECRET} | khotan wire vars shop set secret --stdin",
            arguments=("wire", "vars", "shop", "set", "secret", "--stdin"),
            stdin=_SIGNING_SECRET + "\n",
        ),
        _command(
            "add-catch",
            "Process the events",
            "A handler: each event a durable run of its own, tried again where it fails.",
            "add catch record_order --wire shop --type order.paid",
        ),
        _command(
            "add-board",
            "A second service",
            "A message board, to pass them on to.",
            f"add plug board --base-url {sandbox}/board --auth none",
        ),
        _command(
            "add-pass",
            "Forward the events",
            "The same events, sent to another plug. If the board is down, only forwarding is retried.",
            "add pass notify --wire shop --to board --type order.paid",
        ),
        Step(
            name="send",
            title="An event arrives",
            why="A test event, signed as the service signs, and received like a real one.",
            typed=f"khotan wire send shop order.paid --body '{event}'",
            arguments=("wire", "send", "shop", "order.paid", "--body", event),
        ),
        _command("passed", "Check the forwarded event", "The messages on the board.", "plug board GET /"),
        _command(
            "forged",
            "Reject a forged event",
            "The same event, signed with a wrong secret: rejected, and not stored.",
            "wire send shop order.paid --forged",
        ),
        _command("events", "List the events", "One event, with the results of its handlers.", "wire events shop"),
    ]


def _command(name: str, title: str, why: str, typed: str) -> Step:
    return Step(name, title, why, typed=f"khotan {typed}", arguments=tuple(typed.split()))


def run(step: Step, folder: Path, *, capture: bool) -> Outcome:
    """Do it. A command's output goes straight to this process's own, unless captured as a JSON document.

    Raises KhotanError where it ends otherwise than it must.
    """
    started = time.monotonic()
    if step.write:
        (folder / MODULE).write_text(step.write, encoding="utf-8")
        return Outcome(EXIT_OK, None, time.monotonic() - started)
    done = subprocess.run(  # noqa: S603 - our own commands
        [sys.executable, "-m", "khotan_cli", *step.arguments],
        cwd=folder,
        env=environment(machine=capture),
        input=step.stdin,
        stdout=subprocess.PIPE if capture else None,
        text=True,
        encoding="utf-8",
        check=False,
    )
    document = json.loads(done.stdout) if capture and done.stdout else None
    if done.returncode != step.expected:
        raise KhotanError(
            f"The demo stopped at {step.name}: `{step.typed}` ended with {done.returncode}, not {step.expected}",
            hint="This is a defect of khotan or a problem of this machine. Please report it.",
            details={"step": step.name, "exitCode": done.returncode, "output": document},
        )
    return Outcome(done.returncode, document, time.monotonic() - started)


def environment(*, machine: bool) -> dict[str, str]:
    """This process's environment, without what would turn the demo's commands to another project or a proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OUR_VARIABLES)}
    no_proxy = ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1"]))
    kept |= {"no_proxy": no_proxy, "NO_PROXY": no_proxy}
    return {**kept, "KHOTAN_OUTPUT": "json" if machine else "text", "PYTHONIOENCODING": "utf-8"}


def make_folder(wanted: str) -> Path:
    """The project's folder, made: `wanted`, which must not hold anything yet, else the first free khotan-demo[-N].

    Raises WouldOverwrite, and KhotanError where it cannot be made.
    """
    folder = Path(wanted or DEFAULT_FOLDER)
    number = 1
    while not wanted and folder.exists():
        number += 1
        folder = Path(f"{DEFAULT_FOLDER}-{number}")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise WouldOverwrite(
                f"{folder} is there already, and is not an empty folder",
                code="file_exists",
                hint="Use another --dir, or omit it to use the next free khotan-demo-N.",
            )
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise KhotanError(
            f"Cannot create {folder}: {exc.strerror}", code="invalid_input", hint="Use another --dir."
        ) from None
    return folder


def port_of(folder: Path) -> int:
    """The port at which a demo project expects its sandbox. Raises KhotanError where it is no such project."""
    try:
        found = _FINDS_PORT.search((folder / MODULE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        found = None
    if found is None:
        raise KhotanError(
            f"{folder} is not a project that khotan demo made: {MODULE} names no sandbox",
            code="file_not_readable",
            hint="Use --dir with the demo's folder, or --port.",
        )
    return int(found[1])


@contextmanager
def sandbox(port: int) -> Iterator[str]:
    """A sandbox in a process of its own until the block ends; yields its URL. Raises KhotanError (port_in_use)."""
    command = [sys.executable, "-m", "khotan_cli.sandbox", "--port", str(port), "--stop-with-stdin"]
    # A session of its own: Ctrl-C ends the story first, and then the sandbox.
    process = subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise KhotanError("The sandbox did not start", hint="Run: python -m khotan_cli.sandbox")
        document = json.loads(line)
        if not document["ok"]:
            raise KhotanError.from_json(document)
        yield document["url"]
    finally:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
