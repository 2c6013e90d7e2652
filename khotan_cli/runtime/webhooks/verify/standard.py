"""Standard Webhooks and its branded variants."""

from __future__ import annotations

from dataclasses import dataclass

from khotan_cli.runtime.http.variables import Var
from khotan_cli.runtime.webhooks.request import WebhookRequest
from khotan_cli.runtime.webhooks.verify.locator import Rule
from khotan_cli.runtime.webhooks.verify.schemes import Hmac
from khotan_cli.runtime.webhooks.verify.signed_content import template
from khotan_cli.runtime.webhooks.verify.timestamps import TOLERANCE


@dataclass(frozen=True)
class BrandedHeader(Rule):
    """A header with several possible names. The first that is present is used, as in verification."""

    others: tuple[str, ...] = ()

    def find(self, request: WebhookRequest) -> str | None:
        names = [name for name in (self.header, *self.others) if name in request.headers]
        return Rule(header=names[0]).find(request) if names else None

    def __str__(self) -> str:
        return " or ".join([super().__str__(), *self.others])


def standard_webhooks(*, secret: Var | None = None, tolerance: float = TOLERANCE) -> Hmac:
    """webhook-id, webhook-timestamp and webhook-signature (standardwebhooks.com): `v1,` and base64, several separated by
    spaces; the secret is base64 after `whsec_`."""
    return _standard("standard_webhooks", ("webhook",), secret, tolerance)


def svix(*, secret: Var | None = None, tolerance: float = TOLERANCE) -> Hmac:
    """svix-id, svix-timestamp and svix-signature (docs.svix.com), or the same with webhook-; otherwise as Standard Webhooks."""
    return _standard("svix", ("svix", "webhook"), secret, tolerance)


def _standard(name: str, brands: tuple[str, ...], secret: Var | None, tolerance: float) -> Hmac:
    return Hmac(
        name,
        tuple(f"{brand}-signature" for brand in brands),
        template("{id}.{timestamp}.{body}"),
        encoding="base64",
        prefix="v1,",
        separator=" ",
        timestamp_headers=tuple(f"{brand}-timestamp" for brand in brands),
        id_headers=tuple(f"{brand}-id" for brand in brands),
        tolerance=tolerance,
        secret_encoding="base64",
        secret_prefix="whsec_",
        secret=secret,
        event_id=BrandedHeader(header=f"{brands[0]}-id", others=tuple(f"{brand}-id" for brand in brands[1:])),
        event_type=Rule(json="type"),
    )
