"""How a command reaches the management API: over HTTP where a URL is set, else the user's app in this very process."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TypeVar

import httpx

from khotan_cli.client import CALL_SECONDS, ApiClient, CliSignature
from khotan_cli.errors import AppImportError, ConfigError, KhotanError
from khotan_cli.runtime.event_loop import new_event_loop
from khotan_cli.settings import Settings, require_project

T = TypeVar("T")


@contextmanager
def open_client(settings: Settings, *, engine: bool = False) -> Iterator[ApiClient]:
    """A client of the API. Raises AppImportError and what the app's start-up raises.

    engine: run flows in this process meanwhile, unless somebody else does; a server does it itself.
    """
    if settings.url:
        with _remote(settings) as client:
            yield client
    else:
        with _in_process(settings, engine) as client:
            yield client


@contextmanager
def _remote(settings: Settings) -> Iterator[ApiClient]:
    token, secret = settings.token.get_secret_value(), settings.secret.get_secret_value()
    auth: httpx.Auth | None = None
    headers: dict[str, str] = {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    elif secret:
        auth = CliSignature(secret)
    url = _base_url(settings.url)
    timeout = httpx.Timeout(CALL_SECONDS, connect=10.0)
    with httpx.Client(base_url=url, auth=auth, headers=headers, timeout=timeout) as http:
        yield ApiClient(http, where=str(url.copy_with(userinfo=b"")))


def _base_url(text: str) -> httpx.URL:
    """Raises ConfigError, without the text: it may hold a password."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as exc:
        raise ConfigError(
            f"The server's URL is not valid: {exc}", hint="Correct --url, or url in khotan.toml."
        ) from None
    if not url.host:
        raise ConfigError("The server's URL names no host", hint="Correct --url, or url in khotan.toml.")
    return url


@contextmanager
def _in_process(settings: Settings, engine: bool) -> Iterator[ApiClient]:
    from khotan_cli.runtime.redaction.log_filter import masked_stderr

    # What the user's code prints must not mix with the one document on stdout.
    with masked_stderr(), redirect_stdout(sys.stderr), _said_once():
        khotan = load_khotan(settings.for_worker() if engine else settings)
        with _Loop() as loop:
            loop.run(khotan.__aenter__())
            try:
                from khotan_cli.runtime.api.asgi import ManagementApi

                if engine:
                    loop.run(khotan.services.ensure_engine())
                api = httpx.ASGITransport(_trusted(ManagementApi(lambda: khotan.services)), raise_app_exceptions=False)
                with httpx.Client(
                    transport=_LocalTransport(api, loop), base_url="http://khotan.local", timeout=CALL_SECONDS
                ) as http:
                    yield ApiClient(http, where="The app")
            finally:
                loop.run(khotan.__aexit__(None, None, None))


class _Held(logging.Filter):
    """Keeps what the log says of the app's start and of runs."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        held = record.module in ("services", "execution")
        if held:
            self.records.append(record)
        return not held


@contextmanager
def _said_once() -> Iterator[None]:
    """What the command says itself, as the error that it ends with, is not said by the log too."""
    held, said = _Held(), ""
    loggers = [logging.getLogger(name) for name in ("khotan", "khotan.flows")]
    for logger in loggers:
        logger.addFilter(held)
    try:
        yield
    except KhotanError as exc:
        said = exc.message
        raise
    finally:
        for logger in loggers:
            logger.removeFilter(held)
        for record in held.records:
            if not said or said not in record.getMessage():
                logging.getLogger(record.name).handle(record)


def load_khotan(settings: Settings) -> Any:
    """The Khotan object that khotan.toml names. Raises ConfigError where there is no project, AppImportError."""
    require_project(settings)
    from khotan_cli.runtime.app import Khotan
    from khotan_cli.runtime.registry import import_error

    source = str(settings.source_dir)
    if source not in sys.path:
        sys.path.insert(0, source)
    module_name, _, attribute = settings.app_import.partition(":")
    found: Any
    try:
        found = importlib.import_module(module_name)
    except (Exception, SystemExit) as exc:
        raise import_error(module_name, exc) from None
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise AppImportError(
            f"{module_name} has no {attribute!r}",
            hint="Correct `app` in khotan.toml: module:name of the Khotan object.",
        ) from None
    if not isinstance(found, Khotan):
        raise AppImportError(
            f"{settings.app_import} is a {type(found).__name__}, not a Khotan object",
            hint="Correct `app` in khotan.toml: module:name of the Khotan object.",
        )
    found.use_settings(settings)
    return found


def _trusted(app: Any) -> Any:
    from khotan_cli.runtime.api.access import LOCAL_SCOPE

    async def with_mark(scope: Any, receive: Any, send: Any) -> None:
        # The API is served here without its mount.
        path = scope["path"].removeprefix("/api/khotan") or "/"
        await app({**scope, "path": path, "raw_path": path.encode(), LOCAL_SCOPE: True}, receive, send)

    return with_mark


class _Loop:
    """An event loop in a thread of its own, for as long as the command runs."""

    def __enter__(self) -> _Loop:
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="khotan", daemon=True)
        self._thread.start()
        return self

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def __exit__(self, *exc: object) -> None:
        self.run(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _finish(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()


class _LocalTransport(httpx.BaseTransport):
    """Synchronous requests, answered by the app in the loop."""

    def __init__(self, api: httpx.ASGITransport, loop: _Loop) -> None:
        self._api, self._loop = api, loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._loop.run(self._exchange(request))

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        asynchronous = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        response = await self._api.handle_async_request(asynchronous)
        content = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=content, request=request)
