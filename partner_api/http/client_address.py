"""From where a request came: the connection's peer, or what our own proxies say of it.

`X-Forwarded-For` is only as true as the hop that wrote it. TRUSTED_PROXY_HOPS says how many proxies of
ours stand in front; the address is what the outermost of them saw, and anything further left is the
client's own claim.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
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
    return _read(text)


def counted_as(request: Any) -> str | None:
    """What a limit by address counts: of IPv6 the first address of its /64, otherwise the address.

    A /64 is what one line is given. Whoever has it has 2^64 addresses to send from, one for each guess.
    """
    address = address_of(request)
    network = None if address is None else counted_network(address)
    return None if network is None else str(network.network_address)


def counted_network(address: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """All the addresses that are counted together with this one (as `address_of` gives it)."""
    return ipaddress.ip_network(f"{address}/{64 if ':' in address else 32}", strict=False)


# One request asks several times, and a partner's requests come from few addresses.
@lru_cache(maxsize=4096)
def _read(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    if getattr(address, "scope_id", None):
        # By which of its links a machine saw it says nothing elsewhere; networks and Postgres refuse it.
        address = ipaddress.IPv6Address(int(address))
    return str(mapped or address)


def is_within(address: str | None, networks: Iterable[str]) -> bool:
    """Whether the address (as `address_of` gives it) lies in one of the networks, in CIDR notation.

    An IPv4 network may be written as IPv4-mapped IPv6, and the other way round.
    """
    if address is None:
        return False
    known = unmapped(ipaddress.ip_network(address))
    networks_known = (unmapped(ipaddress.ip_network(network, strict=False)) for network in networks)
    return any(network.version == known.version and known.subnet_of(network) for network in networks_known)


def unmapped(network: Any) -> Any:
    """::ffff:10.0.0.0/104 as 10.0.0.0/8."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:  # noqa: PLR2004 - where the mapped address begins
        return network
    return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
