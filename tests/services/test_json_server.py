"""Link-header paging against json-server."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from khotan_cli.runtime import LinkHeaderPaginator, Plug, Var, get
from tests.support.services import Service

pytestmark = pytest.mark.xdist_group("json-server")

POSTS = 45


class Post(BaseModel):
    id: int
    title: str
    views: int


class Posts(Plug):
    base_url = "{server}"
    server = Var()
    paginator = LinkHeaderPaginator()

    list_posts = get("/posts", returns=list[Post])


@pytest.mark.parametrize("limit", [9, 10, 45, 100])
async def test_every_post_is_read_once(json_server: Service, limit: int) -> None:
    async with Posts().with_vars(server=json_server.url) as plug:
        found = [post.id async for post in plug.list_posts.items(_page=1, _limit=limit)]
        assert found == list(range(1, POSTS + 1))
        assert len([page async for page in plug.list_posts.pages(_page=1, _limit=limit)]) == -(-POSTS // limit)


async def test_a_filter_stays_on_every_page(json_server: Service) -> None:
    async with Posts().with_vars(server=json_server.url) as plug:
        found = [post.views async for post in plug.list_posts.items(_page=1, _limit=4, views_gte=90)]
        assert found == [views for views in range(3, POSTS * 3 + 1, 3) if views >= 90]
