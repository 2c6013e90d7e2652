"""The contract check compares the declared type with the service's responses.

It compares the declared and the observed shape, collapsed over the items of arrays. Pydantic decides the grade: a
finding is *breaking* if validation fails; a *warning* if only strict validation fails (a number in a string), if a key
is undeclared, or if an invalid value is dropped; otherwise *info*.
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
from khotan_cli.runtime.contract.json_paths import NOTHING, Fault, PathStats
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
"""Maximum number of validation errors to process. A body with more has enough findings before."""
_COMPARED: Sequence[Issue] = ("missing", "type_mismatch", "format", "enum", "constraint", "extra", "dropped")


def model_for_status(endpoint: Endpoint[Any] | BoundEndpoint[Any], status: int) -> Any:
    """The declared type for a status: exact, class ("4XX"), default, `returns` for a success; or None."""
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

    `source` is the origin of `body`: "text" for values of CSV or XML, where numbers, booleans and dates are text, and
    "values" for those of another parser. None as a type declares that there is no body. Raises ResponseInvalid if the
    bytes are not JSON, or are nested too deeply to be validated (about 200 levels).
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
    """Like `check`, for several responses of one type. Their findings are counted together."""
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
        all_stats = _merged(walk.root)
        findings = _findings(all_stats, masker)
    except (RecursionError, ValueError) as exc:
        raise _unreadable(exc) from None
    findings = Verdicts(declared, documents).agreed(findings, all_stats, masker)
    expected = walk.root.expected
    if failures:
        findings.append(
            Finding(
                "$", "constraint", "breaking", expected, failures[0], len(failures), max(len(bodies), len(failures))
            )
        )
    unjudged = _unjudged(all_stats, masker)
    return ordered(Report(expected, status, findings, endpoint, items=_items(all_stats), unjudged=unjudged))


def ordered(report: Report) -> Report:
    """The report with its most severe findings first, and those above MAX_FINDINGS omitted."""
    findings = sorted(
        [*report.findings, *report.omitted], key=lambda f: (GRADES.index(f.grade), f.path, f.issue, f.expected)
    )
    return replace(report, findings=findings[:MAX_FINDINGS], omitted=findings[MAX_FINDINGS:])


def _document(declared: Declared, body: Any, source: Source) -> tuple[Document, str]:
    """A body with Pydantic's errors in it, and the description of another exception of a user's validator."""
    whole = isinstance(body, (bytes, bytearray))
    raw = bytes(body) if whole else as_json(body)
    data = _parsed(raw) if whole else from_json(raw)
    errors, failure = _errors(declared.validator, raw if source == "json" else body, source)
    return Document(data, errors), failure


def _parsed(raw: bytes) -> Any:
    if not raw.strip():
        raise ResponseInvalid("The body is empty, but JSON was expected", hint="Compare a response that has a body.")
    text = check_json(raw)
    try:
        return from_json(text)
    except ValueError as exc:
        raise NotJson(reason(text, str(exc))) from None


def _unreadable(exc: Exception) -> ResponseInvalid:
    text = str(exc)
    if isinstance(exc, RecursionError) or "recursion" in text or "depth" in text:
        return ResponseInvalid(
            "The body is nested too deeply to be checked", hint="Pydantic supports about 200 levels."
        )
    return ResponseInvalid(f"The body is not valid JSON: {text}", hint="The body may have been cut short.")


def _errors(validator: Any, body: Any, source: Source) -> tuple[list[Any], str]:
    """Pydantic's errors in lax mode, and the description of another exception of a user's validator."""
    try:
        if source == "json":
            validator.validate_json(without_bom(body))
        else:
            validator.validate_python(body)  # as the codec does with a parser's result
    except ValidationError as exc:
        return exc.errors(include_url=False, include_input=False)[:_MAX_ERRORS], ""
    except Exception as exc:  # a user's validator may raise anything
        return [], f"its validators raise {type(exc).__name__}"
    return [], ""


def _merged(root: PathStats) -> list[PathStats]:
    """The stats, merged for equal path and type, because members of a union may share fields."""
    merged: dict[tuple[str, str, bool], PathStats] = {}
    for stats in root.every():
        if stats.parent is not None:
            stats.around = stats.parent.present
        known = merged.setdefault((stats.path, stats.expected, stats.declared), stats)
        if known is not stats:
            _add(known, stats)
    return list(merged.values())


def _add(known: PathStats, stats: PathStats) -> None:
    if stats.parent is not known.parent or stats.parent is None:
        known.around += stats.around
    known.present += stats.present
    known.nulls += stats.nulls
    known.filled |= stats.filled
    known.accepts_any += stats.accepts_any
    known.unjudged += stats.unjudged
    known.why = known.why or stats.why
    known.unseen = known.unseen or stats.unseen
    for issue, fault in stats.faults.items():
        merged = known.faults.setdefault(issue, Fault(fault.grade))
        if merged.count == 0 or GRADES.index(fault.grade) < GRADES.index(merged.grade):
            merged.grade, merged.example = fault.grade, fault.example
        merged.count += fault.count
        merged.kinds.update(fault.kinds)
        merged.rules.extend(rule for rule in fault.rules if rule not in merged.rules)
        merged.values.extend(value for value in fault.values if value not in merged.values)


def _findings(all_stats: Sequence[PathStats], masker: Masker) -> list[Finding]:
    """The differences between the two shapes, and further notes."""
    from deepdiff import DeepDiff

    keyed = {(stats.path, stats.expected): stats for stats in all_stats}
    declared = {key: dict.fromkeys(_COMPARED, key[1]) for key, stats in keyed.items() if stats.declared}
    observed = {
        key: {issue: _seen(stats, issue) if issue in stats.faults else key[1] for issue in _COMPARED}
        for key, stats in keyed.items()
    }
    findings: list[Finding] = []
    for changes in DeepDiff(declared, observed, view="tree", threshold_to_diff_deeper=0).values():
        for change in changes:
            key, *aspect = change.path(output_format="list")
            stats = keyed[key]
            for issue in aspect or stats.faults:
                findings.append(_finding(stats, issue, masker))
    return findings + _notes(all_stats, masker)


def _seen(stats: PathStats, issue: Issue) -> str:
    fault = stats.faults[issue]
    return f"{fault.count} of {stats.around}: {_actual(issue, fault)}"


def _finding(stats: PathStats, issue: Issue, masker: Masker) -> Finding:
    fault = stats.faults[issue]
    expected = stats.expected or "no such key"
    rule = "; ".join(fault.rules)
    if rule and issue != "dropped":
        expected += f", {rule}"
    elif issue == "constraint":
        expected += " that its validator accepts"
    actual = _actual(issue, fault)
    if issue == "dropped":
        actual += f", {rule}"
    if issue == "enum":
        actual = ", ".join(value_text(value, stats.path, masker, secret=stats.secret) for value in fault.values[:3])
    return Finding(
        path=masker.text(stats.path),
        issue=issue,
        grade=fault.grade,
        expected=masker.text(expected),
        actual=actual,
        count=fault.count,
        of=max(stats.around, fault.count),
        example=None
        if fault.example is NOTHING
        else example_text(fault.example, stats.path, masker, secret=stats.secret),
    )


def _actual(issue: Issue, fault: Fault) -> str:
    if issue == "missing":
        return "absent"
    if len(fault.kinds) == 1:
        return next(iter(fault.kinds))
    return ", ".join(f"{kind} ×{count}" for kind, count in fault.kinds.most_common())


def _notes(all_stats: Sequence[PathStats], masker: Masker) -> list[Finding]:
    """Findings that are not differences: keys that are always null, never sent, or not judged."""
    notes: list[Finding] = []
    for stats in all_stats:
        path, around = masker.text(stats.path), stats.around
        if stats.unjudged:
            of = max(around, stats.unjudged)
            notes.append(Finding(path, "unjudged", "info", stats.expected, stats.why, stats.unjudged, of))
        if not stats.declared or stats.faults:
            continue
        nulls = stats.nulls
        if stats.nullable and nulls and nulls == stats.present:
            notes.append(
                Finding(path, "null", "info", stats.expected, "always null", nulls, max(around, nulls), "null")
            )
        elif around and not stats.present and stats.path != "$":
            notes.append(Finding(path, "missing", "info", stats.expected, "never sent", around, around))
        if stats.unseen and not stats.filled:
            inside = f"{path}[*]" if stats.expected.startswith("array") else path
            notes.append(Finding(inside, "empty", "info", stats.unseen, "not judged: no items received", 0, 0))
    return notes


def _unjudged(all_stats: Iterable[PathStats], masker: Masker) -> list[tuple[str, str]]:
    """The paths of values that are not judged, each with the reason."""
    found: dict[str, str] = {}
    for stats in all_stats:
        if stats.accepts_any or stats.unjudged:
            found.setdefault(masker.text(stats.path), stats.why or _ANY_VALUE)
    return sorted(found.items())[:MAX_FINDINGS]


def _items(all_stats: Iterable[PathStats]) -> int:
    """The number of items in the response: those of its outermost array, or of the longest of several."""
    arrays = [(stats.path.count("[*]"), -stats.around) for stats in all_stats if stats.path.endswith("[*]")]
    return -min(arrays)[1] if arrays else 0
