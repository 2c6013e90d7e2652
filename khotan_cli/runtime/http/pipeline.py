"""Sends one call: attempts, each with credential, rate limit, redirects and deadline."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import httpx

from khotan_cli.errors import AuthError, ConfigError, PlugError, PlugTimeout, ResponseInvalid
from khotan_cli.runtime.content.decompression import CodingError, decoder_for
from khotan_cli.runtime.http import debug_log as debuglog
from khotan_cli.runtime.http.call_context import EXTENSION, CallContext
from khotan_cli.runtime.http.errors import UNFINISHED, TokenNotFetched, translate_error
from khotan_cli.runtime.http.outgoing import Outgoing, check_raw_headers
from khotan_cli.runtime.http.quota import retry_after
from khotan_cli.runtime.http.retry import Attempt
from khotan_cli.runtime.http.sender import Sender
from khotan_cli.runtime.http.session_cookies import jar_for
from khotan_cli.runtime.http.transport import HttpClient
from khotan_cli.runtime.http.urls import check_url, parsed_url, redirected, same_origin
from khotan_cli.runtime.redaction.masker import EXTENSION as MASKER
from khotan_cli.runtime.redaction.masker import Masker
from khotan_cli.runtime.redaction.withheld import WITHHELD, strip, why_withheld

MAX_REDIRECTS = 20
_NO_SECRETS = Masker()
_PAUSING_STATUSES = frozenset({429, 503})


async def send(plug: Sender, out: Outgoing, ctx: CallContext) -> httpx.Response:
    """Send until there is a response or no further attempt. The response is read, whatever its status.

    Raises PlugUnreachable, PlugTimeout, ResponseInvalid (response_too_large) and the auth strategy's errors.
    """
    client = await plug.shared.pool.get(plug.transport_options)
    key = plug.bucket_key(ctx)
    started = time.monotonic()
    while True:
        out.attempts += 1
        error: httpx.TransportError | None = None
        response: httpx.Response | None = None
        await _wait_for_slot(plug, out, key, started)
        try:
            async with _slot(plug, key):
                response = await _attempt(plug, client, out, ctx, _remaining(out, started))
        except httpx.TransportError as exc:
            error = exc
        exhausted = await _pause(plug, key, response) if response is not None else None
        attempt = Attempt(
            number=out.attempts,
            method=out.method,
            elapsed=time.monotonic() - started,
            response=error.response if isinstance(error, TokenNotFetched) else response,
            error=error,
            sent=not isinstance(error, TokenNotFetched),
            exhausted=exhausted,
        )
        wait = out.retry.delay(attempt)
        if wait is None:
            if isinstance(error, TokenNotFetched) and error.refusal is not None:
                raise error.refusal from None
            if error is not None:
                raise translate_error(error, ctx, method=out.method, url=out.url, attempts=out.attempts) from None
            assert response is not None
            response.extensions["khotan.attempts"] = out.attempts
            return response
        await asyncio.sleep(wait)


async def _pause(plug: Sender, key: str, response: httpx.Response) -> float | None:
    """Pause the account as the response requests. Returns seconds if a declared quota is why the request was rejected."""
    status, quota = response.status_code, plug.quota
    exhausted = quota.wait(response) if quota is not None else None
    rejected = quota is not None and status in quota.statuses
    requested = retry_after(response) if status in _PAUSING_STATUSES or rejected else None
    if wait := max(requested or 0.0, exhausted or 0.0):
        await plug.shared.rates.pause(key, wait)
    return exhausted if rejected else None


async def send_once(plug: Sender, request: httpx.Request, ctx: CallContext) -> httpx.Response:
    """Send a token request to any origin, without auth and redirects. 429 and 5xx are retried as the plug's Retry says.

    Raises PlugUnreachable and PlugTimeout.
    """
    client = await plug.shared.pool.get(plug.transport_options)
    seconds = plug.timeout if isinstance(plug.timeout, (int, float)) else 30.0
    started, number = time.monotonic(), 0
    while True:
        number += 1
        error: httpx.TransportError | None = None
        response: httpx.Response | None = None
        try:
            async with asyncio.timeout(seconds):
                response = await _exchange(plug, client, request, ctx, token=True)
        except TimeoutError:
            error = httpx.ReadTimeout(f"no complete response within {seconds:g} s", request=request)
        except httpx.TransportError as exc:
            error = exc
        elapsed = time.monotonic() - started
        # After an error status no token was issued. A lost connection may have lost an issued token.
        attempt = Attempt(number, request.method, elapsed, response, error, sent=response is None)
        wait = plug.retry.delay(attempt) if response is None or response.is_error else None
        if wait is not None:
            await asyncio.sleep(wait)
        elif error is not None:
            raise translate_error(error, ctx, method=request.method, url=str(request.url), attempts=number) from None
        else:
            assert response is not None
            return response


async def _wait_for_slot(plug: Sender, out: Outgoing, key: str, started: float) -> None:
    limit = plug.rate_limit
    rates = plug.shared.rates
    if limit is not None and limit.requests:
        wait = await rates.reserve(key, limit.interval, limit.burst_size)
    else:
        wait = await rates.paused_for(key)
    if wait <= 0:
        return
    deadline = out.retry.deadline
    if deadline is not None and time.monotonic() - started + wait >= deadline:
        raise PlugTimeout(
            f"{plug.name}.{out.endpoint or out.method}: it must wait {wait:.0f} s, beyond the deadline of {deadline:g} s",
            plug=plug.name,
            endpoint=out.endpoint,
            hint="The service requested a pause, or the rate limit is exhausted.",
        )
    if await rates.paused_for(key) > out.retry.max_retry_after:
        raise PlugError(
            f"{plug.name}: the service requested a pause; {wait:.0f} s remain",
            plug=plug.name,
            endpoint=out.endpoint,
            hint="Try again later, raise Retry(max_retry_after=…), or end the pause.",
            next=[f"khotan plug {plug.name} --resume"],
        )
    await asyncio.sleep(wait)


def _slot(plug: Sender, key: str) -> AbstractAsyncContextManager[None]:
    limit = plug.rate_limit
    if limit is None or limit.concurrency is None:
        return nullcontext()
    return plug.shared.rates.slot(key, limit.concurrency)


def _remaining(out: Outgoing, started: float) -> float | None:
    """Maximum seconds of this attempt; None is unlimited."""
    bounds = [out.timeout] if isinstance(out.timeout, (int, float)) else []
    if out.retry.deadline is not None:
        bounds.append(max(0.001, out.retry.deadline - (time.monotonic() - started)))
    return min(bounds) if bounds else None


async def _attempt(
    plug: Sender, client: HttpClient, out: Outgoing, ctx: CallContext, seconds: float | None
) -> httpx.Response:
    request = _request(out, ctx)
    try:
        async with asyncio.timeout(seconds):
            if plug.has_before_request:
                changed = plug.before_request(request)
                if inspect.isawaitable(changed):
                    await changed
            response = await _follow(plug, client, request, ctx)
    except TimeoutError:
        raise httpx.ReadTimeout(f"no complete response within {seconds:g} s", request=request) from None
    if plug.has_after_response:
        seen = plug.after_response(response)
        if inspect.isawaitable(seen):
            await seen
    return response


def _request(out: Outgoing, ctx: CallContext) -> httpx.Request:
    extensions: dict[str, Any] = {EXTENSION: ctx}
    if isinstance(out.timeout, httpx.Timeout):
        extensions["timeout"] = out.timeout.as_dict()
    try:
        url = parsed_url(out.url)
        check_url(url)
    except (httpx.InvalidURL, ValueError) as exc:
        raise PlugError(
            f"{ctx.plug}: the URL of the call is invalid: {exc}",
            plug=ctx.plug,
            endpoint=ctx.endpoint,
            code="url_invalid",
            hint="Correct the path or URL of the call.",
        ) from None
    return httpx.Request(out.method, url, headers=out.headers, content=out.content, extensions=extensions)


async def _follow(plug: Sender, client: HttpClient, request: httpx.Request, ctx: CallContext) -> httpx.Response:
    """Send, and follow redirects. Credentials are sent only to the plug's own origin."""
    history: list[httpx.Response] = []
    while True:
        own = same_origin(request.url, ctx.base_url)
        request.extensions.pop(WITHHELD, None)
        if not own and (strip(request) or plug.auth is not None):
            request.extensions[WITHHELD] = why_withheld(request.url, ctx.base_url)
        # Auth changes its request, so redirects start from a copy without credentials.
        method, url, fields = request.method, request.url, request.headers.raw
        content, extensions = request.content, dict(request.extensions)
        response = await _authenticated(plug, client, request, plug.auth if own else None, ctx)
        response.history = list(history)
        response.extensions[MASKER] = lambda: plug.masker(ctx)
        response.extensions[WITHHELD] = request.extensions.get(WITHHELD)
        if not (plug.follow_redirects and response.has_redirect_location):
            return response
        if len(history) >= MAX_REDIRECTS:
            raise httpx.RemoteProtocolError(f"more than {MAX_REDIRECTS} redirects", request=request)
        history.append(response)
        bare = httpx.Request(method, url, headers=fields, content=content, extensions=extensions)
        request = redirected(bare, response)


