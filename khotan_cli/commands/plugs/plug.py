"""`khotan plug`: list, describe, call, compare."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from khotan_cli.commands.plugs.login import login
from khotan_cli.commands.plugs.options import PlugOptions
from khotan_cli.commands.plugs.views import show_call, show_contract, show_plug, show_plugs
from khotan_cli.console import console
from khotan_cli.errors import ContractMismatch
from khotan_cli.options import options

_FROM = "Compare a response saved with --save; do not call the API."
_FAIL_ON = "Lowest grade of finding that gives exit code 3: breaking, warning, info or never. Default: warning."
_PAGES = "With --compare: fetch up to N pages of a paginated endpoint. 1 compares one response."
LOGIN_SECONDS = 300


def plug(
    name: Annotated[str, typer.Argument(help="Name of a plug.", show_default=False)] = "",
    method: Annotated[str, typer.Argument(help="HTTP method of an untyped call.", show_default=False)] = "",
    path: Annotated[str, typer.Argument(help="Path of an untyped call.", show_default=False)] = "",
    list_all: Annotated[bool, typer.Option("--list", help="List the plugs.")] = False,
    info: Annotated[bool, typer.Option("--info", help="Show a plug: variables, endpoints.")] = False,
    endpoint: Annotated[str, typer.Option("--endpoint", "-e", help="Call this endpoint.", show_default=False)] = "",
    compare: Annotated[bool, typer.Option("--compare", help="Compare the response with the declared model.")] = False,
    params: Annotated[str, typer.Option(metavar="JSON", help="Path and query parameters.", show_default=False)] = "",
    body: Annotated[str, typer.Option(metavar="JSON", help="Request body: JSON, @file or -.", show_default=False)] = "",
    headers: Annotated[str, typer.Option(metavar="JSON", help="Additional headers.", show_default=False)] = "",
    save: Annotated[str, typer.Option(metavar="FILE", help="Save the response to a file.", show_default=False)] = "",
    source: Annotated[str, typer.Option("--from", metavar="FILE", help=_FROM, show_default=False)] = "",
    fail_on: Annotated[str, typer.Option(metavar="GRADE", help=_FAIL_ON, show_default=False)] = "",
    pages: Annotated[int | None, typer.Option(min=1, metavar="N", help=_PAGES, show_default="2")] = None,
    enable: Annotated[bool, typer.Option("--enable", help="Allow calls of the plug.")] = False,
    disable: Annotated[bool, typer.Option("--disable", help="Refuse calls of the plug.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="End a pause that the service requested.")] = False,
    sign_in: Annotated[bool, typer.Option("--login", help="Sign in with OAuth 2 (authorization code).")] = False,
    port: Annotated[
        int | None, typer.Option(help="With --login: loopback port of the redirect.", show_default="a free one")
    ] = None,
    timeout: Annotated[int | None, typer.Option(help="With --login: seconds to wait.", show_default="300")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="With --login: do not open a browser.")] = False,
    redirect_uri: Annotated[
        str,
        typer.Option(metavar="URL", help="With --login: redirect URI.", show_default="http://127.0.0.1/callback"),
    ] = "",
) -> None:
    """List plugs, call them, and check their contract against the live API.

    khotan plug --list · khotan plug shop · khotan plug shop GET /orders --params '{"limit": 5}'

    khotan plug shop --endpoint list_orders --compare · khotan plug vars shop set token --stdin
    """
    plug_options = PlugOptions(**locals())
    plug_options.check()
    if not plug_options.name:
        _list()
    elif plug_options.enable or plug_options.disable:
        _switch(plug_options.name, plug_options.enable)
    elif plug_options.resume:
        _resume(plug_options.name)
    elif plug_options.sign_in:
        seconds = LOGIN_SECONDS if plug_options.timeout is None else plug_options.timeout
        browser, redirect_uri = not plug_options.no_browser, plug_options.redirect_uri
        login(
            plug_options.name, port=plug_options.port or 0, seconds=seconds, browser=browser, redirect_uri=redirect_uri
        )
    elif plug_options.calls:
        _call(plug_options.name, plug_options.call(), save=plug_options.save, source=plug_options.source)
    else:
        _show(plug_options.name)


def _show(name: str) -> None:
    with options.client() as client:
        described = client.plug(name)
    console.result(described, lambda: show_plug(described))


def _list() -> None:
    with options.client() as client:
        document = client.plugs()
    console.result(document, lambda: show_plugs(document["items"]))


def _switch(name: str, enable: bool) -> None:
    with options.client() as client:
        was = client.plug(name)["enabled"]
        now = client.set_plug_enabled(name, enable)
    state = "enabled" if enable else "disabled"
    document = {"ok": True, "plug": now["name"], "enabled": now["enabled"], "changed": was != enable}
    if was == enable:
        document["message"] = f"Plug {name} is already {state}."
        console.result(document, lambda: console.line(document["message"]))
    else:
        console.result(document, lambda: console.success(f"Plug {name} is {state}."))


def _resume(name: str) -> None:
    with options.client() as client:
        document = client.resume_plug(name)
    if document["released"]:
        console.result(document, lambda: console.success(f"Plug {name} is no longer paused."))
    else:
        document["message"] = f"Plug {name} is not paused."
        console.result(document, lambda: console.line(document["message"]))


def _call(name: str, payload: dict[str, Any], *, save: str, source: str) -> None:
    if source:
        from khotan_cli.runtime.contract.saved import load_saved

        payload["response"] = load_saved(source).to_json()
    with options.client() as client, console.status(f"Calling {name} …"):
        document = client.debug(name, payload)
    if save:
        _save(save, document)
        console.note(f"Saved to {save}.")
    contract = document.get("contract")
    if contract is None:
        console.result(document, lambda: show_call(document))
        return
    if contract["ok"]:
        console.result(document, lambda: show_contract(document))
        return
    error = ContractMismatch(
        f"{name}.{document['endpoint']} does not match {contract['model']} (status {document['status']})",
        hint="Correct the declared model, then compare again.",
        details={"plug": name, "endpoint": document["endpoint"], "contract": contract, "request": document["request"]},
    )
    if not console.machine:
        show_contract(document)
    raise error


def _save(path: str, document: dict[str, Any]) -> None:
    import base64
    import json
    from pathlib import Path

    from khotan_cli.runtime.contract.saved import SavedResponse, write_saved

    body, kind, headers = document.get("body"), document["bodyKind"], dict(document["headers"])
    if kind == "base64":
        content = base64.b64decode(document["bodyBase64"])
    elif kind == "text":
        content = str(body).encode()
        name = next((name for name in headers if name.lower() == "content-type"), "")
        if "charset=" in headers.get(name, "").lower():  # the saved text is UTF-8, whatever the original charset
            headers[name] = f"{document['contentType']}; charset=utf-8"
    else:
        content = b"" if kind == "none" else json.dumps(body, ensure_ascii=False).encode()
    request = document["request"]
    write_saved(
        Path(path),
        SavedResponse(
            document["plug"],
            document["endpoint"] or "",
            request["method"],
            request["url"],
            document["status"],
            headers,
            content,
        ),
    )
