"""An endpoint never becomes a way into our network."""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from webhooks import addresses
from webhooks.addresses import Refused, Target


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """What names resolve to; literals resolve to themselves, as in any resolver."""
    known = {"hooks.example.com": ["93.184.215.14"]}
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *args: Any, **options: Any) -> Any:
        found = known.get(host, [host])
        return [entry for address in found for entry in real(address, port, *args, **options)]

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolve)
        yield known


def test_it_works(names: dict[str, list[str]]) -> None:
    target = addresses.parse("https://hooks.example.com/in?a=1")
    assert target == Target("https", "hooks.example.com", 443, "/in?a=1")
    assert target.authority == "hooks.example.com"
    assert addresses.addresses_of(target, seconds=5) == ["93.184.215.14"]
    addresses.check("https://hooks.example.com:8443")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://user:password@hooks.example.com/",
        "https://hooks.example.com@10.0.0.1/",
        "https://@hooks.example.com/",
        "https://hooks.example.com/#fragment",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:/",
        "https://hooks.example.com:70000/",
        "https://hooks.example.com:22/",
        "https://hooks.example.com:80/",
        "https://hooks.example.com./",
        "https://localhost./",
        "https://hooks .example.com/",
        "https://hooks.example.com/\r\nX: y",
        "https://hooks.example.com\\@10.0.0.1/",
        "https://hooks%2eexample.com/",
        "https://ⓛocalhost/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://017700000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://[fe80::1%25eth0]/",
        "https://[not-an-address]/",
        "https://hooks.example.com/" + "a" * 2000,
    ],
)
def test_a_url_that_is_not_plainly_public_is_refused(names: dict[str, list[str]], url: str) -> None:
    with pytest.raises(Refused):
        addresses.check(url)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - nothing is bound
        "10.1.2.3",
        "100.64.0.1",
        "100.127.255.254",
        "127.0.0.1",
        "127.8.8.8",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.1.1",
        "198.18.0.1",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_a_name_that_leads_inside_is_refused(names: dict[str, list[str]], address: str) -> None:
    assert not addresses.is_public(ipaddress.ip_address(address))
    names["inside.example.com"] = [address]
    with pytest.raises(Refused):
        addresses.check("https://inside.example.com/")
    names["both.example.com"] = ["93.184.215.14", address]
    with pytest.raises(Refused):
        addresses.check("https://both.example.com/")


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "100.63.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_a_public_address_is_public(address: str) -> None:
    assert addresses.is_public(ipaddress.ip_address(address))


def test_a_name_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(addresses.Unresolved):
        addresses.check("https://nowhere.example.com/")


def test_local_trials_are_a_setting_that_opens_no_more_than_it_names(
    settings: Any, names: dict[str, list[str]]
) -> None:
    settings.WEBHOOKS_ALLOW_HTTP = True
    settings.WEBHOOKS_ALLOW_PRIVATE_ADDRESSES = ["127.0.0.1/32"]
    addresses.check("http://127.0.0.1:9000/hooks")
    for url in (
        "http://169.254.169.254/",
        "http://10.0.0.1:9000/",
        "http://127.0.0.2/",
        "http://0x7f000001/",
    ):
        with pytest.raises(Refused):
            addresses.check(url)
    names["both.example.com"] = ["93.184.215.14", "127.0.0.1"]
    with pytest.raises(Refused):
        addresses.check("https://both.example.com/")
