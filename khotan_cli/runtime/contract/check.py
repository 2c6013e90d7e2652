"""The contract check: is the declared type true of what the service sends?

Two shapes are compared, the declared and the observed one, collapsed over the items of arrays. Pydantic is the judge: a
finding is *breaking* where its validation fails, a *warning* where only its strict validation does (a number in a string),
where a key is undeclared or a value always null, *info* otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from khotan_cli.errors import ResponseInvalid
from khotan_cli.runtime.contract.declared import Declared
from khotan_cli.runtime.contract.examples import example_text, value_text
from khotan_cli.runtime.contract.leaf import Grade, Issue, as_json, kind_of
from khotan_cli.runtime.contract.places import NOTHING, Fault, Place, located, related
from khotan_cli.runtime.contract.report import FAIL_ON, GRADES, Finding, Report, fail_grade
from khotan_cli.runtime.contract.shape import Walk
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint, Endpoint
from khotan_cli.runtime.plugs.jsontext import NotJson, check_json, reason, without_bom
from khotan_cli.runtime.plugs.masking import Masker

__all__ = ["FAIL_ON", "GRADES", "Finding", "Grade", "Issue", "Report", "check", "fail_grade", "model_for_status"]

MAX_FINDINGS = 500
_MAX_ERRORS = 20_000
"""Validation errors that are looked at one by one; a body with more has its findings long before."""
_COMPARED: Sequence[Issue] = ("missing", "type_mismatch", "format", "enum", "constraint", "extra")


def model_for_status(endpoint: Endpoint[Any] | BoundEndpoint[Any], status: int) -> Any:
    """The type that a response of this status is judged by: exact, class ("4XX"), default, `returns` for a success; or None."""
    declared = endpoint.endpoint if isinstance(endpoint, BoundEndpoint) else endpoint
    return declared.model_for(status)


def check(
    model: Any,
    body: bytes | bytearray | Any,
    *,
    status: int = 200,
    endpoint: str = "",
    masker: Masker | None = None,
) -> Report:
    """Compare a response body, bytes or parsed JSON, with a declared type (anything a TypeAdapter takes).

    Raises ResponseInvalid where the bytes are not JSON, or are nested too deeply to be validated (about 200 levels).
    """
    masker = masker or Masker()
    if model is None or model is type(None) or (model in (bytes, str) and isinstance(body, (bytes, bytearray))):
        return Report(str(getattr(model, "__name__", model)), status, endpoint=endpoint)  # the codec takes any body
    adapter: TypeAdapter[Any] = TypeAdapter(model)
    try:
        raw = bytes(body) if isinstance(body, (bytes, bytearray)) else as_json(body)
        data = _parsed(raw) if isinstance(body, (bytes, bytearray)) else from_json(raw)
        errors, failure = _errors(adapter, raw)
        walk = Walk(Declared(adapter), failing=bool(errors or failure))
        root = walk.run(data)
        places = _merged(root)
        findings = _findings(places, masker)
    except (RecursionError, ValueError) as exc:
        raise _unreadable(exc) from None
    findings = _agreed(findings, errors, data, masker)
    if failure:
        findings.append(Finding("$", "constraint", "breaking", root.expected, failure, 1, 1))
    findings.sort(key=lambda f: (GRADES.index(f.grade), f.path, f.issue, f.expected))
    kept = findings[:MAX_FINDINGS]
    items = _items(places)
    return Report(root.expected, status, kept, endpoint=endpoint, omitted=findings[MAX_FINDINGS:], items=items)


def _parsed(raw: bytes) -> Any:
    if not raw.strip():
        raise ResponseInvalid("The body is empty where JSON was expected", hint="There is nothing to check.")
    text = check_json(raw)
    try:
        return from_json(text)
    except ValueError as exc:
        raise NotJson(reason(text, str(exc))) from None


def _unreadable(exc: Exception) -> ResponseInvalid:
    text = str(exc)
    if isinstance(exc, RecursionError) or "recursion" in text or "depth" in text:
        return ResponseInvalid("The body is nested too deeply to be checked", hint="Pydantic reads about 200 levels.")
    return ResponseInvalid(f"The body is not valid JSON: {text}", hint="It may have been cut short.")


def _errors(adapter: TypeAdapter[Any], raw: bytes) -> tuple[list[Any], str]:
    """What Pydantic refuses, lax; and what a user's validator raised that is no validation error."""
    try:
        adapter.validate_json(without_bom(raw))
    except ValidationError as exc:
        return exc.errors(include_url=False, include_input=False, include_context=False)[:_MAX_ERRORS], ""
    except Exception as exc:  # a validator is the user's code, and may fail in any way
        return [], f"its validators raise {type(exc).__name__}"
    return [], ""


def _merged(root: Place) -> list[Place]:
    """The places, those of equal path and type as one: members of a union may share fields."""
    merged: dict[tuple[str, str, bool], Place] = {}
    for place in root.every():
        if place.parent is not None:
            place.around = place.parent.present
        known = merged.setdefault((place.path, place.expected, place.declared), place)
        if known is not place:
            _add(known, place)
    return list(merged.values())