async def _authenticated(
    plug: Sender, client: HttpClient, request: httpx.Request, auth: httpx.Auth | None, ctx: CallContext
) -> httpx.Response:
    if auth is None:
        return await _exchange(plug, client, request, ctx)
    flow = auth.async_auth_flow(request)
    try:
        sent = await anext(flow)
        while True:
            try:
                response = await _exchange(plug, client, sent, ctx, token=sent is not request)
            except httpx.TransportError as exc:
                if sent is not request:
                    raise TokenNotFetched(f"token request failed: {exc}", request=sent) from exc
                raise
            try:
                sent = await flow.asend(response)
            except StopAsyncIteration:
                return response
            except AuthError as exc:
                if exc.response is response and sent is not request and response.is_error:
                    raise TokenNotFetched(exc.message, request=sent, refusal=exc) from exc
                raise
    finally:
        await flow.aclose()


async def _exchange(
    plug: Sender, client: HttpClient, request: httpx.Request, ctx: CallContext, *, token: bool = False
) -> httpx.Response:
    """Send one request and read the whole response. `token`: it is a token request."""
    log = debuglog.enabled()
    masker = plug.masker(ctx) if log else _NO_SECRETS
    started = time.monotonic()
    request.extensions.pop(UNFINISHED, None)
    jar = jar_for(plug, request, ctx)
    if jar is not None:
        jar.set_cookie_header(request)
    # Checked here, because the credential and the plug's hooks add headers.
    check_raw_headers(request.headers.raw, plug.name, ctx.endpoint)
    if log:
        debuglog.log_request(request, masker, secret=token)
    try:
        response = await client.send(request)
        try:
            request.extensions[UNFINISHED] = response.status_code
            await _read(plug, response, ctx)
            del request.extensions[UNFINISHED]
        finally:
            await response.aclose()
    except httpx.TransportError as exc:
        exc.request = request  # some transports do not set it
        if log:
            debuglog.log_failure(request, exc, masker)
        raise
    except ConfigError as exc:
        raise ConfigError(f"Plug {plug.name!r}: {exc.message}", hint=exc.hint) from None
    if jar is not None:
        jar.extract_cookies(response)
    if log:
        debuglog.log_response(response, masker, (time.monotonic() - started) * 1000, secret=token)
    return response


