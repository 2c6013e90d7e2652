"""Attempts, redirects, limits and faults, on both transports."""

from __future__ import annotations

import asyncio
import gzip
import logging
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
import trustme

from khotan_cli.errors import PaginationError, PlugError, PlugTimeout, PlugUnreachable, ResponseInvalid
from khotan_cli.runtime import ApiKeyAuth, BearerAuth, LinkHeaderPaginator, Plug, RateLimit, Retry, Var, get, post
from tests.support.loopback import Answer, Asked, Loopback, as_json, loopback

QUICK = Retry(attempts=3, backoff=0.001)


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    key = Var(secret=True, default="the-secret-key-1234")
    auth = BearerAuth(key)
    headers = {"X-Plug": "{key}"}
    retry = QUICK
    paginator = LinkHeaderPaginator()
    read = get("/read", returns=dict[str, Any])
    write = post("/write", body=dict[str, Any], returns=dict[str, Any])
    pages_of = get("/pages", returns=list[int])


@pytest.fixture(params=["aiohttp", "httpx"])
def api(request: pytest.FixtureRequest) -> Api:
    return Api().with_options(transport=request.param)


def script(*answers: Answer) -> Any:
    """A handler that gives these answers in turn, the last one again and again."""
    left = list(answers)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


FINE = as_json({"fine": True})


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_reads_are_repeated_after_these_statuses(api: Api, status: int) -> None:
    async with loopback(script(as_json({}, status), as_json({}, status), FINE)) as server:
        assert await api.with_options(base_url=server.url).read() == {"fine": True}
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 501])
async def test_others_are_not(api: Api, status: int) -> None:
    async with loopback(script(as_json({}, status), FINE)) as server:
        with pytest.raises(PlugError):
            await api.with_options(base_url=server.url).read()
    assert len(server.asked) == 1


@pytest.mark.parametrize(("status", "sent"), [(500, 1), (502, 1), (503, 1), (504, 1), (429, 2), (408, 2)])
async def test_writes_only_where_they_cannot_have_been_done(api: Api, status: int, sent: int) -> None:
    async with loopback(script(as_json({}, status), FINE)) as server:
        call = api.with_options(base_url=server.url).write(body={"a": 1})
        if sent == 1:
            with pytest.raises(PlugError):
                await call
        else:
            await call
    assert len(server.asked) == sent


@pytest.mark.parametrize(
    "retry", [Retry(backoff=0.001, methods={"post"}), Retry(backoff=0.001, idempotency_header="Idempotency-Key")]
)
async def test_writes_that_the_plug_says_are_safe(api: Api, retry: Retry) -> None:
    async with loopback(script(as_json({}, 500), Answer(drop=True), FINE)) as server:
        assert await api.with_options(base_url=server.url, retry=retry).write(body={"a": 1}) == {"fine": True}
        await api.with_options(base_url=server.url, retry=retry).write(body={"a": 1})
    keys = [asked.headers.get("idempotency-key") for asked in server.asked]
    if retry.idempotency_header:
        assert len(set(keys[:3])) == 1 and keys[3] != keys[0] and keys[0]
    else:
        assert keys == [None] * 4


@pytest.mark.parametrize(
    "fault",
    [
        Answer(drop=True),
        Answer(raw=b"\x00\x01garbage that is not HTTP\r\n\r\n"),
        Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    ],
    ids=["dropped", "garbage", "cut", "bad chunk"],
)
async def test_broken_answers(api: Api, fault: Answer) -> None:
    async with loopback(script(fault, FINE)) as server:
        assert await api.with_options(base_url=server.url).read() == {"fine": True}
    async with loopback(script(fault, FINE)) as server:
        with pytest.raises(PlugUnreachable) as caught:
            await api.with_options(base_url=server.url).write(body={"a": 1})
        assert len(server.asked) == 1, "the write may have been done: it must not be repeated"
    assert caught.value.hint


async def test_no_connection_is_repeated_even_for_writes(api: Api) -> None:
    with pytest.raises(PlugUnreachable, match="after 3 attempts") as caught:
        await api.with_options(base_url="http://127.0.0.1:1").write(body={"a": 1})
    assert "no connection" in caught.value.message


async def test_timeout_is_for_the_whole_attempt(api: Api) -> None:
    """A service that sends a byte now and then never trips a read timeout; the attempt ends all the same."""
    stop = asyncio.Event()

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not stop.is_set():
            try:
                writer.write(b"x")
                await writer.drain()
                await asyncio.wait_for(stop.wait(), 0.02)
            except (TimeoutError, ConnectionError):
                if writer.is_closing():
                    break
        writer.close()

    server = await asyncio.start_server(dribble, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(PlugTimeout, match="after 2 attempts"):
        await api.with_options(base_url=url, timeout=0.2, retry=Retry(attempts=2, backoff=0)).read()
    stop.set()
    server.close()


async def test_deadline_bounds_attempts_and_waits(api: Api) -> None:
    async with loopback(script(as_json({}, 503, Retry_After="30"))) as server:
        with pytest.raises(PlugError):
            await api.with_options(base_url=server.url, retry=Retry(attempts=5, deadline=0.5)).read()
    assert len(server.asked) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_honoured_and_holds_others(api: Api, form: str) -> None:
    def value() -> str:
        return "50" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)

    async with loopback(lambda asked: as_json({}, 429, Retry_After=value())) as server:
        plug = api.with_options(base_url=server.url)
        first = asyncio.create_task(plug.read())
        while not (held := await plug.shared.rates.longest_pause("api")):
            await asyncio.sleep(0)
        assert 0 < held <= 50
        for other in (plug, plug.with_options(timeout=9)):
            with pytest.raises(PlugError):  # its turn would come after its deadline
                await other.with_options(retry=Retry(attempts=1, deadline=0.001)).read()
        assert not first.done() and len(server.asked) == 1
        first.cancel()


