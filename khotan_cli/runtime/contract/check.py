"""The contract check: is the declared type true of what the service sends?

Two shapes are compared, the declared and the observed one, collapsed over the items of arrays. Pydantic is the judge: a
finding is *breaking* where its validation fails, a *warning* where only its strict validation does (a number in a string),
where a key is undeclared or an invalid value is dropped, *info* otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from khotan_cli.errors import ResponseInvalid
from khotan_cli.runtime.content.json_text import NotJson, check_json, reason, without_bom
from khotan_cli.runtime.contract.declared import Declared
from khotan_cli.runtime.contract.examples import example_text, value_text
from khotan_cli.runtime.contract.json_paths import NOTHING, Fault, Place
from khotan_cli.runtime.contract.observed import Walk
from khotan_cli.runtime.contract.report import FAIL_ON, GRADES, Finding, Report, fail_grade
from khotan_cli.runtime.contract.scalars import Grade, Issue, as_json
from khotan_cli.runtime.contract.verdicts import Document, Verdicts
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint, Endpoint
from khotan_cli.runtime.redaction.masker import Masker

__all__ = [
    "FAIL_ON",
    "GRADES",
    "Finding",
    "Grade",
    "Issue",
    "Report",
    "check",
    "check_pages",
    "fail_grade",
    "model_for_status",
]

Source = Literal["json", "text", "values"]
MAX_FINDINGS = 500
NO_BODY = "no body"
_ANY_BODY = "not judged: the type accepts any body"
_ANY_VALUE = "not judged: the type accepts any value"
_MAX_ERRORS = 20_000
"""Validation errors that are looked at one by one; a body with more has its findings long before."""
_COMPARED: Sequence[Issue] = ("missing", "type_mismatch", "format", "enum", "constraint", "extra", "dropped")


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
    source: Source = "json",
) -> Report:
    """Compare a response body, bytes or parsed JSON, with a declared type (anything a TypeAdapter takes).

    `source` says what `body` was made from: "text" is for the values of CSV or XML, where numbers, booleans and dates come as
    text, and "values" for those of another parser. None as a type declares that there is no body. Raises ResponseInvalid where
    the bytes are not JSON, or are nested too deeply to be validated (about 200 levels).
    """
    return check_pages(model, [body], status=status, endpoint=endpoint, masker=masker, source=source)


def check_pages(
    model: Any,
    bodies: Sequence[bytes | bytearray | Any],
    *,
    status: int = 200,
    endpoint: str = "",
    masker: Masker | None = None,
    source: Source = "json",
) -> Report:
    """Like `check`, for several responses of one type: their findings are counted together."""
    masker = masker or Masker()
    if model is None or model is type(None):
        extras = [Finding("$", "extra", "warning", NO_BODY, "a body", 1, 1) for body in bodies if body]
        return Report(NO_BODY, status, extras[:1], endpoint=endpoint)
    if model in (bytes, str) and all(isinstance(body, (bytes, bytearray)) for body in bodies):
        name, count = str(model.__name__), len(bodies)
        finding = Finding("$", "unjudged", "info", name, _ANY_BODY, count, count)
        return Report(name, status, [finding], endpoint=endpoint, unjudged=[("$", _ANY_BODY)])
    try:
        declared = Declared(TypeAdapter(model))
        walk = Walk(declared, text=source == "text")
        documents, failures = list[Document](), list[str]()
        for body in bodies:
            document, failure = _document(declared, body, source)
            walk.run(document.data, failing=bool(document.errors or failure))
            documents.append(document)
            failures += [failure] if failure else []
        places = _merged(walk.root)
        findings = _findings(places, masker)
    except (RecursionError, ValueError) as exc:
        raise _unreadable(exc) from None
    findings = Verdicts(declared, documents).agreed(findings, places, masker)
    expected = walk.root.expected
    if failures:
        findings.append(
            Finding(
                "$", "constraint", "breaking", expected, failures[0], len(failures), max(len(bodies), len(failures))
            )
        )
    unjudged = _unjudged(places, masker)
    return ordered(Report(expected, status, findings, endpoint, items=_items(places), unjudged=unjudged))


def ordered(report: Report) -> Report:
    """The report with its gravest findings first, and those above MAX_FINDINGS omitted."""
    findings = sorted(
        [*report.findings, *report.omitted], key=lambda f: (GRADES.index(f.grade), f.path, f.issue, f.expected)
    )
    return replace(report, findings=findings[:MAX_FINDINGS], omitted=findings[MAX_FINDINGS:])


def _document(declared: Declared, body: Any, source: Source) -> tuple[Document, str]:
    """A body with what Pydantic refuses in it, and what a user's validator raised that is no validation error."""
    whole = isinstance(body, (bytes, bytearray))
    raw = bytes(body) if whole else as_json(body)
    data = _parsed(raw) if whole else from_json(raw)
    errors, failure = _errors(declared.validator, raw if source == "json" else body, source)
    return Document(data, errors), failure


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


