"""`khotan add plug`: what is written, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from khotan_cli.scaffold.plug_component import auth_kinds
from tests.commands.test_init import actions, files, khotan
from tests.support.checkers import checker_environment
from tests.support.terminal import at_terminal

GOLDEN = Path(__file__).parent.parent / "golden"
URL = "https://api.example.com/v1"
# One worker makes the project of every kind, and checks it once.
pytestmark = pytest.mark.xdist_group("add")
STORE = '''"""A store."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from khotan_cli.runtime import OffsetPaginator, Plug, get, post, put
from pydantic import BaseModel


class Size(BaseModel):
    width: int


class Product(BaseModel):
    id: int
    sku: str
    price: Decimal
    status: Literal["draft", "active"]
    size: Size
    tags: list[str]
    seen_at: datetime | None
    created_at: datetime


class ProductPage(BaseModel):
    data: list[Product]
    total: int


class Store(Plug):
    """A store."""

    base_url = "https://store.example.com"
    paginator = OffsetPaginator(limit=100, total="total")

    list_products = get("/products", returns=ProductPage)
    create_product = post("/products", body=dict[str, Any], returns=Product)
    update_product = put("/products/{product_id}", body=dict[str, Any], returns=Product)


store = Store()
'''
PARTS = [
    ["resource", "goods", "--connect-field", "sku", "--plug", "store=id", "--plug", "with_bearer=id"],
    ["resource", "stock", "--connect-field", "tenant", "--connect-field", "sku", "--plug", "store=stock.id"],
    ["wire", "store", "--plug", "store", "--signature", "stripe", "--type", "order.paid", "--managed"],
    ["wire", "returns", "--plug", "store", "--signature", "hmac"],
    ["catch", "record_order", "--wire", "store", "--type", "order.*", "--ordered-by", "data.customer"],
    ["pass", "notify", "--wire", "store/returns", "--to", "store", "--endpoint", "create_product"],
    ["pass", "forward", "--wire", "store", "--to", "with_bearer", "--type", "order.paid"],
    ["ingest", "orders", "--signature", "token"],
    ["ingest", "stock_levels", "--path", "/erp/stock", "--signature", "hmac", "--organisation", "--plug", "store",
     "--resource", "goods"],
    ["cache", "snapshots", "--ttl", "6h", "--scope", "flow"],
    ["inflow", "products", "--plug", "store", "--endpoint", "list_products", "--schedule", "*/15 * * * *"],
    ["inflow", "things", "--plug", "with_bearer", "--endpoint", "list_items", "--resource", "goods"],
    ["inflow", "more_products", "--plug", "store", "--endpoint", "list_products", "--into", "ProductsRow"],
    ["outflow", "publish", "--plug", "store", "--endpoint", "create_product", "--update", "update_product",
     "--from", "ProductsRow", "--resource", "goods"],
    ["outflow", "letters", "--plug", "store", "--endpoint", "create_product"],
    ["relay", "mirror", "--plug", "with_bearer", "--endpoint", "list_items", "--to", "store", "--to-endpoint",
     "create_product", "--update", "update_product", "--resource", "goods"],
]  # fmt: skip


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a plug of each kind of authentication."""
    folder = tmp_path_factory.mktemp("kinds")
    assert khotan(folder, "init", "--full").code == 0
    for kind in auth_kinds():
        name = f"with_{kind.replace('-', '_')}"
        done = khotan(
            folder, "add", "plug", name, "--base-url", URL, "--auth", kind, "--title", f"A service with {kind}"
        )
        assert done.code == 0, done.json
    (folder / "khotan/plugs/store.py").write_text(STORE)
    for words in PARTS:
        done = khotan(folder, "add", *words, "--yes")
        assert done.code == 0, done.json
    return folder


def test_the_tree_is_the_golden_one(every_kind: Path) -> None:
    """To renew it after a wanted change: UPDATE_GOLDEN=1, then read the difference."""
    import os
    import re

    made = {
        path: re.sub(rb"KHOTAN_SECRET=\S+", b"KHOTAN_SECRET=...", text)
        for path, text in files(every_kind).items()
        if "__pycache__" not in path and not path.startswith(".khotan/base/") and "_cache" not in path
    }
    target = GOLDEN / "every_kind"
    if os.environ.get("UPDATE_GOLDEN"):
        for path, text in made.items():
            (target / f"{path}.golden").parent.mkdir(parents=True, exist_ok=True)
            (target / f"{path}.golden").write_bytes(text)
    kept = {path.removesuffix(".golden"): text for path, text in files(target).items()}
    assert sorted(made) == sorted(kept)
    for path, text in made.items():
        assert text == kept[path], path


@pytest.mark.parametrize(
    "tool",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", "--strict", "khotan", "main.py"],
        ["pyright", "--pythonpath", sys.executable, "khotan", "main.py"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_generated_code_is_clean_as_it_comes(every_kind: Path, tmp_path: Path, tool: list[str]) -> None:
    command, env = [sys.executable, "-m", *tool], checker_environment(tmp_path)
    done = subprocess.run(command, check=False, cwd=every_kind, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_app_finds_them_without_another_edit(every_kind: Path) -> None:
    listed = khotan(every_kind, "plug", "--list")
    names = [p["name"] for p in listed.json["items"]]
    assert names == sorted(["store", *(f"with_{k.replace('-', '_')}" for k in auth_kinds())])
    template = (every_kind / ".env.template").read_text()
    for plug in listed.json["items"]:
        for var in khotan(every_kind, "plug", plug["name"]).json["vars"]:
            assert f"# {var['env']}=" in template


def test_flows_resources_and_caches_are_found_too(every_kind: Path) -> None:
    khotan(every_kind, "migrate")
    wires = {wire["id"]: wire for wire in khotan(every_kind, "wire", "list").json["items"]}
    handlers = {wire: [one["name"] for one in found["handlers"]] for wire, found in wires.items()}
    assert handlers == {
        "ingest/erp/stock": ["ingest/erp/stock.stock_levels"],
        "ingest/orders": ["ingest/orders.orders"],
        "store": ["store.record_order", "store.forward"],
        "store/returns": ["store/returns.notify"],
    }
    assert wires["store"]["managed"] and wires["store"]["scheme"] == "stripe"
    flows = {flow["name"]: flow for flow in khotan(every_kind, "flows", "list").json["items"]}
    assert sorted(flows) == ["letters", "mirror", "more_products", "products", "publish", "things"]
    assert flows["products"]["variants"][0]["schedule"] == "*/15 * * * *"
    assert (flows["mirror"]["kind"], flows["mirror"]["to"], flows["mirror"]["resource"]) == ("relay", "store", "goods")
    assert [r["name"] for r in khotan(every_kind, "mappings", "list").json["items"]] == ["goods", "stock"]
    assert khotan(every_kind, "caches", "list").json["items"][0]["ttl"] == 6 * 3600


@pytest.mark.parametrize(
    ("args", "code", "error", "words"),
    [
        (["inflow", "a", "--plug", "stor", "--endpoint", "x"], 2, "unknown_plug", "store"),
        (["inflow", "a", "--plug", "store", "--endpoint", "list_product"], 2, "unknown_endpoint", "list_products"),
        (["outflow", "a", "--plug", "store"], 2, "invalid_input", "--endpoint"),
        (["inflow", "class", "--plug", "store", "--endpoint", "list_products"], 2, "invalid_name", "class_api"),
        (["inflow", "../a", "--plug", "store", "--endpoint", "list_products"], 2, "path_outside_project", "name"),
        (["inflow", "a", "--plug", "store", "--endpoint", "list_products", "--key", "skuu"], 2, "invalid_input", "sku"),
        (["inflow", "a", "--plug", "store", "--endpoint", "list_products", "--schedule", "* *"], 2, "invalid_input", "cron"),
        (["inflow", "a", "--plug", "store", "--endpoint", "list_products", "--resource", "good"], 2, "unknown_resource", "goods"),
        (["outflow", "a", "--plug", "store", "--endpoint", "create_product", "--from", "X"], 2, "invalid_input", "table"),
        (["outflow", "a", "--plug", "store", "--endpoint", "create_product", "--update", "x"], 2, "unknown_endpoint", ""),
        (["relay", "a", "--plug", "store", "--endpoint", "list_products", "--to", "x"], 2, "unknown_plug", ""),
        (["resource", "a", "--connect-field", "sku", "--plug", "stor=id"], 2, "unknown_plug", "store"),
        (["cache", "a", "--ttl", "soon"], 2, "invalid_input", "6h"),
        (["cache", "a", "--scope", "world"], 2, "invalid_input", "variant"),
        (["inflow"], 2, "no_terminal", "NAME"),
        (["wire", "a", "--plug", "stor", "--signature", "stripe"], 2, "unknown_plug", "store"),
        (["wire", "a", "--plug", "store", "--signature", "strip"], 2, "invalid_input", "stripe"),
        (["wire", "a", "--plug", "store", "--signature", "stripe", "--type", 'a"b'], 2, "invalid_input", "invoice"),
        (["catch", "a", "--wire", "stor"], 2, "unknown_wire", "store"),
        (["pass", "a", "--wire", "store", "--to", "stor"], 2, "unknown_plug", "store"),
        (["pass", "a", "--wire", "store", "--to", "store", "--endpoint", "create_produc"], 2, "unknown_endpoint", "create"),
    ],
)  # fmt: skip
def test_parts_that_cannot_be(every_kind: Path, args: list[str], code: int, error: str, words: str) -> None:
    before = files(every_kind)
    done = khotan(every_kind, "add", *args)
    assert (done.code, done.json["error"]) == (code, error), done.json
    assert words in done.json["hint"] + done.json["message"] or (
        words == "cron" and "five" in done.json["message"].lower()
    )
    assert files(every_kind) == before


def test_a_table_that_is_there_is_imported_not_written_twice(every_kind: Path) -> None:
    text = (every_kind / "khotan/flows/more_products.py").read_text()
    assert "from .products import ProductsRow" in text and "class ProductsRow" not in text
    (every_kind / "khotan/models.py").write_text(
        "from sqlmodel import Field, SQLModel\n\n\nclass ToysRow(SQLModel, table=True):\n"
        "    id: int = Field(primary_key=True)\n"
    )
    toys = ["add", "inflow", "toys", "--plug", "store", "--endpoint", "list_products", "--dry-run", "--diff"]
    done = khotan(every_kind, *toys).json
    assert "+from ..models import ToysRow" in done["files"][0]["diff"] and "ToysRow" in done["notes"][0]
    assert "ensure_table" not in done["files"][0]["diff"], "the user's own migrations make that table"
    (every_kind / "khotan/models.py").unlink()
    again = khotan(every_kind, "add", *PARTS[-2], "--yes")
    assert (PARTS[-2][1], set(actions(again).values())) == ("letters", {"same"}), "its own table is no other's"


def test_a_part_that_was_changed_is_not_overwritten(every_kind: Path) -> None:
    path = every_kind / "khotan/caches/snapshots.py"
    before = path.read_text()
    path.write_text(before + "# mine\n")
    done = khotan(every_kind, "add", "cache", "snapshots", "--ttl", "1h")
    assert (done.code, done.json["error"]) == (5, "would_overwrite")
    assert path.read_text() == before + "# mine\n"
    shown = khotan(every_kind, "add", "cache", "snapshots", "--ttl", "1h", "--diff")
    assert shown.code == 0 and "# mine" in shown.json["files"][0]["diff"]
    path.write_text(before)


def test_a_flow_is_asked_for_at_a_terminal(tmp_path: Path) -> None:
    khotan(tmp_path, "init")
    (tmp_path / "khotan/plugs/store.py").write_text(STORE)
    (tmp_path / "khotan/broken.py").write_text("this does not parse")
    screen, code = at_terminal(
        [sys.executable, "-m", "khotan_cli", "add", "inflow"],
        tmp_path,
        [
            ("Name of the flow", "products\n"),
            ("do the records come from", "store\n"),
            ("lists the records", "list_products\n"),
        ],
    )
    assert code == 0, screen
    assert "khotan/flows/products.py" in screen
    assert "into=ProductsRow" in (tmp_path / "khotan/flows/products.py").read_text()


ASKED = [
    ("wire store", [("How does the service sign events", "stripe\n"), ("Which event types", "order.paid, order.new\n"),
                    ("Can khotan subscribe", "y\n")]),
    ("catch record", [("of order.paid, order.new", "order.paid\n")]),
    ("pass tell", [("receives the events", "\n"), ("of order.paid, order.new", "\n")]),
    ("outflow publish", [("accepts the records", "create_product\n"), ("Which endpoint updates", "update_product\n")]),
    ("relay mirror", [("do the records come from", "store\n"), ("lists the records", "list_products\n"),
                      ("do the records go to", "store\n"), ("accepts the records", "create_product\n"),
                      ("Which endpoint updates", "update_product\n")]),
]  # fmt: skip


def test_at_a_terminal_nothing_that_matters_is_left_out(tmp_path: Path) -> None:
    khotan(tmp_path, "init")
    more = '    get_product = get("/products/{product_id}", returns=Product)\n    list_products'
    (tmp_path / "khotan/plugs/store.py").write_text(STORE.replace("    list_products", more))
    before = {"wire": ("Which plug sends", "\n"), "outflow": ("do the records go to", "\n")}
    screens: dict[str, str] = {}
    for words, answers in ASKED:
        kind = words.split()[0]
        first = [before[kind]] if kind in before else [("Which wire's", "\n")] if kind in ("catch", "pass") else []
        command = [sys.executable, "-m", "khotan_cli", "add", *words.split()]
        screens[kind], code = at_terminal(command, tmp_path, [*first, *answers])
        assert code == 0, screens[kind]
    made = tmp_path / "khotan"
    wire = (made / "wires/store.py").read_text()
    assert '"order.paid",\n        "order.new"' in wire and "on_subscribe" in wire
    assert '@store_wire.catch(\n    "order.paid",' in (made / "catches/record.py").read_text()
    assert "order." not in (made / "passes/tell.py").read_text()
    for flow in ("publish", "mirror"):
        assert "update=store.update_product" in (made / f"flows/{flow}.py").read_text()
    assert "get_product" not in screens["relay"], "it needs a parameter: it does not list"


@pytest.mark.parametrize("kind", ["wire", "ingest"])
def test_every_signature_is_written_as_a_formatter_would(tmp_path: Path, kind: str) -> None:
    from khotan_cli.scaffold.ingest_component import ingest_signatures
    from khotan_cli.scaffold.webhook_components import signature_kinds

    khotan(tmp_path, "init")
    khotan(tmp_path, "add", "plug", "shop", "--base-url", URL)
    for signature in signature_kinds() if kind == "wire" else ingest_signatures():
        more = ["--plug", "shop"] if kind == "wire" else []
        done = khotan(tmp_path, "add", kind, f"by_{signature}", *more, "--signature", signature)
        assert done.code == 0, done.json
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--check", "--isolated", "khotan"],
        check=False, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_options_reach_the_code(tmp_path: Path) -> None:
    khotan(tmp_path, "init")
    more = ["--auth", "api-key", "--auth-param", "X-Shop-Key", "--title", 'The "shop"']
    done = khotan(tmp_path, "add", "plug", "myShop", "--base-url", URL + "/", *more)
    assert done.code == 0 and done.json["files"][0]["path"] == "khotan/plugs/my_shop.py"
    text = (tmp_path / "khotan/plugs/my_shop.py").read_text()
    assert 'header="X-Shop-Key"' in text and "class MyShop(Plug)" in text and "myShop = MyShop()" in text
    assert f'base_url = "{URL}"' in text and "The 'shop'" in text
    assert done.json["next"][:2] == ["khotan migrate", "khotan plug vars myShop set api_key --stdin"]
    assert khotan(tmp_path, "migrate").code == 0
    again = khotan(tmp_path, "add", "plug", "myShop", "--base-url", URL + "/", *more)
    assert again.json["next"][0] == "khotan plug vars myShop set api_key --stdin"
    assert khotan(tmp_path, "plug", "myShop").json["auth"]["header"] == "X-Shop-Key"


@pytest.mark.parametrize(
    ("args", "code", "error", "words"),
    [
        (["my-plug", "--base-url", URL], 2, "invalid_name", "my_plug"),
        (["class", "--base-url", URL], 2, "invalid_name", "class_api"),
        (["match", "--base-url", URL], 2, "invalid_name", "match_api"),
        (["vars", "--base-url", URL], 2, "invalid_name", "vars_api"),
        (["1st", "--base-url", URL], 2, "invalid_name", "plug_1st"),
        (["__x", "--base-url", URL], 2, "invalid_name", "x"),
        (["ünder", "--base-url", URL], 2, "invalid_name", ""),
        (["../x", "--base-url", URL], 2, "path_outside_project", "name"),
        (["a/b", "--base-url", URL], 2, "path_outside_project", "name"),
        (["shop"], 2, "no_terminal", "--base-url"),
        (["shop", "--yes"], 2, "invalid_input", "--base-url"),
        (["--base-url", URL], 2, "no_terminal", "NAME"),
        (["shop", "--base-url", "example.com"], 2, "invalid_input", "https://"),
        (["shop", "--base-url", "https://"], 2, "invalid_input", "https://"),
        (["shop", "--base-url", "https://u:p@x.example"], 2, "invalid_input", "credentials"),
        (["shop", "--base-url", "https://x.example?a=1"], 2, "invalid_input", "query"),
        (["shop", "--base-url", 'https://x.example/"+x+"'], 2, "invalid_input", "https://"),
        (["shop", "--base-url", "https://x.example:port"], 2, "invalid_input", "https://"),
        (["shop", "--base-url", URL, "--auth", "baerer"], 2, "invalid_input", "'bearer'"),
        (["shop", "--base-url", URL, "--token-url", "/t"], 2, "invalid_input", "oauth2-client-credentials"),
        (["shop", "--base-url", URL, "--auth", "api-key", "--auth-param", 'X"'], 2, "invalid_input", "--auth-param"),
    ],
)
def test_mistakes_write_nothing(tmp_path: Path, args: list[str], code: int, error: str, words: str) -> None:
    khotan(tmp_path, "init")
    before = files(tmp_path)
    done = khotan(tmp_path, "add", "plug", *args)
    assert (done.code, done.json["error"]) == (code, error), done.json
    assert words in done.json["message"] + done.json["hint"]
    assert files(tmp_path) == before


def test_not_a_project_and_not_a_component(tmp_path: Path) -> None:
    done = khotan(tmp_path, "add", "plug", "shop", "--base-url", URL)
    assert (done.code, done.json["error"], done.json["next"]) == (4, "not_initialized", ["khotan init"])
    assert khotan(tmp_path, "add", "plgu", "shop").code == 2
    assert list(tmp_path.iterdir()) == []


def test_in_an_empty_project_it_is_said_what_comes_first(tmp_path: Path) -> None:
    khotan(tmp_path, "init")
    for words in ("catch a", "wire a", "inflow a"):
        done = khotan(tmp_path, "add", *words.split()).json
        assert done["next"] == ["khotan add plug"] and "The project has none yet" in done["hint"], words
    khotan(tmp_path, "add", "plug", "shop", "--base-url", URL)
    first = "khotan add wire shop --plug shop"
    assert khotan(tmp_path, "add", "catch", "a").json["next"] == [first]
    khotan(tmp_path, "migrate")
    for words in ("send shop order.paid", "status shop/orders"):
        assert khotan(tmp_path, "wire", *words.split()).json["next"] == [first], words
    assert (
        khotan(tmp_path, *first.split()[1:])
        .json["hint"]
        .startswith("How does the service sign events? Choose one of stripe")
    )


def test_what_is_wrong_is_said_before_what_is_missing(every_kind: Path) -> None:
    cases = [
        (["wire", "a", "--plug", "stor"], "unknown_plug"),
        (["wire", "--plug", "stor"], "unknown_plug"),
        (["pass", "a", "--wire", "stor"], "unknown_wire"),
        (["outflow", "a", "--plug", "stor"], "unknown_plug"),
        (["resource", "a", "--plug", "stor=id"], "unknown_plug"),
    ]
    for words, error in cases:
        assert khotan(every_kind, "add", *words).json["error"] == error, words
    done = khotan(every_kind, "add", "resource", "a", "--plug", "store").json
    assert "PLUG=FIELD" in done["message"] and "--plug store=id" in done["hint"]


def test_the_users_changes_are_not_overwritten(tmp_path: Path) -> None:
    khotan(tmp_path, "init")
    add = ["add", "plug", "shop", "--base-url", URL]
    assert set(actions(khotan(tmp_path, *add, "--dry-run")).values()) == {"create", "update"}
    assert not (tmp_path / "khotan/plugs/shop.py").exists()
    khotan(tmp_path, *add)
    assert set(actions(khotan(tmp_path, *add)).values()) == {"same"}
    assert actions(khotan(tmp_path, *add[:-1], "https://other.example"))["khotan/plugs/shop.py"] == "update"
    target = tmp_path / "khotan/plugs/shop.py"
    target.write_text(target.read_text() + "\n# mine\n")
    before = files(tmp_path)
    refused = khotan(tmp_path, *add)
    assert (refused.code, refused.json["error"]) == (5, "would_overwrite") and "--force" in refused.json["hint"]
    shown = khotan(tmp_path, *add, "--diff")
    assert shown.code == 0 and "-# mine" in shown.json["files"][0]["diff"]
    assert files(tmp_path) == before
    assert actions(khotan(tmp_path, *add, "--force"))["khotan/plugs/shop.py"] == "overwrite"
    assert "# mine" not in target.read_text()


def test_a_template_the_user_changed_stays_and_is_said(tmp_path: Path) -> None:
    khotan(tmp_path, "init")
    (tmp_path / ".env.template").write_text("MINE=1\n")
    done = khotan(tmp_path, "add", "plug", "shop", "--base-url", URL)
    assert (tmp_path / ".env.template").read_text() == "MINE=1\n" and "SHOP_TOKEN" in " ".join(done.json["notes"])


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    khotan(tmp_path, "init")
    before = files(tmp_path)
    (tmp_path / ".khotan/manifest.json.lock").write_text("")
    (tmp_path / ".khotan/base/khotan/plugs/shop.py.base").mkdir(parents=True)
    done = khotan(tmp_path, "add", "plug", "shop", "--base-url", URL)
    (tmp_path / ".khotan/manifest.json.lock").unlink()
    assert done.code == 1 and files(tmp_path) == before, done.json


def test_a_broken_manifest(tmp_path: Path) -> None:
    khotan(tmp_path, "init")
    (tmp_path / ".khotan/manifest.json").write_text(json.dumps({"components": 5}))
    done = khotan(tmp_path, "add", "plug", "shop", "--base-url", URL)
    assert (done.code, done.json["error"]) == (2, "config_invalid")


def test_at_a_terminal_it_asks(tmp_path: Path) -> None:
    khotan(tmp_path, "init")
    answers = [("Name of the plug", "shop\n"), ("Base URL", URL + "\n"), ("Authentication", "basic\n")]
    text, code = at_terminal([sys.executable, "-m", "khotan_cli", "add", "plug"], tmp_path, answers)
    assert code == 0, text
    assert "BasicAuth(username, password)" in (tmp_path / "khotan/plugs/shop.py").read_text()
