"""Discovery: every plug of a package, once, under its name; and modules that do not import."""

from __future__ import annotations

from pathlib import Path

import pytest

from khotan_cli.errors import AppImportError, ConfigError, KhotanError, UnknownName
from khotan_cli.runtime.registry import Registry
from tests.runtime.conftest import forget_modules

A = "from khotan_cli.runtime import Plug, Var\nclass A(Plug):\n    base_url = 'http://a.example'\n    region = Var()\n"


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> str:
    """A package `found_pkg` of these files, by path."""
    forget_modules("found_pkg")
    for path, text in {"__init__.py": "", **files}.items():
        (folder / "found_pkg" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "found_pkg" / path).write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    return "found_pkg"


def found(folder: Path, monkeypatch: pytest.MonkeyPatch, **modules: str) -> Registry:
    return Registry.discover(package(folder, monkeypatch, {f"{name}.py": text for name, text in modules.items()}))


def test_each_plug_once_under_the_name_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = found(
        tmp_path,
        monkeypatch,
        one=A + "myPlug = A()\nother = myPlug\n",
        two="from .one import myPlug\nfrom .one import A\neu = A()\nus = A(name='america')\n",
    )
    assert list(registry.plugs) == ["america", "eu", "myPlug"]
    assert [plug.name for plug in registry.plugs.values()] == ["america", "eu", "myPlug"]
    with pytest.raises(UnknownName, match="eur") as caught:
        registry.plug("eur")
    assert caught.value.nearest == "eu"


def test_in_any_folder_with_or_without_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = package(
        tmp_path,
        monkeypatch,
        {
            "plugs/__init__.py": "",
            "plugs/one.py": A + "one = A()\n",
            "more/deep/two.py": A + "two = A()\n",
            "_private.py": A + "three = A()\n",
            "more/not-a-module.py": "raise RuntimeError\n",
            "__main__.py": "raise RuntimeError\n",
            "sub/__main__.py": "raise RuntimeError\n",
            "not a folder/x.py": "raise RuntimeError\n",
        },
    )
    assert list(Registry.discover(name).plugs) == ["one", "three", "two"]


def test_a_package_without_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = package(tmp_path, monkeypatch, {"one.py": A + "one = A()\n"})
    (tmp_path / "found_pkg" / "__init__.py").unlink()
    assert list(Registry.discover(name).plugs) == ["one"]


def test_a_base_class_with_its_own_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = A + "class Base(A):\n    def __init__(self):\n        super().__init__()\nfirst = Base()\n"
    registry = found(tmp_path, monkeypatch, base=base, shops="from .base import Base, first\nsecond = Base()\n")
    assert list(registry.plugs) == ["first", "second"]


def test_copies_are_the_same_plug_and_bear_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = A + "acme = A()\nacme_eu = acme.with_vars(region='eu')\n"
    registry = found(tmp_path, monkeypatch, aa="from .shop import acme\nus = acme.with_vars(region='us')\n", shop=shop)
    assert list(registry.plugs) == ["acme"]
    import found_pkg.aa  # type: ignore[import-not-found]  # made by this test
    import found_pkg.shop  # type: ignore[import-not-found]

    assert registry.plugs["acme"] is found_pkg.shop.acme
    assert found_pkg.shop.acme_eu.name == found_pkg.aa.us.name == "acme"


def test_two_plugs_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"'shop'.*found_pkg\.one.*found_pkg\.two"):
        found(tmp_path, monkeypatch, one=A + "shop = A()\n", two=A + "shop = A()\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\nraise RuntimeError('boom')\n", ["RuntimeError: boom", "found_pkg/bad.py:2"]),
        ("def broken(:\n", ["SyntaxError", "found_pkg/bad.py:1"]),
        ("import not_installed_at_all\n", ["ModuleNotFoundError", "not_installed_at_all", "found_pkg/bad.py:1"]),
        ("\nfrom .nowhere import x\n", ["ModuleNotFoundError", "found_pkg.nowhere", "found_pkg/bad.py:2"]),
        ("raise SystemExit(3)\n", ["SystemExit", "found_pkg/bad.py:1"]),
        ("def f():\n    return {}['k']\n\nf()\n", ["KeyError", "found_pkg/bad.py:2"]),
        ("import json\njson.loads('{')\n", ["JSONDecodeError", "found_pkg/bad.py:2"]),
        ("import os\nraise ValueError(os.environ['SHOP_TOKEN'] * 2)\n", ["ValueError: ••••", "found_pkg/bad.py:2"]),
    ],
)
def test_a_module_that_does_not_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str]
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "tok_live_abcdef123456")
    with pytest.raises(AppImportError) as caught:
        found(tmp_path, monkeypatch, bad=text)
    message = caught.value.message
    assert all(word in message for word in words) and "found_pkg.bad" in message, message
    assert "\n" not in message and "tok_live" not in message and "Traceback" not in message


