"""The report of a contract check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from khotan_cli.errors import UsageError, nearest
from khotan_cli.runtime.contract.scalars import Grade, Issue

GRADES: tuple[Grade, ...] = ("breaking", "warning", "info")
FAIL_ON = (*GRADES, "never")
DEFAULT_FAIL_ON: Grade = "warning"


@dataclass(frozen=True)
class Finding:
    """One difference. `path` is a JSONPath (RFC 9535) with [*] for every item and .* for every value of a map.

    It occurs in `count` of `of` values or objects. `example` is one such value as JSON, shortened, with secrets masked;
    None if a key is missing. Issue `null`: always null; `empty`: no value to judge was received; `unjudged`: the
    declared type does not judge the value; `dropped`: Pydantic drops or replaces it; `paging`: the paginator does not work.
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
        return asdict(self)

    def softened(self) -> Finding:
        """The finding as a warning, because Pydantic accepts the value."""
        return replace(self, grade="warning")

    def __str__(self) -> str:
        example = "" if self.example is None else f", for example {self.example}"
        is_note = self.issue in ("unjudged", "empty", "null", "paging")
        received = self.actual if self.issue == "missing" else f"got {self.actual}"
        text = self.actual if is_note else f"expected {self.expected}, {received}"
        return f"{self.grade}: {self.path}: {self.issue}: {text} ({self.count} of {self.of}{example})"


@dataclass(frozen=True)
class Report:
    """The findings about one response, most severe first. `omitted`: further findings, of which only the number is shown."""

    model: str
    status: int
    findings: Sequence[Finding] = field(default_factory=list[Finding])
    endpoint: str = ""
    omitted: Sequence[Finding] = ()
    items: int = 0
    """Items in the arrays of that path which has the most."""
    unjudged: Sequence[tuple[str, str]] = ()
    """JSONPath and reason for values that the declared type does not judge, `Any` among them."""

    paging: Mapping[str, Any] | None = None
    """What a walk through the pages showed, as JSON; None where one response was judged."""

    @property
    def matches(self) -> bool:
        """Whether nothing was found that fails by default."""
        return not self.fails()

    @property
    def summary(self) -> dict[str, int]:
        """How many findings of each grade, omitted ones included."""
        every = [*self.findings, *self.omitted]
        return {grade: sum(1 for f in every if f.grade == grade) for grade in GRADES}

    def fails(self, fail_on: str | None = None) -> bool:
        """Whether the check fails. Raises UsageError for an unknown `fail_on`.

        A grade: findings of it and of graver ones. "never": nothing fails. None: the same as "warning".
        """
        level = fail_grade(fail_on) or DEFAULT_FAIL_ON
        if level == "never":
            return False
        reached = GRADES[: FAIL_ON.index(level) + 1]
        return any(f.grade in reached for f in [*self.findings, *self.omitted])

    def to_json(self, fail_on: str | None = None) -> dict[str, Any]:
        """The report as JSON for the API and `--json`. `fail_on` determines `ok`."""
        document: dict[str, Any] = {
            "ok": not self.fails(fail_on),
            "endpoint": self.endpoint,
            "model": self.model,
            "status": self.status,
            "items": self.items,
            "findings": [finding.to_json() for finding in self.findings],
            "summary": self.summary,
            "failOn": fail_on or "default",
        }
        if self.paging is not None:
            document["paging"] = dict(self.paging)
        if self.omitted:
            document["omitted"] = len(self.omitted)
        if self.unjudged:
            document["notJudged"] = [{"path": path, "reason": reason} for path, reason in self.unjudged]
        return document

    def text(self) -> str:
        """The findings, one per line."""
        lines = [str(finding) for finding in self.findings]
        return "\n".join([*lines, f"and {len(self.omitted)} more"] if self.omitted else lines)


def fail_grade(text: str | None) -> str | None:
    """Validate a `--fail-on` value; None for the default rule. Raises UsageError."""
    if text is None or text in ("", "default"):
        return None
    if text not in FAIL_ON:
        near = nearest(text, FAIL_ON)
        raise UsageError(
            f"Invalid --fail-on {text!r}",
            hint=f"Did you mean {near!r}?" if near else f"Use one of {', '.join(FAIL_ON)}.",
        )
    return text
