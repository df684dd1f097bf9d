"""Which URLs and addresses news may be sent to, so that an endpoint never becomes a way into our network.

The name is resolved here, and every address it has is looked at; one that is not public refuses the
name. Who connects uses exactly the address that passed: a second look-up could give another.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings

from partner_api.http.problems import FieldError, Problem, invalid
from webhooks.resolving import look_up

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL_LENGTH: Final = 2000
# For a look-up that a partner's request waits for.
CHECK_SECONDS: Final = 5.0
_PRINTABLE: Final = re.compile(r"[!-~]+")
_NAME: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)*"
)
# Browsers and resolvers read a host whose last label is a number as IPv4: 127.1, 0x7f000001, 017700000001.
_ENDS_IN_A_NUMBER: Final = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}

_REFUSED_V4: Final = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carriers' NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, and the clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "168.63.129.16/32",  # Azure's own services
    )
]
# Only what is given out to the public counts as public; these are its exceptions.
_PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6: Final = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: any IPv4 address in disguise
        "3fff::/20",  # documentation
    )
]
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class Refused(Exception):
    """A URL that nothing is sent to; the text says why, for the partner to read."""


@dataclass(frozen=True)
class Target:
    """A URL, taken apart. `host` is a name or an address, without brackets; `path` has the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def check(url: str) -> None:
    """Looks the name up. Raises Refused."""
    addresses_of(parse(url), seconds=CHECK_SECONDS)


def why_refused(url: str) -> Problem | None:
    """Looks the name up, so not inside a transaction: the `validation_error` of a URL that can't be used."""
    try:
        check(url)
    except Refused as reason:
        return invalid([FieldError("/url", "url_refused", str(reason))])
    return None


def parse(url: str) -> Target:
    """Raises Refused for what is wrong with the URL as text."""
    if len(url) > MAX_URL_LENGTH:
        raise Refused(f"The URL has more than {MAX_URL_LENGTH:,} characters.")
    if not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise Refused("A URL has printable ASCII characters only, and no backslash; encode the others.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused("This is not a URL.") from error
    if parts.scheme != "https" and not (parts.scheme == "http" and settings.WEBHOOKS_ALLOW_HTTP):
        raise Refused("The URL must begin with https://.")
    if "@" in parts.netloc:
        raise Refused("The URL must not hold a user name or password; messages are signed instead.")
    if "#" in url:
        raise Refused("The URL must not have a fragment (#…); it would not be sent.")
    if port == 0 or parts.netloc.endswith(":"):
        raise Refused("The URL's port must be a number from 1 to 65535.")
    host = _host(parts.hostname or "", is_bracketed="[" in parts.netloc)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], path)


def addresses_of(target: Target, *, seconds: float) -> list[str]:
    """Every address of the host, each of which passed. Raises Refused.

    Unresolved, when the name can't be resolved; UnresolvedInTime, when nobody said so within `seconds`.
    """
    try:
        addresses = look_up(target.host, target.port, seconds=seconds)
    except TimeoutError as error:
        raise UnresolvedInTime(f"The name {target.host} was not resolved in time.") from error
    except (OSError, UnicodeError) as error:
        raise Unresolved(f"The name {target.host} can't be resolved.") from error
    read = [ipaddress.ip_address(address) for address in addresses]
    is_local = all(_is_allowed_here(address) for address in read)
    if not is_local and not all(is_public(address) for address in read):
        raise Refused(f"{target.host} leads to an address that is not public.")
    if not is_local and target.port not in settings.WEBHOOKS_PORTS:
        ports = ", ".join(map(str, settings.WEBHOOKS_PORTS))
        raise Refused(f"The port {target.port} is not allowed; these are: {ports}.")
    return addresses


class Unresolved(Refused):
    """The name has no address now; that may pass."""


class UnresolvedInTime(Unresolved):
    """Those who know the name's addresses don't answer."""


def is_public(address: Address) -> bool:
    """Whether it is given out on the public internet, also behind the forms that embed IPv4 in IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        return address in _PUBLIC_V6 and not any(address in network for network in _REFUSED_V6)
    return not any(address in network for network in _REFUSED_V4)


def _is_allowed_here(address: Address) -> bool:
    networks = settings.WEBHOOKS_ALLOW_PRIVATE_ADDRESSES
    return any(address in ipaddress.ip_network(network) for network in networks)


def _host(host: str, *, is_bracketed: bool) -> str:
    if is_bracketed:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise Refused("What stands in brackets is not an IPv6 address.") from error
    if not _NAME.fullmatch(host):
        raise Refused("The URL's host must be a name such as hooks.example.com, without a final dot.")
    if _ENDS_IN_A_NUMBER.fullmatch(host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as error:
            raise Refused("An IPv4 address has four decimal numbers, without leading zeros.") from error
    return host