async def test_a_call_goes_on_after_retry_after(api: Api) -> None:
    async with loopback(script(as_json({}, 429, Retry_After="1"), FINE)) as server:
        await api.with_options(base_url=server.url).read()
    assert len(server.asked) == 2


async def test_a_longer_retry_after_than_allowed_ends_the_call(api: Api) -> None:
    async with loopback(script(as_json({}, 429, Retry_After="3600"))) as server:
        plug = api.with_options(base_url=server.url)
        with pytest.raises(PlugError) as caught:
            await plug.read()
        assert caught.value.status == 429
        with pytest.raises(PlugError, match="requested a pause"):
            await plug.read()
    assert len(server.asked) == 1


async def test_a_throttle_inside_a_200(api: Api) -> None:
    retry = Retry(backoff=0.001, should_retry=lambda response: b"throttled" in response.content)
    async with loopback(script(as_json({"error": "throttled"}), FINE)) as server:
        assert await api.with_options(base_url=server.url, retry=retry).write(body={}) == {"fine": True}


async def test_rate_and_concurrency_are_shared_by_copies(api: Api) -> None:
    started = asyncio.Event()

    async def slow(asked: Asked) -> Answer:
        started.set()
        await asyncio.sleep(0.01)
        return FINE

    async with loopback(slow) as server:
        limit = RateLimit(requests=1, per=3600, burst=8, concurrency=2)
        plug = api.with_options(base_url=server.url, rate_limit=limit, retry=Retry(attempts=1, deadline=60))
        calls = (plug.with_options(timeout=20 + n).read() for n in range(12))
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert server.most_open <= 2
    # The ninth call's turn comes in an hour, after its deadline: it ends at once.
    refused = [call for call in ended if isinstance(call, PlugError)]
    assert len(server.asked) == 8 and len(refused) == 4
    assert all("it must wait" in str(call) for call in refused)


async def test_a_cancelled_call_gives_its_place_back(api: Api) -> None:
    gate = asyncio.Event()

    async def stuck(asked: Asked) -> Answer:
        await gate.wait()
        return FINE

    async with loopback(stuck) as server:
        plug = api.with_options(base_url=server.url, rate_limit=RateLimit(concurrency=1))
        tasks = [asyncio.create_task(plug.read()) for _ in range(3)]
        while not server.asked:
            await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[1].cancel()
        gate.set()
        assert await tasks[2] == {"fine": True}


# -- origins -----------------------------------------------------------------------------------------------------------


def seen(server: Loopback) -> list[tuple[str, str, bool]]:
    """Method, target, and whether anything secret came along."""
    return [(a.method, a.target, "the-secret-key" in repr(a)) for a in server.asked]


@pytest.mark.parametrize("auth", [BearerAuth(Api.key), ApiKeyAuth(Api.key), ApiKeyAuth(Api.key, query="k")])
async def test_credentials_stay_with_their_origin(api: Api, auth: Any) -> None:
    async with loopback(lambda a: FINE) as other:

        def handler(asked: Asked) -> Answer:
            if asked.path == "/pages":
                return Answer(
                    200, b"[1]", {"Content-Type": "application/json", "Link": f'<{other.url}/next>; rel="next"'}
                )
            return Answer(302, headers={"Location": f"{other.url}/elsewhere"})

        async with loopback(handler) as server:
            plug = api.with_options(base_url=server.url, auth=auth)
            await plug.read()
            await plug.get(f"{other.url}/absolute")
            with pytest.raises(PaginationError):
                [page async for page in plug.pages_of.pages()]
    assert all(secret for _, _, secret in seen(server))
    assert seen(other) == [("GET", "/elsewhere", False), ("GET", "/absolute", False), ("GET", "/next", False)]


async def test_redirects_within_the_origin_keep_the_credential_and_follow_the_method_rules(api: Api) -> None:
    def handler(asked: Asked) -> Answer:
        status = asked.path.strip("/")
        return Answer(int(status), headers={"Location": "/done?x=1"}) if status.isdigit() else FINE

    async with loopback(handler) as server:
        plug = api.with_options(base_url=server.url)
        for status in (301, 302, 303, 307, 308):
            await plug.post(f"/{status}", body={"a": 1})
    after = [(a.method, a.body, "authorization" in a.headers) for a in server.asked if a.path == "/done"]
    kept = ("POST", b'{"a":1}', True)
    assert after == [("GET", b"", True)] * 3 + [kept] * 2


