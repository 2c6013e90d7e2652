"""One walk through the pages: what it has seen, and the guards against a service that never comes to an end."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from khotan_cli.errors import PaginationError
from khotan_cli.runtime.paging.base import Next, PageView, Paginator

_ITEMS_COMPARED = 16
_EQUAL_PAGES = 2
"""Equal pages that can be honest where positions are computed here: the third means that the service ignores them."""
_IDENTITIES = frozenset({"id", "_id", "uuid", "guid", "key", "uid", "sku", "slug"})
"""Names of keys, in lower case, that tell records apart: pages of such records are never equal by chance."""
_EQUAL_PAGES_BY_SERVICE = 20
"""The same where the service hands out each position anew."""


class Paging:
    """A walk's state besides its position. `cut` is true once max_pages has ended a walk that would have gone on."""

    def __init__(self, paginator: Paginator) -> None:
        self._paginator = paginator
        self._positions: set[bytes] = set()
        self._contents: dict[bytes, int] = {}
        self._empty = 0
        self.cut = False

    def advance(self, page: PageView) -> Next | None:
        """The next position, None after the last page.

        Raises PaginationError for a position seen before, for pages that repeat, and for too many empty pages.
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
            raise _repeats(page, "leads back to a page that was read already")
        return following

    def add_position(self, position: Next) -> bool:
        """Note a position that the walk led to; whether it is new."""
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
        # A walk keeps 16 bytes a page, not the pages, and compares some items of a large one. Two equal pages are honest
        # where items have no ids, and so are more of them where the service hands out the positions.
        if not items:
            self._empty += 1
            if self._empty >= self._paginator.max_empty_pages:
                raise PaginationError(
                    f"{self._empty} pages in a row are empty, and the service still says that more follow",
                    hint="Ask for more items per page, narrow the filter, or raise max_empty_pages.",
                )
            return
        self._empty = 0
        sample = items[:: max(1, len(items) // _ITEMS_COMPARED)]
        content = _digest(repr((len(items), sample)).encode("utf-8", "replace"))
        self._contents[content] = self._contents.get(content, 0) + 1
        if self._contents[content] > self._honest_repeats(sample):
            raise _repeats(page, "sends the same page again")

    def _honest_repeats(self, sample: list[Any]) -> int:
        if not self._paginator.computed:
            return _EQUAL_PAGES_BY_SERVICE
        identified = all(
            isinstance(item, Mapping) and _IDENTITIES & {str(key).lower() for key in item} for item in sample
        )
        return 1 if identified else _EQUAL_PAGES


def _repeats(page: PageView, what: str) -> PaginationError:
    return PaginationError(
        f"The service {what} after page {page.index + 1}",
        hint="The paginator and the API disagree: check its parameter names and where the position is read from.",
    )


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
