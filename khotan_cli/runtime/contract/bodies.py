"""The body of a response as what the contract check judges: the bytes of JSON, or the values that a parser makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from khotan_cli.errors import ResponseInvalid
from khotan_cli.runtime.content.codec import Decoder, decode_untyped, is_json, media_type, not_json, text_of
from khotan_cli.runtime.content.parsers import Parser, is_xml, parser_for
from khotan_cli.runtime.contract.check import Source


def comparable(name: str, response: httpx.Response, model: Any, parsers: Mapping[str, Parser]) -> tuple[Any, Source]:
    """The body of a response, and what it was made from. `name` is `plug.endpoint`, for messages.

    Raises ResponseInvalid for a body that the plug would not read as `model` either.
    """
    kind = media_type(response)
    if model is None or model is type(None) or model is bytes:
        return response.content, "json"
    if model is str:
        return text_of(response), "values"
    if not response.content:
        raise ResponseInvalid(
            f"{name}: the response {response.status_code} has no body",
            hint=f"Where the service sends none, declare it: responses={{{response.status_code}: None}}.",
            response=response,
        )
    parser = parser_for(parsers, kind)
    if parser is None and kind and not is_json(kind):
        raise not_json(response)
    parsed = decode_untyped(response, parsers)  # says of broken JSON which request it answered
    if parser is None:
        return response.content, "json"
    return Decoder(model).listed(kind, parsed), "text" if is_text(kind) else "values"


def is_text(kind: str) -> bool:
    """Whether a media type's values are all text: XML, CSV and its kin. YAML has numbers of its own."""
    return is_xml(kind) or ("csv" in kind) or (kind.startswith("text/") and "yaml" not in kind and not is_json(kind))
