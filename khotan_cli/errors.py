"""The one exception tree, and the one table that says what each error means outside.

    KhotanError
    ├── UsageError            bad usage or input
    │   ├── UnknownName       a plug, endpoint or variable nobody declared
    │   └── ParameterError    a call with unknown, missing or malformed parameters
    ├── ContractMismatch      the declared model is not what the service sends
    ├── ConfigError           khotan.toml or the environment is wrong or incomplete
    ├── AppImportError        the user's application does not import
    ├── Unauthorized          the management API refused the caller
    ├── ServerUnreachable     no management API answers at the given URL
    ├── StoreError            the database
    │   ├── DatabaseUnreachable
    │   ├── DatabaseBusy      a transaction was given up for others, or found no connection: try again
    │   ├── DatabaseNotMigrated
    │   ├── ValueRefused      a value that the database has no form for
    │   ├── SecretMissing     KHOTAN_SECRET is not set
    │   ├── SecretMismatch    KHOTAN_SECRET is not the one a value was encrypted with
    │   └── CiphertextInvalid a stored value was altered, or moved to another row
    ├── MappingConflict       an id of a system belongs to another mapping already
    ├── FlowError             a flow failed, or a step of it
    ├── WouldOverwrite        files the user owns would be overwritten
    └── PlugError             a call of an external API failed
        ├── PlugUnreachable   no connection, reset, TLS failure
        ├── PlugTimeout       an attempt or the whole call took too long
        ├── ResponseInvalid   the body is not what its content type or its model says
        ├── AuthError         no credential, or the service refused to issue one
        └── PaginationError   the service repeats a page, or gives no usable position

Every error carries a code (snake_case, stable), a message (what happened, to which thing), a hint (what to do next)
and `next`, commands that can be run as they stand. CODES maps a code to the HTTP
status of khotan's own API (`http_status`) and to the exit code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONTRACT = 3
EXIT_UNAVAILABLE = 4
EXIT_OVERWRITE = 5
EXIT_INTERRUPTED = 130

CODES: Mapping[str, tuple[int, int]] = {
    # code: (HTTP status, exit code)
    "failed": (500, EXIT_FAILED),
    "internal_error": (500, EXIT_FAILED),
    "invalid_input": (422, EXIT_USAGE),
    "invalid_json": (422, EXIT_USAGE),
    "invalid_name": (422, EXIT_USAGE),
    "invalid_parameters": (422, EXIT_USAGE),
    "empty_value": (422, EXIT_USAGE),
    "no_terminal": (422, EXIT_USAGE),
    "path_outside_project": (422, EXIT_USAGE),
    "file_not_readable": (422, EXIT_USAGE),
    "file_exists": (409, EXIT_OVERWRITE),
    "unknown_plug": (404, EXIT_USAGE),
    "unknown_endpoint": (404, EXIT_USAGE),
    "unknown_var": (422, EXIT_USAGE),
    "unknown_component": (404, EXIT_USAGE),
    "not_found": (404, EXIT_FAILED),
    "method_not_allowed": (405, EXIT_USAGE),
    "body_too_large": (413, EXIT_USAGE),
    "headers_too_large": (431, EXIT_USAGE),
    "request_timeout": (408, EXIT_FAILED),
    "body_incomplete": (400, EXIT_FAILED),
    "body_invalid": (400, EXIT_USAGE),
    "forgery_accepted": (500, EXIT_FAILED),
    "signature_invalid": (401, EXIT_UNAVAILABLE),
    "unknown_wire": (404, EXIT_USAGE),
    "unknown_handler": (404, EXIT_USAGE),
    "unknown_event": (404, EXIT_USAGE),
    "nothing_to_replay": (409, EXIT_FAILED),
    "wire_not_managed": (409, EXIT_FAILED),
    "wire_not_subscribed": (409, EXIT_FAILED),
    "wire_invalid": (500, EXIT_FAILED),
    "wire_failed": (502, EXIT_FAILED),
    "wire_secret_missing": (503, EXIT_UNAVAILABLE),
    "unavailable": (503, EXIT_UNAVAILABLE),
    "wire_disabled": (409, EXIT_FAILED),
    "public_url_missing": (422, EXIT_USAGE),
    "event_invalid": (422, EXIT_FAILED),
    "run_of_event": (409, EXIT_FAILED),
    "record_invalid": (422, EXIT_USAGE),
    "unsupported_media_type": (415, EXIT_USAGE),
    "idempotency_key_missing": (400, EXIT_USAGE),
    "idempotency_key_reused": (422, EXIT_USAGE),
    "plug_disabled": (409, EXIT_FAILED),
    "contract_mismatch": (422, EXIT_CONTRACT),
    "no_declared_model": (422, EXIT_USAGE),
    "config_invalid": (500, EXIT_USAGE),
    "not_initialized": (500, EXIT_UNAVAILABLE),
    "not_authorized_setup": (500, EXIT_UNAVAILABLE),
    "app_import_failed": (500, EXIT_FAILED),
    "unauthorized": (401, EXIT_UNAVAILABLE),
    "debug_disabled": (403, EXIT_UNAVAILABLE),
    "server_unreachable": (502, EXIT_UNAVAILABLE),
    "server_invalid": (502, EXIT_FAILED),
    "port_in_use": (500, EXIT_UNAVAILABLE),
    "database_error": (500, EXIT_FAILED),
    "value_refused": (422, EXIT_USAGE),
    "database_unreachable": (503, EXIT_UNAVAILABLE),
    "database_busy": (503, EXIT_UNAVAILABLE),
    "database_not_migrated": (503, EXIT_UNAVAILABLE),
    "secret_missing": (503, EXIT_UNAVAILABLE),
    "secret_mismatch": (503, EXIT_UNAVAILABLE),
    "ciphertext_invalid": (500, EXIT_FAILED),
    "would_overwrite": (409, EXIT_OVERWRITE),
    "plug_failed": (502, EXIT_FAILED),
    "header_invalid": (422, EXIT_USAGE),
    "url_invalid": (422, EXIT_USAGE),
    "unexpected_status": (502, EXIT_FAILED),
    "service_error": (502, EXIT_FAILED),
    "plug_unreachable": (502, EXIT_UNAVAILABLE),
    "plug_timeout": (504, EXIT_UNAVAILABLE),
    "plug_refused": (502, EXIT_UNAVAILABLE),
    "auth_failed": (502, EXIT_UNAVAILABLE),
    "var_missing": (409, EXIT_UNAVAILABLE),
    "response_invalid": (502, EXIT_FAILED),
    "response_too_large": (502, EXIT_FAILED),
    "pagination_failed": (502, EXIT_FAILED),
    "checks_failed": (500, EXIT_FAILED),
    "unknown_flow": (404, EXIT_USAGE),
    "unknown_variant": (422, EXIT_USAGE),
    "unknown_run": (404, EXIT_USAGE),
    "unknown_step": (422, EXIT_USAGE),
    "unknown_resource": (404, EXIT_USAGE),
    "unknown_mapping": (404, EXIT_FAILED),
    "unknown_cache": (404, EXIT_USAGE),
    "unknown_key": (404, EXIT_FAILED),
    "mapping_conflict": (409, EXIT_FAILED),
    "flow_active": (409, EXIT_FAILED),
    "flow_disabled": (409, EXIT_FAILED),
    "flow_failed": (500, EXIT_FAILED),
    "flow_timeout": (500, EXIT_FAILED),
    "step_failed": (500, EXIT_FAILED),
    "records_lost": (500, EXIT_FAILED),
    "ref_missing": (500, EXIT_FAILED),
    "too_many_deletions": (500, EXIT_FAILED),
    "records_invalid": (500, EXIT_FAILED),
    "answer_held_back": (409, EXIT_FAILED),
    "run_not_finished": (409, EXIT_FAILED),
    "run_finished": (409, EXIT_FAILED),
    "run_failed": (500, EXIT_FAILED),
    "wait_timeout": (504, EXIT_UNAVAILABLE),
    "engine_busy": (503, EXIT_UNAVAILABLE),
    "pooled_database": (503, EXIT_USAGE),
    "cron_not_configured": (503, EXIT_UNAVAILABLE),
    "interrupted": (499, EXIT_INTERRUPTED),
}


class KhotanError(Exception):
    """Base of all errors. `details` goes into the JSON document beside the message; never put a secret in it."""

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
        """HTTP status that khotan's own API answers with. `PlugError.status` is the one of the called service."""
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
        """Rebuild an error that the management API answered with."""
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
    """A name nobody declared; the hint offers the nearest known one."""

    _added = {"flow": "inflow", "plug": "plug", "resource": "resource", "cache": "cache", "wire": "wire"}

    def __init__(self, kind: str, name: str, known: Iterable[str], *, code: str | None = None, where: str = "") -> None:
        names = sorted(known)
        self.nearest = nearest(name, names)
        listed = f"Known: {', '.join(names[:20])}" + (", …" if len(names) > 20 else "")
        hint = f"Did you mean {self.nearest!r}?" if self.nearest else listed if names else f"There is no {kind} yet."
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

    `plug` and `endpoint` name the call. Where the service answered, `response` is the `httpx.Response` and
    `status` its status; `body` is the model declared for that status, parsed, or the decoded body where none is.
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
        """HTTP status that the service answered with; None where no answer came.

        Known without a `response` where the body could not be read whole: it broke off, or is too large.
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
    """The known name that is most like `name`, or None where nothing is near."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None
