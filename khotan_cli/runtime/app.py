"""`Khotan`: the object that an application creates. It finds the package's plugs and serves the management API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

from khotan_cli.errors import ConfigError, KhotanError, UnknownName
from khotan_cli.runtime.http.dry_run import DRY_RUN_ID, is_dry_run, report_write
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.registry import Registry, import_module
from khotan_cli.runtime.resources.caches import CacheHandle, json_value
from khotan_cli.runtime.resources.mappings import Mappings
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.hooks import Hooks
from khotan_cli.runtime.services import API_PATH, Authorize, Services
from khotan_cli.settings import Settings, load_settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send


class Khotan:
    """The integrations of one application.

        khotan = Khotan(__package__, authorize=is_admin)
        app = khotan.asgi()                 # or: khotan.install(fastapi_app)

    authorize: a function of the request, sync or async, that returns whether the management API may be used. Without it,
    all requests are rejected, and the app does not start in production. False allows all, only in development. hooks:
    called for every run. settings: default those of the project around the package. In a script:
    `async with khotan: await khotan.plugs["shop"].get(…)`.
    """

    def __init__(
        self,
        package: str | None,
        *,
        authorize: Authorize = None,
        settings: Settings | None = None,
        database_url: str | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        if not package:
            raise ConfigError(
                "Khotan() needs the name of the package with the integrations",
                hint="Create it inside the package: Khotan(__package__).",
            )
        self.package = package
        self._authorize: Authorize = authorize
        self._settings, self._database_url, self._hooks = settings, database_url, hooks
        self._services: Services | None = None

    @property
    def services(self) -> Services:
        """Settings, plugs and stores. Created on first use, so that the package's modules may import this object."""
        if self._services is None:
            # Discovery first, so that a broken module is reported before its consequences.
            registry = Registry.discover(self.package)
            self._services = Services(self._load_settings(), registry, self._authorize, self._hooks)
        return self._services

    def _load_settings(self) -> Settings:
        overrides = {"database_url": self._database_url} if self._database_url else {}
        if self._settings is not None:
            return self._settings.model_copy(update=overrides)
        folder = _folder(import_module(self.package))
        settings = load_settings(folder, **overrides)
        # A package installed elsewhere runs from the project's folder.
        return settings if settings.found else load_settings(None, **overrides)

    def use_settings(self, settings: Settings) -> None:
        """Use settings that were already read, unless Khotan() was given settings."""
        if self._settings is None and self._services is None:
            self._settings = settings

    @property
    def plugs(self) -> Mapping[str, Plug]:
        """The plugs by name."""
        return self.services.registry.plugs

    @property
    def flows(self) -> Mapping[str, Flow]:
        """The flows by name."""
        return self.services.registry.flows

    async def trigger(self, flow: str, variant: str | None = None, *, body: Any = None) -> str:
        """Start a run of a flow and return its id. A worker or a served app executes it.

        body: JSON input that the flow reads as `ctx.body`. A dry run starts no run. Raises UnknownName,
        KhotanError (flow_disabled, plug_disabled), UsageError for a body that is not JSON, StoreError.
        """
        kept, dispatcher = json_value("body", body), self.services.dispatcher
        if is_dry_run():
            chosen = dispatcher.flow(flow).variant(variant)
            report_write(f"runs of {flow}", {"started": 1}, [{"variant": chosen, "body": kept}])
            return DRY_RUN_ID
        return await dispatcher.trigger(flow, variant, body=kept)

    def mapping(self, resource: str) -> Mappings:
        """The mappings of a resource. Raises UnknownName."""
        known = self.services.registry.resources
        if resource not in known:
            raise UnknownName("resource", resource, known)
        return Mappings(known[resource], self.services.mappings)

    def cache(self, name: str, owner: str = "") -> CacheHandle:
        """A cache. `owner` is the flow, or flow/variant, that owns the entries, if the cache's scope requires it."""
        known = self.services.registry.caches
        if name not in known:
            raise UnknownName("cache", name, known)
        return CacheHandle(known[name], self.services.caches, owner)

    def asgi(self) -> Application:
        """An ASGI application that serves the management API at /api/khotan."""
        return Application(self)

    def install(self, app: FastAPI) -> None:
        """Add the management API to your application. The application's lifespan runs inside khotan's."""
        from khotan_cli.runtime.api.asgi import ManagementApi
        from khotan_cli.runtime.api.startup import StartUpErrors

        failed: list[KhotanError] = []
        app.mount(API_PATH, ManagementApi(lambda: self.services))
        app.add_middleware(StartUpErrors, failed=failed)
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(outer: Any) -> AsyncIterator[Any]:
            try:
                self.check_served()
                await self.services.start()
                await self.services.serve_engine()
            except KhotanError as exc:
                failed.append(exc)
                raise
            try:
                async with inner(outer) as state:
                    yield state
            finally:
                await self.services.stop()

        app.router.lifespan_context = lifespan

    def check_served(self) -> None:
        """Raises ConfigError if an app with this `authorize` must not be served in this environment."""
        settings = self.services.settings
        if settings.env == "production" and not callable(self._authorize):
            open_to_all = self._authorize is False
            raise ConfigError(
                "KHOTAN_ENV is production (or not set), and Khotan() has "
                + ("authorize=False" if open_to_all else "no authorize"),
                code="not_authorized_setup",
                hint="Declare who may use the management API: Khotan(__package__, authorize=function_of_the_request). "
                "For development, run `khotan dev` or set KHOTAN_ENV=development.",
            )

    async def __aenter__(self) -> Self:
        await self.services.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.services.stop()


class Application:
    """An ASGI application that serves the management API, created with FastAPI on first use.

    Importing the module of the app therefore needs no web framework. Attributes are those of the FastAPI application.
    """

    def __init__(self, khotan: Khotan) -> None:
        self._khotan = khotan

    @cached_property
    def _app(self) -> FastAPI:
        from fastapi import FastAPI

        app = FastAPI(title="khotan", openapi_url=None, docs_url=None, redoc_url=None)
        self._khotan.install(app)
        return app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._app, name)


def _folder(package: ModuleType) -> Path:
    return Path(package.__file__).parent if package.__file__ else Path(next(iter(package.__path__)))
