"""How a command reaches the management API: over HTTP if a URL is set, otherwise the user's app in this process."""

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
    """A client of the API. Raises AppImportError and the errors of the app's start-up.

    engine: also run flows in this process, unless another process does. Ignored with a server, which runs its own.
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
    """Parse the server's URL. Raises ConfigError without the text, which may contain a password."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as exc:
        raise ConfigError(f"Invalid server URL: {exc}", hint="Correct --url, or url in khotan.toml.") from None
    if not url.host:
        raise ConfigError("The server URL has no host", hint="Correct --url, or url in khotan.toml.")
    return url


@contextmanager
def _in_process(settings: Settings, engine: bool) -> Iterator[ApiClient]:
    from khotan_cli.runtime.redaction.log_filter import masked_stderr

    # Output of the user's code must not mix with the JSON document on stdout.
    with masked_stderr(), redirect_stdout(sys.stderr), _without_duplicates():
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
                loop.run(loop.cancel_tasks())  # a task that goes on would open the database again
                loop.run(khotan.__aexit__(None, None, None))


class _LogBuffer(logging.Filter):
    """Holds back the log records of the app's start and of runs."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        buffered = record.module in ("services", "execution")
        if buffered:
            self.records.append(record)
        return not buffered


@contextmanager
def _without_duplicates() -> Iterator[None]:
    """Drops log records that repeat the error that the command ends with."""
    log_buffer, reported = _LogBuffer(), ""
    loggers = [logging.getLogger(name) for name in ("khotan", "khotan.flows")]
    for logger in loggers:
        logger.addFilter(log_buffer)
    try:
        yield
    except KhotanError as exc:
        reported = exc.message
        raise
    finally:
        for logger in loggers:
            logger.removeFilter(log_buffer)
        for record in log_buffer.records:
            if not reported or reported not in record.getMessage():
                logging.getLogger(record.name).handle(record)


def load_khotan(settings: Settings) -> Any:
    """The Khotan object that khotan.toml names. Raises ConfigError without a project, and AppImportError."""
    require_project(settings)
    from khotan_cli.runtime.app import Khotan
    from khotan_cli.runtime.registry import import_error

    source = str(settings.source_dir)
    if source not in sys.path:
        sys.path.insert(0, source)
    module_name, _, attribute = settings.app_import.partition(":")
    target: Any
    try:
        target = importlib.import_module(module_name)
    except (Exception, SystemExit) as exc:
        raise import_error(module_name, exc) from None
    try:
        for part in attribute.split("."):
            target = getattr(target, part)
    except AttributeError:
        raise AppImportError(
            f"{module_name} has no {attribute!r}",
            hint="Set `app` in khotan.toml to module:name of the Khotan object.",
        ) from None
    if not isinstance(target, Khotan):
        raise AppImportError(
            f"{settings.app_import} is a {type(target).__name__}, not a Khotan object",
            hint="Set `app` in khotan.toml to module:name of the Khotan object.",
        )
    target.use_settings(settings)
    return target


def _trusted(app: Any) -> Any:
    from khotan_cli.runtime.api.access import LOCAL_SCOPE

    async def with_mark(scope: Any, receive: Any, send: Any) -> None:
        # Here the API is served without its mount path.
        path = scope["path"].removeprefix("/api/khotan") or "/"
        await app({**scope, "path": path, "raw_path": path.encode(), LOCAL_SCOPE: True}, receive, send)

    return with_mark


class _Loop:
    """An event loop in its own thread, for the duration of the command."""

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
        await self.cancel_tasks()
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    async def cancel_tasks(self) -> None:
        """Cancel all other tasks of the loop, and wait for their ends."""
        remaining = asyncio.all_tasks() - {asyncio.current_task()}
        for task in remaining:
            task.cancel()
        await asyncio.gather(*remaining, return_exceptions=True)


class _LocalTransport(httpx.BaseTransport):
    """A synchronous transport that passes requests to the app in the event loop."""

    def __init__(self, api: httpx.ASGITransport, loop: _Loop) -> None:
        self._api, self._loop = api, loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._loop.run(self._exchange(request))

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        asynchronous = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        response = await self._api.handle_async_request(asynchronous)
        content = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=content, request=request)
