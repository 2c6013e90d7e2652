"""Terminal output of flows and runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from khotan_cli.commands.times import clock, when
from khotan_cli.console import console

_LOG_LINES = 40
COLOURS = {
    "completed": "green",
    "partial": "yellow",
    "failed": "red",
    "cancelled": "dim",
    "running": "cyan",
    "pending": "dim",
}


def show_flows(items: Sequence[dict[str, Any]]) -> None:
    if not items:
        console.line("There is no flow yet.")
        console.next_steps(["khotan add inflow NAME"])
        return
    rows = []
    for flow in items:
        plugs = flow["plug"] + (f" → {flow['to']}" if flow["to"] else "")
        schedules = [f"{v['name']}: {v['schedule']}" for v in flow["variants"] if v["schedule"]]
        modes = ", ".join(v["name"] for v in flow["variants"])
        state = "enabled" if flow["enabled"] else "disabled"
        rows.append([flow["name"], flow["kind"], plugs, modes, "\n".join(schedules) or "–", state])
    console.table(["Flow", "Kind", "Plug", "Variants", "Schedule", "State"], rows, whole=["Flow", "State"])


def show_runs(items: Sequence[dict[str, Any]], total: int) -> None:
    if not items:
        console.line("There is no run yet.")
        return
    from rich.text import Text

    rows = []
    for run in items:
        status = Text(run["status"], style=COLOURS.get(run["status"], ""))
        started, flow = when(run["startedAt"]), f"{run['flow']}" + (f" ({run['variant']})" if run["variant"] else "")
        rows.append([run["id"], started, status, flow, counted(run["counts"]) or "–", took(run) or "–"])
        if run["codeOutdated"]:
            rows[-1][0] += " *"
    columns = ["Run", "Started", "Status", "Flow", "Counts", "Took"]
    console.table(columns, rows, whole=["Run", "Started", "Status"])
    if any(run["codeOutdated"] for run in items):
        console.line("* ran an older version of the project's code", "dim")
    if total > len(items):
        console.line(f"{total - len(items)} older runs are not shown.", "dim")


def next_of(run: dict[str, Any]) -> list[str]:
    """The commands to run next: those of the run's error, and the list of rejected records."""
    rejects = [f"khotan flows rejects {run['id']}"] if run.get("rejects") else []
    return [*(run["error"] or {}).get("next", ()), *rejects]


def show_run(run: dict[str, Any]) -> None:
    show_summary(run)
    if run["error"]:
        console.line(f"✗ {run['error']['message']}", "red")
        console.line(f"  {run['error'].get('hint', '')}")
        if run["error"].get("place"):
            console.line(f"  at {run['error']['place']}", "dim")
    if run.get("rejects"):
        console.line(f"Rejected records: {run['rejects']:,}", "yellow")
    console.next_steps(next_of(run))


def show_summary(run: dict[str, Any]) -> None:
    """Show a run without its error and next commands."""
    style = COLOURS.get(run["status"], "")
    console.line(f"Run {run['id']}: {run['flow']} ({run['variant']}) {run['status']}", f"bold {style}".strip())
    times = f"started {when(run['startedAt'])} · {took(run)}" if run["startedAt"] else "not started"
    console.line(f"{counted(run['counts']) or 'nothing counted'} · {run['source']} · {times}")
    if run.get("codeOutdated"):
        console.line("The run used an older version of the project's code.", "yellow")
    if run["message"]:
        console.line(run["message"])
    if run.get("steps"):
        rows = [[str(s["number"]), s["name"], counted(s["counts"]), str(s["attempts"])] for s in run["steps"][-40:]]
        console.table(["#", "Step", "Counts", "Tries"], rows, whole=["#", "Step"])
    updates = run.get("updates", [])[-_LOG_LINES:]
    if run.get("updatesTotal", 0) > len(updates):
        console.line(f"{run['updatesTotal'] - len(updates):,} earlier log lines are not shown.", "dim")
    for update in updates:
        console.line(f"{clock(update['at'])} {update['message']}", "yellow" if update["level"] == "warning" else "dim")


def outdated_warning(workers: int) -> str:
    """A warning about workers that run older code; empty for 0 workers."""
    if not workers:
        return ""
    subject, object_ = ("A worker runs", "it") if workers == 1 else (f"{workers} workers run", "them")
    return f"{subject} an older version of the project's code. Restart {object_}."


def show_rejects(items: Sequence[dict[str, Any]], total: int) -> None:
    if not items:
        console.line("No records were rejected.")
        return
    import json

    rows = [[item["step"], item["reason"], json.dumps(item["record"], ensure_ascii=False)[:200]] for item in items]
    console.table(["Step", "Reason", "Record"], rows)
    if total > len(items):
        console.line(f"{total - len(items)} more are not shown.", "dim")


def show_dry_run(report: dict[str, Any]) -> None:
    console.line(f"Dry run of {report['flow']} ({report['variant']}): nothing was sent or stored.", "bold")
    console.line(counted(report["counts"]) or "The run would change nothing.")
    for table, write in report["writes"].items():
        done = {name: count for name, count in write.items() if name != "sample"}
        changes = sum(count for name, count in done.items() if name != "unchanged")
        summary = counted(done) or "nothing"
        console.line(f"would write {table}: {summary}" if changes else f"would write nothing to {table}: {summary}")
        if changes and not done.get("unchanged"):  # with unchanged records, the sample may not show changes
            _sample(write["sample"], changes - done.get("deleted", 0))
    for call, suppressed in report["requests"].items():
        console.line(f"would send {suppressed['count']} × {call}")
        _sample([request["body"] for request in suppressed["sample"]], suppressed["count"])
    _show_rejected(report)
    if report["stopped"]:
        console.line(f"The dry run stops here: {report['stopped']['message']}", "yellow")
        console.line(f"  {report['stopped']['hint']}")


def _sample(records: Sequence[Any], total: int) -> None:
    import json

    shown = records[:3]
    for record in shown:
        console.line(f"    {json.dumps(record, ensure_ascii=False)[:140]}", "dim")
    if shown and total > len(shown):
        console.line(f"    … and {total - len(shown):,} more", "dim")


def _show_rejected(report: dict[str, Any]) -> None:
    rejects = report["rejects"]
    total = max(report["counts"].get("failed", 0), len(rejects))
    if not rejects:
        return
    console.line(f"would reject {total:,} record{'' if total == 1 else 's'}:", "yellow")
    for reject in rejects:
        console.line(f"    {reject['reason']}", "yellow")
    if total > len(rejects):
        console.line(f"    … and {total - len(rejects):,} more", "dim")


def counted(counts: dict[str, Any]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def took(run: dict[str, Any]) -> str:
    seconds = run["seconds"]
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
