"""The `Link` header field, by its grammar in RFC 8288 3."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TARGET = re.compile(r"[\s,]*<([^>]*)>")
_PARAMETER = re.compile(r"""\s*;\s*([^\s=;,"]*)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?""")


@dataclass(frozen=True)
class Link:
    """One link: its target as sent, and its relation types in lower case. `anchored`: it starts at another resource."""

    target: str
    rels: frozenset[str]
    anchored: bool = False


def parse_links(text: str) -> Iterator[Link]:
    """The links of a header's value. What follows a malformed link is left out."""
    at = 0
    while (target := _TARGET.match(text, at)) is not None:
        at = target.end()
        rel: str | None = None
        anchored = False
        while (parameter := _PARAMETER.match(text, at)) is not None:
            at = parameter.end()
            name, quoted, token = parameter[1].lower(), parameter[2], parameter[3]
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token or ""
            if name == "rel" and rel is None:  # RFC 8288 3.3: only the first one counts
                rel = value
            anchored = anchored or (name == "anchor" and value != "")
        yield Link(target[1].strip(), frozenset((rel or "").lower().split()), anchored)


def link_target(text: str, rel: str) -> str | None:
    """The target of the first link with that relation type from the page itself; None where there is none."""
    return next((link.target for link in parse_links(text) if rel in link.rels and not link.anchored), None)