def test_a_wrong_declaration_is_said_with_its_place_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug = "\nfrom khotan_cli.runtime import Plug\n\nclass Shop(Plug):\n    pass\n\nshop = Shop()\n"
    with pytest.raises(KhotanError) as caught:
        found(tmp_path, monkeypatch, aaa="from . import shop\n", shop=plug)
    assert caught.value.code == "config_invalid"
    assert caught.value.message == "Shop has no base_url (found_pkg/shop.py:7)"


def test_a_wrong_schedule_is_said_with_the_line_of_its_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with that of the __init__ which the dataclass has made up, and which is in no file."""
    text = "from khotan_cli.runtime import Variant\n\nhourly = Variant('every hour')\n"
    with pytest.raises(ConfigError) as caught:
        found(tmp_path, monkeypatch, one=text)
    assert caught.value.message.endswith("(found_pkg/one.py:3)")


def test_no_such_package() -> None:
    with pytest.raises(AppImportError, match="Module 'no_such_package_here' does not exist") as caught:
        Registry.discover("no_such_package_here")
    assert "khotan init" in caught.value.hint


FLOW = (
    "from khotan_cli.runtime import Cache, Resource, Variant, inflow\nfrom .one import a\n"
    "async def {name}(ctx):\n    pass\n{name} = inflow({plug}, {options})({name})\n"
)


def test_flows_resources_and_caches_once_under_their_own_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = found(
        tmp_path,
        monkeypatch,
        one=A + "a = A()\n",
        two=FLOW.format(name="things", plug="a.with_vars(region='eu')", options="resource='goods'")
        + "goods = Resource('goods', connect_field='sku', plugs={'a': 'id'})\nkept = Cache('kept-things')\n",
        three="from .two import things as other, goods, kept\n",
    )
    assert (list(registry.flows), list(registry.resources), list(registry.caches)) == (
        ["things"],
        ["goods"],
        ["kept-things"],
    )


@pytest.mark.parametrize(
    ("two", "three", "words"),
    [
        (FLOW.format(name="x", plug="a", options="resource='gods'") + "goods = Resource('goods', connect_field='k', "
         "plugs={'a': 'id'})", "", "Unknown resource 'gods'"),
        ("from khotan_cli.runtime import Resource\nr = Resource('r', connect_field='k', plugs={'b': 'id'})", "", "'b'"),
        (FLOW.format(name="x", plug="a", options=""), FLOW.format(name="x", plug="a", options=""), "Two flows"),
        ("from khotan_cli.runtime import Cache\nc = Cache('c')", "from khotan_cli.runtime import Cache\nd = Cache('c')",
         "Two caches"),
        (FLOW.format(name="x", plug="type(a)(name='stray')", options=""), "", "is not defined in the package"),
        (FLOW.format(name="x", plug="a", options="schedule='soon'"), "", "five fields"),
        (FLOW.format(name="x", plug="a", options="variants={'d': Variant(schedule='* * * * *', timezone='X/Y')}"), "",
         "time zone"),
    ],
)  # fmt: skip
def test_declarations_that_do_not_fit_are_said_when_the_app_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two: str, three: str, words: str
) -> None:
    with pytest.raises(KhotanError, match=words) as caught:
        found(tmp_path, monkeypatch, one=A + "a = A()\n", two=two, three=three)
    assert caught.value.code == "config_invalid" and caught.value.hint
