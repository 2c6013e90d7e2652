"""khotan.toml and the environment → one frozen `Settings`.

The environment wins over khotan.toml. A `.env` file beside khotan.toml fills in environment variables that are not
set; it never overrides one that is.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from khotan_cli.errors import ConfigError, nearest

FILE_NAME = "khotan.toml"
DEFAULT_DATABASE_URL = "sqlite:///.khotan/khotan.db"
FILE_KEYS = ("package", "source", "app", "serve", "url", "database_url")
"""Keys that khotan.toml may hold. Secrets have no place in it: they come from the environment."""

Environment = Literal["development", "test", "production"]


class Settings(BaseSettings):
    """What khotan is told about a project. Read with `load_settings`."""

    model_config = SettingsConfigDict(
        frozen=True, env_prefix="KHOTAN_", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    root: Path = Field(default=Path(), validation_alias="root")
    """Folder that holds khotan.toml; relative paths start here."""
    found: bool = Field(default=False, validation_alias="found")
    """Whether a khotan.toml was found."""
    package: str = "khotan"
    """Dotted name of the package that holds the integration code."""
    source: str = "."
    """Folder, relative to root, from which the package is imported: `.`, or `src` in a src layout."""
    app: str = ""
    """Import string of the Khotan object; default `<package>.app:khotan`."""
    serve: str = ""
    """Import string of the ASGI application that `khotan dev` serves; default `<package>.app:app`."""
    url: str = ""
    """Base URL of a running server; empty: commands run in-process."""
    database_url: str = Field(
        default=DEFAULT_DATABASE_URL, validation_alias=AliasChoices("DATABASE_URL", "database_url")
    )
    worker_database_url: str = ""
    """URL of the same database for processes that run flows, where `database_url` leads to a pooler in transaction mode."""
    env: Environment = "production"
    debug: bool = False
    output: Literal["", "json", "text"] = ""
    secret: SecretStr = SecretStr("")
    secret_previous: SecretStr = SecretStr("")
    """Earlier secrets, separated by commas."""
    engine: Literal["on", "off"] = "on"
    """Whether a served app runs flows itself; off: it only enqueues, and `khotan worker` processes run them."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Runs at a time in one process."""
    retention_days: float = Field(default=30.0, ge=0)
    """Days for which ended runs are kept; 0: for ever."""
    public_url: str = ""
    """Base URL under which services reach the app: of callbacks, and what some of them sign. Empty: as a request says."""
    webhook_max_bytes: int = Field(default=1_000_000, ge=1)
    """Bytes of a webhook's body; a larger one is refused with 413."""
    cron_secret: SecretStr = Field(default=SecretStr(""), validation_alias=AliasChoices("CRON_SECRET", "cron_secret"))
    """What a platform's own cron sends to /cron as a bearer token."""
    token: SecretStr = SecretStr("")
    """Bearer token sent to the server at `url`, for applications with an `authorize` of their own."""

    @field_validator("source")
    @classmethod
    def _inside(cls, value: str) -> str:
        if Path(value).is_absolute() or ".." in Path(value).parts:
            raise ValueError("must be a folder inside the project")
        return value

    @field_validator("package")
    @classmethod
    def _dotted(cls, value: str) -> str:
        if not value or not all(part.isidentifier() for part in value.split(".")):
            raise ValueError("must be a dotted Python package name, such as khotan or shop.khotan")
        return value

    @field_validator("app", "serve")
    @classmethod
    def _import_string(cls, value: str) -> str:
        module, _, attribute = value.partition(":")
        if value and not (attribute and all(part.isidentifier() for part in module.split("."))):
            raise ValueError("must be an import string, such as khotan.app:khotan")
        return value

    @field_validator("url", "public_url")
    @classmethod
    def _http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")

    def for_worker(self) -> Self:
        """The settings of a process that runs flows: its database is `worker_database_url` where that is set."""
        return self.model_copy(update={"database_url": self.worker_database_url or self.database_url})

    @property
    def app_import(self) -> str:
        return self.app or f"{self.package}.app:khotan"

    @property
    def serve_import(self) -> str:
        return self.serve or f"{self.package}.app:app"

    @property
    def source_dir(self) -> Path:
        """Absolute folder that goes on `sys.path`."""
        return (self.root / self.source).resolve()

    @property
    def package_dir(self) -> Path:
        """Absolute folder of the package."""
        return self.source_dir.joinpath(*self.package.split("."))

    @property
    def previous_secrets(self) -> tuple[str, ...]:
        return tuple(part for part in self.secret_previous.get_secret_value().split(",") if part)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings


def find_root(start: Path | None = None) -> Path | None:
    """The nearest folder, from `start` (default: the current one) upwards, that holds a khotan.toml."""
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / FILE_NAME).is_file()), None)


def load_settings(start: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings of the project around `start`.

    `overrides` (from command-line options) win over everything; those that are None or empty are left out.
    Raises ConfigError for a malformed file, an unknown key or a bad value, naming file and key.
    """
    found = find_root(start)
    root = found or (start or Path.cwd()).resolve()
    _fill_environment(root / ".env")
    file = _read_file(root / FILE_NAME) if found else {}
    file = {key: value for key, value in file.items() if not os.environ.get(_env_name(key))}
    given = {key: value for key, value in overrides.items() if value}
    try:
        return Settings(**{**file, **given, "root": root, "found": found is not None})
    except ValidationError as exc:
        raise _explain(exc, root / FILE_NAME, file, given) from None


def _env_name(key: str) -> str:
    return "DATABASE_URL" if key == "database_url" else f"KHOTAN_{key.upper()}"


def require_project(settings: Settings) -> None:
    """Raises ConfigError where no khotan.toml was found."""
    if not settings.found:
        raise ConfigError(
            "There is no khotan.toml here or in a folder above",
            code="not_initialized",
            hint="Go to your project, or start one.",
            next=["khotan init"],
        )


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path} is not valid TOML: {exc}", hint="Correct the file at that line.") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}", hint="It must be a UTF-8 text file.") from None
    for key in values:
        if key not in FILE_KEYS:
            near = nearest(key, FILE_KEYS)
            hint = f"Did you mean {near!r}?" if near else f"Known keys: {', '.join(FILE_KEYS)}"
            raise ConfigError(f"{path} has an unknown key {key!r}", hint=hint)
    return values


def _fill_environment(path: Path) -> None:
    if not path.is_file():
        return
    try:
        entries = dotenv_values(path)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}", hint="It must be a UTF-8 text file.") from None
    for key, value in entries.items():
        if value:
            os.environ.setdefault(key, value)


def _explain(exc: ValidationError, path: Path, file: dict[str, Any], given: dict[str, Any]) -> ConfigError:
    first = exc.errors(include_url=False, include_input=False)[0]
    key = str(first["loc"][0]).lower() if first["loc"] else "?"
    where = f"--{key}" if key in given else f"{path}: {key}" if key in file else _env_name(key)
    return ConfigError(f"{where}: {first['msg'].removeprefix('Value error, ')}", hint="Correct the value.")
