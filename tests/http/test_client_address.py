"""Which networks an address lies in."""

import pytest
from django.test import RequestFactory

from partner_api.http.client_address import address_of, counted_as, is_within


@pytest.mark.parametrize(
    ("address", "networks", "expected"),
    [
        ("203.0.113.9", ["203.0.113.0/24"], True),
        ("203.0.113.9", ["198.51.100.0/24", "203.0.113.9"], True),
        ("203.0.113.9", ["::ffff:203.0.113.0/120"], True),
        ("203.0.113.9", ["::/0"], False),
        ("2001:db8::1", ["2001:db8::/32"], True),
        ("2001:db8::1", ["0.0.0.0/0"], False),
        ("203.0.114.9", ["203.0.113.0/24"], False),
        (None, ["0.0.0.0/0"], False),
        ("203.0.113.9", [], False),
    ],
)
def test_an_address_is_within_a_network(address: str | None, networks: list[str], expected: bool) -> None:
    assert is_within(address, networks) is expected


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("nonsense", None),
    ],
)
def test_an_address_is_one_that_others_can_read(rf: RequestFactory, peer: str, address: str | None) -> None:
    request = rf.get("/", REMOTE_ADDR=peer)
    assert address_of(request) == address
    assert not is_within(address_of(request), ["198.51.100.0/24"])


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::1", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("nonsense", None),
    ],
)
def test_addresses_of_one_line_are_counted_as_one(rf: RequestFactory, peer: str, counted: str | None) -> None:
    assert counted_as(rf.get("/", REMOTE_ADDR=peer)) == counted
