"""HMAC signatures of the kinds that Azure and AWS use: dates, header values, templates around the signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest

import khotan_cli.runtime as runtime
from khotan_cli.runtime import HmacAuth, Plug, Retry, SigningInput, Var
from tests.support.loopback import Asked, as_json, loopback

NOW = 1_700_000_000.9
KEY = base64.b64encode(b"\x00\x01key\xff").decode()


class Cloud(Plug):
    base_url = "http://127.0.0.1:9"
    account = Var(default="acme")
    key_id = Var(default="id-1")
    secret = Var(secret=True, default=KEY)
    retry = Retry(attempts=1)


async def sent(
    auth: HmacAuth, method: str = "POST", path: str = "/a%2Fb?x=1&y=%20", **options: Any
) -> tuple[Asked, str]:
    async with loopback(lambda asked: as_json({})) as server:
        await Cloud().with_options(base_url=server.url, auth=auth).request(method, path, **options)
        return server.asked[0], server.url.removeprefix("http://")


def signature(content: str | bytes, key: bytes = b"\x00\x01key\xff", algorithm: str = "sha256") -> str:
    raw = content.encode() if isinstance(content, str) else content
    return base64.b64encode(hmac.new(key, raw, algorithm).digest()).decode()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("seconds", "1700000000"),
        ("milliseconds", "1700000000900"),
        ("iso8601", "2023-11-14T22:13:20Z"),
        ("iso8601-basic", "20231114T221320Z"),
        ("http-date", "Tue, 14 Nov 2023 22:13:20 GMT"),
    ],
)
async def test_forms_of_the_timestamp(kind: Any, text: str) -> None:
    auth = HmacAuth("k", content="{timestamp}", timestamp_header="Date", timestamp_format=kind, clock=lambda: NOW)
    asked, _ = await sent(auth)
    assert asked.headers["date"] == text
    assert asked.headers["x-signature"] == hmac.new(b"k", text.encode(), "sha256").hexdigest()


def test_an_unknown_form_of_the_timestamp_is_named() -> None:
    with pytest.raises(ValueError, match=r"timestamp_format='rfc2822' is not supported\. Use seconds, "):
        HmacAuth("k", timestamp_format="rfc2822")  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [None, {"n": "{nonce} {header:Host}"}])
async def test_azure_app_configuration(body: Any) -> None:
    """Microsoft Learn, "HMAC authentication - REST API reference" of Azure App Configuration."""
    auth = HmacAuth(
        Cloud.secret,
        content="{method}\n{target}\n{header:x-ms-date};{header:HOST};{header:x-ms-content-sha256}",
        encoding="base64",
        secret_encoding="base64",
        header="Authorization",
        prefix="HMAC-SHA256 Credential={key_id}&SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature=",
        headers={"x-ms-content-sha256": "{body_sha256_base64}"},
        timestamp_header="x-ms-date",
        timestamp_format="http-date",
        clock=lambda: NOW,
    )
    asked, host = await sent(auth, body=body)
    hashed = base64.b64encode(hashlib.sha256(asked.body).digest()).decode()
    content = f"POST\n/a%2Fb?x=1&y=%20\nTue, 14 Nov 2023 22:13:20 GMT;{host};{hashed}"
    expected = "HMAC-SHA256 Credential=id-1&SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature="
    assert asked.headers["authorization"] == expected + signature(content)
    assert asked.headers["x-ms-content-sha256"] == hashed


async def test_azure_shared_key_for_tables() -> None:
    """Microsoft Learn, "Authorize with Shared Key", Table service: verb, Content-MD5, Content-Type, date, resource."""
    auth = HmacAuth(
        Cloud.secret,
        content="{method}\n{header:Content-MD5}\n{header:Content-Type}\n{header:x-ms-date}\n/{account}{path}",
        encoding="base64",
        secret_encoding="base64",
        header="Authorization",
        prefix="SharedKey {account}:",
        timestamp_header="x-ms-date",
        timestamp_format="http-date",
        clock=lambda: NOW,
    )
    asked, _ = await sent(auth, body={"n": 1})
    content = "POST\n\napplication/json\nTue, 14 Nov 2023 22:13:20 GMT\n/acme/a%2Fb"
    assert asked.headers["authorization"] == f"SharedKey acme:{signature(content)}"


async def test_a_function_sees_every_header_and_the_signature_has_a_suffix() -> None:
    seen: list[SigningInput] = []

    def content(given: SigningInput) -> str:
        seen.append(given)
        names = sorted(name.lower() for name in given.headers if name.lower().startswith("x-amz-"))
        return "\n".join(f"{name}:{given.header(name)}" for name in names)

    auth = HmacAuth(
        "k",
        content=content,
        encoding="base64",
        header="Authorization",
        prefix='Signature keyId="{key_id}",created={timestamp},signature="',
        suffix='",headers="{header:x-amz-list}"',
        headers={"X-Amz-Content-Md5": "{body_md5_base64}", "X-Amz-List": "date {header:X-Amz-Date}"},
        timestamp_header="X-Amz-Date",
        timestamp_format="iso8601-basic",
        nonce_header="X-Amz-Nonce",
        clock=lambda: NOW,
    )
    asked, _ = await sent(auth, body="text", headers={"X-Amz-Own": "  mine "})
    md5, nonce = base64.b64encode(hashlib.md5(asked.body).digest()).decode(), asked.headers["x-amz-nonce"]
    lines = (
        f"x-amz-content-md5:{md5}\nx-amz-date:20231114T221320Z\nx-amz-list:date 20231114T221320Z\nx-amz-nonce:{nonce}"
    )
    expected = signature(f"{lines}\nx-amz-own:mine", b"k")
    assert asked.headers["authorization"] == (
        f'Signature keyId="id-1",created=20231114T221320Z,signature="{expected}",headers="date 20231114T221320Z"'
    )
    assert seen[0].header("no-such") == ""


async def test_a_template_in_the_prefix_of_a_query_parameter() -> None:
    auth = HmacAuth("k", content="{target}", query="sig", prefix="{key_id}.")
    asked, _ = await sent(auth, "GET", "/a")
    assert asked.query["sig"] == "id-1." + hmac.new(b"k", b"/a", "sha256").hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        "HmacAuth",
        "SigningInput",
        "TimestampFormat",
        "PlugAuth",
        "RenewedAuth",
        "Token",
        "TokenAuth",
        "AuthorizationRequest",
    ],
)
def test_what_a_strategy_of_your_own_needs_comes_from_the_runtime(name: str) -> None:
    assert name in runtime.__all__ and getattr(runtime, name)
