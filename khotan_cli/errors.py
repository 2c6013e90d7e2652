"""The exception tree.

    KhotanError
    ├── UsageError            bad usage or input
    │   ├── UnknownName       an undeclared plug, endpoint, variable or other name
    │   └── ParameterError    a call with unknown, missing or malformed parameters
    ├── ContractMismatch      the service's response does not match the declared model
    ├── ConfigError           khotan.toml or the environment is wrong or incomplete
    ├── AppImportError        the user's application does not import
    ├── Unauthorized          the management API rejected the caller
    ├── ServerUnreachable     no management API responds at the given URL
    ├── StoreError            the database
    │   ├── DatabaseUnreachable
    │   ├── DatabaseBusy      a transaction was rolled back for others, or got no connection: try again
    │   ├── DatabaseNotMigrated
    │   ├── ValueRefused      a value that the database cannot store
    │   ├── SecretMissing     KHOTAN_SECRET is not set
    │   ├── SecretMismatch    KHOTAN_SECRET is not the secret that a value was encrypted with
    │   └── CiphertextInvalid a stored value was altered, or moved to another row
    ├── MappingConflict       an id of a system belongs to another mapping already
    ├── FlowError             a flow failed, or a step of it
    ├── WouldOverwrite        files the user owns would be overwritten
    └── PlugError             a call of an external API failed
        ├── PlugUnreachable   no connection, reset, TLS failure
        ├── PlugTimeout       an attempt or the whole call took too long
        ├── ResponseInvalid   the body does not match its content type or its model
        ├── AuthError         no credential, or the service did not issue one
        └── PaginationError   the service repeats a page, or sends no usable position

Every error has a code (snake_case, stable), a message (what happened to what), a hint (what to do next)
and `next`, commands to run as they are. `error_codes.CODES` maps a code to the HTTP status of khotan's own API
(`http_status`) and to the exit code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from khotan_cli.error_codes import CODES

if TYPE_CHECKING:
    import httpx


class KhotanError(Exception):
    """Base of all errors. `details` is part of the JSON document; never put a secret in it."""

    default_code = "failed"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str | None = None,
        next: Sequence[str] = (),
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code
        self.next = tuple(next)
        self.details = dict(details or {})

    @property
    def http_status(self) -> int:
        """HTTP status of khotan's own API. `PlugError.status` is the status of the called service."""
        return CODES.get(self.code, CODES["failed"])[0]

    @property
    def exit_code(self) -> int:
        """Exit code of the command line."""
        return CODES.get(self.code, CODES["failed"])[1]

    def to_json(self) -> dict[str, Any]:
        """The error document: `{"ok": false, "error", "message", "hint", …details, "next"?}`."""
        document: dict[str, Any] = {"ok": False, "error": self.code, "message": self.message, "hint": self.hint}
        document |= {key: value for key, value in self.details.items() if key not in document}
        return document | ({"next": list(self.next)} if self.next else {})

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> KhotanError:
        """Rebuild an error from the management API's error document."""
        known = {"ok", "error", "message", "hint", "next"}
        return KhotanError(
            str(document.get("message", "the request failed")),
            hint=str(document.get("hint", "")),
            code=str(document.get("error", "failed")),
            next=[str(command) for command in document.get("next", ())],
            details={key: value for key, value in document.items() if key not in known},
        )


class UsageError(KhotanError):
    default_code = "invalid_input"


class UnknownName(UsageError):
    """An unknown name. The hint suggests the most similar known one, or lists the known ones."""

    _added = {"flow": "inflow", "plug": "plug", "resource": "resource", "cache": "cache", "wire": "wire"}

    def __init__(self, kind: str, name: str, known: Iterable[str], *, code: str | None = None, where: str = "") -> None:
        names = sorted(known)
        self.nearest = nearest(name, names)
        listed = f"Known: {', '.join(names[:20])}" + (", …" if len(names) > 20 else "")
        hint = f"Did you mean {self.nearest!r}?" if self.nearest else listed if names else f"No {kind} exists yet."
        message = f"Unknown {kind} {name!r}" + (f" of {where}" if where else "")
        add = kind in self._added and name.isidentifier() and not self.nearest and (not names or kind == "resource")
        steps = [f"khotan add {self._added[kind]} {name}"] if add else []
        super().__init__(message, hint=hint, code=code or f"unknown_{kind}", next=steps, details={"known": names[:50]})


class ParameterError(UsageError):
    default_code = "invalid_parameters"


class ContractMismatch(KhotanError):
    default_code = "contract_mismatch"


class ConfigError(KhotanError):
    default_code = "config_invalid"


class AppImportError(KhotanError):
    default_code = "app_import_failed"


class Unauthorized(KhotanError):
    default_code = "unauthorized"


class ServerUnreachable(KhotanError):
    default_code = "server_unreachable"


class StoreError(KhotanError):
    default_code = "database_error"


class DatabaseUnreachable(StoreError):
    default_code = "database_unreachable"


class DatabaseBusy(StoreError):
    default_code = "database_busy"


class DatabaseNotMigrated(StoreError):
    default_code = "database_not_migrated"


class ValueRefused(StoreError):
    default_code = "value_refused"


class SecretMissing(StoreError):
    default_code = "secret_missing"


class SecretMismatch(StoreError):
    default_code = "secret_mismatch"


class CiphertextInvalid(StoreError):
    default_code = "ciphertext_invalid"


class MappingConflict(KhotanError):
    default_code = "mapping_conflict"


class FlowError(KhotanError):
    default_code = "flow_failed"


class WouldOverwrite(KhotanError):
    default_code = "would_overwrite"


class PlugError(KhotanError):
    """A call of an external API failed.

    `plug` and `endpoint` name the call. If the service answered, `response` is the `httpx.Response` and
    `status` its status; `body` is the parsed model of that status, or the decoded body if no model is declared.
    """

    default_code = "plug_failed"

    def __init__(
        self,
        message: str,
        *,
        plug: str = "",
        endpoint: str = "",
        response: httpx.Response | None = None,
        status: int | None = None,
        body: Any = None,
        hint: str = "",
        code: str | None = None,
        next: Sequence[str] = (),
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code, next=next, details=details)
        self.plug = plug
        self.endpoint = endpoint
        self.response = response
        self.body = body
        self._status = status

    @property
    def status(self) -> int | None:
        """HTTP status of the service's answer; None without an answer.

        Set without a `response` if the body could not be read completely: it was cut short, or is too large.
        """
        return self._status if self.response is None else self.response.status_code


class PlugUnreachable(PlugError):
    default_code = "plug_unreachable"


class PlugTimeout(PlugError):
    default_code = "plug_timeout"


class ResponseInvalid(PlugError):
    default_code = "response_invalid"


class AuthError(PlugError):
    default_code = "auth_failed"


class PaginationError(PlugError):
    default_code = "pagination_failed"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most similar to `name`, or None if none is similar."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None
