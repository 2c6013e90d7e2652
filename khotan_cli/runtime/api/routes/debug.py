"""GET /debug, /debug/{plug} · POST /debug/{plug}: call a plug and look, or judge what came by its contract."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx

from khotan_cli.errors import KhotanError, PlugError, UsageError
from khotan_cli.runtime.api.access import CurrentPlug, CurrentServices, require_debug
from khotan_cli.runtime.api.models.common import (
    BodyKind,
    DebugRequest,
    DebugResponse,
    Listing,
    PlugInfo,
    PlugSummary,
    Timing,
    listing,
)
from khotan_cli.runtime.api.models.plug_views import plug_info, plug_summary
from khotan_cli.runtime.api.operations import Router
from khotan_cli.runtime.api.routes.plugs import Limit, Offset
from khotan_cli.runtime.content.codec import decode_untyped, is_json, media_type
from khotan_cli.runtime.content.json_text import load_json, without_bom
from khotan_cli.runtime.contract.bodies import comparable, is_text
from khotan_cli.runtime.contract.check import check_pages, fail_grade
from khotan_cli.runtime.contract.paging import SeenWalk, is_walked, walk_pages
from khotan_cli.runtime.contract.paging_checks import with_paging
from khotan_cli.runtime.contract.saved import parse_saved
from khotan_cli.runtime.http.errors import status_error
from khotan_cli.runtime.plugs.debug_call import CallRequest, CallResult, call
from khotan_cli.runtime.plugs.endpoint import Endpoint
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.redaction.masker import Masker
from khotan_cli.runtime.registry import described

router = Router("/debug", tags=["debug"], needs=[require_debug])


@router.get("")
async def list_debuggable(services: CurrentServices, limit: Limit = 100, offset: Offset = 0) -> Listing[PlugSummary]:
    found = [await plug_summary(plug, services) for plug in services.registry.plugs.values()]
    return listing(found, limit, offset)


@router.get("/{plug}")
async def show_debuggable(plug: CurrentPlug, services: CurrentServices) -> PlugInfo:
    return await plug_info(plug, services)


@router.post("/{plug}")
async def debug(plug: CurrentPlug, asked: DebugRequest, services: CurrentServices) -> DebugResponse:
    """Make a call, or use a saved response. With `compare`, compare it with the declared model.

    Error statuses and contract mismatches are not errors here: see `status` and `contract.ok`.
    """
    endpoint = _checked(plug, asked)
    walk: SeenWalk | None = None
    if asked.response is not None:
        saved = parse_saved(asked.response)
        response = saved.response(httpx.Request(saved.method, saved.url))
        result = CallResult(response, 0.0, 0, Masker())
    else:
        if not await services.enabled(plug.name):
            raise KhotanError(
                f"Plug {plug.name!r} is disabled",
                code="plug_disabled",
                hint="Enable the plug first.",
                next=[f"khotan plug {plug.name} --enable"],
            )
        result, walk = await _called(plug, asked, endpoint)
    try:
        contract = _judge(plug, endpoint, result, walk, asked.fail_on) if asked.compare and endpoint else None
    except KhotanError as exc:
        raise masked(exc, result.masker) from None
    return _shown(plug, asked, result, contract)


async def _called(
    plug: Plug, asked: DebugRequest, endpoint: Endpoint[Any] | None
) -> tuple[CallResult, SeenWalk | None]:
    """The call, and the fetched pages if a comparison fetches more.

    Raised errors contain no secrets, and name the plug if its own code fails.
    """
    request = CallRequest(
        endpoint=asked.endpoint or "",
        method=asked.method or "GET",
        path=asked.path or "",
        params=asked.params,
        body=asked.body,
        headers=asked.headers,
    )
    error: KhotanError
    try:
        if endpoint is not None and asked.compare and asked.pages > 1 and is_walked(endpoint, plug.paginator):
            return await _walked(plug, request, asked.pages)
        return await call(plug, request), None
    except KhotanError as exc:
        error = exc
    except Exception as exc:  # users' hooks and custom auth may raise anything
        error = PlugError(
            f"The call of plug {plug.name!r} raised {described(exc)}",
            plug=plug.name,
            hint="Correct the plug's code, or the parameters of the call.",
        )
    raise masked(error, await _masker(plug)) from None


async def _walked(plug: Plug, request: CallRequest, pages: int) -> tuple[CallResult, SeenWalk]:
    """The fetched pages, with the first one as the result of the call."""
    if request.headers:
        plug = plug.with_options(headers=dict(request.headers))
    params = {**request.params, **({} if request.body is None else {"body": request.body})}
    started = time.perf_counter()
    walk = await walk_pages(plug.endpoint(request.endpoint), params, pages)
    elapsed = time.perf_counter() - started
    first = walk.pages[0].response
    attempts = int(first.extensions.get("khotan.attempts", 1))
    return CallResult(first, elapsed, attempts, await _masker(plug)), walk


async def _masker(plug: Plug) -> Masker:
    try:
        return plug.masker(plug.context("", await plug.resolve()))
    except KhotanError:
        return Masker()  # unreadable variables cannot be in a message


def _checked(plug: Plug, asked: DebugRequest) -> Endpoint[Any] | None:
    fail_grade(asked.fail_on)
    if asked.endpoint:
        return plug.endpoint(asked.endpoint).endpoint
    if asked.compare or asked.response is not None:
        raise UsageError("A comparison needs an endpoint", hint="Use --endpoint NAME.")
    if not asked.path or not asked.method:
        raise UsageError("A call needs an endpoint, or a method and a path", hint="Use GET /path, or --endpoint NAME.")
    return None


def _judge(
    plug: Plug, endpoint: Endpoint[Any], result: CallResult, walk: SeenWalk | None, fail_on: str | None
) -> dict[str, Any]:
    """The contract document of one response, or of several pages."""
    first = result.response
    name, status = f"{plug.name}.{endpoint.name}", first.status_code
    if first.is_success and (endpoint.error_body or plug.error_body) is not None and first.content:
        endpoint.raise_error_body(plug, first, decode_untyped(first, plug.parsers))
    model = endpoint.model_for(status)
    if model is None or model is bytes:
        if first.is_error and model is None:
            raise status_error(plug.name, endpoint.name, first, None)
        what = (
            f"declares no model for status {status}" if model is None else "returns bytes: there is nothing to compare"
        )
        raise UsageError(f"{name} {what}", code="no_declared_model", hint="Declare a model: returns=Model.")
    responses = (
        [first] if walk is None else [one for one in walk.responses if endpoint.model_for(one.status_code) is model]
    )
    read = [comparable(name, response, model, plug.parsers) for response in responses]
    report = check_pages(
        model,
        [body for body, _ in read],
        status=status,
        endpoint=endpoint.name,
        masker=result.masker,
        source=read[0][1],
    )
    if walk is not None and first.is_success:
        report = with_paging(report, walk, result.masker)
    return report.to_json(fail_on)


def _shown(plug: Plug, asked: DebugRequest, result: CallResult, contract: dict[str, Any] | None) -> DebugResponse:
    response, masker = result.response, result.masker
    body, encoded, kind = _readable(response, masker)
    return DebugResponse(
        plug=plug.name,
        endpoint=asked.endpoint,
        request={"method": response.request.method, "url": masker.text(str(response.request.url))},
        status=response.status_code,
        headers=masker.headers(response.headers),
        content_type=media_type(response),
        size=len(response.content),
        body=body,
        body_base64=encoded,
        body_kind=kind,
        timing=Timing(total_ms=round(result.elapsed * 1000, 1), attempts=result.attempts),
        contract=contract,
    )


def _readable(response: httpx.Response, masker: Masker) -> tuple[Any, str | None, BodyKind]:
    """The masked body as JSON or text, or its bytes as Base64, with its kind."""
    if not response.content:
        return None, None, "none"
    kind = media_type(response)
    try:
        if kind and not is_json(kind) and is_text(kind):
            raise ValueError("the text of a CSV document may look like JSON")
        load_json(response.content)  # rejects NaN and lone surrogates, as real calls do
        # Not orjson, which changes integers over 64 bits.
        return masker.value(json.loads(without_bom(response.content))), None, "json"
    except (ValueError, RecursionError):
        try:
            return masker.text(response.content.decode(response.charset_encoding or "utf-8")), None, "text"
        except (UnicodeDecodeError, LookupError):
            text = masker.text(response.content.decode("utf-8", "surrogateescape"))
            return None, base64.b64encode(text.encode("utf-8", "surrogateescape")).decode(), "base64"


def masked(error: KhotanError, masker: Masker) -> KhotanError:
    """Mask secrets in the error in place: its message may quote a URL or the start of a body."""
    error.message, error.hint = masker.text(error.message), masker.text(error.hint)
    error.details = masker.value(error.details)
    return error
