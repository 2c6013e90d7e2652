"""The components: read from the templates' own copier.yml and README.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from khotan_cli.errors import UnknownName

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Component:
    """A template: its folder, questions and version."""

    name: str
    folder: Path
    about: str
    questions: dict[str, dict[str, Any]]

    @property
    def version(self) -> str:
        return str(self.questions["khotan_version"]["default"])

    def choices(self, question: str) -> list[str]:
        return [str(choice) for choice in self.questions[question]["choices"]]


def component(name: str) -> Component:
    """The component of that name. Raises UnknownName."""
    folder = TEMPLATES / name
    if not name or not (folder / "copier.yml").is_file():
        known = sorted(path.parent.name for path in TEMPLATES.glob("*/copier.yml"))
        raise UnknownName("component", name, known)
    document = yaml.safe_load((folder / "copier.yml").read_text(encoding="utf-8"))
    questions = {key: value for key, value in document.items() if not key.startswith("_")}
    about = (folder / "README.md").read_text(encoding="utf-8").strip()
    return Component(name, folder, about, questions)
