"""The contract check: is the declared model true of what the service sends?

Two shapes are compared, the declared one and the one observed, collapsed over the items of arrays. Pydantic is the
judge: a finding is *breaking* where validation fails, a *warning* where only strict validation does (a number in a
string) or where a key is undeclared, *info* otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from pydantic import TypeAdapter, ValidationError

from khotan_cli.errors import ResponseInvalid, UsageError, nearest
from khotan_cli.runtime.plugs.masking import Masker
from khotan_cli.runtime.plugs.schema import Declared, kind_of
from khotan_cli.runtime.plugs.shape import NOTHING, Place, Walk, child

Issue = Literal["missing", "extra", "type_mismatch", "format", "enum", "constraint", "null", "empty"]
Grade = Literal["breaking", "warning", "info"]
GRADES: tuple[Grade, ...] = ("breaking", "warning", "info")
FAIL_ON = (*GRADES, "never")
_EXAMPLE_LENGTH = 80
_MISMATCHES = frozenset({"missing", "extra", "type_mismatch", "format", "enum", "constraint"})


@dataclass(frozen=True)
class Finding:
    """One difference. `path` is a JSONPath with [*] for every item; `count` of `of` values there show it.

    `example` is one such value as JSON, shortened, secrets masked; None where a key is missing.
    """

    path: str
    issue: Issue
    grade: Grade
    expected: str
    actual: str
    count: int
    of: int
    example: str | None = None

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Report:
    """The findings about one response, the gravest first."""

    model: str
    status: int
    findings: Sequence[Finding] = field(default_factory=list[Finding])
    items: int = 0
    """Items in the largest array of the response."""

    @property
    def matches(self) -> bool:
        """Whether nothing was found that fails by default."""
        return not self.fails()

    def summary(self) -> dict[str, int]:
        return {grade: sum(1 for f in self.findings if f.grade == grade) for grade in GRADES}

    def fails(self, fail_on: str | None = None) -> bool:
        """Whether the check fails. None: breaking findings, undeclared keys and wrong types; else the grade, and graver ones."""
        level = fail_grade(fail_on)
        if level == "never":
            return False
        if level is None:
            return any(
                f.grade == "breaking" or (f.grade == "warning" and f.issue in _MISMATCHES) for f in self.findings
            )
        reached = GRADES[: GRADES.index(level) + 1]
        return any(f.grade in reached for f in self.findings)

    def to_json(self, fail_on: str | None = None) -> dict[str, Any]:
        return {
            "ok": not self.fails(fail_on),
            "model": self.model,
            "status": self.status,
            "items": self.items,
            "findings": [finding.to_json() for finding in self.findings],
            "summary": self.summary(),
            "failOn": fail_on or "default",
        }

    def text(self) -> str:
        """The findings, a line each."""
        return "\n".join(
            f"{f.grade}: {f.path} {f.issue}: expected {f.expected}, got {f.actual} ({f.count} of {f.of})"
            for f in self.findings
        )


def fail_grade(text: str | None) -> Any:
    """A `--fail-on` value, checked; None for the default rule. Raises UsageError."""
    if text is None or text in ("", "default"):
        return None
    if text not in FAIL_ON:
        near = nearest(text, FAIL_ON)
        raise UsageError(
            f"--fail-on {text!r} is not a grade",
            hint=f"Did you mean {near!r}?" if near else f"One of {', '.join(FAIL_ON)}.",
        )
    return text


def check(model: Any, body: bytes | bytearray | Any, *, status: int = 200, masker: Masker | None = None) -> Report:
    """Compare a response body, bytes or parsed JSON, with a declared type (anything a TypeAdapter takes).

    Raises ResponseInvalid where the bytes are not JSON.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(model)
    raw = bytes(body) if isinstance(body, (bytes, bytearray)) else orjson.dumps(body)
    data = _parsed(raw)
    declared = Declared(adapter)
    walk = Walk(declared)
    walk.visit(declared.root, data)
    lax = _errors(adapter, raw, data, strict=False)
    strict = _errors(adapter, raw, data, strict=True) if _differs(walk) else lax
    findings = _from_walk(walk, lax, strict, masker or Masker())
    findings += _uncovered(walk, lax, findings, masker or Masker())
    findings.sort(key=lambda f: (GRADES.index(f.grade), f.path, f.issue))
    return Report(_name(model), status, findings, _largest(walk))


def _differs(walk: Walk) -> list[str]:
    """Paths at which the observed shape is not the declared one."""
    from deepdiff import DeepDiff

    declared = {path: place.expected for path, place in walk.places.items() if not place.extra}
    observed = {
        path: f"{place.actual()} ({', '.join(place.wrong)})" if place.wrong else place.expected
        for path, place in walk.places.items()
        if place.present or place.wrong
    }
    # Places that were never seen and may be absent are no difference.
    declared = {path: text for path, text in declared.items() if path in observed or walk.places[path].required}
    diff = DeepDiff(declared, observed, view="tree", threshold_to_diff_deeper=0)
    return [str(change.path(output_format="list")[0]) for changes in diff.values() for change in changes]


def _from_walk(walk: Walk, lax: Sequence[_Error], strict: Sequence[_Error], masker: Masker) -> list[Finding]:
    findings: list[Finding] = []
    for path in _differs(walk):
        place = walk.places[path]
        for issue, count in place.wrong.items():
            grade = _grade(path, issue, place, lax, strict)
            of = _around(walk, path) if issue == "extra" else max(place.seen, place.present, 1)
            example = place.examples[issue]
            findings.append(
                Finding(
                    path=path,
                    issue=issue,  # type: ignore[arg-type]
                    grade=grade,
                    expected=place.expected or "nothing declared",
                    actual=place.actual() if issue != "extra" else " | ".join(sorted(place.kinds)),
                    count=count,
                    of=max(of, count),
                    example=None if example is NOTHING else example_text(example, masker),
                )
            )
    return findings + _notes(walk)


