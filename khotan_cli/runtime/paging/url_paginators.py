"""Paginators for APIs that send the URL of the next page: in a Link header, in another header, or in the body."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Unpack

from khotan_cli.errors import PaginationError
from khotan_cli.runtime.content.json_path import Path, path_text, type_name
from khotan_cli.runtime.content.link_header import link_target
from khotan_cli.runtime.paging.base import (
    HEADER,
    Next,
    PageView,
    Paginator,
    PagingOptions,
    check_path,
    page_value,
    resolve_url,
)


class _UrlPaginator(Paginator):
    """Positions are URLs. keep_params: parameters of the first request that a URL lacks are added to it."""

    def __init__(self, *, keep_params: bool = False, **options: Unpack[PagingOptions]) -> None:
        if "where" in options:
            raise TypeError(f"{type(self).__name__} does not accept where: a URL replaces both query and body")
        super().__init__(**options)
        self.keep_params = keep_params


class LinkHeaderPaginator(_UrlPaginator):
    """`Link: <…>; rel="next"` (RFC 8288), relative or absolute.

    rel: the relation type of the next page. keep_params: add the first request's parameters that the link lacks.
    """

    def __init__(self, *, rel: str = "next", keep_params: bool = False, **options: Unpack[PagingOptions]) -> None:
        super().__init__(keep_params=keep_params, **options)
        self.rel = rel.lower()

    def following(self, page: PageView) -> Next | None:
        link = link_target(page.response.headers.get("link", ""), self.rel)
        return Next(url=resolve_url(page, link)) if link else None


class NextUrlPaginator(_UrlPaginator):
    """A URL of the next page, relative or absolute: in the body at `path`, or in a response header.

    `NextUrlPaginator(path="paging.next")`, `NextUrlPaginator(path="@odata\\\\.nextLink")`,
    `NextUrlPaginator(header="Next-Page")`. Ends if it is absent, null or empty. keep_params: add the first request's
    parameters that the URL lacks.
    """

    def __init__(
        self,
        *,
        path: Path | None = None,
        header: str | None = None,
        keep_params: bool = False,
        **options: Unpack[PagingOptions],
    ) -> None:
        super().__init__(keep_params=keep_params, **options)
        if path is not None and header is not None:
            raise ValueError("path and header exclude each other")
        self.path: Path = f"{HEADER}{header}" if header is not None else path if path is not None else "next"
        check_path(self.path)
        self.value_paths = {"path": self.path}

    def following(self, page: PageView) -> Next | None:
        url = page_value(page, self.path)
        if isinstance(url, Mapping):  # a JSON:API link object
            url = url.get("href")
        if url is None or url == "" or url is False:
            return None
        if not isinstance(url, str):
            raise PaginationError(
                f"The next URL at {path_text(self.path)!r} is {type_name(url)}, not a string",
                hint="Correct the paginator's path=….",
            )
        return Next(url=resolve_url(page, url))


class JsonApiPaginator(NextUrlPaginator):
    """JSON:API 1.1: items in `data`, the next page in `links.next`, a string or a link object with `href`."""

    def __init__(
        self,
        *,
        keep_params: bool = False,
        delay: float = 0.0,
        max_pages: int | None = None,
        max_empty_pages: int = 100,
        end_statuses: Collection[int] = (),
    ) -> None:
        super().__init__(
            path="links.next",
            items="data",
            keep_params=keep_params,
            delay=delay,
            max_pages=max_pages,
            max_empty_pages=max_empty_pages,
            end_statuses=end_statuses,
        )