async def _read(plug: Sender, response: httpx.Response, ctx: CallContext) -> None:
    """Read the body. Its size is limited after decompression, so that a small response cannot fill the memory.

    Raises ResponseInvalid for a body that is too large or cannot be decompressed. For an error status the readable part
    is kept instead, because the status matters more and may be retried.
    """
    if response.is_stream_consumed:  # read already, by a custom transport such as httpx.MockTransport
        return
    chunks: list[bytes] = []
    size, limit = 0, plug.max_response_bytes
    try:
        async for chunk in _chunks(response):
            size += len(chunk)
            if size > limit:
                if response.is_error:
                    chunks.append(chunk[: limit - size])  # limit - size is negative: it counts from the end
                    break
                raise ResponseInvalid(
                    f"The response {response.status_code} of {_where(response)} is larger than {limit:,} bytes",
                    plug=plug.name,
                    endpoint=ctx.endpoint,
                    status=response.status_code,
                    code="response_too_large",
                    hint="Request fewer records per page, or raise the plug's max_response_bytes.",
                )
            chunks.append(chunk)
    except CodingError as exc:
        if not response.is_error:
            raise ResponseInvalid(
                f"The response {response.status_code} of {_where(response)} cannot be decompressed: {exc}",
                plug=plug.name,
                endpoint=ctx.endpoint,
                status=response.status_code,
                hint="The Content-Encoding may be wrong, or the body may have been cut short.",
            ) from exc
    response._content = b"".join(chunks)  # as aread() does, with the limit above


def _where(response: httpx.Response) -> str:
    """Method and URL of a response, without parts that may be secret."""
    return f"{response.request.method} {response.request.url.copy_with(query=None, userinfo=b'')}"


async def _chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    """The decompressed body. Other tasks run between two decompression steps."""
    decoder = decoder_for(response.headers.get("content-encoding", ""))
    async for raw in response.aiter_raw():
        if decoder is None:
            yield raw
            continue
        for step, output in enumerate(decoder.feed(raw)):
            if step:
                await asyncio.sleep(0)
            yield output
    if decoder is not None:
        decoder.finish()
