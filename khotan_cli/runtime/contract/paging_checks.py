"""Checks a paginator against received pages: a sentence for each check, and a breaking finding if one fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from khotan_cli.runtime.content.json_path import Path, path_keys, path_text
from khotan_cli.runtime.contract.check import ordered
from khotan_cli.runtime.contract.json_paths import child
from khotan_cli.runtime.contract.paging import SeenPage, SeenWalk, repeated, total_of
from khotan_cli.runtime.contract.report import Finding, Report
from khotan_cli.runtime.paging.base import PageView, is_header, page_value
from khotan_cli.runtime.plugs.page_iterator import PagePosition
from khotan_cli.runtime.redaction.masker import Masker

_EXPECTED: Mapping[str, str] = {
    "list": "a list of items on each page",
    "position": "a position that moves from page to page",
    "overlap": "different items on each page",
    "total": "as many items as the total",
    "cursor": "a cursor or a flag on each page that is not the last",
}


@dataclass(frozen=True)
class PagingCheck:
    """One check: `name` is list, position, overlap, total or cursor; `path` is the path of a failure."""

    name: str
    ok: bool
    message: str
    path: str = "$"

    def to_json(self) -> dict[str, Any]:
        return {"check": self.name, "ok": self.ok, "message": self.message}


def with_paging(report: Report, walk: SeenWalk, masker: Masker) -> Report:
    """The report about the pages, extended by `paging` and a finding for each failed check."""
    total = total_of(walk)
    pages = [page for page in walk.pages if not page.past_the_end]
    items = sum(len(page.items or ()) for page in pages)
    checks = [
        _list(walk, pages),
        _position(walk, pages),
        _overlap(walk, pages),
        _total(walk, items, total),
        _cursor(walk, pages, items, total),
    ]
    paging = {
        "pages": len(pages),
        "items": items,
        "total": total,
        "ended": walk.ended,
        "checks": [replace(check, message=masker.text(check.message)).to_json() for check in checks],
    }
    findings = [
        Finding(masker.text(check.path), "paging", "breaking", _EXPECTED[check.name], masker.text(check.message), 1, 1)
        for check in checks
        if not check.ok
    ]
    return ordered(replace(report, findings=[*report.findings, *findings], paging=paging))


def _list(walk: SeenWalk, pages: Sequence[SeenPage]) -> PagingCheck:
    """Checks that each page has a list of items at the paginator's path."""
    path = _json_path(walk.paginator.items_path)
    lost = next(((index, page) for index, page in enumerate(pages) if page.items is None and _is_page(page)), None)
    if lost is not None:
        return PagingCheck("list", False, f"Page {lost[0] + 1} failed: {lost[1].problem}.", path)
    where = "the response" if walk.paginator.items_path is None else repr(path_text(walk.paginator.items_path))
    count = sum(1 for page in pages if page.items is not None)
    return PagingCheck("list", True, f"{_count(count, 'page')} had a list of items in {where}.", path)


def _position(walk: SeenWalk, pages: Sequence[SeenPage]) -> PagingCheck:
    """Checks that the position of the next page differs from that of the page."""
    path = _position_path(walk)
    for index, page in enumerate(pages):
        told = page.problem and (page.items is not None or not _is_page(page))
        # If positions are computed here, a repeated page does not concern the position: see _overlap.
        if _lacks_flag(walk, page, index):
            continue  # see _cursor
        if told and not (walk.paginator.computed and _repeated(walk, pages[: index + 1])):
            return PagingCheck("position", False, f"Paging stopped at page {index + 1}: {page.problem}.", path)
    before = walk.start
    for index, page in enumerate(pages):
        there = page.following
        if there is None:
            continue
        if _is_same(before, there) or there.url == str(page.response.request.url):
            return PagingCheck("position", False, f"The position does not move after page {index + 1}.", path)
        before = there
    if all(page.following is None for page in pages):
        return PagingCheck("position", True, "No page had a position of a next page.", path)
    return PagingCheck("position", True, "The position moves from page to page.", path)


def _overlap(walk: SeenWalk, pages: Sequence[SeenPage]) -> PagingCheck:
    path = _json_path(walk.paginator.items_path)
    count = _repeated(walk, pages)
    if count:
        text = f"{_count(count, 'item')} of a later page {'was' if count == 1 else 'were'} already on an earlier page."
        return PagingCheck("overlap", False, f"{text} The service may ignore the position.", path)
    if len(pages) < 2:
        return PagingCheck("overlap", True, "There was only one page to compare.", path)
    return PagingCheck("overlap", True, "No item was repeated.", path)


