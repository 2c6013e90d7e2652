"""What a flow logs and prints in khotan's own processes shows no secret: worker, development server, commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.children import end_with_parent
from tests.support.flows import trigger, wait_until_ended
from tests.support.loopback import Answer, Asked, as_json, threaded_loopback
from tests.support.project import Project
from tests.support.webhooks import SIGNING_SECRET, webhook_project

VARIABLE, LITERAL = "plug/variable+'quoted'\"=9", "literal-password-in-code"
ACCESS, REFRESH = "access-fresh-0123456789", "refresh-fresh-0123456789"
FLOW = """
import json
import logging
import os
import sys
import warnings

from khotan_cli.runtime import FlowContext, Plug, TokenAuth, Var, get, inflow


class Leaky(Plug):
    base_url = "{base_url}"
    key = Var(secret=True)
    auth = TokenAuth("/token", {{"user": "me", "password": "{literal}", "key": key}}, refresh="refresh_token")
    me = get("/me")


leaky = Leaky()
logger = logging.getLogger(__name__)


@inflow(leaky)
async def leak(ctx: FlowContext) -> None:
    await leaky.me()
    key, token = (await ctx.vars())["key"], "{access}"
    signing = os.environ["SHOP_WEBHOOK_SECRET"]
    logger.warning("begins")
    logger.warning("variable %s, signing secret %s", key, signing)
    logger.warning(f"tokens {{token}} and {refresh}, password {literal}")
    logger.warning("as JSON %s, as repr %r", json.dumps({{"key": key}}), [key])
    logging.getLogger("httpx").error("Authorization: Bearer %s", token)
    try:
        raise ValueError(f"refused {{key}} {{token}}")
    except ValueError:
        logger.exception("an exception")
    warnings.warn(f"a warning of {{token}}")
    print("printed", token)
    print("printed", signing, file=sys.stderr, flush=True)
    own = logging.StreamHandler(sys.stderr)
    own.setFormatter(logging.Formatter("own %(levelname)s %(message)s %(extra)s"))
    logger.addHandler(own)
    logger.error("handler %s", token, extra={{"extra": key}})
    logger.removeHandler(own)
    logging.basicConfig(force=True)
    logger.error("configured anew %s", signing)
    logger.error("ends")
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    def answer(asked: Asked) -> Answer:
        return as_json({"access_token": ACCESS, "refresh_token": REFRESH} if asked.path == "/token" else {"id": 1})

    with threaded_loopback(answer) as served:
        made = webhook_project(tmp_path, f"sqlite:///{tmp_path}/khotan.db")
        flows = tmp_path / "khotan/flows"
        flows.mkdir()
        (flows / "__init__.py").write_text("")
        words = {"base_url": served.url, "literal": LITERAL, "access": ACCESS, "refresh": REFRESH}
        (flows / "leak.py").write_text(FLOW.format(**words))
        made.env["LEAKY_KEY"] = VARIABLE
        yield made


def check(output: str) -> None:
    for secret in (VARIABLE, LITERAL, ACCESS, REFRESH, SIGNING_SECRET, "plug/variable"):
        assert secret not in output
    for line in (
        "begins",
        "ValueError: refused ••••",
        "printed ••••",
        "own ERROR handler ••••",
        "configured anew ••••",
    ):
        assert line in output
    assert output.count("••••") >= 12 and "ends" in output


@pytest.mark.parametrize(
    "words", [["worker"], ["dev", "--port", "0"], ["dev", "--port", "0", "--no-reload"]], ids=" ".join
)
def test_a_process_of_khotan_masks_what_a_flow_logs(project: Project, words: Sequence[str]) -> None:
    run_id = trigger(project, "leak")
    log = project.folder / "process.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "khotan_cli", *words],
            cwd=project.folder,
            env=project.environment({"PYTHONUNBUFFERED": "1"}),
            stdout=written,
            stderr=written,
            preexec_fn=end_with_parent,
        )
        try:
            row = wait_until_ended(project.env["DATABASE_URL"], run_id)
        finally:
            process.terminate()
            process.wait(120)
    assert row["status"] == "completed", row
    check(log.read_text())


def test_a_command_masks_what_a_flow_logs_while_it_runs_it(project: Project) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "khotan_cli", "flows", "trigger", "leak", "--wait"],
        cwd=project.folder,
        env={**os.environ, **project.environment({})},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check(done.stdout + done.stderr)
