"""Support for SQLModel tables, which skip validation when they are created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import SchemaValidator


def validated(core: Any) -> Any:
    """The core schema with validation of the fields of SQLModel tables; the same object if it has no table.

    With `table=True`, SQLModel creates instances without validation (SQLModel, "Multiple Models with FastAPI"), so
    Pydantic would accept any document.
    """
    return _changed(core) if _names_table(core) else core


def compiled(core: Any, config: Any = None) -> SchemaValidator:
    """A validator of a core schema. Does not use the prebuilt validator of a table's class, which validates nothing."""
    create: Any = SchemaValidator
    validator: SchemaValidator = (
        create(core, config, _use_prebuilt=False) if _names_table(core) else create(core, config)
    )
    return validator


def is_table(declared: Any) -> bool:
    """Whether a class is a SQLModel table."""
    config = getattr(declared, "model_config", None)
    return isinstance(config, Mapping) and bool(config.get("table"))


def _names_table(core: Any) -> bool:
    if isinstance(core, Mapping):
        if core.get("type") == "model" and is_table(core["cls"]):
            return True
        return any(_names_table(inner) for key, inner in core.items() if key != "metadata")
    return isinstance(core, (list, tuple)) and any(map(_names_table, core))


def _changed(core: Any) -> Any:
    if isinstance(core, dict):
        changed = {key: inner if key == "metadata" else _changed(inner) for key, inner in core.items()}
        if changed.get("type") == "model" and is_table(changed.get("cls")):
            changed["custom_init"] = False
        return changed
    if isinstance(core, list):
        return [_changed(inner) for inner in core]
    return tuple(_changed(inner) for inner in core) if type(core) is tuple else core
