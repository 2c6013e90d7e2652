"""`khotan plug NAME --login`, with a browser that behaves as browsers do."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.support.children import end_with_parent
from tests.support.loopback import Answer, Asked, Loopback, as_json, threaded_loopback
from tests.support.project import Project, write_project

PLUG = """
from khotan_cli.runtime import OAuth2AuthorizationCode, Plug


class Crm(Plug):
    base_url = "{url}"
    auth = OAuth2AuthorizationCode("/auth", "/token", "id", authorize_params={{"audience": "a-long-word " * 20}})


crm = Crm()
"""


def issuer(asked: Asked) -> Answer:
    if asked.path == "/token":
        return as_json({"access_token": "issued-access-token", "refresh_token": "issued-refresh-token"})
    good = asked.headers.get("authorization") == "Bearer issued-access-token"
    return as_json({"path": asked.path}, 200 if good else 401)


@pytest.fixture(scope="module")
def service() -> Iterator[Loopback]:
    with threaded_loopback(issuer) as served:
        yield served


@pytest.fixture(scope="module")
def project(service: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = write_project(tmp_path_factory.mktemp("login"), service.url)
    (Path(made.folder) / "khotan" / "plugs" / "crm.py").write_text(PLUG.format(url=service.url))
    assert made.khotan("migrate").code == 0
    return made


@contextmanager
def login(project: Project, *args: str, output: str = "json") -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A running login: its process, the URL that it printed on a line of its own, and the redirect URI in it."""
    env = project.environment({"COLUMNS": "40", "KHOTAN_OUTPUT": output})
    command = [sys.executable, "-m", "khotan_cli", "plug", "crm", "--login", "--no-browser", *args]
    with subprocess.Popen(
        command,
        cwd=project.folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent,
    ) as process:
        try:
            assert process.stderr is not None
            line = next((line for line in process.stderr if line.startswith("http")), "")
            query = parse_qs(urlsplit(line.strip()).query)
            yield process, line.strip(), query.get("redirect_uri", [""])[0]
        finally:
            process.kill()


def state_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["state"][0]


@pytest.mark.parametrize("output", ["json", "text"])
@pytest.mark.parametrize(
    ("args", "host", "path"),
    [
        ([], "127.0.0.1", "/callback"),
        (["--redirect-uri", "http://localhost/oauth/done"], "localhost", "/oauth/done"),
        (["--redirect-uri", "http://127.0.0.1"], "127.0.0.1", ""),
        (["--redirect-uri", "http://localhost/"], "localhost", "/"),
    ],
)
def test_silent_connections_and_other_requests_block_nothing(
    project: Project, service: Loopback, output: str, args: list[str], host: str, path: str
) -> None:
    with ExitStack() as stack, login(project, *args, output=output) as (process, url, redirect):
        parts = urlsplit(redirect)
        assert (parts.hostname, parts.path) == (host, path) and "code_challenge_method=S256" in url, "in one piece"
        for _ in range(3):  # a browser opens connections in advance
            stack.enter_context(socket.create_connection(("127.0.0.1", parts.port or 0)))
        with httpx.Client(trust_env=False, timeout=20) as browser:
            base = f"http://{host}:{parts.port}"
            for wrong in ("/favicon.ico", f"/elsewhere?code=c&state={state_of(url)}", f"{path}?code=c&state=another"):
                assert browser.get(base + wrong).status_code == 404
            answer = browser.get(f"{base}{path}?code=c&state={state_of(url)}")
        assert answer.status_code == 200 and "Return to the terminal" in answer.text
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        if output == "json":
            assert json.loads(stdout) == {"ok": True, "plug": "crm", "signedIn": True}
    exchanged = [asked for asked in service.asked if asked.path == "/token"][-1]
    assert parse_qs(exchanged.body.decode())["redirect_uri"] == [redirect]
    assert project.khotan("plug", "crm", "GET", "/me").json["status"] == 200


def test_the_timeout_holds_beside_a_silent_connection(project: Project) -> None:
    with login(project, "--timeout", "2") as (process, _, redirect):
        with socket.create_connection(("127.0.0.1", urlsplit(redirect).port or 0)):
            stdout, _ = process.communicate(timeout=60)
        document = json.loads(stdout)
    assert (document["error"], document["message"]) == ("auth_failed", "The sign-in did not finish within 2 s")
    assert redirect in document["hint"]


def test_a_refusal_of_the_service_is_told(project: Project) -> None:
    with login(project) as (process, url, redirect):
        httpx.get(f"{redirect}?error=access_denied&state={state_of(url)}", trust_env=False)
        stdout, _ = process.communicate(timeout=60)
    assert json.loads(stdout)["error"] == "auth_failed" and "access_denied" in json.loads(stdout)["message"]


def test_localhost_is_served_on_every_address_that_the_machine_has(project: Project) -> None:
    with login(project, "--redirect-uri", "http://localhost/cb") as (_, _, redirect):
        port = urlsplit(redirect).port or 0
        addresses = {info[4][0] for info in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
        for address in addresses:
            socket.create_connection((str(address), port)).close()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--redirect-uri", "https://localhost/cb"], "the scheme must be http"),
        (["--redirect-uri", "http://example.com/cb"], "the host must be one of 127.0.0.1, localhost, ::1"),
        (["--redirect-uri", "http://localhost/cb?a=1"], "it must not have a query"),
        (["--redirect-uri", "http://localhost/cb#x"], "a fragment"),
        (["--redirect-uri", "http://me@localhost/cb"], "a user name"),
        (["--redirect-uri", "http://localhost:99999/cb"], "Port out of range"),
        (["--redirect-uri", "http://localhost/c b"], "a character"),
        (["--redirect-uri", "callback"], "the scheme must be http"),
        (["--redirect-uri", "http://localhost:8001/cb", "--port", "8002"], "differ"),
        (["--port", "70000"], "Invalid --port 70000"),
        (["--port", "-1"], "Invalid --port -1"),
        (["--timeout", "0"], "--timeout 0"),
    ],
)
def test_options_that_cannot_be_used_are_named(project: Project, args: list[str], words: str) -> None:
    done = project.khotan("plug", "crm", "--login", "--no-browser", *args)
    assert done.code == 2 and words in done.json["message"] and done.json["hint"], done.json


def test_a_port_in_use_is_named(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = project.khotan("plug", "crm", "--login", "--port", str(taken.getsockname()[1]))
    assert done.json["error"] == "port_in_use" and str(taken) not in done.stdout
