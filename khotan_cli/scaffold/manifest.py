"""`.khotan/manifest.json`: what was written, from which template, and its hash; the written base is kept beside it.

Bases end in `.base`, so that no linter or test runner takes them for code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from khotan_cli.errors import ConfigError

FOLDER = ".khotan"
FILE = f"{FOLDER}/manifest.json"
BASE = f"{FOLDER}/base"


def digest(text: str) -> str:
    """SHA-256 of a file's text, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


class Manifest:
    """The record of a project's components, keyed `component:name`."""

    def __init__(self, components: dict[str, dict[str, Any]]) -> None:
        self.components = components

    @classmethod
    def load(cls, root: Path) -> Manifest:
        """Raises ConfigError for a file that is not a manifest."""
        path = root / FILE
        if not path.is_file():
            return cls({})
        try:
            components = json.loads(path.read_text(encoding="utf-8"))["components"]
            if not isinstance(components, dict):
                raise TypeError
            return cls(components)
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(
                f"{path} is not a valid khotan manifest", hint="Restore it from version control, or delete it."
            ) from None

    def written(self, path: str) -> str | None:
        """Hash of the text that khotan last wrote to a path."""
        for entry in self.components.values():
            if path in entry["files"]:
                return str(entry["files"][path])
        return None

    def record(
        self, component: str, name: str, *, version: str, answers: Mapping[str, Any], files: Mapping[str, str]
    ) -> dict[str, str]:
        """Note a component; returns the files that keep the record: the manifest and the bases."""
        key = f"{component}:{name}" if name else component
        entry = self.components.setdefault(key, {"files": {}})
        entry.update({"component": component, "name": name, "version": version, "answers": dict(answers)})
        entry["files"].update({path: digest(text) for path, text in files.items()})
        entry["files"] = dict(sorted(entry["files"].items()))
        document = {"version": 1, "components": dict(sorted(self.components.items()))}
        bases = {f"{BASE}/{path}.base": text for path, text in files.items()}
        return {FILE: json.dumps(document, indent=2, ensure_ascii=False) + "\n", **bases}
