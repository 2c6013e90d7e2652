"""A Khotan over a project of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from khotan_cli.runtime import Khotan
from khotan_cli.settings import load_settings
from tests.support.migrated import upgrade
from tests.support.project import SECRET, write_project

Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a Khotan over a project of its own, with settings as given."""
    made = 0

    def build(
        authorize: Any = None, *, base_url: str = "http://127.0.0.1:9", migrated: bool = True, **env: str
    ) -> Khotan:
        nonlocal made
        made += 1
        for name in [n for n in sys.modules if n.partition(".")[0] == "khotan"]:
            del sys.modules[name]
        folder = tmp_path / f"p{made}"
        write_project(folder, base_url)
        monkeypatch.syspath_prepend(str(folder))
        for name, value in {"KHOTAN_SECRET": SECRET, "KHOTAN_ENV": "development", **env}.items():
            monkeypatch.setenv(name, value)
        settings = load_settings(folder)
        if migrated:
            upgrade(settings.database_url, settings.root)
        return Khotan("khotan", authorize=authorize, settings=settings)

    return build
