"""Error documents of failed flows: kind, message and location; no traceback, no values of variables."""

from __future__ import annotations

from typing import Any

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.database.errors import translate_error
from khotan_cli.runtime.redaction.masker import Masker
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.runs.redaction import Redaction
from khotan_cli.runtime.user_traceback import user_location

_LONGEST = 1000


async def failure_of(exc: Exception, env: Environment, flow: Flow | None) -> dict[str, Any]:
    """Return the error document of a failed run, with the secrets of the app's plugs masked."""
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(exc, SQLAlchemyError):
        # The original message quotes the statement's values.
        kind = type(getattr(exc, "orig", None) or exc).__name__
        exc = _located(translate_error(exc, env.database.url), exc, kind)
    masker = await masker_of(env, flow)
    if isinstance(exc, KhotanError):
        document = exc.to_json()
        document.pop("ok")
    else:
        text = " ".join(str(exc).split())[:_LONGEST]
        document = {"error": "flow_failed", "message": f"{type(exc).__name__}: {text}" if text else type(exc).__name__}
        document["hint"] = "Correct the flow's code, then retry the run from its start or from a step."
    location = user_location(exc)
    if location:
        document["place"] = location
    masked: dict[str, Any] = masker.value(document)
    return masked


def _located(error: KhotanError, exc: Exception, kind: str) -> KhotanError:
    error.__traceback__ = exc.__traceback__
    if kind not in error.message:
        error.message += f" ({kind})"
    return error


async def masker_of(env: Environment, flow: Flow | None) -> Masker:
    """Return a masker for the secrets of all plugs of the app and the flow."""
    return await Redaction(env, flow).masker()
