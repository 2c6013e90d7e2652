"""Link header fields (RFC 8288)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khotan_cli.runtime.content.link_header import link_target, parse_links


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ('</b>; rel="next"', "/b"),
        ("</b>; rel=next", "/b"),
        ("</b>;rel=NEXT", "/b"),
        ('</b>; REL="Next"', "/b"),
        ('</b>; rel="last next"', "/b"),
        ('</b>; title="x; y, z"; rel="next"', "/b"),
        ('</b>; title="say \\"hi\\""; rel="next"', "/b"),
        ("</b>; results; rel=next", "/b"),
        ("</b> ; rel = next", "/b"),
        ('</b?x=1,2;3>; rel="next"', "/b?x=1,2;3"),
        ('</a>; rel="prev", </b>; rel="next"', "/b"),
        ('</a>; rel="prev",</b>; rel="next"', "/b"),
        ('</a?f=1,2>; rel="first",   </b>; foo; rel="next"', "/b"),
        ('</b>; rel="next"; rel="prev"', "/b"),
        ('</b>; rel="prev"; rel="next"', None),
        ('</a>; rel="next"; anchor="#foo", </b>; rel="next"', "/b"),
        ('</b>; rel="nextpage"', None),
        ("</b>", None),
        ("", None),
        ("nonsense", None),
        ("< /b >; rel=next", "/b"),
    ],
)
def test_the_next_link(text: str, target: str | None) -> None:
    assert link_target(text, "next") == target


@given(st.text(alphabet='<>;,="\\ relnxt/', max_size=60))
def test_any_text_is_read_to_an_end(text: str) -> None:
    list(parse_links(text))
