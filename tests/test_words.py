"""Messages, help texts and docstrings are plain English; docs/glossary.md defines the words of the product."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DIALECT = {
    r"\bis (told|asked) (of|what|why|whether|so)\b": "say who reports what, or who calls what",
    r"\b(put|puts|putting) right\b": "repair, reconcile",
    r"\banew\b": "again",
    r"\bwhom(ever)?\b": "name the subject",
    r"\bin vain\b": "without a result",
    r"\bto be had\b": "available",
    r"\bas it were\b": "leave it out",
    r"\b(thereof|whereof|wherewith|hitherto|therein)\b": "use the noun",
    r"(?<!there )\bis none(?![\w'])": "say what the value is not valid for",
    r"\b(is|are) no (name|id|URL|number|method|schedule|path|time|status)\b": "name the value and the rule: Invalid …",
    r"\bwhose it is\b": "name the owner",
    r"\bWhich ids\?": "Missing --ref PLUG=ID",
}
"""Phrases that are not plain English, and what to write."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The string literals of a module, docstrings included, with their lines."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def test_messages_and_docstrings_are_plain_english() -> None:
    found: list[str] = []
    for path in sorted((ROOT / "khotan_cli").rglob("*.py")):
        for line, text in texts(path):
            for pattern, better in DIALECT.items():
                if match := re.search(pattern, text):
                    found.append(f"{path.relative_to(ROOT)}:{line}: {match[0]!r}: {better}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "phrase", ["It is told why", "put right runs that hang", "--into is none", "'x' is no name for a wire"]
)
def test_the_patterns_find_the_dialect(phrase: str) -> None:
    assert any(re.search(pattern, phrase) for pattern in DIALECT)


def test_the_glossary_names_modules_that_exist() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    named = re.findall(r"`([\w/]+\.py)`", text)
    assert named
    assert [name for name in named if not (ROOT / "khotan_cli" / "runtime" / name).exists()] == []