def _add(known: Place, place: Place) -> None:
    if place.parent is not known.parent or place.parent is None:
        known.around += place.around
    known.present += place.present
    known.nulls += place.nulls
    known.filled |= place.filled
    known.unseen = known.unseen or place.unseen
    for issue, fault in place.faults.items():
        mine = known.faults.setdefault(issue, Fault(fault.grade))
        if mine.count == 0 or GRADES.index(fault.grade) < GRADES.index(mine.grade):
            mine.grade, mine.example, mine.rule = fault.grade, fault.example, fault.rule
        mine.count += fault.count
        mine.kinds.update(fault.kinds)
        mine.values.extend(value for value in fault.values if value not in mine.values)


def _findings(places: Sequence[Place], masker: Masker) -> list[Finding]:
    """What differs between the two shapes, and what is worth knowing besides."""
    from deepdiff import DeepDiff

    keyed = {(place.path, place.expected): place for place in places}
    declared = {key: dict.fromkeys(_COMPARED, key[1]) for key, place in keyed.items() if place.declared}
    observed = {
        key: {issue: _seen(place, issue) if issue in place.faults else key[1] for issue in _COMPARED}
        for key, place in keyed.items()
    }
    findings: list[Finding] = []
    for changes in DeepDiff(declared, observed, view="tree", threshold_to_diff_deeper=0).values():
        for change in changes:
            key, *aspect = change.path(output_format="list")
            place = keyed[key]
            for issue in aspect or place.faults:
                findings.append(_finding(place, issue, masker))
    return findings + _notes(places, masker)


def _seen(place: Place, issue: Issue) -> str:
    fault = place.faults[issue]
    return f"{fault.count} of {place.around}: {_actual(issue, fault)}"


def _finding(place: Place, issue: Issue, masker: Masker) -> Finding:
    fault = place.faults[issue]
    expected = place.expected or "no such key"
    if issue == "constraint":
        expected += f", {fault.rule or 'as its validator accepts it'}"
    actual = _actual(issue, fault)
    if issue == "enum":
        actual = ", ".join(value_text(value, place.path, masker, secret=place.secret) for value in fault.values[:3])
    return Finding(
        path=masker.text(place.path),
        issue=issue,
        grade=fault.grade,
        expected=masker.text(expected),
        actual=actual,
        count=fault.count,
        of=max(place.around, fault.count),
        example=None
        if fault.example is NOTHING
        else example_text(fault.example, place.path, masker, secret=place.secret),
    )


def _actual(issue: Issue, fault: Fault) -> str:
    if issue == "missing":
        return "absent"
    if len(fault.kinds) == 1:
        return next(iter(fault.kinds))
    return ", ".join(f"{kind} ×{count}" for kind, count in fault.kinds.most_common())


def _notes(places: Sequence[Place], masker: Masker) -> list[Finding]:
    """What is no difference but worth knowing: keys that are always null, never came, or could not be checked."""
    notes: list[Finding] = []
    for place in places:
        if not place.declared or place.faults:
            continue
        path, around = masker.text(place.path), place.around
        if place.nullable and place.present and place.nulls == place.present:
            notes.append(
                Finding(
                    path,
                    "null",
                    "warning",
                    place.expected,
                    "always null",
                    place.nulls,
                    max(around, place.nulls),
                    "null",
                )
            )
        elif around and not place.present:
            notes.append(Finding(path, "missing", "info", place.expected, "never sent", around, around))
        if place.unseen and not place.filled:
            inside = f"{path}[*]" if place.expected.startswith("array") else path
            notes.append(Finding(inside, "empty", "info", place.unseen, "none came: not checked", 0, 0))
    return notes


def _agreed(findings: list[Finding], errors: Sequence[Any], data: Any, masker: Masker) -> list[Finding]:
    """The findings, held against Pydantic's verdict: each error has a breaking one, each breaking one an error."""
    at = dict[str, tuple[str, Any, int]]()
    unions = dict[str, str]()
    for error in errors:
        path, value, unions[path] = located(data, error["loc"], error["type"] == "missing")
        _, _, count = at.get(path, ("", None, 0))
        at[path] = (error["type"], value, count + 1)
    breaking = [finding for finding in findings if finding.grade == "breaking"]
    paths = {finding.path for finding in breaking}
    uncovered = {
        path: seen
        for path, seen in at.items()
        if path not in paths and not any(related(path, one) or related(unions[path], one) for one in paths)
    }
    refused = list(at)
    kept = [
        finding
        if finding.grade != "breaking" or finding.path in at or any(related(path, finding.path) for path in refused)
        else finding.softened()
        for finding in findings
    ]
    for path, (kind, value, count) in uncovered.items():
        absent = value is NOTHING
        issue: Issue = "missing" if absent else "extra" if kind == "extra_forbidden" else "constraint"
        kept.append(
            Finding(
                path=masker.text(path),
                issue=issue,
                grade="breaking",
                expected="a value that is accepted by its validator",
                actual="absent" if absent else kind_of(value),
                count=count,
                of=count,
                example=None if absent else example_text(value, path, masker),
            )
        )
    return kept


def _items(places: Iterable[Place]) -> int:
    """How many items the response has: those of its outermost array, of the longest where several stand side by side."""
    arrays = [(place.path.count("[*]"), -place.around) for place in places if place.path.endswith("[*]")]
    return -min(arrays)[1] if arrays else 0