def _notes(walk: Walk) -> list[Finding]:
    """What is no difference but worth knowing: keys that are always null, never came, or could not be checked."""
    notes: list[Finding] = []
    for path, place in walk.places.items():
        if place.extra or place.wrong:
            continue
        always_null = place.nullable and place.present and set(place.kinds) == {"null"}
        if always_null and place.expected != "null":
            count = place.present
            notes.append(Finding(path, "null", "warning", place.expected, "always null", count, count, "null"))
        elif place.seen and not place.present:
            notes.append(Finding(path, "missing", "info", place.expected, "never sent", place.seen, place.seen))
    for path in walk.unchecked:
        if path not in walk.places or not walk.places[path].present:
            notes.append(Finding(path, "empty", "info", "items", "none came: not checked", 0, 0))
    return notes


def _grade(path: str, issue: str, place: Place, lax: Sequence[_Error], strict: Sequence[_Error]) -> Grade:
    if any(error.covers(path) for error in lax):
        return "breaking"
    if issue == "extra":
        return "info" if place.extra == "allow" else "warning"
    return "warning" if any(error.covers(path) for error in strict) else "info"


def _around(walk: Walk, path: str) -> int:
    """How many objects were seen around a key."""
    parent = path[: path.rindex("[" if path.endswith("]") else ".")]
    found = walk.places.get(parent)
    return found.kinds["object"] if found else 1


@dataclass(frozen=True)
class _Error:
    """A Pydantic error at a collapsed path. `exact`: the path leads to the value itself; else to the union around it."""

    path: str
    kind: str
    message: str
    value: Any
    exact: bool

    def covers(self, path: str) -> bool:
        if path == self.path:
            return True
        below = path.startswith((self.path + ".", self.path + "["))
        return below and not self.exact


def _errors(adapter: TypeAdapter[Any], raw: bytes, data: Any, *, strict: bool) -> list[_Error]:
    try:
        adapter.validate_json(raw, strict=strict or None)
    except ValidationError as exc:
        return [_located(error, data) for error in exc.errors(include_url=False, include_context=False)]
    return []


def _located(error: Any, data: Any) -> _Error:
    """Follow an error's location through the body: what is no key or index there names a member of a union."""
    path, value, exact = "$", data, True
    location = error["loc"]
    for index, part in enumerate(location):
        if isinstance(value, list) and isinstance(part, int) and part < len(value):
            path, value = f"{path}[*]", value[part]
        elif isinstance(value, Mapping) and part in value:
            path, value = child(path, str(part)), value[part]
        elif error["type"] == "missing" and index == len(location) - 1 and exact:
            path, value = child(path, str(part)), NOTHING
        else:
            exact = False
            break
    return _Error(path, error["type"], error["msg"], value, exact)


def _uncovered(walk: Walk, errors: Sequence[_Error], findings: Sequence[Finding], masker: Masker) -> list[Finding]:
    """Validation errors that the two shapes do not show: bounds, patterns, validators of the user's own."""
    grouped: dict[tuple[str, str], list[_Error]] = {}
    paths = [finding.path for finding in findings if finding.grade == "breaking"]
    for error in errors:
        if not any(error.covers(path) or path == error.path for path in paths):
            grouped.setdefault((error.path, error.message), []).append(error)
    return [
        Finding(
            path=path,
            issue=_issue_of(group[0].kind),
            grade="breaking",
            expected=masker.text(_without_input(group[0])),
            actual="absent" if group[0].value is NOTHING else kind_of(group[0].value),
            count=len(group),
            of=max(len(group), walk.places[path].present if path in walk.places else 1),
            example=None if group[0].value is NOTHING else example_text(group[0].value, masker),
        )
        for (path, _), group in grouped.items()
    ]


def _issue_of(kind: str) -> Issue:
    if kind == "missing":
        return "missing"
    if kind == "extra_forbidden":
        return "extra"
    if kind in ("enum", "literal_error"):
        return "enum"
    return "type_mismatch" if kind.endswith(("_type", "_parsing")) else "constraint"


def _without_input(error: _Error) -> str:
    """Pydantic's sentence; that of a user's validator may quote the value, so only its kind is kept."""
    return "a value its validator accepts" if error.kind in ("value_error", "assertion_error") else error.message


def example_text(value: Any, masker: Masker) -> str:
    """A value as JSON on one line, secrets masked, cut to 80 characters."""
    text = json.dumps(masker.value(_shallow(value)), ensure_ascii=False)
    return text if len(text) <= _EXAMPLE_LENGTH else text[: _EXAMPLE_LENGTH - 1] + "…"


def _shallow(value: Any, depth: int = 0) -> Any:
    """Enough of a value for an example: a large one is not copied whole."""
    if isinstance(value, Mapping):
        return {k: _shallow(v, depth + 1) for k, v in list(value.items())[:8]} if depth < 4 else {}
    if isinstance(value, list):
        return [_shallow(item, depth + 1) for item in value[:8]] if depth < 4 else []
    return value


def _parsed(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise ResponseInvalid(
            f"The body is not valid JSON: {exc}", hint="A contract is checked on JSON that is whole."
        ) from None


def _largest(walk: Walk) -> int:
    return max((place.seen for path, place in walk.places.items() if path.endswith("[*]")), default=0)


def _name(model: Any) -> str:
    return str(model) if getattr(model, "__args__", None) else getattr(model, "__name__", str(model))
