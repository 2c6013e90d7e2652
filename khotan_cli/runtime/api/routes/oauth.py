"""POST /plugs/{plug}/oauth/start, /finish: sign-in with a browser for a plug with OAuth2AuthorizationCode."""

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
"""Maximum duration of a login, equal to the maximum lifetime of a code (RFC 6749 4.1.2)."""
_PREFIX = f"{HIDDEN_PREFIX}oauth."


@router.post("/{plug}/oauth/start")
async def start(plug: CurrentPlug, given: OAuthStart, services: CurrentServices) -> OAuthStarted:
    """Return the URL to open. The data of the login is stored encrypted, under a digest of the state."""
    auth = _auth(plug)
    if not given.redirect_uri.startswith(("http://", "https://")):
        raise UsageError("redirectUri is not an http(s) URL", hint="Use the URL to which the browser is redirected.")
    ctx = plug.context("", await plug.resolve())
    asked = auth.authorization_request(ctx, given.redirect_uri)
    kept = json.dumps({"verifier": asked.verifier, "redirectUri": asked.redirect_uri})
    await _forget_old(plug, services)
    await services.vars.save(plug.name, {_state_key(asked.state): kept})
    return OAuthStarted(url=asked.url, state=asked.state)


@router.post("/{plug}/oauth/finish")
async def finish(plug: CurrentPlug, given: OAuthFinish, services: CurrentServices) -> Ok:
    """Exchange the code in the browser's redirect URL for a token and store it. A state works once."""
    auth = _auth(plug)
    asked = await _kept(plug, given.callback_url, services)
    ctx = plug.context("", await plug.resolve())
    request = auth.exchange_request(ctx, asked, given.callback_url)
    response = await send_once(plug, request, ctx)
    await auth.accept(ctx, response)
    return Ok()


async def _kept(plug: Plug, callback_url: str, services: Services) -> AuthorizationRequest:
    """The stored data of the state in the URL. It is removed, so that a state works once, within ten minutes."""
    await _forget_old(plug, services)
    state = parse_qs(urlsplit(callback_url).query).get("state", [""])[0]
    kept = (await services.vars.load(plug.name)).get(_state_key(state))
    if kept is None or not await services.vars.delete(plug.name, [_state_key(state)]):
        raise PlugError(
            f"The state does not belong to a started login of plug {plug.name!r}",
            plug=plug.name,
            code="auth_failed",
            hint="Start the login again.",
            next=[f"khotan plug {plug.name} --login"],
        )
    found = json.loads(kept)
    return AuthorizationRequest("", state, found["verifier"], found["redirectUri"])


async def _forget_old(plug: Plug, services: Services) -> None:
    """Remove logins that were not finished in time."""
    oldest = datetime.now(UTC) - LOGIN_TIME
    entries = await services.vars.entries(plug.name, hidden=True)
    old = [entry.key for entry in entries if entry.key.startswith(_PREFIX) and entry.updated_at < oldest]
    if old:
        await services.vars.delete(plug.name, old)


def _auth(plug: Plug) -> OAuth2AuthorizationCode:
    if not isinstance(plug.auth, OAuth2AuthorizationCode):
        raise UsageError(
            f"Plug {plug.name!r} does not use a login: its auth is not OAuth2AuthorizationCode",
            hint="Set its variables instead.",
            next=[f"khotan plug vars {plug.name}"],
        )
    return plug.auth


def _state_key(state: str) -> str:
    return f"{_PREFIX}{hashlib.sha256(state.encode()).hexdigest()[:16]}"
