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
    from khotan_cli.runtime.contract.check import Finding, Report
    from khotan_cli.runtime.flows.context import FlowContext
    from khotan_cli.runtime.flows.decorators import inflow, outflow, relay, step
    from khotan_cli.runtime.flows.definition import Flow, RunResult, Step, Variant
    from khotan_cli.runtime.flows.destination import SentRecord
    from khotan_cli.runtime.flows.hooks import EventInfo, Hooks, RunInfo
    from khotan_cli.runtime.flows.push import PushResult
    from khotan_cli.runtime.flows.slack import SlackNotifier
    from khotan_cli.runtime.flows.tally import SyncResult
    from khotan_cli.runtime.plugs.auth import ApiKeyAuth, BasicAuth, BearerAuth, CustomAuth, PlugAuth
    from khotan_cli.runtime.plugs.context import CallContext
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
    from khotan_cli.runtime.plugs.error_body import ErrorBody
    from khotan_cli.runtime.plugs.oauth import AuthorizationRequest, OAuth2AuthorizationCode, OAuth2ClientCredentials
    from khotan_cli.runtime.plugs.paginate import PageView, Paginator
    from khotan_cli.runtime.plugs.paginators import (
        CursorPaginator,
        FunctionPaginator,
        KeysetPaginator,
        OffsetPaginator,
        PageNumberPaginator,
        SinglePagePaginator,
    )
    from khotan_cli.runtime.plugs.parsers import parse_csv, parse_xml, xml_parser
    from khotan_cli.runtime.plugs.plug import Plug
    from khotan_cli.runtime.plugs.quota import Quota
    from khotan_cli.runtime.plugs.rate import RateLimit
    from khotan_cli.runtime.plugs.retry import Retry
    from khotan_cli.runtime.plugs.signing import HmacAuth, SigningInput, TimestampFormat
    from khotan_cli.runtime.plugs.token import RenewedAuth, TokenAuth
    from khotan_cli.runtime.plugs.tokens import Token
    from khotan_cli.runtime.plugs.url_paginators import JsonApiPaginator, LinkHeaderPaginator, NextUrlPaginator
    from khotan_cli.runtime.plugs.vars import Var
    from khotan_cli.runtime.records.caches import Cache
    from khotan_cli.runtime.records.resources import Resource
    from khotan_cli.runtime.redact import MaskSecrets
    from khotan_cli.runtime.store.mappings import MappingEntry
    from khotan_cli.runtime.store.row_plan import Upserted
    from khotan_cli.runtime.store.upsert import upsert
    from khotan_cli.runtime.webhooks import challenges, signatures
    from khotan_cli.runtime.webhooks.event import Event
    from khotan_cli.runtime.webhooks.ingest import ingest
    from khotan_cli.runtime.webhooks.request import WebhookRequest
    from khotan_cli.runtime.webhooks.rules import Rule, joined
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
    "khotan_cli.runtime.plugs.auth": ("ApiKeyAuth", "BasicAuth", "BearerAuth", "CustomAuth", "PlugAuth"),
    "khotan_cli.runtime.plugs.context": ("CallContext",),
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
    "khotan_cli.runtime.plugs.error_body": ("ErrorBody",),
    "khotan_cli.runtime.plugs.oauth": ("AuthorizationRequest", "OAuth2AuthorizationCode", "OAuth2ClientCredentials"),
    "khotan_cli.runtime.plugs.paginate": ("PageView", "Paginator"),
    "khotan_cli.runtime.plugs.paginators": (
        "CursorPaginator",
        "FunctionPaginator",
        "KeysetPaginator",
        "OffsetPaginator",
        "PageNumberPaginator",
        "SinglePagePaginator",
    ),
    "khotan_cli.runtime.plugs.parsers": ("parse_csv", "parse_xml", "xml_parser"),
    "khotan_cli.runtime.plugs.plug": ("Plug",),
    "khotan_cli.runtime.plugs.rate": ("RateLimit",),
    "khotan_cli.runtime.plugs.quota": ("Quota",),
    "khotan_cli.runtime.plugs.retry": ("Retry",),
    "khotan_cli.runtime.plugs.signing": ("HmacAuth", "SigningInput", "TimestampFormat"),
    "khotan_cli.runtime.plugs.token": ("RenewedAuth", "TokenAuth"),
    "khotan_cli.runtime.plugs.tokens": ("Token",),
    "khotan_cli.runtime.plugs.url_paginators": ("JsonApiPaginator", "LinkHeaderPaginator", "NextUrlPaginator"),
    "khotan_cli.runtime.plugs.vars": ("Var",),
    "khotan_cli.runtime.redact": ("MaskSecrets",),
    "khotan_cli.runtime.flows.context": ("FlowContext",),
    "khotan_cli.runtime.flows.decorators": ("inflow", "outflow", "relay", "step"),
    "khotan_cli.runtime.flows.definition": ("Flow", "RunResult", "Step", "Variant"),
    "khotan_cli.runtime.flows.destination": ("SentRecord",),
    "khotan_cli.runtime.flows.hooks": ("EventInfo", "Hooks", "RunInfo"),
    "khotan_cli.runtime.flows.push": ("PushResult",),
    "khotan_cli.runtime.flows.slack": ("SlackNotifier",),
    "khotan_cli.runtime.flows.tally": ("SyncResult",),
    "khotan_cli.runtime.records.caches": ("Cache",),
    "khotan_cli.runtime.records.resources": ("Resource",),
    "khotan_cli.runtime.store.mappings": ("MappingEntry",),
    "khotan_cli.runtime.store.row_plan": ("Upserted",),
    "khotan_cli.runtime.store.upsert": ("upsert",),
    "khotan_cli.runtime.webhooks.event": ("Event",),
    "khotan_cli.runtime.webhooks.ingest": ("ingest",),
    "khotan_cli.runtime.webhooks.request": ("WebhookRequest",),
    "khotan_cli.runtime.webhooks.rules": ("Rule", "joined"),
    "khotan_cli.runtime.webhooks.wire": ("SubscribeContext", "Subscription", "Wire"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = {name: f"khotan_cli.runtime.webhooks.{name}" for name in ("challenges", "signatures")}

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
