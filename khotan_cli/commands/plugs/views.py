"""Terminal output of plugs, calls and contracts."""

from __future__ import annotations

import json
from typing import Any

from khotan_cli.console import console

_LINES_SHOWN = 200
_PATHS_SHOWN = 20
_GRADE_STYLES = {"breaking": "bold red", "warning": "yellow", "info": "dim"}


def show_plugs(plugs: list[dict[str, Any]]) -> None:
    from rich.text import Text

    if not plugs:
        console.line("There is no plug yet.")
        console.next_steps(["khotan add plug NAME --base-url https://api.example.com --auth bearer"])
        return
    rows = [
        [
            Text(p["name"], style="bold"),
            p["baseUrl"],
            p["auth"]["type"],
            str(p["endpointCount"]),
            Text(f"missing: {', '.join(p['missingVars'])}", style="yellow")
            if p["missingVars"]
            else Text("set", style="green"),
            Text("yes", style="green") if p["enabled"] else Text("no", style="red"),
        ]
        for p in plugs
    ]
    console.table(["Plug", "Base URL", "Auth", "Endpoints", "Variables", "Enabled"], rows, whole=["Plug"])


def show_plug(plug: dict[str, Any]) -> None:
    from rich.text import Text

    console.draw(Text.assemble((plug["name"], "bold"), "  ", (plug["baseUrl"], "cyan")))
    if plug["doc"]:
        console.line(plug["doc"], "dim")
    state = "enabled" if plug["enabled"] else "disabled"
    auth = ", ".join(f"{k} {v}" for k, v in plug["auth"].items() if k != "type" and v)
    console.line(f"{state} · {plug['module']} · auth: {plug['auth']['type']}{f' ({auth})' if auth else ''}")
    if plug.get("pausedSeconds"):
        console.line(f"Paused at the service's request for another {plug['pausedSeconds']:.0f} s.", "yellow")
        console.next_steps([f"khotan plug {plug['name']} --resume"])
    if plug["vars"]:
        show_vars(plug["vars"])
    rows = [
        [
            Text(e["name"], style="bold"),
            e["method"],
            e["path"],
            ", ".join(q["name"] + ("*" if q["required"] else "") for q in e["query"]) or "–",
            e["returns"] or "–",
            ", ".join(f"{status}: {model}" for status, model in e["responses"].items()) or "–",
        ]
        for e in plug["endpoints"]
    ]
    columns = ["Endpoint", "Method", "Path", "Query", "Returns", "Other responses"]
    console.table(columns, rows, whole=["Endpoint", "Method", "Path"])


def show_vars(variables: list[dict[str, Any]]) -> None:
    from rich.text import Text

    rows: list[list[Any]] = []
    for var in variables:
        if var["error"]:
            value, source = Text(f"unreadable: {var['error']}", style="red"), Text(var["source"])
        elif var["isSet"]:
            value, source = Text(var["value"] if var.get("value") else var["masked"]), Text(var["source"])
        else:
            style = "yellow" if var["required"] else "dim"
            value, source = Text("not set", style=style), Text("–", style="dim")
        label = var["label"] + (f": {var['description']}" if var["description"] else "")
        rows.append([var["plug"], Text(var["key"], style="bold"), value, source, var["env"], label or "–"])
    columns = ["Plug", "Variable", "Value", "From", "Environment", "About"]
    console.table(columns, rows, whole=["Plug", "Variable", "Value"])


def show_call(document: dict[str, Any]) -> None:
    from rich.syntax import Syntax
    from rich.text import Text

    status = document["status"]
    style = "green" if status < 300 else "yellow" if status < 400 else "red"
    request, timing = document["request"], document["timing"]
    tries = f" · {timing['attempts']:.0f} attempts" if timing["attempts"] > 1 else ""
    console.draw(
        Text.assemble(
            (f"{request['method']} {request['url']}", "bold"),
            "  ",
            (str(status), style),
            (f"  {timing['totalMs']:.0f} ms{tries} · {document['size']:,} bytes · {document['contentType']}", "dim"),
        )
    )
    body = document.get("body")
    if document.get("bodyBase64") is not None:
        console.line(f"{document['size']:,} bytes of binary data; save them with --save FILE.", "dim")
        return
    if body is None:
        return
    text = body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)
    lines = text.splitlines()
    shown = "\n".join(line[:2000] for line in lines[:_LINES_SHOWN])
    console.draw(Syntax(shown, "json", word_wrap=True, background_color="default") if body is not text else Text(shown))
    if len(lines) > _LINES_SHOWN or len(shown) < len(text) - 1:
        console.line(
            f"… truncated ({document['size']:,} bytes in total); --json or --save FILE gives all of it.",
            "dim",
        )


def show_contract(document: dict[str, Any]) -> None:
    from rich.text import Text

    contract = document["contract"]
    rows = [
        [
            Text(f["grade"], style=_GRADE_STYLES[f["grade"]]),
            Text(f["path"], style="bold"),
            f["issue"],
            f["expected"],
            f["actual"],
            f"{f['count']} of {f['of']}",
            f["example"] if f["example"] is not None else "–",
        ]
        for f in contract["findings"]
    ]
    if rows:
        columns = ["Grade", "Path", "Issue", "Expected", "Actual", "Count", "Example"]
        console.table(columns, rows, whole=["Grade", "Path", "Issue", "Count"])
    if contract.get("omitted"):
        console.line(f"… and {contract['omitted']} more", "dim")
    for skipped in contract.get("notJudged", ())[:_PATHS_SHOWN]:
        console.line(f"{skipped['path']}: {skipped['reason']}", "dim")
    if contract.get("paging"):
        _show_paging(contract["paging"])
    summary = ", ".join(f"{count} {grade}" for grade, count in contract["summary"].items() if count)
    items = f" over {contract['items']} items" if contract["items"] else ""
    name = f"{document['plug']}.{document['endpoint']}"
    if contract["ok"]:
        more = f" ({summary})" if summary else ""
        console.success(f"{name} matches {contract['model']}: status {contract['status']}{items}{more}")
    else:
        console.line(f"{name}: {summary}{items}", "red")


def _show_paging(paging: dict[str, Any]) -> None:
    """The result of the paging checks, one line for each."""
    total = "" if paging["total"] is None else f" of {paging['total']}"
    ended = "all pages fetched" if paging["ended"] else "stopped before the last page"
    console.line(f"Pages: {paging['pages']}, items: {paging['items']}{total}; {ended}.")
    for check in paging["checks"]:
        console.line(f"{check['check']}: {check['message']}", "dim" if check["ok"] else "red")
