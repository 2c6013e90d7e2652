"""Encodes request bodies and decodes response bodies."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import quote_plus

import httpx
from pydantic import TypeAdapter, ValidationError

from khotan_cli.errors import ParameterError, ResponseInvalid
from khotan_cli.runtime.content.json_text import (
    NotJson,
    check_json,
    dump_json,
    encodable,
    load_json,
    reason,
    without_bom,
)
from khotan_cli.runtime.content.parsers import Parser, decoded, is_xml, parser_for, with_lists
from khotan_cli.runtime.content.query import scalar_text
from khotan_cli.runtime.redaction.masker import masker_of
from khotan_cli.runtime.redaction.withheld import withheld_from

Encoding = Literal["json", "form"]


def encode_body(body: Any, encoding: Encoding) -> tuple[bytes, str | None]:
    """Bytes and content type of a body. Bytes and text are sent unchanged, other values as JSON or as a form."""
    if isinstance(body, (bytes, bytearray)):
        return bytes(body), None
    if isinstance(body, str) and encoding != "json":
        return encodable(body, "The body").encode(), None
    if encoding == "form":
        if not isinstance(body, Mapping):
            raise ParameterError("A form body must be a mapping", hint="Pass a mapping of names to values.")
        return encode_form(body).encode(), "application/x-www-form-urlencoded"
    return dump_json(body), "application/json"


def encode_form(fields: Mapping[str, Any]) -> str:
    """application/x-www-form-urlencoded; nested values in brackets: `a[b]=1`, `items[0][price]=x` (Stripe, PHP, Rails)."""
    pairs = _flat(fields, "")
    for name, text in pairs:
        encodable(text, f"Field {encodable(name, 'The name of a field')!r}")
    return "&".join(f"{quote_plus(name, safe='[]')}={quote_plus(text)}" for name, text in pairs)


def _flat(value: Any, prefix: str) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [pair for k, item in value.items() for pair in _flat(item, f"{prefix}[{k}]" if prefix else str(k))]
    if isinstance(value, (list, tuple)):
        return [pair for index, item in enumerate(value) for pair in _flat(item, f"{prefix}[{index}]")]
    text = scalar_text(value)
    if text is None:
        raise ParameterError(
            f"Form field {prefix!r} is None: forms have no null value",
            hint="Omit the field, or pass the text that the service reads as empty, often ''.",
        )
    return [(prefix, text)]


class Decoder:
    """Decodes responses into one declared type. Created once per type, with its compiled validator."""

    def __init__(self, declared: Any) -> None:
        self.declared = declared
        self.adapter: TypeAdapter[Any] = TypeAdapter(declared)

    def decode(self, response: httpx.Response, parsers: Mapping[str, Parser]) -> Any:
        """The response as the declared type. Raises ResponseInvalid, which describes the actual body."""
        if self.declared is bytes:
            return response.content
        if self.declared is str:
            return text_of(response)
        if self.declared is None or self.declared is type(None):
            return None
        kind = media_type(response)
        parser = parser_for(parsers, kind)
        try:
            if parser is not None:
                return self.adapter.validate_python(self.listed(kind, _parsed(parser, response)))
            if is_json(kind) or not kind:
                return self.adapter.validate_json(check_json(response.content))
        except NotJson as exc:
            raise _broken_json(response, str(exc)) from None
        except ValidationError as exc:
            raise invalid_model(response, exc, self.declared) from None
        raise not_json(response)

    def listed(self, kind: str, value: Any) -> Any:
        """The parsed values. XML values become lists where the declared type has lists."""
        return with_lists(self.adapter, value) if is_xml(kind) else value


def decode_document(response: httpx.Response, parsers: Mapping[str, Parser], decoder: Decoder | None = None) -> Any:
    """The values that the declared model of `decoder` is validated from: JSON values, or a parser's result.

    Raises ResponseInvalid for a body that cannot be decoded.
    """
    kind = media_type(response)
    parser = parser_for(parsers, kind)
    if parser is not None:
        value = _parsed(parser, response)
        return value if decoder is None else decoder.listed(kind, value)
    if kind and not is_json(kind):
        raise not_json(response)
    return _json(response)


def decode_untyped(response: httpx.Response, parsers: Mapping[str, Parser]) -> Any:
    """JSON values, a parser's result, text, or bytes, by content type; None for an empty body."""
    if not response.content:
        return None
    kind = media_type(response)
    parser = parser_for(parsers, kind)
    if parser is not None:
        return _parsed(parser, response)
    if is_json(kind):
        return _json(response)
    if kind.startswith("text/") or kind == "application/x-www-form-urlencoded" or response.charset_encoding:
        return text_of(response)
    return response.content


