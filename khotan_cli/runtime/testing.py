"""For the tests of applications that use plugs: replay saved responses, check them against declared models.

    from khotan_cli.runtime.testing import assert_contract, replay

    async def test_charges():
        with replay(stripe, "tests/data/charges.json") as plug:
            page = await plug.list_charges(limit=10)      # the plug's own pipeline, no network, no credentials

    def test_contract():
        assert_contract(Stripe.list_charges, "tests/data/charges.json")

Files come from `khotan plug NAME --endpoint E --save FILE`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import httpx

from khotan_cli.errors import UsageError
from khotan_cli.runtime.plugs.contract import Report, check
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint, Endpoint
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.plugs.retry import Retry
from khotan_cli.runtime.plugs.saved import SavedResponse, load_saved

P = TypeVar("P", bound=Plug)

__all__ = ["ReplayTransport", "SavedResponse", "assert_contract", "load_saved", "replay"]


class ReplayTransport(httpx.AsyncBaseTransport):
    """Answers from saved responses, matched by method and path; where several match, by query, then in order.

    The last one of a request is repeated. `requests` keeps what was asked.
    """

    def __init__(self, saved: list[SavedResponse]) -> None:
        self._saved = saved
        self._used: dict[int, int] = {}
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path
        found = [s for s in self._saved if s.method == request.method and urlsplit(s.url).path == path]
        asked = sorted(parse_qsl(request.url.query.decode()))
        exact = [s for s in found if sorted(parse_qsl(urlsplit(s.url).query)) == asked]
        candidates = exact or found
        if not candidates:
            known = ", ".join(f"{s.method} {urlsplit(s.url).path}" for s in self._saved) or "nothing"
            raise UsageError(f"No saved response answers {request.method} {path}", hint=f"Saved: {known}.")
        chosen = min(candidates, key=lambda s: self._used.get(id(s), 0))
        if all(id(s) in self._used for s in candidates):
            chosen = candidates[-1]
        self._used[id(chosen)] = self._used.get(id(chosen), 0) + 1
        return chosen.response(request)


@contextmanager
def replay(plug: P, *files: Path | str) -> Iterator[P]:
    """While it lasts the plug itself, and the copy that is returned, answer from the files; nothing goes out.

    Raises UsageError for a file that is not a saved response, and from a call that no file answers.
    """
    transport = ReplayTransport([load_saved(file) for file in files])
    before = (plug.transport, plug.auth, plug.retry)
    plug.transport, plug.auth, plug.retry = transport, None, Retry(attempts=1)
    plug.refresh_options()
    try:
        yield plug
    finally:
        plug.transport, plug.auth, plug.retry = before
        plug.refresh_options()


def assert_contract(
    endpoint: Endpoint[Any] | BoundEndpoint[Any], saved: SavedResponse | Path | str, *, fail_on: str | None = None
) -> Report:
    """Raise AssertionError, with the findings, where a saved response is not what the endpoint declares for its status."""
    declared = endpoint.endpoint if isinstance(endpoint, BoundEndpoint) else endpoint
    kept = saved if isinstance(saved, SavedResponse) else load_saved(saved)
    model = declared.model_for(kept.status)
    if model is None:
        raise AssertionError(f"{declared.name} declares no model for status {kept.status}")
    report = check(model, kept.body, status=kept.status)
    if report.fails(fail_on):
        raise AssertionError(f"{declared.name} does not match {report.model}:\n{report.text()}")
    return report
