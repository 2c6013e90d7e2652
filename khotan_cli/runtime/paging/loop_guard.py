"""The state of one paging run, and the guards against a service that never ends."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from khotan_cli.errors import PaginationError
from khotan_cli.runtime.paging.base import Next, PageView, Paginator

_ITEMS_COMPARED = 16
_EQUAL_PAGES = 2
"""Allowed equal pages if positions are computed here. A third means that the service ignores positions."""
_IDENTITIES = frozenset({"id", "_id", "uuid", "guid", "key", "uid", "sku", "slug"})
"""Names, in lower case, of keys that identify records. Pages of such records are never equal by chance."""
_EQUAL_PAGES_BY_SERVICE = 20
"""Allowed equal pages if the service supplies each position."""


class Paging:
    """The state of a paging run besides its position. `cut` is true if max_pages ended it before the last page."""

    def __init__(self, paginator: Paginator) -> None:
        self._paginator = paginator
        self._positions: set[bytes] = set()
        self._contents: dict[bytes, int] = {}
        self._empty = 0
        self.cut = False

    def advance(self, page: PageView) -> Next | None:
        """The next position, None after the last page.

        Raises PaginationError for a repeated position, for repeated pages, and for too many empty pages.
        """
        paginator = self._paginator
        page = replace(page, more=paginator.more(page))
        following = paginator.next_page(page)
        if following is None:
            return None
        if paginator.max_pages is not None and page.index + 1 >= paginator.max_pages:
            self.cut = True
            return None
        self._check_content(page, paginator.items(page.data))
        if not self.add_position(following):
            raise _repeats(page, "returned to a page that was already read")
        return following

    def add_position(self, position: Next) -> bool:
        """Record a position. Returns whether it is new."""
        key = (
            position.url,
            position.where,
            sorted((str(name), repr(value)) for name, value in position.params.items()),
        )
        digest = _digest(repr(key).encode())
        is_new = digest not in self._positions
        self._positions.add(digest)
        return is_new

    def _check_content(self, page: PageView, items: list[Any]) -> None:
        # Keeps 16 bytes per page instead of the page, and compares a sample of the items. Two equal pages are allowed if
        # items have no ids, and more if the service supplies the positions.
        if not items:
            self._empty += 1
            if self._empty >= self._paginator.max_empty_pages:
                raise PaginationError(
                    f"{self._empty} consecutive pages are empty, but the service reports more pages",
                    hint="Request more items per page, narrow the filter, or raise max_empty_pages.",
                )
            return
        self._empty = 0
        sample = items[:: max(1, len(items) // _ITEMS_COMPARED)]
        content = _digest(repr((len(items), sample)).encode("utf-8", "replace"))
        self._contents[content] = self._contents.get(content, 0) + 1
        if self._contents[content] > self._allowed_repeats(sample):
            raise _repeats(page, "sent the same page again")

    def _allowed_repeats(self, sample: list[Any]) -> int:
        if not self._paginator.computed:
            return _EQUAL_PAGES_BY_SERVICE
        identified = all(
            isinstance(item, Mapping) and _IDENTITIES & {str(key).lower() for key in item} for item in sample
        )
        return 1 if identified else _EQUAL_PAGES


def _repeats(page: PageView, what: str) -> PaginationError:
    return PaginationError(
        f"The service {what} after page {page.index + 1}",
        hint="Check the paginator's parameter names, and the path from which it reads the position.",
    )


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
