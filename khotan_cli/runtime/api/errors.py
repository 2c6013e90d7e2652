"""Every failure as the one error document, with its status."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from khotan_cli.errors import KhotanError

logger = logging.getLogger("khotan.api")


def install_error_handlers(api: FastAPI) -> None:
    api.add_exception_handler(KhotanError, _khotan)
    api.add_exception_handler(RequestValidationError, _validation)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(Exception, _unexpected)


def error_response(error: KhotanError, status: int | None = None) -> JSONResponse:
    headers = {"Retry-After": "5"} if error.status == 503 else None
    return JSONResponse(error.to_json(), status or error.status, headers=headers)


async def _khotan(_: Request, exc: Any) -> JSONResponse:
    return error_response(exc)


async def _validation(_: Request, exc: Any) -> JSONResponse:
    first = exc.errors()[0]
    if first["type"] == "json_invalid":
        error = KhotanError("The request body is not valid JSON", code="invalid_json", hint="Send a JSON object.")
        return error_response(error)
    place = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    # The input is not quoted: it may hold a secret.
    error = KhotanError(
        f"{place}: {first['msg']}", code="invalid_input", hint="Correct that field.", details={"field": place}
    )
    return error_response(error)


async def _http(_: Request, exc: Any) -> JSONResponse:
    codes = {404: "not_found", 405: "method_not_allowed"}
    error = KhotanError(
        {404: "There is no such route", 405: "The route does not take this method"}.get(
            exc.status_code, str(exc.detail)
        ),
        code=codes.get(exc.status_code, "failed"),
        hint="The routes are listed in /api/khotan/openapi.json.",
    )
    return error_response(error, exc.status_code)


async def _unexpected(request: Request, exc: Exception) -> JSONResponse:
    # Type and place, not the message or the locals: they may hold secrets.
    frame = exc.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else "?"
    logger.error("%s %s raised %s at %s", request.method, request.url.path, type(exc).__name__, where)
    error = KhotanError(
        f"Something unexpected went wrong ({type(exc).__name__})",
        code="internal_error",
        hint="The server's log says where.",
    )
    return error_response(error)
