"""Test helpers for applications with plugs: replay saved responses, and check them against declared models.

    from khotan_cli.runtime.testing import assert_contract, replay

    async def test_charges():
        with replay(stripe, "tests/data/charges.json") as plug:      # or `async with`
            page = await plug.list_charges(limit=10)                 # the plug's own pipeline, no network, no credentials

    def test_contract():
        assert_contract(Stripe.list_charges, "tests/data/charges.json")

    @pytest.fixture
    def stripe_replayed():
        with replay(stripe, *sorted(Path("tests/data").glob("*.json"))) as plug:
            yield plug

Files come from `khotan plug NAME --endpoint E --save FILE`.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx

from khotan_cli.errors import UsageError
from khotan_cli.runtime.contract.bodies import comparable
from khotan_cli.runtime.contract.check import Report, check, model_for_status
from khotan_cli.runtime.contract.saved import SavedResponse, load_saved
from khotan_cli.runtime.http.call_context import EXTENSION, CallContext
from khotan_cli.runtime.http.retry import Retry
from khotan_cli.runtime.http.state import Shared
from khotan_cli.runtime.http.variables import resolve
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint, Endpoint
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.redaction.masker import BULLETS

P = TypeVar("P", bound=Plug)
_REPLACED = ("transport", "auth", "retry", "rate_limit", "shared", "_overrides")

__all__ = ["ReplayTransport", "SavedResponse", "assert_contract", "load_saved", "replay"]


class ReplayTransport(httpx.AsyncBaseTransport):
    """Returns saved responses, matched by method and path, and by query if several are saved for a path.

    Several responses for the same request are returned in order; the last one is repeated. `requests` records the
    requests. Raises UsageError, listing the saved requests, for a request without a saved response.
    """

    def __init__(self, saved: list[SavedResponse]) -> None:
        self._saved = saved
        self._used: dict[int, int] = {}
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        candidates = self._candidates(request)
        if not candidates:
            known = ", ".join(f"{one.method} {_target(one.url)}" for one in self._saved) or "nothing"
            asked = f"{request.method} {_target(str(request.url))}"
            raise UsageError(f"No saved response for {asked}", hint=f"Saved: {known}.")
        first = id(candidates[0])
        turn = self._used.get(first, 0)
        self._used[first] = turn + 1
        answer = candidates[min(turn, len(candidates) - 1)].response(request)
        # Unread, as a response from a network, because the plug reads it.
        stream = httpx.ByteStream(answer.content)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=stream, request=request)

    def _candidates(self, request: httpx.Request) -> list[SavedResponse]:
        ctx = request.extensions.get(EXTENSION)
        base = ctx.base_url.path.rstrip("/") if isinstance(ctx, CallContext) else ""
        path = request.url.path
        own = path.removeprefix(base) if path.startswith(base) else path
        same = [one for one in self._saved if one.method.upper() == request.method]
        found = [one for one in same if _same_path(_path(one), path)]
        if not found and own.strip(
            "/"
        ):  # the base URL contains a variable, which had another value when the response was saved
            found = [one for one in same if _ends_with(_path(one), own)]
        queries = {_query(one.url) for one in found}
        exact = [one for one in found if _query(one.url) == _query(str(request.url))]
        return exact or (found if len(queries) == 1 else [])


class replay(Generic[P]):
    """Context manager in which the plug and its copies return saved responses without network access.

    `with` and `async with` return the plug. Variables and credentials are not needed; stores, tokens, rate limit and
    retries are replaced during the block and restored afterwards. `transport.requests` records the requests.
    Raises UsageError for a file that is not a saved response.
    """

    def __init__(self, plug: P, *files: SavedResponse | Path | str) -> None:
        self.plug = plug
        self.transport = ReplayTransport([one if isinstance(one, SavedResponse) else load_saved(one) for one in files])
        self._before: list[dict[str, Any]] = []

    def __enter__(self) -> P:
        plug = self.plug
        self._before.append({name: getattr(plug, name) for name in _REPLACED})
        plug.transport, plug.auth, plug.retry, plug.rate_limit = self.transport, None, Retry(attempts=1), None
        plug.shared = Shared()
        plug._overrides = {**_placeholders(plug), **plug._overrides}
        plug.refresh_options()
        return plug

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, value in self._before.pop().items():
            setattr(self.plug, name, value)
        self.plug.refresh_options()

    async def __aenter__(self) -> P:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.plug.shared.pool.aclose()
        self.__exit__(kind, error, trace)


def assert_contract(
    endpoint: Endpoint[Any] | BoundEndpoint[Any], saved: SavedResponse | Path | str, *, fail_on: str | None = None
) -> Report:
    """Raise AssertionError, with the findings, if a saved response does not match the endpoint's model for its status.

    The body is read as the plug reads it: as JSON, or by the parser of its content type. Raises ResponseInvalid for a body
    that the plug cannot read.
    """
    name = endpoint.endpoint.name if isinstance(endpoint, BoundEndpoint) else endpoint.name
    kept = saved if isinstance(saved, SavedResponse) else load_saved(saved)
    model = model_for_status(endpoint, kept.status)
    if model is None:
        raise AssertionError(f"{name} declares no model for status {kept.status}")
    owner = endpoint.plug if isinstance(endpoint, BoundEndpoint) else endpoint.owner
    response = kept.response(httpx.Request(kept.method, kept.url))
    body, source = comparable(name, response, model, getattr(owner, "parsers", {}))
    report = check(model, body, status=kept.status, endpoint=name, source=source)
    if report.fails(fail_on):
        raise AssertionError(f"{name} does not match {report.model}:\n{report.text()}")
    return report


def _placeholders(plug: Plug) -> dict[str, str]:
    """Placeholder values for variables without a value. Nothing is sent."""
    declared = plug.declared_vars()
    known = resolve(plug.name, declared, {}, {}).values
    return {
        name: "https://replay.invalid" if plug.base_url.startswith("{" + name + "}") else "replay"
        for name in declared
        if name not in known
    }


def _path(saved: SavedResponse) -> str:
    return unquote(urlsplit(saved.url).path)


def _target(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _query(url: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(parse_qsl(urlsplit(url).query, keep_blank_values=True)))


def _same_path(saved: str, asked: str) -> bool:
    """Whether two paths are equal, a masked segment standing for any."""
    ours, theirs = saved.split("/"), asked.split("/")
    return len(ours) == len(theirs) and all(BULLETS in a or a == b for a, b in zip(ours, theirs, strict=True))


def _ends_with(saved: str, own: str) -> bool:
    ours, theirs = saved.split("/"), own.strip("/").split("/")
    return len(ours) > len(theirs) and _same_path("/".join(ours[-len(theirs) :]), "/".join(theirs))