def _errors(validator: Any, body: Any, source: Source) -> tuple[list[Any], str]:
    """What Pydantic refuses, lax; and what a user's validator raised that is no validation error."""
    try:
        if source == "json":
            validator.validate_json(without_bom(body))
        else:
            validator.validate_python(body)  # as the codec does with what a parser returned
    except ValidationError as exc:
        return exc.errors(include_url=False, include_input=False)[:_MAX_ERRORS], ""
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
    known.accepts_any += place.accepts_any
    known.unjudged += place.unjudged
    known.why = known.why or place.why
    known.unseen = known.unseen or place.unseen
    for issue, fault in place.faults.items():
        mine = known.faults.setdefault(issue, Fault(fault.grade))
        if mine.count == 0 or GRADES.index(fault.grade) < GRADES.index(mine.grade):
            mine.grade, mine.example = fault.grade, fault.example
        mine.count += fault.count
        mine.kinds.update(fault.kinds)
        mine.rules.extend(rule for rule in fault.rules if rule not in mine.rules)
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
    rule = "; ".join(fault.rules)
    if rule and issue != "dropped":
        expected += f", {rule}"
    elif issue == "constraint":
        expected += " that its validator accepts"
    actual = _actual(issue, fault)
    if issue == "dropped":
        actual += f", {rule}"
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
    """What is no difference but worth knowing: keys that are always null, never came, or were not judged."""
    notes: list[Finding] = []
    for place in places:
        path, around = masker.text(place.path), place.around
        if place.unjudged:
            of = max(around, place.unjudged)
            notes.append(Finding(path, "unjudged", "info", place.expected, place.why, place.unjudged, of))
        if not place.declared or place.faults:
            continue
        nulls = place.nulls
        if place.nullable and nulls and nulls == place.present:
            notes.append(
                Finding(path, "null", "info", place.expected, "always null", nulls, max(around, nulls), "null")
            )
        elif around and not place.present and place.path != "$":
            notes.append(Finding(path, "missing", "info", place.expected, "never sent", around, around))
        if place.unseen and not place.filled:
            inside = f"{path}[*]" if place.expected.startswith("array") else path
            notes.append(Finding(inside, "empty", "info", place.unseen, "not judged: no item came", 0, 0))
    return notes


def _unjudged(places: Iterable[Place], masker: Masker) -> list[tuple[str, str]]:
    """The paths of values that nothing judges, each with the reason."""
    found: dict[str, str] = {}
    for place in places:
        if place.accepts_any or place.unjudged:
            found.setdefault(masker.text(place.path), place.why or _ANY_VALUE)
    return sorted(found.items())[:MAX_FINDINGS]


def _items(places: Iterable[Place]) -> int:
    """How many items the response has: those of its outermost array, of the longest where several stand side by side."""
    arrays = [(place.path.count("[*]"), -place.around) for place in places if place.path.endswith("[*]")]
    return -min(arrays)[1] if arrays else 0
