"""The cookies that a request sends and stores: those of its credential, only at the plug's own origin."""

from __future__ import annotations

import httpx

from khotan_cli.runtime.http.call_context import CallContext
from khotan_cli.runtime.http.sender import Sender
from khotan_cli.runtime.http.urls import same_origin
from khotan_cli.runtime.redaction.withheld import origin


def jar_for(plug: Sender, request: httpx.Request, ctx: CallContext) -> httpx.Cookies | None:
    """The cookie jar of a request. None if the plug keeps no cookies, or if the request goes to another origin.

    Variables are part of the credential, because a session may have been opened with them.
    """
    if not plug.cookies or not same_origin(request.url, ctx.base_url):
        return None
    credential = plug.credential(ctx)
    text = credential if isinstance(credential, str) else ""
    digest = ctx.store.fingerprint(f"cookies\0{text}\0{sorted(ctx.vars.items())!r}")
    return plug.shared.jars.of((digest, origin(request.url), None if isinstance(credential, str) else credential))
