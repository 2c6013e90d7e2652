"""The lines of the README's "In your own project", typed in their order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.support.loopback import Answer, Asked, as_json, threaded_loopback
from tests.support.project import Done, Project

README = Path(__file__).parent.parent.parent / "README.md"
TOKEN = "tok_readme_abcdef123456"


def lines() -> list[list[str]]:
    """Words of each command of that section."""
    section = README.read_text(encoding="utf-8").partition("## In your own project")[2]
    block = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0]
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines()]


def api(asked: Asked) -> Answer:
    """What the sample of a new plug declares."""
    if asked.headers.get("authorization") != f"Bearer {TOKEN}":
        return as_json({"error": "unauthorized"}, 401)
    if asked.path == "/v1/items":
        return as_json({"data": [{"id": n, "name": f"item {n}"} for n in range(1, 8)]})
    return as_json({"error": "not found"}, 404)


def type_line(project: Project, words: list[str], base: str) -> Done:
    words = [word.replace("https://api.example.com", base) for word in words]
    if "<" in words:
        return project.khotan(*words[: words.index("<")], stdin=TOKEN + "\n")
    return project.khotan(*words)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_readmes_way_leads_to_its_end(project: Project) -> None:
    typed = [words for words in lines() if words != ["dev"]]
    assert len(typed) == 10
    with threaded_loopback(api) as served:
        for words in typed:
            done = type_line(project, words, served.url)
            assert done.code == 0, (words, done.stdout, done.stderr)
            if words[:3] == ["flows", "trigger", "items"] and "--wait" in words:
                assert done.json["counts"]["created"] == 7
