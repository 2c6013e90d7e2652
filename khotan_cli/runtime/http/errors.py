"""Translates transport failures and error statuses to PlugError."""

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
"""Request extension: the status of the response whose body is being read."""


class RedirectError(httpx.UnsupportedProtocol):
    """A redirect to a URL that is not http(s). It is not retried, since the service would redirect again."""


class TokenNotFetched(httpx.TransportError):
    """No token was received, so the actual request was not sent.

    `refusal` is the error of a token endpoint that answered with an error status; `response` is its response.
    """

    def __init__(self, message: str, *, request: httpx.Request, refusal: AuthError | None = None) -> None:
        super().__init__(message, request=request)
        self.refusal = refusal
        self.response = None if refusal is None else refusal.response


def translate_error(
    error: httpx.TransportError, ctx: CallContext, *, method: str, url: str, attempts: int
) -> PlugError:
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
            f"the certificate is not trusted: {reason}",
            ("Check the host name. For a private certificate authority, set verify='/path/to/ca.pem' on the plug."),
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
            "Check the base URL, and that the service is running and reachable.",
        )
    elif isinstance(error, httpx.ProxyError):
        what, hint = str(error), "Check the proxy settings (HTTP_PROXY, HTTPS_PROXY, NO_PROXY)."
    elif isinstance(error, RedirectError):
        what, hint = (
            str(error),
            "The service sent an invalid Location header. Call the final URL, or set follow_redirects=False.",
        )
    elif isinstance(error, httpx.UnsupportedProtocol):
        what, hint = str(error), "Correct the plug's base_url."
    elif isinstance(error, httpx.RemoteProtocolError):
        what, hint = (
            f"the response is not valid HTTP or was cut short: {error}",
            "Try again. If the error persists, contact the service.",
        )
    else:
        what, hint = (
            f"the connection broke: {error}",
            "Try again. If the error persists, check the network and the service.",
        )
    message = masker.text(f"{where} failed{tries}: {what}")
    return PlugUnreachable(message, plug=plug, endpoint=endpoint, status=status, hint=_joined(hint, withheld))


def _request(error: httpx.TransportError) -> httpx.Request | None:
    """The failed request, which may be that of a redirect."""
    try:
        return error.request
    except RuntimeError:  # raised by httpx if the error has no request
        return None


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def status_error(plug: str, endpoint: str, response: httpx.Response, body: Any) -> PlugError:
    """The PlugError for an error status. `body` is the parsed model, or the decoded body.

    The message ends with the service's own error text, masked and shortened. The hint names a possible cause.
    """
    status = response.status_code
    request = response.request
    where = f"{request.method} {request.url.copy_with(query=None, fragment=None, userinfo=b'')}"
    name = f"{plug}.{endpoint}" if endpoint else plug
    withheld = withheld_from(response)
    rejected = status in (401, 403) and not withheld
    service_text = excerpt(response, body)
    message = masker_of(response).text(f"{name}: {status} {response.reason_phrase} from {where}")
    return PlugError(
        f"{message}: {service_text}" if service_text else message,
        plug=plug,
        endpoint=endpoint,
        response=response,
        body=body,
        code="plug_refused" if rejected else "unexpected_status",
        hint=_possible_cause(status, withheld),
        next=[f"khotan plug vars {plug}"] if rejected else (),
    )


def service_error(plug: str, endpoint: str, response: httpx.Response, body: Any, reported: ServiceError) -> PlugError:
    """The PlugError for a successful status whose body reports a failure. `reported` is the service's own text."""
    name, masker = f"{plug}.{endpoint}" if endpoint else plug, masker_of(response)
    code, message = (
        None if words is None else one_line(masker.text(words)) for words in (reported.code, reported.message)
    )
    return PlugError(
        f"{name}: the service answered {response.status_code} with an error: {ServiceError(code, message)}",
        plug=plug,
        endpoint=endpoint,
        response=response,
        body=body,
        code="service_error",
        hint=withheld_from(response) or "See the service's documentation for this error.",
        details={"serviceCode": code, "serviceMessage": message},
    )


def _possible_cause(status: int, withheld: str) -> str:
    """The hint for an error status: why credentials were withheld, or a possible cause."""
    if withheld:
        return withheld
    cause = {
        401: "the service did not accept the credentials; check the plug's variables",
        403: "the credentials do not permit this call",
        404: "the path or one of its parameters does not exist",
        429: "too many requests; set rate_limit on the plug, or wait",
    }.get(status, "")
    return f"Possible cause (a guess): {cause}." if cause else ""


def _certificate(error: BaseException) -> str | None:
    """Why a certificate was rejected; None if that is not the cause of the failure."""
    cause: BaseException | None = error
    while cause is not None:
        # aiohttp's class is an SSLCertVerificationError too, but has the reason in an attribute.
        for candidate in (getattr(cause, "certificate_error", None), cause):
            reason = getattr(candidate, "verify_message", None)
            if isinstance(candidate, ssl.SSLCertVerificationError) and reason:
                return str(reason)
        cause = cause.__cause__ or cause.__context__
    return "verification failed" if "CERTIFICATE_VERIFY_FAILED" in str(error) else None
