"""Prepares a response body for the contract check: the bytes of JSON, or the values from a parser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from khotan_cli.errors import ResponseInvalid
from khotan_cli.runtime.content.codec import Decoder, decode_untyped, is_json, media_type, not_json, text_of
from khotan_cli.runtime.content.parsers import Parser, is_xml, parser_for
from khotan_cli.runtime.contract.check import Source


def comparable(name: str, response: httpx.Response, model: Any, parsers: Mapping[str, Parser]) -> tuple[Any, Source]:
    """The body of a response and its source. `name` is `plug.endpoint`, for messages.

    Raises ResponseInvalid for a body that the plug cannot read as `model`.
    """
    kind = media_type(response)
    if model is None or model is type(None) or model is bytes:
        return response.content, "json"
    if model is str:
        return text_of(response), "values"
    if not response.content:
        raise ResponseInvalid(
            f"{name}: the response {response.status_code} has no body",
            hint=f"If the service sends no body, declare it: responses={{{response.status_code}: None}}.",
            response=response,
        )
    parser = parser_for(parsers, kind)
    if parser is None and kind and not is_json(kind):
        raise not_json(response)
    parsed = decode_untyped(response, parsers)  # its error for broken JSON names the request
    if parser is None:
        return response.content, "json"
    return Decoder(model).listed(kind, parsed), "text" if is_text(kind) else "values"


def is_text(kind: str) -> bool:
    """Whether all values of a media type are text: XML, CSV and similar. YAML has numbers."""
    return is_xml(kind) or ("csv" in kind) or (kind.startswith("text/") and "yaml" not in kind and not is_json(kind))
