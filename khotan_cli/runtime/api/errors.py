"""Every failure as the one error document, with its status."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.blame import place_of
from khotan_cli.runtime.plugs.masking import Masker
from khotan_cli.signing import SCHEME

RETRY_SECONDS = "5"

logger = logging.getLogger("khotan.api")

_HTTP: Mapping[int, tuple[str, str, str]] = {
    # status: (code, message, hint)
    401: ("unauthorized", "", "Send the application's credential."),
    403: ("unauthorized", "", "Ask whoever runs the application for access."),
    404: ("not_found", "There is no such route", "The routes are listed in /api/khotan/openapi.json."),
    405: (
        "method_not_allowed",
        "The route does not take this method",
        "The routes are listed in /api/khotan/openapi.json.",
    ),
    413: ("body_too_large", "The request body is too large for the application", "Send less."),
}


def install_error_handlers(api: FastAPI) -> None:
    api.add_exception_handler(KhotanError, _khotan)
    api.add_exception_handler(RequestValidationError, _validation)
    api.add_exception_handler(HTTPException, _http)


def error_response(
    error: KhotanError, status: int | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    more: dict[str, str] = {}
    status = status or error.http_status
    if status == 401:
        more["WWW-Authenticate"] = SCHEME  # RFC 9110 11.6.1 asks for a challenge
    if status == 503:
        more["Retry-After"] = RETRY_SECONDS
    return JSONResponse(error.to_json(), status, headers={**more, **(headers or {})})


def masked(error: KhotanError, masker: Masker) -> KhotanError:
    """The error with secrets masked, in place: a message may quote a URL or the start of a body."""
    error.message, error.hint = masker.text(error.message), masker.text(error.hint)
    error.details = masker.value(error.details)
    return error


class Boundary:
    """ASGI middleware: what nothing else caught is an answer, and a line in the log, here and not in the server.

    A server logs the traceback of what reaches it, message included, and that may hold secrets.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as exc:
            if scope["type"] != "http":
                raise
            note_unexpected(scope, exc)
            if started:
                return  # the server notices that the answer is incomplete, and closes the connection
            error = KhotanError(
                f"Something unexpected went wrong ({type(exc).__name__})",
                code="internal_error",
                hint="The server's log says where.",
            )
            await error_response(error)(scope, receive, send)


def note_unexpected(scope: Scope, exc: Exception) -> None:
    """A line in the log of what nothing caught, without what it says."""
    where = place_of(exc) or "an unknown place"
    logger.error("%s %s raised %s at %s", scope["method"], scope["path"], type(exc).__name__, where)


async def _khotan(_: Request, exc: Any) -> JSONResponse:
    return error_response(exc)


async def _validation(request: Request, exc: Any) -> JSONResponse:
    first = exc.errors()[0]
    if first["type"] == "json_invalid":
        return error_response(
            KhotanError("The request body is not valid JSON", code="invalid_json", hint="Send a JSON object.")
        )
    place = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    hint = "Correct that field."
    if place == "body" and "json" not in request.headers.get("content-type", ""):
        hint = "Send a JSON object, with Content-Type: application/json."
    # The input is not quoted: it may hold a secret.
    message = f"{place}: {str(first['msg']).removeprefix('Value error, ')}"
    return error_response(KhotanError(message, code="invalid_input", hint=hint, details={"field": place}))


async def _http(_: Request, exc: Any) -> JSONResponse:
    if isinstance(exc.__cause__, (UnicodeDecodeError, RecursionError)):  # how FastAPI passes on a body it cannot parse
        return error_response(
            KhotanError(
                "The request body cannot be read as JSON", code="invalid_json", hint="Send JSON in UTF-8 (RFC 8259)."
            )
        )
    code, message, hint = _HTTP.get(exc.status_code, ("failed", "", ""))
    error = KhotanError(message or str(exc.detail), code=code, hint=hint)
    return error_response(error, exc.status_code, exc.headers)
