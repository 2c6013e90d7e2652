"""AWS Signature Version 4 as a declaration of HmacAuth, against the values that AWS publishes.

"Signature Version 4 test suite" (AWS General Reference), and the examples of "Signature Calculations for the Authorization
Header" (Amazon S3 API Reference).
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from khotan_cli.runtime import HmacAuth, Plug, Var
from khotan_cli.runtime.auth import canonical_request as canonical
from tests.support.loopback import as_json, loopback

SUITE = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
S3 = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SCOPE = "{date}/us-east-1/%s/aws4_request"


def aws(secret: str | Var, service: str, key_id: str, at: str, signed: tuple[str, ...], **options: Any) -> HmacAuth:
    scope = SCOPE % service
    path = "{path}" if service == "s3" else "{canonical_path}"
    moment = datetime.strptime(at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    return HmacAuth(
        secret,
        content="AWS4-HMAC-SHA256\n{timestamp}\n" + scope + "\n{canonical_sha256}",
        canonical="{method}\n" + path + "\n{canonical_query}\n{canonical_headers}\n{signed_headers}\n{body_sha256}",
        signed_headers=signed,
        secret_prefix="AWS4",
        derive=("{date}", "us-east-1", service, "aws4_request"),
        header="Authorization",
        prefix=f"AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={{signed_headers}}, Signature=",
        timestamp_header="X-Amz-Date",
        timestamp_format="iso8601-basic",
        clock=lambda: moment,
        **options,
    )


async def authorization(auth: HmacAuth, request: httpx.Request) -> str:
    flow = auth.async_auth_flow(request)
    signed = await anext(flow)
    await flow.aclose()
    return str(signed.headers["Authorization"])


@pytest.mark.parametrize(
    ("method", "target", "options", "names", "signature"),
    [
        ("GET", "/", {}, "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            "GET",
            "/?Param2=value2&Param1=value1",
            {},
            "host;x-amz-date",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        ("POST", "/", {}, "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "POST",
            "/",
            {"content": b"Param1=value1", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ],
    ids=["get-vanilla", "get-vanilla-query-order-key-case", "post-vanilla", "post-x-www-form-urlencoded"],
)
async def test_the_test_suite_of_aws(
    method: str, target: str, options: dict[str, Any], names: str, signature: str
) -> None:
    auth = aws(SUITE, "service", "AKIDEXAMPLE", "20150830T123600Z", ("host", "content-type", "x-amz-*"))
    found = await authorization(auth, httpx.Request(method, f"https://example.amazonaws.com{target}", **options))
    assert found == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )


@pytest.mark.parametrize(
    ("target", "headers", "signature"),
    [
        ("/test.txt", {"Range": "bytes=0-9"}, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        ("/?lifecycle", {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("/?max-keys=2&prefix=J", {}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
async def test_the_examples_of_s3(target: str, headers: dict[str, str], signature: str) -> None:
    auth = aws(
        S3,
        "s3",
        "AKIAIOSFODNN7EXAMPLE",
        "20130524T000000Z",
        ("host", "range", "x-amz-*"),
        headers={"x-amz-content-sha256": "{body_sha256}"},
    )
    url = f"https://examplebucket.s3.amazonaws.com{target}"
    assert (await authorization(auth, httpx.Request("GET", url, headers=headers))).endswith(f"Signature={signature}")


async def test_what_is_signed_is_what_a_plug_sends() -> None:
    """A service reads path and query from the request, and computes the same signature."""

    class Store(Plug):
        base_url = "http://127.0.0.1:9"
        secret = Var(secret=True, default=SUITE)
        auth = aws(secret, "execute-api", "AKID", "20250102T030405Z", ("Host", "X-Amz-*"))

    async with loopback(lambda asked: as_json({})) as server:
        plug = Store().with_options(base_url=server.url)
        await plug.get("/a b/c%2Fd/é", params={"q": "x y+z*~", "empty": "", "list": ["2", "1"]})
        asked, host = server.asked[0], server.url.removeprefix("http://")
    request = (
        "GET\n/a%2520b/c%252Fd/%25C3%25A9\nempty=&list=1&list=2&q=x%20y%2Bz%2A~\n"
        f"host:{host}\nx-amz-date:20250102T030405Z\n\nhost;x-amz-date\n{hashlib.sha256(b'').hexdigest()}"
    )
    scope = "20250102/us-east-1/execute-api/aws4_request"
    text = f"AWS4-HMAC-SHA256\n20250102T030405Z\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = b"AWS4" + SUITE.encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    assert asked.headers["authorization"].endswith(hmac.new(key, text.encode(), "sha256").hexdigest())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("", "/"),
        ("//example//", "/example/"),
        ("/./example/..", "/"),
        ("/example1/example2/../..", "/"),
        ("/a%20b~", "/a%2520b~"),
    ],
)
def test_canonical_paths(path: str, expected: str) -> None:
    assert canonical.path(path) == expected


def test_canonical_headers_join_repeated_fields_and_fold_spaces() -> None:
    headers = httpx.Headers([("My-B", " a   b "), ("my-a", "2"), ("My-A", "1"), ("Other", "x")])
    assert canonical.fields(canonical.select_headers(headers, ("my-*",))) == "my-a:2,1\nmy-b:a b\n"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"content": "{canonical_sha256}"}, "needs the option canonical"),
        ({"signed_headers": "host"}, "sequences of texts"),
        ({"derive": "date"}, "sequences of texts"),
        ({"secret_prefix": "AWS4", "secret_encoding": "base64"}, "needs secret_encoding='utf-8'"),
    ],
)
def test_options_that_do_not_fit_are_refused_where_they_are_declared(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        HmacAuth("k", **options)
