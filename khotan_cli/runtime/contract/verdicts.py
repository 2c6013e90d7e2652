"""Reconciles Pydantic's errors for whole documents with the findings of the walk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from khotan_cli.runtime.contract.declared import Declared
from khotan_cli.runtime.contract.examples import example_text
from khotan_cli.runtime.contract.json_paths import NOTHING, PathStats, below, related, same
from khotan_cli.runtime.contract.locate import Spot, located
from khotan_cli.runtime.contract.report import Finding
from khotan_cli.runtime.contract.rules import rule_words
from khotan_cli.runtime.contract.scalars import Issue, kind_of
from khotan_cli.runtime.redaction.masker import Masker


@dataclass(frozen=True, slots=True)
class Document:
    """A document and Pydantic's errors in it: `ValidationError.errors()`, with context."""

    data: Any
    errors: Sequence[Any]


@dataclass(slots=True)
class _ErrorGroup:
    """The errors of one path and type."""

    spot: Spot
    error: Any
    count: int = 0


@dataclass
class Verdicts:
    """Pydantic's errors in all documents, grouped by path."""

    declared: Declared
    documents: Sequence[Document]
    _at: dict[tuple[str, str], _ErrorGroup] = field(default_factory=dict[tuple[str, str], _ErrorGroup])

    def agreed(self, findings: Sequence[Finding], all_stats: Sequence[PathStats], masker: Masker) -> list[Finding]:
        """The findings, adjusted so that each error has a breaking finding. Breaking findings without an error become
        warnings."""
        self._group()
        breaking = {finding.path for finding in findings if finding.grade == "breaking"}
        adjusted = [finding if self._is_confirmed(finding) else finding.softened() for finding in findings]
        wide = self._wide(findings)
        known = {stats.path: stats for stats in reversed(all_stats) if stats.declared}
        for path, errors in self._by_path().items():
            if not _covered(errors[0], breaking, wide):
                adjusted += [_added(error, error.count, known.get(path), masker) for error in errors]
            elif path in breaking and not any(error.spot.union for error in errors):
                adjusted = _with_uncounted(adjusted, path, errors, known.get(path), masker)
        return adjusted

    def _group(self) -> None:
        for document in self.documents:
            for error in document.errors:
                spot = located(self.declared.root, document.data, error["loc"], error["type"] == "missing")
                self._at.setdefault((spot.path, error["type"]), _ErrorGroup(spot, error)).count += 1

    def _is_confirmed(self, finding: Finding) -> bool:
        """Whether Pydantic has an error at or around a finding's path; a finding that is not breaking needs none."""
        return finding.grade != "breaking" or any(related(path, finding.path) for path, _ in self._at)

    def _wide(self, findings: Sequence[Finding]) -> set[str]:
        """Paths of breaking findings that also cover errors below their own path."""
        counts = Counter[str]()
        for finding in findings:
            if finding.grade == "breaking":
                counts[finding.path] += finding.count
        for (path, _), one in self._at.items():
            if path in counts:
                counts[path] -= one.count
        return {path for path, count in counts.items() if count > 0}

    def _by_path(self) -> dict[str, list[_ErrorGroup]]:
        found: dict[str, list[_ErrorGroup]] = {}
        for one in self._at.values():
            found.setdefault(one.spot.path, []).append(one)
        return found


def _with_uncounted(
    findings: list[Finding], path: str, errors: Sequence[_ErrorGroup], stats: PathStats | None, masker: Masker
) -> list[Finding]:
    """The findings, and one for the errors that Pydantic has at a path beyond those that the walk counted there."""
    counted = sum(finding.count for finding in findings if finding.path == path and finding.grade == "breaking")
    more = sum(error.count for error in errors) - counted
    if more <= 0:
        return findings
    error = next((error for error in errors if error.error["type"] in _OWN), errors[0])
    return _with(findings, _added(error, min(more, error.count), stats, masker))


_OWN = frozenset({"value_error", "assertion_error"})
"""Error types of users' validators, which may read other fields than the one that the walk checks."""


def _with(findings: list[Finding], more: Finding) -> list[Finding]:
    """The findings plus one, whose count is added to an equal finding."""
    for index, one in enumerate(findings):
        if (one.path, one.issue, one.grade, one.expected) == (more.path, more.issue, more.grade, more.expected):
            count = one.count + more.count
            return [*findings[:index], replace(one, count=count, of=max(one.of, count)), *findings[index + 1 :]]
    return [*findings, more]


def _covered(one: _ErrorGroup, paths: set[str], wide: set[str]) -> bool:
    """Whether a breaking finding covers an error: one at its path, or a wide one above; one below only for a wrong tag."""
    path, union = one.spot.path, one.spot.union
    around = paths if union else wide
    if path in paths or any(same(path, other) for other in paths) or any(below(path, other) for other in around):
        return True
    if one.error["type"].startswith("union_tag"):
        return any(below(other, path) for other in paths)
    return bool(union) and any(below(other, union) for other in paths)


def _added(one: _ErrorGroup, count: int, stats: PathStats | None, masker: Masker) -> Finding:
    """The finding for an error that the walk cannot detect: of a validator that reads other fields, or a special type."""
    path, value, error = one.spot.path, one.spot.value, one.error
    absent = value is NOTHING
    issue: Issue = "missing" if absent else "extra" if error["type"] == "extra_forbidden" else "constraint"
    expected = "a value" if stats is None else stats.expected
    rule = rule_words(error)
    if issue == "constraint":
        expected += f", {rule}" if rule else " that its validator accepts"
    return Finding(
        path=masker.text(path),
        issue=issue,
        grade="breaking",
        expected=masker.text(expected),
        actual="absent" if absent else kind_of(value),
        count=count,
        of=count if stats is None else max(stats.around, count),
        example=None if absent else example_text(value, path, masker, secret=stats is not None and stats.secret),
    )
