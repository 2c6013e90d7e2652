"""What `khotan add inflow` writes fits both databases, and says what deletion means with the endpoint's paginator."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.flows import Source, connection, flows_project
from tests.support.loopback import threaded_loopback

LARGE = [2**31, 2**40, 2**63 - 1, -(2**63)]


@pytest.mark.timeout(120)
def test_integers_of_64_bits_are_stored(database_url: str, tmp_path: Path) -> None:
    items = [{"id": number, "name": "n", "price": 1.5} for number in LARGE]
    with threaded_loopback(Source(items)) as served:
        project = flows_project(tmp_path, served.url, database_url)
        plug = tmp_path / "khotan" / "plugs" / "shop.py"
        plug.write_text(
            plug.read_text().replace("    price: float\n", "    price: float\n    stock: int | None = None\n", 1)
        )
        for item in items:
            item["stock"] = item["id"]
        added = project.khotan("add", "inflow", "large", "--plug", "shop", "--endpoint", "list_items", "--yes")
        assert added.code == 0, added.stdout
        run = project.khotan("flows", "trigger", "large", "--wait")
    assert (run.code, run.json["status"], run.json["counts"]["created"]) == (0, "completed", len(LARGE)), run.stdout
    with connection(database_url) as ask:
        assert ask("SELECT id, stock FROM large ORDER BY id") == [(number, number) for number in sorted(LARGE)]


@pytest.mark.parametrize(
    ("paginator", "words"),
    [
        ('CursorPaginator(cursor="next")', "Safe with CursorPaginator, if the service's cursor is stable"),
        ('KeysetPaginator(field="id")', "Safe with KeysetPaginator, if the service's cursor is stable"),
        ("LinkHeaderPaginator()", "Safe with LinkHeaderPaginator, if the service's cursor is stable"),
        ('NextUrlPaginator("next")', "Safe with NextUrlPaginator, if the service's cursor is stable"),
        ('OffsetPaginator(total="total")', "Safe with OffsetPaginator: if the total changes"),
        ("OffsetPaginator(total=None)", "Safe with OffsetPaginator, but each page is read twice"),
        ("OffsetPaginator()", "Safe with OffsetPaginator, but each page is read twice"),
        ('PageNumberPaginator(total="meta.total")', "Safe with PageNumberPaginator: if the total changes"),
        ("PageNumberPaginator()", "Safe with PageNumberPaginator, but each page is read twice"),
        ("SinglePagePaginator()", "Safe with SinglePagePaginator: all records come in one response"),
        ("PAGES", "Safe with OffsetPaginator: if the total changes"),
        ("FunctionPaginator(print)", "Whether that is safe depends on the paginator"),
    ],
)
@pytest.mark.parametrize("on_endpoint", [True, False])
def test_the_written_file_says_what_deletion_means(
    sqlite_url: str, tmp_path: Path, paginator: str, words: str, on_endpoint: bool
) -> None:
    project = flows_project(tmp_path, "http://shop.invalid", sqlite_url)
    plug = tmp_path / "khotan" / "plugs" / "shop.py"
    text = plug.read_text().replace("class Item(", 'PAGES = OffsetPaginator(total="total")\n\n\nclass Item(')
    if on_endpoint:
        text = text.replace('get("/items", returns=Page)', f'get("/items", returns=Page, paginator={paginator})')
    else:
        text = text.replace('paginator = OffsetPaginator(limit=10, total="total")', f"paginator = {paginator}")
    plug.write_text(text)
    added = project.khotan("add", "inflow", "things", "--plug", "shop", "--endpoint", "list_items", "--yes")
    assert added.code == 0, added.stdout
    written = (tmp_path / "khotan" / "flows" / "things.py").read_text()
    before, _, after = written.partition("# delete_missing=True also deletes rows whose records were not received.\n")
    assert 'key="id",' in before
    assert after.strip().startswith(f"# {words}")