def decode_error(response: httpx.Response, parsers: Mapping[str, Parser], decoder: Decoder | None = None) -> Any:
    """The body of an error status: the declared model, else the decoded body, else the bytes.

    Never raises: the error status is more important than an unreadable body.
    """
    for attempt in (decoder.decode if decoder else None, decode_untyped):
        if attempt is not None:
            with suppress(ResponseInvalid):
                return attempt(response, parsers)
    return response.content


def media_type(response: httpx.Response) -> str:
    """The media type in lower case without parameters, such as `application/json`; empty without a Content-Type."""
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Whether a media type is JSON, structured suffixes included (RFC 6839)."""
    return kind == "application/json" or kind.endswith("+json") or kind in ("text/json", "application/x-json")


def text_of(response: httpx.Response) -> str:
    """The body as text, without a byte order mark, in its declared charset, else UTF-8.

    Raises ResponseInvalid for bytes that are invalid in that charset.
    """
    encoding = response.charset_encoding or "utf-8"
    try:
        return decoded(response)
    except (UnicodeDecodeError, LookupError) as exc:
        raise _invalid(response, f"is not valid {encoding}: {_reason(exc)}") from None


def preview(content: str, length: int = 80) -> str:
    """The first characters of a text, on one line."""
    text = " ".join(content[: length * 4].split())
    return text[:length] + ("…" if len(text) > length or len(content) > length * 4 else "")


def not_json(response: httpx.Response) -> ResponseInvalid:
    """The error for a body whose content type is not JSON."""
    kind = media_type(response) or "no content type"
    return _invalid(
        response,
        f"is {kind}, not JSON",
        hint="Check the URL and the credentials. For another format, add a parser: parsers = {content_type: function}.",
    )


def invalid_model(response: httpx.Response, exc: ValidationError, declared: Any) -> ResponseInvalid:
    """The error for a body that is not JSON or does not match the declared model. It contains no input values."""
    errors = exc.errors(include_url=False, include_input=False, include_context=False)
    if errors and errors[0]["type"] == "json_invalid":
        return _broken_json(response, errors[0]["msg"].removeprefix("Invalid JSON: "))
    shown = [f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}" for error in errors[:3]]
    more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
    name = getattr(declared, "__name__", str(declared))
    return _invalid(
        response,
        f"does not match {name}: {'; '.join(shown)}{more}",
        hint="Run khotan plug NAME --endpoint ENDPOINT --compare to see all differences.",
        preview_body=False,
    )


def _broken_json(response: httpx.Response, text: str) -> ResponseInvalid:
    size = len(response.content)
    if size == 0:
        return _invalid(response, "is empty, but JSON was expected")
    problem = reason(without_bom(response.content), text)
    if "RFC 8259" in problem:
        return _invalid(response, f"is not valid JSON: {problem}")
    return _invalid(response, f"is not valid JSON ({problem}; {size} bytes)", hint="The body may have been cut short.")


def _parsed(parser: Parser, response: httpx.Response) -> Any:
    try:
        return parser(response)
    except ResponseInvalid:
        raise
    except Exception as exc:  # any exception of a user's parser means that the body is unreadable
        if isinstance(exc, LookupError) and not _known_charset(response):
            raise _invalid(response, f"has the unknown charset {response.charset_encoding!r}") from exc
        raise _invalid(response, f"could not be read by its parser: {type(exc).__name__}") from exc


def _known_charset(response: httpx.Response) -> bool:
    try:
        codecs.lookup(response.charset_encoding or "utf-8")
    except (LookupError, ValueError):
        return False
    return True


def _json(response: httpx.Response) -> Any:
    try:
        return load_json(response.content)
    except NotJson as exc:
        raise _broken_json(response, str(exc)) from None


def _reason(exc: Exception) -> str:
    return f"byte {exc.start} of {len(exc.object)}" if isinstance(exc, UnicodeDecodeError) else str(exc)


def _invalid(response: httpx.Response, problem: str, *, hint: str = "", preview_body: bool = True) -> ResponseInvalid:
    masker = masker_of(response)
    where = f"{response.request.method} {response.request.url.copy_with(query=None, userinfo=b'')}"
    # Masked before it is cut, because a part of a secret would not be recognised.
    body_start = preview(masker.text(response.content.decode("utf-8", "replace"))) if preview_body else ""
    text = masker.text(f"The response {response.status_code} of {where} {problem}") + (
        f"; the body begins with {body_start!r}" if body_start else ""
    )
    return ResponseInvalid(text, response=response, hint=withheld_from(response) or hint)
