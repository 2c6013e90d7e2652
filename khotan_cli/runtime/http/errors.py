"""Transport failures and error statuses → PlugError, in words that say what to do."""

from __future__ import annotations

import ssl
from typing import Any

import httpx

from khotan_cli.errors import AuthError, PlugError, PlugTimeout, PlugUnreachable
from khotan_cli.runtime.content.error_body import ServiceError
from khotan_cli.runtime.content.evidence import excerpt, one_line
from khotan_cli.runtime.http.call_context import CallContext
from khotan_cli.runtime.redaction.masker import Masker, masker_of
from khotan_cli.runtime.redaction.withheld import withheld_from

UNFINISHED = "khotan.unfinished"
"""Extension of a request: the status of the answer whose body is being read."""


class RedirectError(httpx.UnsupportedProtocol):
    """A redirect to something that is not an http(s) URL. Repeating the request would lead there again."""


class TokenNotFetched(httpx.TransportError):
    """No token came: the request that it was for never left.

    `refusal`: the error of a token endpoint that answered with an error status, `response`.
    """

    def __init__(self, message: str, *, request: httpx.Request, refusal: AuthError | None = None) -> None:
        super().__init__(message, request=request)
        self.refusal = refusal
        self.response = None if refusal is None else refusal.response


def explain(error: httpx.TransportError, ctx: CallContext, *, method: str, url: str, attempts: int) -> PlugError:
    """The PlugError for a failure after the last attempt."""
    plug, endpoint = ctx.plug, ctx.endpoint
    request = _request(error)
    withheld = "" if request is None else withheld_from(request)
    status: int | None = None if request is None else request.extensions.get(UNFINISHED)
    masker = Masker([*ctx.secrets(), *ctx.tokens.secrets()])
    where = f"{method} {httpx.URL(url).copy_with(query=None, fragment=None)}"
    tries = f" after {attempts} attempts" if attempts > 1 else ""
    reason = _certificate(error)
    if reason is not None:
        what, hint = (
            f"the certificate does not verify: {reason}",
            ("Check the host name; for a private authority set verify='/path/to/ca.pem' on the plug."),
        )
    elif isinstance(error, httpx.TimeoutException):
        return PlugTimeout(
            masker.text(f"{where} timed out{tries}: {error}"),
            plug=plug,
            endpoint=endpoint,
            status=status,
            hint=_joined("Try again later, or raise the plug's timeout (seconds).", withheld),
        )
    elif isinstance(error, httpx.ConnectError):
        what, hint = (
            f"no connection: {error}",
            "Check the base URL, and that the service runs and is reachable from here.",
        )
    elif isinstance(error, httpx.ProxyError):
        what, hint = str(error), "Check the proxy settings (HTTP_PROXY, HTTPS_PROXY, NO_PROXY)."
    elif isinstance(error, RedirectError):
        what, hint = (
            str(error),
            "The service's Location header is wrong: call the right URL, or set follow_redirects=False.",
        )
    elif isinstance(error, httpx.UnsupportedProtocol):
        what, hint = str(error), "Correct the plug's base_url."
    elif isinstance(error, httpx.RemoteProtocolError):
        what, hint = (
            f"the answer is not valid HTTP or was cut short: {error}",
            "Try again; if it stays, ask the service.",
        )
    else:
        what, hint = f"the connection broke: {error}", "Try again; if it stays, check network and service."
    message = masker.text(f"{where} failed{tries}: {what}")
    return PlugUnreachable(message, plug=plug, endpoint=endpoint, status=status, hint=_joined(hint, withheld))


def _request(error: httpx.TransportError) -> httpx.Request | None:
    """The request that failed, which may be the one of a redirect."""
    try:
        return error.request
    except RuntimeError:  # httpx raises it where the error names no request
        return None


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def status_error(plug: str, endpoint: str, response: httpx.Response, body: Any) -> PlugError:
    """The PlugError for an error status; `body` is the parsed model, or what the body decoded to.

    Its message ends with what the service says, masked and bounded; its hint is a guess and says so.
    """
    status = response.status_code
    request = response.request
    where = f"{request.method} {request.url.copy_with(query=None, fragment=None, userinfo=b'')}"
    name = f"{plug}.{endpoint}" if endpoint else plug
    withheld = withheld_from(response)
    refused = status in (401, 403) and not withheld
    said = excerpt(response, body)
    message = masker_of(response).text(f"{name}: {status} {response.reason_phrase} from {where}")
    return PlugError(
        f"{message}: {said}" if said else message,
        plug=plug,
        endpoint=endpoint,
        response=response,
        body=body,
        code="plug_refused" if refused else "unexpected_status",
        hint=_guess(status, withheld, said),
        next=[f"khotan plug vars {plug}"] if refused else (),
    )


def service_error(plug: str, endpoint: str, response: httpx.Response, body: Any, said: ServiceError) -> PlugError:
    """The PlugError for a successful status whose body says that the call failed; `said` in the service's own words."""
    name, masker = f"{plug}.{endpoint}" if endpoint else plug, masker_of(response)
    code, message = (None if words is None else one_line(masker.text(words)) for words in (said.code, said.message))
    return PlugError(
        f"{name}: the service answered {response.status_code} with an error: {ServiceError(code, message)}",
        plug=plug,
        endpoint=endpoint,
        response=response,
        body=body,
        code="service_error",
        hint=withheld_from(response) or "This is what the service says; its documentation explains the code.",
        details={"serviceCode": code, "serviceMessage": message},
    )


def _guess(status: int, withheld: str, said: str) -> str:
    """What may be the cause. The service's own words come first; this is marked as a guess."""
    if withheld:
        return withheld
    guess = {
        401: "the credentials were not accepted; check the plug's variables",
        403: "the credentials do not allow this",
        404: "the path or one of its parameters does not exist",
        429: "too many requests; set rate_limit on the plug, or wait",
    }.get(status, "")
    if not guess:
        return ""
    return f"Possible cause{', a guess beside what the service says' if said else ' (a guess)'}: {guess}."


def _certificate(error: BaseException) -> str | None:
    """Why a certificate was refused, where that is at the root of the failure."""
    cause: BaseException | None = error
    while cause is not None:
        # aiohttp's own class is an SSLCertVerificationError too, but holds the reason in an attribute.
        for found in (getattr(cause, "certificate_error", None), cause):
            reason = getattr(found, "verify_message", None)
            if isinstance(found, ssl.SSLCertVerificationError) and reason:
                return str(reason)
        cause = cause.__cause__ or cause.__context__
    return "verification failed" if "CERTIFICATE_VERIFY_FAILED" in str(error) else None
