"""GET /debug, /debug/{plug} · POST /debug/{plug}: call a plug and look, or judge what came by its contract."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
from fastapi import APIRouter, Depends

from khotan_cli.errors import KhotanError, PlugError, ResponseInvalid, UsageError
from khotan_cli.runtime.api.access import CurrentPlug, CurrentServices, require_debug
from khotan_cli.runtime.api.authorize import GuardedRoute
from khotan_cli.runtime.api.describe import plug_info, plug_summary
from khotan_cli.runtime.api.errors import masked
from khotan_cli.runtime.api.plugs import Limit, Offset
from khotan_cli.runtime.api.schemas import (
    DebugRequest,
    DebugResponse,
    Listing,
    PlugInfo,
    PlugSummary,
    Timing,
    listing,
)
from khotan_cli.runtime.contract.check import check, fail_grade
from khotan_cli.runtime.contract.saved import parse_saved
from khotan_cli.runtime.plugs.call import CallRequest, CallResult, call
from khotan_cli.runtime.plugs.codec import Decoder, decode_untyped, is_json, media_type, not_json, text_of
from khotan_cli.runtime.plugs.endpoint import Endpoint
from khotan_cli.runtime.plugs.failures import status_error
from khotan_cli.runtime.plugs.jsontext import load_json, without_bom
from khotan_cli.runtime.plugs.masking import Masker
from khotan_cli.runtime.plugs.parsers import parser_for
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.registry import described

router = APIRouter(prefix="/debug", tags=["debug"], route_class=GuardedRoute, dependencies=[Depends(require_debug)])


@router.get("")
async def list_debuggable(services: CurrentServices, limit: Limit = 100, offset: Offset = 0) -> Listing[PlugSummary]:
    found = [await plug_summary(plug, services) for plug in services.registry.plugs.values()]
    return listing(found, limit, offset)


@router.get("/{plug}")
async def show_debuggable(plug: CurrentPlug, services: CurrentServices) -> PlugInfo:
    return await plug_info(plug, services)


@router.post("/{plug}")
async def debug(plug: CurrentPlug, asked: DebugRequest, services: CurrentServices) -> DebugResponse:
    """Make a call, whatever status it has, or take a saved response; with `compare`, judge it by the declared model.

    A contract that does not match is no error here: `contract.ok` says so.
    """
    endpoint = _checked(plug, asked)
    if asked.response is not None:
        saved = parse_saved(asked.response)
        response = saved.response(httpx.Request(saved.method, saved.url))
        result = CallResult(response, 0.0, 0, Masker())
    else:
        if not await services.enabled(plug.name):
            raise KhotanError(
                f"Plug {plug.name!r} is disabled",
                code="plug_disabled",
                hint="Enable it first.",
                next=[f"khotan plug {plug.name} --enable"],
            )
        result = await _called(plug, asked)
    try:
        contract = _judge(plug, endpoint, result, asked.fail_on) if asked.compare and endpoint else None
    except KhotanError as exc:
        raise masked(exc, result.masker) from None
    return _shown(plug, asked, result, contract)


async def _called(plug: Plug, asked: DebugRequest) -> CallResult:
    """The call. What it raises names no secret, and code of the plug's own that fails is said to be the plug's."""
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
        return await call(plug, request)
    except KhotanError as exc:
        error = exc
    except Exception as exc:  # hooks and custom auth are the user's code: whatever they raise
        error = PlugError(
            f"The call of plug {plug.name!r} raised {described(exc)}",
            plug=plug.name,
            hint="Correct the plug's own code, or what was asked of it.",
        )
    raise masked(error, await _masker(plug)) from None


async def _masker(plug: Plug) -> Masker:
    try:
        return plug.masker(plug.context("", await plug.resolve()))
    except KhotanError:
        return Masker()  # its variables cannot be read, so that no message can hold them


def _checked(plug: Plug, asked: DebugRequest) -> Endpoint[Any] | None:
    fail_grade(asked.fail_on)
    if asked.endpoint:
        return plug.endpoint(asked.endpoint).endpoint
    if asked.compare or asked.response is not None:
        raise UsageError("A comparison needs an endpoint", hint="Name it: --endpoint NAME.")
    if not asked.path or not asked.method:
        raise UsageError("A call needs an endpoint, or a method and a path", hint="GET /path, or --endpoint NAME.")
    return None


def _judge(plug: Plug, endpoint: Endpoint[Any], result: CallResult, fail_on: str | None) -> dict[str, Any]:
    response = result.response
    model = endpoint.model_for(response.status_code)
    if model is None:
        if response.is_error:
            raise status_error(plug.name, endpoint.name, response, None)
        raise UsageError(
            f"{plug.name}.{endpoint.name} declares no model for status {response.status_code}",
            code="no_declared_model",
            hint="Declare it: returns=Model.",
        )
    parsed = _comparable(plug, endpoint, model, response)
    report = check(model, parsed, status=response.status_code, endpoint=endpoint.name, masker=result.masker)
    return report.to_json(fail_on)


def _comparable(plug: Plug, endpoint: Endpoint[Any], model: Any, response: httpx.Response) -> Any:
    """The body as what the contract check takes: the bytes of JSON, or the values that a parser or `str` makes of it."""
    name, kind = f"{plug.name}.{endpoint.name}", media_type(response)
    if model is bytes:
        raise UsageError(
            f"{name} returns bytes: there is nothing to compare",
            code="no_declared_model",
            hint="Declare a model: returns=Model.",
        )
    if model is str:
        return text_of(response)
    if not response.content:
        raise ResponseInvalid(
            f"{name}: the answer {response.status_code} is empty", response=response, hint="Nothing can be compared."
        )
    if kind and not is_json(kind) and parser_for(plug.parsers, kind) is None:
        raise not_json(response)
    parsed = decode_untyped(response, plug.parsers)  # says of broken JSON which request it answered
    return response.content if is_json(kind) or not kind else Decoder(model).listed(kind, parsed)


def _shown(plug: Plug, asked: DebugRequest, result: CallResult, contract: dict[str, Any] | None) -> DebugResponse:
    response, masker = result.response, result.masker
    body, encoded = _readable(response, masker)
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
        timing=Timing(total_ms=round(result.elapsed * 1000, 1), attempts=result.attempts),
        contract=contract,
    )


def _readable(response: httpx.Response, masker: Masker) -> tuple[Any, str | None]:
    """The body, secrets masked, as JSON or text; else its bytes as Base64."""
    if not response.content:
        return None, None
    try:
        load_json(response.content)  # refuses what production refuses: NaN, lone surrogates
        # Not orjson: an integer over 64 bits must stay what it is.
        return masker.value(json.loads(without_bom(response.content))), None
    except (ValueError, RecursionError):
        try:
            return masker.text(response.content.decode(response.charset_encoding or "utf-8")), None
        except (UnicodeDecodeError, LookupError):
            text = masker.text(response.content.decode("utf-8", "surrogateescape"))
            return None, base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
