"""What is told of a flow that raised: kind, message, place; no traceback, no value of a variable."""

from __future__ import annotations

from typing import Any

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.database.errors import explain
from khotan_cli.runtime.http.redaction import Masker
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Host
from khotan_cli.runtime.runs.redaction import Secrets
from khotan_cli.runtime.user_traceback import user_location

_LONGEST = 1000


async def failure_of(exc: Exception, host: Host, flow: Flow | None) -> dict[str, Any]:
    """The error document of a failed run, with the secrets of the app's plugs masked."""
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(exc, SQLAlchemyError):
        # It would quote the statement's values.
        kind = type(getattr(exc, "orig", None) or exc).__name__
        exc = _located(explain(exc, host.database.url), exc, kind)
    masker = await masker_of(host, flow)
    if isinstance(exc, KhotanError):
        document = exc.to_json()
        document.pop("ok")
    else:
        text = " ".join(str(exc).split())[:_LONGEST]
        document = {"error": "flow_failed", "message": f"{type(exc).__name__}: {text}" if text else type(exc).__name__}
        document["hint"] = "Correct the flow's code; then retry the run from its start, or from a step."
    place = user_location(exc)
    if place:
        document["place"] = place
    masked: dict[str, Any] = masker.value(document)
    return masked


def _located(error: KhotanError, exc: Exception, kind: str) -> KhotanError:
    error.__traceback__ = exc.__traceback__
    if kind not in error.message:
        error.message += f" ({kind})"
    return error


async def masker_of(host: Host, flow: Flow | None) -> Masker:
    """Masks the secrets of all plugs of the app, and of the flow's."""
    return await Secrets(host, flow).masker()
