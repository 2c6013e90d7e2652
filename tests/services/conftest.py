"""The services, each started once by the worker that runs its tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.services import (
    NODE_FOLDER,
    ROOT,
    SHARED,
    Service,
    java,
    node,
    node_module,
    petstores,
    python_service,
    running,
)


@pytest.fixture(scope="session")
def localstripe() -> Iterator[Service]:
    port = free_port()
    with running(python_service("localstripe_server.py", port), port) as service:
        yield service


@pytest.fixture(scope="session")
def httpbin() -> Iterator[Service]:
    port = free_port()
    with running(python_service("httpbin_server.py", port), port, path="/get") as service:
        yield service


@pytest.fixture(scope="session")
def oidc() -> Iterator[Service]:
    node_module("oidc-provider/package.json")
    port = free_port()
    script = ROOT / "tests" / "support" / "node" / "oidc.js"
    with running([node(), str(script), str(NODE_FOLDER), str(port)], port, path="/counts") as service:
        yield service


@pytest.fixture(scope="session")
def json_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    posts = [{"id": number, "title": f"Post {number}", "views": number * 3} for number in range(1, 46)]
    data = tmp_path_factory.mktemp("json-server") / "db.json"
    data.write_text(json.dumps({"posts": posts}))
    port = free_port()
    program = node_module("json-server/lib/cli/bin.js")
    command = [node(), str(program), "--quiet", "--host", "127.0.0.1", "--port", str(port), str(data)]
    with running(command, port, path="/posts/1") as service:
        yield service


@pytest.fixture(scope="session")
def wiremock() -> Iterator[Service]:
    [jar] = node_module("wiremock/build").glob("*.jar")
    port = free_port()
    command = [java(), "-jar", str(jar), "--port", str(port), "--bind-address", "127.0.0.1", "--disable-banner"]
    with running(command, port, path="/__admin/mappings") as service:
        yield service


@pytest.fixture(scope="session", params=petstores(), ids=lambda path: path.name)
def petstore(request: pytest.FixtureRequest) -> Iterator[Service]:
    document: Path = request.param
    if not document.is_relative_to(SHARED):
        document = node_module(str(document))
    program = node_module("@stoplight/prism-cli/dist/index.js")
    port = free_port()
    command = [node(), str(program), "mock", "--host", "127.0.0.1", "--port", str(port), str(document)]
    with running(command, port) as service:
        yield service
