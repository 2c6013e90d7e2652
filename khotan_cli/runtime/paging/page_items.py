"""Finds the items of a page in its declared model."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from khotan_cli.errors import PaginationError
from khotan_cli.runtime.content.json_path import Path, dig, path_keys
from khotan_cli.runtime.paging.base import guess_items


def model_list(page: BaseModel, path: Path | None) -> list[Any] | None:
    """The list in a model at a path of the raw body, with aliases resolved. None if there is none."""
    if path is None:
        names = {(field.alias or name): name for name, field in type(page).model_fields.items()}
        try:
            items = guess_items({alias: getattr(page, name) for alias, name in names.items()})
        except PaginationError:
            return None
        return items
    value: Any = page
    for key in path_keys(path):
        if isinstance(value, BaseModel):
            fields = type(value).model_fields
            name = next((n for n, f in fields.items() if key in (f.alias, n)), None)
            value = None if name is None else getattr(value, name)
        else:
            value = dig(value, (key,))
    return value if isinstance(value, list) else None
