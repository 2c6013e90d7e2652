"""The `Link` header field, by its grammar in RFC 8288 3."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TARGET = re.compile(r"[\s,]*<([^>]*)>")
_PARAMETER = re.compile(r"""\s*;\s*([^\s=;,"]*)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?""")


@dataclass(frozen=True)
class Link:
    """One link: its target as sent, and its relation types in lower case. `anchored`: its context is another resource."""

    target: str
    rels: frozenset[str]
    anchored: bool = False


def parse_links(text: str) -> Iterator[Link]:
    """The links of a header's value. Links after a malformed one are ignored."""
    position = 0
    while (target := _TARGET.match(text, position)) is not None:
        position = target.end()
        rel: str | None = None
        anchored = False
        while (parameter := _PARAMETER.match(text, position)) is not None:
            position = parameter.end()
            name, quoted, token = parameter[1].lower(), parameter[2], parameter[3]
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token or ""
            if name == "rel" and rel is None:  # RFC 8288 3.3: only the first one counts
                rel = value
            anchored = anchored or (name == "anchor" and value != "")
        yield Link(target[1].strip(), frozenset((rel or "").lower().split()), anchored)


def link_target(text: str, rel: str) -> str | None:
    """The target of the first link of the page with that relation type; None if there is none."""
    return next((link.target for link in parse_links(text) if rel in link.rels and not link.anchored), None)
