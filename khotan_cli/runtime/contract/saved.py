"""Responses saved in files, to compare without a call and to replay in tests. Credentials are never written."""

from __future__ import annotations

import base64
import binascii
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from khotan_cli.errors import UsageError
from khotan_cli.runtime.content.json_text import load_json
from khotan_cli.runtime.contract.examples import is_sensitive
from khotan_cli.runtime.redaction.masker import BULLETS, SENSITIVE_HEADERS

VERSION = 1
_DROPPED = SENSITIVE_HEADERS | {"content-encoding", "content-length", "transfer-encoding", "connection"}
"""Headers with credentials, and headers of the transfer, because the body is saved decompressed."""


@dataclass(frozen=True)
class SavedResponse:
    """A saved response. `url` is the request's, with secrets masked; `body` the bytes after decompression."""

    plug: str
    endpoint: str
    method: str
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def to_json(self) -> dict[str, Any]:
        """The document for the file, with a JSON body as JSON and any other body as Base64."""
        response: dict[str, Any] = {
            "status": self.status,
            "headers": {name: value for name, value in self.headers.items() if name.lower() not in _DROPPED},
        }
        try:
            load_json(self.body)  # invalid JSON (NaN, lone surrogates) is saved as bytes
            response["body"] = json.loads(self.body.decode())
        except (ValueError, RecursionError):
            response["bodyBase64"] = base64.b64encode(self.body).decode()
        return {
            "khotan": VERSION,
            "plug": self.plug,
            "endpoint": self.endpoint,
            "request": {"method": self.method, "url": _without_credentials(self.url)},
            "response": response,
        }

    def response(self, request: httpx.Request) -> httpx.Response:
        """The response to a request."""
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _DROPPED}
        return httpx.Response(self.status, headers=headers, content=self.body, request=request)


def _without_credentials(url: str) -> str:
    """A URL without user and password, and with secret-like parameters masked."""
    parts = urlsplit(url)
    pairs = [pair.partition("=") for pair in parts.query.split("&")] if parts.query else []
    query = "&".join(f"{name}={BULLETS}" if is_sensitive(name) else name + eq + text for name, eq, text in pairs)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


def parse_saved(document: Any, where: str = "The saved response") -> SavedResponse:
    """Read the document of a saved response. Raises UsageError for an invalid document."""
    try:
        if document["khotan"] != VERSION:
            raise UsageError(
                f"{where} has format {document['khotan']!r}, but this khotan reads {VERSION}",
                hint="Save the response again.",
            )
        request, response = document["request"], document["response"]
        if "bodyBase64" in response:
            body = base64.b64decode(response["bodyBase64"], validate=True)
        else:
            body = json.dumps(response["body"], ensure_ascii=False).encode()
        return SavedResponse(
            plug=str(document["plug"]),
            endpoint=str(document["endpoint"] or ""),
            method=str(request["method"]),
            url=str(request["url"]),
            status=int(response["status"]),
            headers={str(name): str(value) for name, value in response["headers"].items()},
            body=body,
        )
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as exc:
        missing = f" (no {exc.args[0]!r})" if isinstance(exc, KeyError) else ""
        raise UsageError(
            f"{where} is not a response saved by khotan{missing}", hint="Save it with --endpoint E --save FILE."
        ) from None


def load_saved(path: Path | str) -> SavedResponse:
    """Read a file that `--save` wrote. Raises UsageError."""
    try:
        document = json.loads(Path(path).read_bytes())
    except OSError as exc:
        raise UsageError(
            f"Cannot read {path}: {exc.strerror}", hint="Check the path.", code="file_not_readable"
        ) from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not valid JSON", hint="Save it with --endpoint E --save FILE.") from None
    return parse_saved(document, str(path))


def write_saved(path: Path | str, saved: SavedResponse) -> None:
    """Write the file atomically. Raises UsageError if it cannot be written."""
    write_atomically(Path(path), json.dumps(saved.to_json(), indent=2, ensure_ascii=False) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Write to a temporary file beside the target, then rename."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            temporary = Path(file.name)
            try:
                file.write(text)
                file.close()
                temporary.chmod(0o644)
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as exc:
        raise UsageError(
            f"Cannot write {path}: {exc.strerror}", hint="Check the path.", code="file_not_readable"
        ) from None