async def test_redirect_traps(api: Api) -> None:
    async with loopback(lambda a: Answer(302, headers={"Location": "/again"})) as server:
        with pytest.raises(PlugUnreachable, match="redirects"):
            await api.with_options(base_url=server.url, retry=Retry(attempts=1)).read()
    for place in ("file:///etc/passwd", "gopher://x", "http://"):
        async with loopback(script(Answer(302, headers={"Location": place}))) as server:
            with pytest.raises(PlugUnreachable):
                await api.with_options(base_url=server.url, retry=Retry(attempts=1)).read()
    async with loopback(lambda a: Answer(302, headers={"Location": "/x"})) as server:
        plug = api.with_options(base_url=server.url, follow_redirects=False)
        assert (await plug.raw("GET", "/x")).status_code == 302


async def test_cookies_do_not_outlive_a_call(api: Api) -> None:
    async with loopback(lambda a: as_json({}, 200, Set_Cookie="session=of-a-tenant")) as server:
        plug = api.with_options(base_url=server.url)
        await plug.read()
        await plug.read()
    assert "cookie" not in server.asked[1].headers


# -- bodies, TLS, proxy ------------------------------------------------------------------------------------------------


async def test_size_is_counted_after_decompression(api: Api) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with loopback(lambda a: Answer(200, bomb, headers)) as server:
        with pytest.raises(ResponseInvalid) as caught:
            await api.with_options(base_url=server.url, max_response_bytes=1_000_000).read()
    assert caught.value.code == "response_too_large" and "1,000,000" in caught.value.message


async def test_ten_megabytes_and_a_wrong_encoding(api: Api) -> None:
    body = b'{"a": "' + b"x" * 10_000_000 + b'"}'
    async with loopback(lambda a: Answer(200, body, {"Content-Type": "application/json"})) as server:
        assert len((await api.with_options(base_url=server.url).read())["a"]) == 10_000_000
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with loopback(lambda a: Answer(200, b"not gzip", headers)) as server:
        with pytest.raises(ResponseInvalid, match="decompressed"):
            await api.with_options(base_url=server.url).read()


async def test_certificates_are_verified(api: Api, tmp_path: Any) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with loopback(lambda a: FINE, context) as server:
        plug = api.with_options(base_url=server.url, retry=Retry(attempts=1))
        with pytest.raises(PlugUnreachable, match="certificate is not trusted") as caught:
            await plug.read()
        assert "verify=" in caught.value.hint
        assert await plug.with_options(verify=str(tmp_path / "ca.pem")).read() == {"fine": True}
        assert await plug.with_options(verify=False).read() == {"fine": True}


async def test_proxy_by_option_and_by_environment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async with loopback(lambda a: FINE) as proxy:
        plug = api.with_options(base_url="http://service.invalid")
        assert await plug.with_options(proxy=proxy.url).read() == {"fine": True}
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert await api.with_options(base_url="http://other.invalid").read() == {"fine": True}
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with loopback(lambda a: as_json({"direct": True})) as server:
            assert await api.with_options(base_url=server.url).read() == {"direct": True}
        with pytest.raises(PlugUnreachable):
            await plug.with_options(proxy="http://127.0.0.1:1", retry=Retry(attempts=1)).read()
    assert [asked.target for asked in proxy.asked] == ["http://service.invalid/read", "http://other.invalid/read"]


async def test_hooks_see_and_change() -> None:
    lines: list[str] = []

    class Hooked(Api):
        async def before_request(self, request: httpx.Request) -> None:
            request.headers["X-Hook"] = "1"

        def after_response(self, response: httpx.Response) -> None:
            lines.append(f"{response.status_code} {response.text}")

    async with loopback(lambda a: FINE) as server:
        await Hooked().with_options(base_url=server.url).read()
    assert server.asked[0].headers["x-hook"] == "1" and lines == ['200 {"fine": true}']


async def test_debug_log_masks(api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("KHOTAN_DEBUG", "1")
    caplog.set_level(logging.DEBUG)
    async with loopback(lambda a: as_json({"echo": a.headers.get("authorization"), "q": a.target})) as server:
        plug = api.with_options(base_url=server.url)
        await plug.read()
        await plug.with_options(auth=ApiKeyAuth(Api.key, query="k")).write(body={"k": "the-secret-key-1234"})
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "GET" in text and "200" in text and "••••1234" in text
    assert "the-secret-key" not in text and "the-secret-key" not in caplog.text


def test_a_three_line_script_ends_quietly() -> None:
    code = """
import asyncio
from khotan_cli.runtime import Plug
class P(Plug):
    base_url = "http://127.0.0.1:%d"
async def main(): print(await P().get("/x"))
asyncio.run(main()); asyncio.run(main())
"""
    import http.server
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = subprocess.run(
            [sys.executable, "-W", "always", "-c", code % server.server_port],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        server.shutdown()
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n{}\n", "")


async def test_a_transport_of_ones_own() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"at": str(request.url)}))
    plug = Api().with_options(base_url="http://service.invalid", transport=transport)
    assert await plug.read() == {"at": "http://service.invalid/read"}
