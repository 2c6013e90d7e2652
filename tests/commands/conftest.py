"""The shop that projects are connected to, and the two ways in which commands reach the management API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.loopback import Answer, Asked, Loopback, as_json, threaded_loopback
from tests.support.project import Project, dev_server, write_project

TOKEN = "tok_live_abcdef123456"
ITEMS = [{"id": n, "name": f"item {n}", "price": 1.5, "note": None} for n in range(1, 4)]
_SMALL = {
    "/html": Answer(200, b"<html><h1>Login</h1>", {"Content-Type": "text/html"}),
    "/cut": Answer(200, b'{"data": [{"id"', {"Content-Type": "application/json"}),
    "/latin": Answer(200, b'{"data": "\xe9"}', {"Content-Type": "application/json"}),
    "/dropped": Answer(drop=True),
    "/binary": Answer(200, bytes(range(256)), {"Content-Type": "application/octet-stream"}),
    "/feed": Answer(200, b"<feed><code>x</code></feed>", {"Content-Type": "application/xml"}),
    "/teapot": as_json({"a": 1}, 418),
}


def shop(asked: Asked) -> Answer:
    if asked.path in _SMALL:
        return _SMALL[asked.path]
    if asked.headers.get("authorization") != f"Bearer {TOKEN}":
        return as_json({"error": "unauthorized"}, 401)
    if asked.path == "/items" and asked.method == "GET":
        flawed = [
            {"id": "1", "name": "a", "price": 2},
            {"id": 2, "name": None, "price": 2, "sku": TOKEN},
            {"id": 3, "price": 1},
        ]
        return as_json({"data": ITEMS if "true" in asked.target else flawed})
    if asked.path == "/items":
        return as_json({**asked.json(), "id": 9}, 201)
    if asked.path.startswith("/items/"):
        number = asked.path.rpartition("/")[2]
        return as_json(ITEMS[0] if number == "1" else {"code": "gone"}, 200 if number == "1" else 404)
    if asked.path == "/echo":
        return as_json({"auth": asked.headers["authorization"], "target": asked.target, "x": asked.headers.get("x-a")})
    if asked.path == "/throttled":
        return as_json({"message": "slow down"}, 429, Retry_After="1900000000")
    if asked.path == "/big":
        body = json.dumps({"data": [{"id": n, "name": "n" * 80, "price": 1} for n in range(90_000)]}).encode()
        return Answer(200, body, {"Content-Type": "application/json"})
    return as_json({"path": asked.path})


@pytest.fixture(scope="module")
def service() -> Iterator[Loopback]:
    with threaded_loopback(shop) as served:
        yield served


@pytest.fixture(scope="module")
def migrated(service: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a database and the shop's token in it."""
    made = write_project(tmp_path_factory.mktemp("project"), service.url)
    assert made.khotan("migrate").code == 0
    assert made.khotan("vars", "shop", "set", f"token={TOKEN}").code == 0
    return made


@pytest.fixture(scope="module")
def served(migrated: Project) -> Iterator[Project]:
    """The same, its commands talking to its `khotan dev`."""
    with dev_server(migrated) as url:
        yield Project(migrated.folder, migrated.env, url)


@pytest.fixture(scope="module", params=["in-process", "--url"])
def project(request: pytest.FixtureRequest) -> Project:
    """Every command both ways."""
    found: Project = request.getfixturevalue("migrated" if request.param == "in-process" else "served")
    return found


@pytest.fixture
def bare(service: Loopback, tmp_path: Path) -> Project:
    """A project that is not migrated and has no variables."""
    return write_project(tmp_path / "bare", service.url)
