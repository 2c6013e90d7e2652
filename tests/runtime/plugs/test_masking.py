"""Secrets are masked in whatever form they stand in a text, and no mask shows a part of a short one."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus, urlencode

import orjson
import pytest

from khotan_cli.runtime.redaction.masker import BULLETS, Masker, mask_header

SECRETS = [
    'quo"te-secret',
    "back\\slash\\secret",
    "sëcret-nön-ascii",
    "o'clock-secret",
    "a&b<c>secret",
    "tab\tsecret",
    "s3cr",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_every_form_is_masked(secret: str) -> None:
    texts = [
        secret,
        json.dumps({"a": secret}),
        json.dumps({"a": secret}, ensure_ascii=False),
        json.dumps(json.dumps({"a": secret})),
        orjson.dumps([secret]).decode(),
        repr(secret),
        repr({"a": secret}),
        repr(secret.encode()),
        ascii(secret),
        quote(secret),
        quote(secret, safe="").lower().replace("%22", "%22"),
        quote_plus(secret),
        urlencode({"a": secret}),
        html.escape(secret),
        base64.b64encode(secret.encode()).decode(),
        base64.urlsafe_b64encode(f"user:{secret}".encode()).decode(),
        base64.b64encode(f"x{secret}y".encode()).decode(),
    ]
    masker = Masker([secret])
    for text in texts:
        masked = masker.text(text)
        assert BULLETS in masked, text
        assert secret not in masked


@pytest.mark.parametrize("user", ["u", "us", "use", "long-user-name"])
@pytest.mark.parametrize("secret", ["abc1", "short-pw", "elevenchars"])
def test_nothing_decodes_to_a_part_of_a_short_secret(user: str, secret: str) -> None:
    encoded = base64.b64encode(f"{user}:{secret}".encode()).decode()
    masker = Masker([secret, f"{user}:{secret}"])
    assert masker.headers({"Authorization": f"Basic {encoded}"}) == {"Authorization": f"Basic {BULLETS}"}
    assert masker.text(f"got {encoded} here") == f"got {BULLETS} here"
    assert secret[-2:] not in masker.text(f"got {user}:{secret}")


@pytest.mark.parametrize(
    "value", ["Basic dXNlcjpwYXNz", "Bearer abcdefghijklmnop", "abcdefghijklmnop", "odd abcdefghijk"]
)
def test_a_masked_header_shows_at_most_its_scheme(value: str) -> None:
    assert mask_header(value) in (BULLETS, f"{value.partition(' ')[0]} {BULLETS}")


@pytest.mark.parametrize("secret", [*SECRETS, "a+b'c\"d<e>`f&g-secret", "100%sure/now?x=1"])
def test_forms_that_other_languages_and_nesting_make(secret: str) -> None:
    document = json.dumps({"a": secret}, ensure_ascii=False)
    go = json.dumps(secret, ensure_ascii=False)[1:-1]
    for char in "&<>":
        go = go.replace(char, f"\\u{ord(char):04x}")
    net = json.dumps(secret)[1:-1].replace('\\"', '"')
    for char in "&<>+`'\"":
        net = net.replace(char, f"\\u{ord(char):04X}")
    django = html.escape(secret).replace("&#x27;", "&#39;")
    texts = {
        "Go": go,
        "System.Text.Json": net,
        "a URL in a URL": quote(quote(secret, safe=""), safe=""),
        "repr of JSON": repr(document),
        "repr of JSON as bytes": repr(document.encode()),
        "Django": django,
        "Go's templates": django.replace("&quot;", "&#34;"),
        "XML": html.escape(secret).replace("&#x27;", "&apos;"),
    }
    masker = Masker([secret])
    for name, text in texts.items():
        masked = masker.text(f"x {text} y")
        assert BULLETS in masked, name
        assert text not in masked, name
