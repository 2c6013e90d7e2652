"""The declared side of a contract: a type's core schema, reduced to nodes for the walk through a JSON document.

Containers become nodes. Everything else is a `Leaf`, judged by Pydantic's own validator, so that the walk agrees with
Pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import SchemaValidator

from khotan_cli.runtime.contract.nodes import (
    Field,
    Guard,
    JsonNode,
    KeyPath,
    Lenient,
    ListNode,
    MapNode,
    Node,
    ObjectNode,
    Ref,
    Tag,
    TupleNode,
    UnionNode,
    settled,
    settled_or_none,
)
from khotan_cli.runtime.contract.scalars import TRANSLATING, Leaf, hides_itself
from khotan_cli.runtime.contract.tables import compiled, validated
from khotan_cli.runtime.contract.tags import by_key, implied_tag, is_path_list

Core = Mapping[str, Any]
_LISTS = frozenset({"list", "set", "frozenset", "deque", "generator"})
_MAPS = frozenset({"dict", "ordered-dict", "counter", "defaultdict"})
_WRAPPERS = frozenset({"function-after", "function-before", "function-wrap", "custom-error"})


@dataclass
class Declared:
    """The nodes of a type. `root` is the node of the whole document."""

    adapter: TypeAdapter[Any]
    _definitions: dict[str, Core] = field(default_factory=dict[str, Core])
    _nodes: dict[str, Ref] = field(default_factory=dict[str, Ref])
    _labels: dict[int, str] = field(default_factory=dict[int, str])

    def __post_init__(self) -> None:
        if not isinstance(self.adapter.validator, SchemaValidator):
            self.adapter.rebuild(force=True)
        declared: Any = self.adapter.core_schema
        core: Any = validated(declared)
        self.validator: Any = self.adapter.validator if core is declared else compiled(core)
        self.root = self._node(core, {})

    # -- core schema → nodes ---------------------------------------------------------------------------------------

    def _node(self, core: Core, config: Core) -> Node:
        kind = core["type"]
        if kind == "definitions":
            self._definitions.update({one["ref"]: one for one in core["definitions"]})
            return self._node(core["schema"], config)
        if kind == "definition-ref":
            return self._reference(core["schema_ref"], config)
        if kind in _WRAPPERS:
            return self._guarded(core["schema"], core, config, kind in TRANSLATING)
        if kind == "chain":
            return self._guarded(core["steps"][0], core, config, len(core["steps"]) > 1)
        if kind == "json-or-python":
            inside = self._node(core["json_schema"], config)
            if isinstance(inside, Guard):
                inside.hides = hides_itself(core)
            return self._unless_leaf(core, inside, config)
        if kind == "lax-or-strict":
            return self._unless_leaf(core, self._node(core["lax_schema"], config), config)
        if kind == "default":
            if core.get("on_error", "raise") != "raise":
                outcome = "dropped" if core["on_error"] == "omit" else "replaced by its default"
                return Lenient(self._node(core["schema"], config), outcome)
            return self._node(core["schema"], config)
        if kind == "json":
            return JsonNode(self._optional(core.get("schema"), config))
        if kind in ("nullable", "union", "tagged-union"):
            return self._union(core, config)
        return self._container(core, config) or self._leaf(core, config)

    def _container(self, core: Core, config: Core) -> Node | None:
        kind = core["type"]
        if kind == "model":
            return self._model(core)
        if kind in ("model-fields", "typed-dict", "dataclass-args"):
            return self._object(core, config, "object")
        if kind == "dataclass":
            return self._object(core["schema"], core.get("config", {}), core["cls"].__name__)
        if kind == "named-tuple":
            return self._named_tuple(core, config)
        node: Node | None = None
        if kind in _LISTS:
            node = ListNode(self._optional(core.get("items_schema"), config))
        elif kind == "tuple":
            node = self._tuple(core, config)
        elif kind in _MAPS:
            keys = core.get("keys_schema", {"type": "any"})
            plain = keys["type"] in ("str", "any") and keys.keys() <= {"type", "metadata"}
            node = MapNode(
                None if plain else self._leaf(keys, config), self._optional(core.get("values_schema"), config)
            )
        bounded = node is not None and (core.get("min_length") is not None or core.get("max_length") is not None)
        return self._bounded(node, core, config) if node is not None and bounded else node

    def _bounded(self, node: Node, core: Core, config: Core) -> Guard:
        """A container with length limits, which are judged in addition to its parts."""
        parts = ("items_schema", "keys_schema", "values_schema")
        if core["type"] in ("set", "frozenset"):  # equal items count once, so their type matters
            return Guard(node, self._leaf(core, config), False)
        bare = {key: value for key, value in core.items() if key not in parts}
        if core["type"] == "tuple":
            bare["items_schema"] = [{"type": "any"} for _ in core["items_schema"]]
        return Guard(node, self._leaf(bare, config), False, alone=True)

    def _named_tuple(self, core: Core, config: Core) -> UnionNode:
        """A NamedTuple is sent as an array, or as an object with the names of its fields."""
        name = core["cls"].__name__
        nodes = [self._node(one["schema"], config) for one in core["fields"]]
        needed = [one["schema"]["type"] != "default" for one in core["fields"]]
        fields = [
            Field([(one["name"],)], node, must, one["name"])
            for one, node, must in zip(core["fields"], nodes, needed, strict=True)
        ]
        array = TupleNode(nodes, None, max((i + 1 for i, must in enumerate(needed) if must), default=0))
        return UnionNode([array, ObjectNode(name, fields, "forbid")], name=name)

    def _optional(self, core: Core | None, config: Core) -> Node:
        return self._node(core or {"type": "any"}, config)

    def _leaf(self, core: Core, config: Core) -> Leaf:
        return Leaf(core, config, self._definitions)

    def _unless_leaf(self, core: Core, inner: Node, config: Core) -> Node:
        return self._leaf(core, config) if isinstance(inner, Leaf) else inner

    def _guarded(self, inner: Core, core: Core, config: Core, translates: bool) -> Node:
        node = self._node(inner, config)
        if isinstance(node, Leaf):
            return self._leaf(core, config)
        return Guard(node, self._leaf(core, config), translates)

    def _reference(self, name: str, config: Core) -> Node:
        if name not in self._nodes:
            self._nodes[name] = node = Ref()
            node.target = self._node(self._definitions[name], config)
        return self._nodes[name]

    def _model(self, core: Core) -> Node:
        config = core.get("config", {})
        inner, rules = core["schema"], []
        while inner["type"] in _WRAPPERS:  # a model's own validators wrap its fields
            rules.append(inner)
            inner = inner["schema"]
        if inner["type"] == "model-fields":
            node: Node = self._object(inner, config, core["cls"].__name__)
        else:
            node = self._node(inner, config)
        if not rules and not core.get("custom_init"):
            return node
        translates = bool(core.get("custom_init")) or any(rule["type"] in TRANSLATING for rule in rules)
        return Guard(node, self._leaf(core, {}), translates)

    def _object(self, core: Core, config: Core, name: str) -> ObjectNode:
        config = core.get("config") or config
        node = ObjectNode(str(core.get("cls_name") or core.get("dataclass_name") or config.get("title") or name))
        listed = core["fields"]
        named = [(one["name"], one) for one in listed] if isinstance(listed, Sequence) else list(listed.items())
        node.fields = [self._field(key, one, core, config) for key, one in named if one.get("init", True) is not False]
        node.is_model = core["type"] == "model-fields"
        node.policy = core.get("extra_behavior") or config.get("extra_fields_behavior") or "ignore"
        if node.policy == "allow" and core.get("extras_schema"):
            node.extras = self._node(core["extras_schema"], config)
        computed = core.get("computed_fields", ())
        node.ignored = frozenset(str(one.get("alias") or one["property_name"]) for one in computed)
        return node

    def _field(self, name: str, one: Core, core: Core, config: Core) -> Field:
        alias = one.get("validation_alias")
        keys: list[KeyPath] = []
        if alias is not None and config.get("validate_by_alias", True):
            if isinstance(alias, str):
                keys = [(alias,)]
            else:
                paths = [alias] if isinstance(alias[0], str) and not is_path_list(alias) else alias
                keys = [tuple(path) for path in paths]
        by_name = config.get("validate_by_name") or config.get("populate_by_name")
        if by_name or alias is None or not keys:
            keys.append((name,))
        inner = one["schema"]
        has_default = inner["type"] == "default" or (
            inner["type"] == "chain" and inner["steps"][0]["type"] == "default"
        )
        total = one["type"] == "typed-dict-field"
        required = bool(one.get("required", core.get("total", True))) if total else not has_default
        return Field(keys, self._node(inner, config), required, name)

    def _tuple(self, core: Core, config: Core) -> TupleNode:
        items = [self._node(item, config) for item in core["items_schema"]]
        needed = [item["type"] != "default" for item in core["items_schema"]]
        variadic = core.get("variadic_item_index")
        required = (
            len(items) - 1 if variadic is not None else max((i + 1 for i, n in enumerate(needed) if n), default=0)
        )
        return TupleNode(items, variadic, required)

    def _union(self, core: Core, config: Core) -> Node:
        if core["type"] == "nullable":
            inner = settled_or_none(self._node(core["schema"], config))
            if isinstance(inner, UnionNode):
                return UnionNode(inner.members, True, inner.tag, inner.labelled, inner.name, inner.discriminated)
            return UnionNode([inner], True)
        if core["type"] == "tagged-union":
            return self._tagged(core, config)
        node = UnionNode([], labelled=len(core["choices"]) > 1)
        members: list[Node] = []
        for choice in core["choices"]:
            schema = choice[0] if isinstance(choice, tuple) else choice
            if schema["type"] == "none":
                node.nullable = True
            else:
                members.append(self._node(schema, config))
        node.members = members
        node.tag = implied_tag(members)
        return node if members else self._leaf(core, config)

    def _tagged(self, core: Core, config: Core) -> Node:
        choices: dict[Any, Node] = {}
        for name, choice in core["choices"].items():
            if not isinstance(choice, (str, int)):
                choices[name.value if isinstance(name, Enum) else name] = self._node(choice, config)
        for name, choice in core["choices"].items():
            if isinstance(choice, (str, int)):
                choices[name] = choices[choice]
        discriminator = core["discriminator"]
        if callable(discriminator):

            def by_function(value: Any) -> Tag:
                try:
                    return Tag(choices.get(discriminator(value)))
                except Exception:  # a user's discriminator may raise anything
                    return Tag()

            return UnionNode(list(choices.values()), False, by_function, labelled=True, discriminated=True)
        paths: list[KeyPath] = (
            [(discriminator,)]
            if isinstance(discriminator, str)
            else [tuple(p) for p in (discriminator if is_path_list(discriminator) else [discriminator])]
        )

        return UnionNode(list(choices.values()), False, by_key(paths, choices), labelled=True, discriminated=True)

    # -- nodes → text ----------------------------------------------------------------------------------------------

    def label(self, node: Node, depth: int = 0) -> str:
        """A description of a type: `integer`, `string (date-time)`, `'a' | 'b'`, `array of Charge`, `string | null`."""
        node = settled(node)
        if isinstance(node, Leaf):
            return node.label
        if isinstance(node, ObjectNode):
            return node.name
        if depth > 3:
            return "…"
        found = self._labels.get(id(node))
        if found is None:
            found = self._words(node, depth)
            if depth == 0:
                self._labels[id(node)] = found
        return found

    def _words(self, node: Node, depth: int) -> str:
        if isinstance(node, (Guard, Lenient)):
            return self.label(node.inner, depth)
        if isinstance(node, JsonNode):
            return f"JSON text of {self._grouped(node.inner, depth)}"
        if isinstance(node, ListNode):
            return f"array of {self._grouped(node.items, depth)}"
        if isinstance(node, MapNode):
            return f"map of {self._grouped(node.values, depth)}"
        if isinstance(node, TupleNode):
            parts = [self.label(item, depth + 1) for item in node.items]
            if node.variadic is not None:
                parts[node.variadic] += ", …"
            return f"array [{', '.join(parts)}]"
        assert isinstance(node, UnionNode)
        if node.name:
            return f"{node.name} | null" if node.nullable else node.name
        parts = [self.label(member, depth + 1) for member in node.members]
        return " | ".join(dict.fromkeys([*parts, "null"] if node.nullable else parts))

    def _grouped(self, node: Node, depth: int) -> str:
        text = self.label(node, depth + 1)
        return f"({text})" if " | " in text else text
