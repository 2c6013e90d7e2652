"""POST /plugs/{plug}/oauth/start, /finish: somebody signs in, in a browser, for a plug with OAuth2AuthorizationCode."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from khotan_cli.errors import PlugError, UsageError
from khotan_cli.runtime.api.access import CurrentPlug, CurrentServices
from khotan_cli.runtime.api.models.common import OAuthFinish, OAuthStart, OAuthStarted, Ok
from khotan_cli.runtime.api.operations import Router
from khotan_cli.runtime.auth.oauth2 import AuthorizationRequest, OAuth2AuthorizationCode
from khotan_cli.runtime.http.pipeline import send_once
from khotan_cli.runtime.http.variables import HIDDEN_PREFIX
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.services import Services

router = Router("/plugs", tags=["oauth"])

LOGIN_TIME = timedelta(minutes=10)
"""How long an answer is waited for; RFC 6749 4.1.2 gives a code as long."""
_PREFIX = f"{HIDDEN_PREFIX}oauth."


@router.post("/{plug}/oauth/start")
async def start(plug: CurrentPlug, given: OAuthStart, services: CurrentServices) -> OAuthStarted:
    """The URL to open. What must be kept until the answer comes is stored encrypted, named by a digest of the state."""
    auth = _auth(plug)
    if not given.redirect_uri.startswith(("http://", "https://")):
        raise UsageError("redirectUri is not an http(s) URL", hint="It is where the browser comes back to.")
    ctx = plug.context("", await plug.resolve())
    asked = auth.authorization_request(ctx, given.redirect_uri)
    kept = json.dumps({"verifier": asked.verifier, "redirectUri": asked.redirect_uri})
    await _forget_old(plug, services)
    await services.vars.save(plug.name, {_place(asked.state): kept})
    return OAuthStarted(url=asked.url, state=asked.state)


@router.post("/{plug}/oauth/finish")
async def finish(plug: CurrentPlug, given: OAuthFinish, services: CurrentServices) -> Ok:
    """Exchange the code in the URL that the browser came back with; the token is stored. A state works once."""
    auth = _auth(plug)
    asked = await _kept(plug, given.callback_url, services)
    ctx = plug.context("", await plug.resolve())
    request = auth.exchange_request(ctx, asked, given.callback_url)
    response = await send_once(plug, request, ctx)
    await auth.accept(ctx, response)
    return Ok()


async def _kept(plug: Plug, callback_url: str, services: Services) -> AuthorizationRequest:
    """What was kept for the state in the URL. Whoever removes it has it: a state works once, for ten minutes."""
    await _forget_old(plug, services)
    state = parse_qs(urlsplit(callback_url).query).get("state", [""])[0]
    kept = (await services.vars.load(plug.name)).get(_place(state))
    if kept is None or not await services.vars.delete(plug.name, [_place(state)]):
        raise PlugError(
            f"The answer's state belongs to no login of plug {plug.name!r} that was started",
            plug=plug.name,
            code="auth_failed",
            hint="Start the login again.",
            next=[f"khotan plug {plug.name} --login"],
        )
    found = json.loads(kept)
    return AuthorizationRequest("", state, found["verifier"], found["redirectUri"])


async def _forget_old(plug: Plug, services: Services) -> None:
    """Remove logins that nobody finished in time."""
    oldest = datetime.now(UTC) - LOGIN_TIME
    entries = await services.vars.entries(plug.name, hidden=True)
    old = [entry.key for entry in entries if entry.key.startswith(_PREFIX) and entry.updated_at < oldest]
    if old:
        await services.vars.delete(plug.name, old)


def _auth(plug: Plug) -> OAuth2AuthorizationCode:
    if not isinstance(plug.auth, OAuth2AuthorizationCode):
        raise UsageError(
            f"Plug {plug.name!r} needs no login: its auth is not OAuth2AuthorizationCode",
            hint="Set its variables instead.",
            next=[f"khotan plug vars {plug.name}"],
        )
    return plug.auth


def _place(state: str) -> str:
    return f"{_PREFIX}{hashlib.sha256(state.encode()).hexdigest()[:16]}"