def _total(walk: SeenWalk, items: int, total: int | None) -> PagingCheck:
    """Checks that a complete iteration has as many items as the service's total."""
    declared = getattr(walk.paginator, "total", None)
    path = _json_path(declared)
    if total is None:
        return PagingCheck("total", True, "The service sends no total.", path)
    if not walk.from_the_start:
        return PagingCheck("total", True, f"The total is {total}; paging did not begin at the first page.", path)
    if not walk.ended:
        return PagingCheck(
            "total", True, f"{_count(items, 'item')} of {total} were received before paging stopped.", path
        )
    if items < total:
        return PagingCheck("total", False, f"Paging ended with {items} of {total} items.", path)
    return PagingCheck("total", True, f"Paging ended with {_count(items, 'item')}, and the total is {total}.", path)


def _cursor(walk: SeenWalk, pages: Sequence[SeenPage], items: int, total: int | None) -> PagingCheck:
    """Checks that pages before the last one have the cursor or the flag."""
    paginator = walk.paginator
    places = {name: path for name, path in paginator.value_paths.items() if path is not None and name not in _COUNTS}
    places |= {
        name: path
        for name, path in (("has_more", paginator.has_more), ("is_last", paginator.is_last))
        if path is not None
    }
    if not places:
        return PagingCheck("cursor", True, "The paginator reads no cursor and no flag.")
    path = _json_path(next(iter(places.values())))
    for index, page in enumerate(pages):
        if _lacks_flag(walk, page, index):
            flag = paginator.has_more if paginator.has_more is not None else paginator.is_last
            return PagingCheck("cursor", False, f"{page.problem}.", _json_path(flag))
    last = pages[-1] if pages else None
    more = total is not None and walk.from_the_start and items < total
    if last is None or last.items is None or not more or last.following is not None:
        return PagingCheck("cursor", True, "No page lacked the cursor or the flag while more items followed.", path)
    index = len(pages) - 1
    if any(_is_there(last, place, index) for place in places.values()):
        return PagingCheck("cursor", True, "The last page has the cursor or the flag.", path)
    names = " or ".join(repr(path_text(place)) for place in places.values())
    return PagingCheck(
        "cursor", False, f"Page {index + 1} has no {names}, and {items} of {total} items have come.", path
    )


_COUNTS = frozenset({"total", "total_pages"})


def _is_there(page: SeenPage, path: Path, index: int) -> bool:
    """Whether a page has a value at a path; null is one: a cursor that is null says that there is no next page."""
    if is_header(path):
        return page_value(PageView(page.response, page.data, index=index), path) is not None
    value = page.data
    for key in path_keys(path):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.lstrip("-").isdigit() and -len(value) <= int(key) < len(value):
            value = value[int(key)]
        else:
            return value is None
    return True


def _repeated(walk: SeenWalk, pages: Sequence[SeenPage]) -> int:
    return repeated(pages, getattr(walk.paginator, "id_field", None))


def _is_same(before: PagePosition, there: PagePosition) -> bool:
    """Whether a position asks for the page that the one before it asked for."""
    if there.url is not None or before.url is not None:
        return there.url == before.url
    return bool(there.params) and all(before.params.get(name, _ABSENT) == value for name, value in there.params.items())


_ABSENT = object()


def _lacks_flag(walk: SeenWalk, page: SeenPage, index: int) -> bool:
    """Whether the walk stopped at a page because its flag is absent."""
    flag = walk.paginator.has_more if walk.paginator.has_more is not None else walk.paginator.is_last
    stopped = bool(page.problem) and page.items is not None
    return stopped and flag is not None and not _is_there(page, flag, index)


def _is_page(page: SeenPage) -> bool:
    return page.response.is_success


def _position_path(walk: SeenWalk) -> str:
    places = [path for name, path in walk.paginator.value_paths.items() if path is not None and name not in _COUNTS]
    return _json_path(places[0]) if places else "$"


def _json_path(path: Path | None) -> str:
    """JSONPath of a paginator's path; `$` for a header, and where no path is declared."""
    if path is None or is_header(path):
        return "$"
    found = "$"
    for key in path_keys(path):
        found = child(found, int(key) if key.isdigit() else key)
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
