"""Reads the declarations in a project's code without importing it, so that it also works for a broken app."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_METHODS = frozenset({"get", "post", "put", "patch", "delete", "head", "options", "endpoint"})
_IMPORTED = {"datetime": "datetime", "date": "datetime", "time": "datetime", "Decimal": "decimal", "UUID": "uuid"}
_SCALARS = frozenset({"str", "int", "float", "bool", *_IMPORTED})
_USUAL_LISTS = ("data", "items", "results", "records")


@dataclass(frozen=True)
class Column:
    """A field that a table can have: its name and scalar type, and whether it may be null."""

    name: str
    type: str
    nullable: bool

    @property
    def module(self) -> str:
        """Where its type is imported from; empty for a built-in."""
        return _IMPORTED.get(self.type, "")


@dataclass(frozen=True)
class FoundEndpoint:
    """A declared endpoint. `columns` are its items' scalar fields; `left_out` names the others.

    `paginator` is the class of its paginator, empty where that cannot be read; `total` says that the paginator has one.
    """

    name: str
    method: str
    paginated: bool
    columns: tuple[Column, ...] = ()
    left_out: tuple[str, ...] = ()
    path: str = ""
    paginator: str = ""
    total: bool = False

    @property
    def lists(self) -> bool:
        """Whether it can be paged without arguments: it only reads, and its path has no required parameter."""
        return self.method == "GET" and "{" not in self.path


@dataclass(frozen=True)
class FoundPlug:
    """A plug: the name it was created as, its module below the package (`plugs.shop`), its endpoints."""

    name: str
    module: str
    endpoints: dict[str, FoundEndpoint]


@dataclass(frozen=True)
class FoundTable:
    """A SQLModel table class."""

    name: str
    module: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class FoundWire:
    """A wire: what commands call it (`shop` or `shop/orders`), the variable it is assigned to, its module, its events."""

    id: str
    variable: str
    module: str
    types: tuple[str, ...] = ()


@dataclass
class Source:
    """All declarations found in a package."""

    plugs: dict[str, FoundPlug] = field(default_factory=dict[str, FoundPlug])
    tables: dict[str, FoundTable] = field(default_factory=dict[str, FoundTable])
    resources: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    wires: dict[str, FoundWire] = field(default_factory=dict[str, FoundWire])
    unread: list[str] = field(default_factory=list[str])


def read_source(package: Path) -> Source:
    """Read every module of a package. One that cannot be parsed is named in `unread`."""
    found = Source()
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if "__pycache__" in parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError):
            found.unread.append(path.relative_to(package).as_posix())
            continue
        _Module(".".join(part for part in parts if part != "__init__"), tree).collect(found)
    return found


class _Module:
    def __init__(self, name: str, tree: ast.Module) -> None:
        self._name, self._tree = name, tree
        self._classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

    def collect(self, found: Source) -> None:
        for node in self._tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                target, called = node.targets[0], _called(node.value)
                if isinstance(target, ast.Name) and called in self._classes and self._is_plug(called):
                    endpoints = {one.name: one for one in self._endpoints(called)}
                    found.plugs[target.id] = FoundPlug(target.id, self._name, endpoints)
                elif called == "Wire" and node.value.args and isinstance(target, ast.Name):
                    suffix = next((k.value for k in node.value.keywords if k.arg == "name"), None)
                    wire = _name(node.value.args[0]) + (
                        f"/{suffix.value!s}" if isinstance(suffix, ast.Constant) else ""
                    )
                    found.wires[wire] = FoundWire(wire, target.id, self._name, _texts(node.value, "events"))
                elif called == "Resource" and node.value.args and isinstance(node.value.args[0], ast.Constant):
                    found.resources[str(node.value.args[0].value)] = _keys(node.value, "plugs")
        for name, node in self._classes.items():
            if any(keyword.arg == "table" for keyword in node.keywords):
                columns, _ = self._fields(name)
                found.tables[name] = FoundTable(name, self._name, tuple(columns))

    def _is_plug(self, name: str) -> bool:
        bases = [_name(base) for base in self._classes[name].bases]
        return any(base == "Plug" or (base in self._classes and self._is_plug(base)) for base in bases)

    def _endpoints(self, name: str) -> Iterator[FoundEndpoint]:
        body = self._classes[name].body
        default = next(
            (node.value for node in body if isinstance(node, ast.Assign) and _target(node) == "paginator"), None
        )
        for node in body:
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
                continue
            method, path = _called(node.value), _constants(node.value.args)
            if method == "endpoint":
                method, path = (path[0].lower() if path else method), path[1:]
            if _called(node.value) in _METHODS:
                given = {keyword.arg: keyword.value for keyword in node.value.keywords}
                item = self._item(given)
                columns, left_out = self._fields(item) if item in self._classes else ([], [])
                yield FoundEndpoint(
                    _target(node),
                    method.upper(),
                    default is not None or "paginator" in given,
                    tuple(columns),
                    tuple(left_out),
                    path[0] if path else "",
                    *self._paginator(given.get("paginator", default)),
                )

    def _paginator(self, node: ast.expr | None) -> tuple[str, bool]:
        """The class of a paginator, and whether it is given the place of a total; a variable of the module is looked up."""
        if isinstance(node, ast.Name):
            made = [one.value for one in self._tree.body if isinstance(one, ast.Assign) and _target(one) == node.id]
            node = made[-1] if made else None
        if not isinstance(node, ast.Call):
            return "", False
        given = [keyword.value for keyword in node.keywords if keyword.arg == "total"]
        return _called(node), any(not (isinstance(value, ast.Constant) and value.value is None) for value in given)

    def _item(self, given: dict[str | None, ast.expr]) -> str:
        """Name of the item's model: `item=`, `list[Item]`, or the list in the page's model."""
        if "item" in given:
            return _name(given["item"])
        returns = given.get("returns")
        if returns is None:
            return ""
        if _listed(returns):
            return _listed(returns)
        page = self._classes.get(_name(returns))
        if page is None:
            return ""
        lists = {
            node.target.id: _listed(node.annotation)
            for node in page.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _listed(node.annotation)
        }
        usual = next((lists[name] for name in _USUAL_LISTS if name in lists), "")
        return usual or (next(iter(lists.values())) if len(lists) == 1 else _name(returns) if not lists else "")

    def _fields(self, name: str) -> tuple[list[Column], list[str]]:
        columns: list[Column] = []
        left_out: list[str] = []
        for node in self._classes[name].body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                kind, nullable = _scalar(node.annotation)
                if kind:
                    columns.append(Column(node.target.id, kind, nullable))
                elif not node.target.id.startswith(("_", "model_")):
                    left_out.append(node.target.id)
        return columns, left_out


def _scalar(annotation: ast.expr) -> tuple[str, bool]:
    """Return the scalar type of an annotation, and whether it may be None; an empty type if it is not a scalar."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        sides = [annotation.left, annotation.right]
        kept = [side for side in sides if not (isinstance(side, ast.Constant) and side.value is None)]
        return (_scalar(kept[0])[0], True) if len(kept) == 1 else ("", False)
    if isinstance(annotation, ast.Subscript):
        if _name(annotation.value) == "Optional":
            return _scalar(annotation.slice)[0], True
        if _name(annotation.value) == "Literal":
            values = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
            texts = all(isinstance(value, ast.Constant) and isinstance(value.value, str) for value in values)
            return ("str" if texts else ""), False
        return "", False
    name = _name(annotation)
    return (name if name in _SCALARS else ""), False


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _called(call: ast.Call) -> str:
    return _name(call.func)


def _target(node: ast.Assign) -> str:
    return _name(node.targets[0])


def _listed(annotation: ast.expr) -> str:
    """X of `list[X]`."""
    if isinstance(annotation, ast.Subscript) and _name(annotation.value) in ("list", "List", "Sequence"):
        return _name(annotation.slice)
    return ""


def _keys(call: ast.Call, argument: str) -> list[str]:
    for keyword in call.keywords:
        if keyword.arg == argument and isinstance(keyword.value, ast.Dict):
            return [str(key.value) for key in keyword.value.keys if isinstance(key, ast.Constant)]
    return []


def _texts(call: ast.Call, argument: str) -> tuple[str, ...]:
    """The texts of a list that is given by name."""
    given = next((k.value for k in call.keywords if k.arg == argument), None)
    return tuple(_constants(given.elts)) if isinstance(given, (ast.List, ast.Tuple)) else ()


def _constants(nodes: list[ast.expr]) -> list[str]:
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
