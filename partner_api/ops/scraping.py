"""Who may read the metrics: whoever holds the token, or calls from a network that is named."""

import hmac
import ipaddress
from typing import Final

from django.conf import settings

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def may_scrape(authorization: str, address: str | None) -> bool:
    """With neither METRICS_TOKEN nor METRICS_ALLOWED_CIDRS set: nobody."""
    token: str = settings.METRICS_TOKEN
    scheme, _, offered = authorization.partition(" ")
    if token and scheme.lower() == "bearer" and hmac.compare_digest(offered.strip().encode(), token.encode()):
        return True
    return address is not None and any(
        ipaddress.ip_address(address) in network for network in settings.METRICS_ALLOWED_CIDRS
    )
