"""From where a request came: the connection's peer, or what our own proxies say of it.

`X-Forwarded-For` is only as true as the hop that wrote it. TRUSTED_PROXY_HOPS says how many proxies of
ours stand in front; the address is what the outermost of them saw, and anything further left is the
client's own claim.
"""

import ipaddress
from typing import Any

from django.conf import settings


def address_of(request: Any) -> str | None:
    """The client's address, IPv4-mapped IPv6 as IPv4; None where there is none that can be read.

    Takes Django's and DRF's requests.
    """
    hops = settings.TRUSTED_PROXY_HOPS
    text = request.META.get("REMOTE_ADDR", "")
    if hops:
        forwarded = [part.strip() for part in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
        # Fewer entries than hops means that the request did not come through all of them.
        text = forwarded[-hops] if len(forwarded) >= hops else text
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
