"""A component and its answers → the files it would write, made by copier in a staging folder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from khotan_cli.errors import KhotanError
from khotan_cli.scaffold.catalog import Component


def render(component: Component, answers: Mapping[str, Any]) -> dict[str, str]:
    """Relative POSIX path → text of every file. Nothing of the project is touched."""
    from copier import run_copy
    from copier.errors import CopierError

    with tempfile.TemporaryDirectory(prefix="khotan-") as folder:
        staging = Path(folder) / "staged"
        try:
            run_copy(
                str(component.folder),
                staging,
                data=dict(answers),
                defaults=True,
                quiet=True,
                overwrite=True,
                unsafe=False,
            )
        except (CopierError, ValueError) as exc:
            raise KhotanError(f"The template of {component.name} could not be rendered: {exc}") from None
        return {
            path.relative_to(staging).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(staging.rglob("*"))
            if path.is_file()
        }
