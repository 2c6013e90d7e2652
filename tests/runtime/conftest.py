"""A Khotan object over a project of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Protocol

import pytest

from khotan_cli.runtime import Khotan
from khotan_cli.settings import load_settings
from tests.support.migrated import upgrade
from tests.support.project import SECRET, write_project


class Make(Protocol):
    def __call__(
        self,
        authorize: Any = None,
        *,
        base_url: str = "http://127.0.0.1:9",
        migrated: bool = True,
        files: dict[str, str] | None = None,
        **env: str,
    ) -> Khotan:
        """files: further modules, by path below the package. env: environment beside KHOTAN_SECRET and development."""
        ...


def forget_modules(package: str) -> None:
    """Let a package of that name be imported afresh, from another folder."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    made = 0

    def build(
        authorize: Any = None,
        *,
        base_url: str = "http://127.0.0.1:9",
        migrated: bool = True,
        files: dict[str, str] | None = None,
        **env: str,
    ) -> Khotan:
        nonlocal made
        made += 1
        forget_modules("khotan")
        folder = tmp_path / f"p{made}"
        write_project(folder, base_url)
        for path, text in (files or {}).items():
            (folder / "khotan" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "khotan" / path).write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        for name, value in {"KHOTAN_SECRET": SECRET, "KHOTAN_ENV": "development", **env}.items():
            monkeypatch.setenv(name, value)
        settings = load_settings(folder)
        if migrated:
            upgrade(settings.database_url, settings.root)
        return Khotan("khotan", authorize=authorize, settings=settings)

    return build
