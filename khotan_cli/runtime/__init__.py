"""The public API that integration code imports.

Names load on first use, so that `from khotan_cli.runtime import Plug` brings in neither a web framework nor a database.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from khotan_cli.errors import (
        AuthError,
        FlowError,
        KhotanError,
        MappingConflict,
        PaginationError,
        ParameterError,
        PlugError,
        PlugTimeout,
        PlugUnreachable,
        ResponseInvalid,
    )
    from khotan_cli.runtime.app import Khotan
    from khotan_cli.runtime.auth.hmac import HmacAuth, SigningInput, TimestampFormat
    from khotan_cli.runtime.auth.oauth2 import AuthorizationRequest, OAuth2AuthorizationCode, OAuth2ClientCredentials
    from khotan_cli.runtime.auth.schemes import ApiKeyAuth, BasicAuth, BearerAuth, CustomAuth, PlugAuth
    from khotan_cli.runtime.auth.token_exchange import RenewedAuth, TokenAuth
    from khotan_cli.runtime.bulk.row_plan import Upserted
    from khotan_cli.runtime.bulk.upsert import upsert
    from khotan_cli.runtime.content.error_body import ErrorBody
    from khotan_cli.runtime.content.parsers import parse_csv, parse_xml, xml_parser
    from khotan_cli.runtime.contract.check import Finding, Report
    from khotan_cli.runtime.flows.context import FlowContext
    from khotan_cli.runtime.flows.decorators import inflow, outflow, relay, step
    from khotan_cli.runtime.http.call_context import CallContext
    from khotan_cli.runtime.http.quota import Quota
    from khotan_cli.runtime.http.rate_limit import RateLimit
    from khotan_cli.runtime.http.retry import Retry
    from khotan_cli.runtime.http.token_cache import Token
    from khotan_cli.runtime.http.variables import Var
    from khotan_cli.runtime.paging.base import PageView, Paginator
    from khotan_cli.runtime.paging.paginators import (
        CursorPaginator,
        FunctionPaginator,
        KeysetPaginator,
        OffsetPaginator,
        PageNumberPaginator,
        SinglePagePaginator,
    )
    from khotan_cli.runtime.paging.url_paginators import JsonApiPaginator, LinkHeaderPaginator, NextUrlPaginator
    from khotan_cli.runtime.plugs.endpoint import (
        Endpoint,
        delete,
        endpoint,
        get,
        head,
        options,
        patch,
        post,
        put,
    )
    from khotan_cli.runtime.plugs.plug import Plug
    from khotan_cli.runtime.redaction.log_filter import MaskSecrets
    from khotan_cli.runtime.resources.caches import Cache
    from khotan_cli.runtime.resources.mappings import Resource
    from khotan_cli.runtime.runs.definition import Flow, RunResult, Step, Variant
    from khotan_cli.runtime.runs.hooks import EventInfo, Hooks, RunInfo
    from khotan_cli.runtime.runs.slack import SlackNotifier
    from khotan_cli.runtime.store.mappings import MappingEntry
    from khotan_cli.runtime.transfer.push import PushResult
    from khotan_cli.runtime.transfer.sent_state import SentRecord
    from khotan_cli.runtime.transfer.sync_result import SyncResult
    from khotan_cli.runtime.webhooks.event import Event
    from khotan_cli.runtime.webhooks.ingest import ingest
    from khotan_cli.runtime.webhooks.request import WebhookRequest
    from khotan_cli.runtime.webhooks.verify import challenges, signatures
    from khotan_cli.runtime.webhooks.verify.locator import Rule, joined
    from khotan_cli.runtime.webhooks.wire import SubscribeContext, Subscription, Wire

_HOMES: dict[str, tuple[str, ...]] = {
    "khotan_cli.errors": (
        "AuthError",
        "FlowError",
        "KhotanError",
        "MappingConflict",
        "PaginationError",
        "ParameterError",
        "PlugError",
        "PlugTimeout",
        "PlugUnreachable",
        "ResponseInvalid",
    ),
    "khotan_cli.runtime.app": ("Khotan",),
    "khotan_cli.runtime.auth.schemes": ("ApiKeyAuth", "BasicAuth", "BearerAuth", "CustomAuth", "PlugAuth"),
    "khotan_cli.runtime.http.call_context": ("CallContext",),
    "khotan_cli.runtime.contract.check": ("Finding", "Report"),
    "khotan_cli.runtime.plugs.endpoint": (
        "Endpoint",
        "delete",
        "endpoint",
        "get",
        "head",
        "options",
        "patch",
        "post",
        "put",
    ),
    "khotan_cli.runtime.content.error_body": ("ErrorBody",),
    "khotan_cli.runtime.auth.oauth2": ("AuthorizationRequest", "OAuth2AuthorizationCode", "OAuth2ClientCredentials"),
    "khotan_cli.runtime.paging.base": ("PageView", "Paginator"),
    "khotan_cli.runtime.paging.paginators": (
        "CursorPaginator",
        "FunctionPaginator",
        "KeysetPaginator",
        "OffsetPaginator",
        "PageNumberPaginator",
        "SinglePagePaginator",
    ),
    "khotan_cli.runtime.content.parsers": ("parse_csv", "parse_xml", "xml_parser"),
    "khotan_cli.runtime.plugs.plug": ("Plug",),
    "khotan_cli.runtime.http.rate_limit": ("RateLimit",),
    "khotan_cli.runtime.http.quota": ("Quota",),
    "khotan_cli.runtime.http.retry": ("Retry",),
    "khotan_cli.runtime.auth.hmac": ("HmacAuth", "SigningInput", "TimestampFormat"),
    "khotan_cli.runtime.auth.token_exchange": ("RenewedAuth", "TokenAuth"),
    "khotan_cli.runtime.http.token_cache": ("Token",),
    "khotan_cli.runtime.paging.url_paginators": ("JsonApiPaginator", "LinkHeaderPaginator", "NextUrlPaginator"),
    "khotan_cli.runtime.http.variables": ("Var",),
    "khotan_cli.runtime.redaction.log_filter": ("MaskSecrets",),
    "khotan_cli.runtime.flows.context": ("FlowContext",),
    "khotan_cli.runtime.flows.decorators": ("inflow", "outflow", "relay", "step"),
    "khotan_cli.runtime.runs.definition": ("Flow", "RunResult", "Step", "Variant"),
    "khotan_cli.runtime.transfer.sent_state": ("SentRecord",),
    "khotan_cli.runtime.runs.hooks": ("EventInfo", "Hooks", "RunInfo"),
    "khotan_cli.runtime.transfer.push": ("PushResult",),
    "khotan_cli.runtime.runs.slack": ("SlackNotifier",),
    "khotan_cli.runtime.transfer.sync_result": ("SyncResult",),
    "khotan_cli.runtime.resources.caches": ("Cache",),
    "khotan_cli.runtime.resources.mappings": ("Resource",),
    "khotan_cli.runtime.store.mappings": ("MappingEntry",),
    "khotan_cli.runtime.bulk.row_plan": ("Upserted",),
    "khotan_cli.runtime.bulk.upsert": ("upsert",),
    "khotan_cli.runtime.webhooks.event": ("Event",),
    "khotan_cli.runtime.webhooks.ingest": ("ingest",),
    "khotan_cli.runtime.webhooks.request": ("WebhookRequest",),
    "khotan_cli.runtime.webhooks.verify.locator": ("Rule", "joined"),
    "khotan_cli.runtime.webhooks.wire": ("SubscribeContext", "Subscription", "Wire"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = {name: f"khotan_cli.runtime.webhooks.verify.{name}" for name in ("challenges", "signatures")}

__all__ = [
    "ApiKeyAuth",
    "AuthError",
    "AuthorizationRequest",
    "BasicAuth",
    "BearerAuth",
    "Cache",
    "CallContext",
    "CursorPaginator",
    "CustomAuth",
    "Endpoint",
    "ErrorBody",
    "Event",
    "EventInfo",
    "Finding",
    "Flow",
    "FlowContext",
    "FlowError",
    "FunctionPaginator",
    "HmacAuth",
    "Hooks",
    "JsonApiPaginator",
    "KeysetPaginator",
    "Khotan",
    "KhotanError",
    "LinkHeaderPaginator",
    "MappingConflict",
    "MappingEntry",
    "MaskSecrets",
    "NextUrlPaginator",
    "OAuth2AuthorizationCode",
    "OAuth2ClientCredentials",
    "OffsetPaginator",
    "PageNumberPaginator",
    "PageView",
    "PaginationError",
    "Paginator",
    "ParameterError",
    "Plug",
    "PlugAuth",
    "PlugError",
    "PlugTimeout",
    "PlugUnreachable",
    "PushResult",
    "Quota",
    "RateLimit",
    "RenewedAuth",
    "Report",
    "Resource",
    "ResponseInvalid",
    "Retry",
    "Rule",
    "RunInfo",
    "RunResult",
    "SentRecord",
    "SigningInput",
    "SinglePagePaginator",
    "SlackNotifier",
    "Step",
    "SubscribeContext",
    "Subscription",
    "SyncResult",
    "TimestampFormat",
    "Token",
    "TokenAuth",
    "Upserted",
    "Var",
    "Variant",
    "WebhookRequest",
    "Wire",
    "challenges",
    "delete",
    "endpoint",
    "get",
    "head",
    "inflow",
    "ingest",
    "joined",
    "options",
    "outflow",
    "parse_csv",
    "parse_xml",
    "patch",
    "post",
    "put",
    "relay",
    "signatures",
    "step",
    "upsert",
    "xml_parser",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
