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
"""Keys that khotan.toml may contain. Secrets come only from the environment."""

Environment = Literal["development", "test", "production"]


class Settings(BaseSettings):
    """The settings of a project. Read with `load_settings`."""

    model_config = SettingsConfigDict(
        frozen=True, env_prefix="KHOTAN_", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    root: Path = Field(default=Path(), validation_alias="root")
    """Folder that contains khotan.toml. Relative paths start here."""
    found: bool = Field(default=False, validation_alias="found")
    """Whether a khotan.toml was found."""
    package: str = "khotan"
    """Dotted name of the package with the integration code."""
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
    """URL of the same database for processes that run flows, needed if `database_url` is a pooler in transaction mode."""
    env: Environment = "production"
    debug: bool = False
    output: Literal["", "json", "text"] = ""
    secret: SecretStr = SecretStr("")
    secret_previous: SecretStr = SecretStr("")
    """Earlier secrets, separated by commas."""
    engine: Literal["on", "off"] = "on"
    """Whether a served app runs flows. If off, it only enqueues runs, and `khotan worker` processes run them."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Number of concurrent runs in one process."""
    retention_days: float = Field(default=30.0, ge=0)
    """Days to keep ended runs; 0 keeps them forever."""
    public_url: str = ""
    """Public base URL of the app, for callbacks and for signatures that include it. Empty: taken from the request."""
    webhook_max_bytes: int = Field(default=1_000_000, ge=1)
    """Maximum size of a webhook's body in bytes; larger ones are rejected with 413."""
    cron_secret: SecretStr = Field(default=SecretStr(""), validation_alias=AliasChoices("CRON_SECRET", "cron_secret"))
    """Bearer token that a platform's cron sends to /cron."""
    token: SecretStr = SecretStr("")
    """Bearer token sent to the server at `url`, for applications with their own `authorize`."""

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
        """The settings of a process that runs flows: with `worker_database_url` as the database, if it is set."""
        return self.model_copy(update={"database_url": self.worker_database_url or self.database_url})

    @property
    def app_import(self) -> str:
        return self.app or f"{self.package}.app:khotan"

    @property
    def serve_import(self) -> str:
        return self.serve or f"{self.package}.app:app"

    @property
    def source_dir(self) -> Path:
        """Absolute folder to add to `sys.path`."""
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
    """The nearest folder with a khotan.toml, from `start` (default: the current folder) upwards."""
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / FILE_NAME).is_file()), None)


def load_settings(start: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings of the project around `start`.

    `overrides` (from command-line options) take precedence; None and empty values are ignored.
    Raises ConfigError, with file and key, for a malformed file, an unknown key or an invalid value.
    """
    project_root = find_root(start)
    root = project_root or (start or Path.cwd()).resolve()
    _fill_environment(root / ".env")
    file = _read_file(root / FILE_NAME) if project_root else {}
    file = {key: value for key, value in file.items() if not os.environ.get(_env_name(key))}
    options = {key: value for key, value in overrides.items() if value}
    try:
        return Settings(**{**file, **options, "root": root, "found": project_root is not None})
    except ValidationError as exc:
        raise _config_error(exc, root / FILE_NAME, file, options) from None


def _env_name(key: str) -> str:
    return "DATABASE_URL" if key == "database_url" else f"KHOTAN_{key.upper()}"


def require_project(settings: Settings) -> None:
    """Raises ConfigError (not_initialized) if no khotan.toml was found."""
    if not settings.found:
        raise ConfigError(
            "No khotan.toml in this folder or a parent folder",
            code="not_initialized",
            hint="Change to your project's folder, or create a project.",
            next=["khotan init"],
        )


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path} is not valid TOML: {exc}", hint="Correct the file.") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"Cannot read {path}: {exc}", hint="The file must be UTF-8 text.") from None
    for key in values:
        if key not in FILE_KEYS:
            near = nearest(key, FILE_KEYS)
            hint = f"Did you mean {near!r}?" if near else f"Known keys: {', '.join(FILE_KEYS)}"
            raise ConfigError(f"Unknown key {key!r} in {path}", hint=hint)
    return values


def _fill_environment(path: Path) -> None:
    if not path.is_file():
        return
    try:
        entries = dotenv_values(path)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"Cannot read {path}: {exc}", hint="The file must be UTF-8 text.") from None
    for key, value in entries.items():
        if value:
            os.environ.setdefault(key, value)


def _config_error(exc: ValidationError, path: Path, file: dict[str, Any], options: dict[str, Any]) -> ConfigError:
    first = exc.errors(include_url=False, include_input=False)[0]
    key = str(first["loc"][0]).lower() if first["loc"] else "?"
    where = f"--{key}" if key in options else f"{path}: {key}" if key in file else _env_name(key)
    return ConfigError(f"{where}: {first['msg'].removeprefix('Value error, ')}", hint="Correct the value.")
