"""No form of a private address passes for a public one."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robustzs_serving.ingest.addresses import is_public

PUBLIC = ["8.8.8.8", "1.1.1.1", "151.101.1.69", "2606:4700:4700::1111", "2a00:1450:4001::200e"]
PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
]
PRIVATE_V6 = [
    "::",
    "::1",
    "::7f00:1",  # IPv4-compatible
    "64:ff9b:1::a00:1",  # NAT64 for local use
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
]


def wrapped(address: str) -> dict[str, ipaddress.IPv6Address]:
    number = int(ipaddress.IPv4Address(address))
    flipped = number ^ 0xFFFF_FFFF
    public = int(ipaddress.IPv4Address("8.8.8.8"))
    forms = {
        "mapped": (0xFFFF << 32) | number,
        "6to4": (0x2002 << 112) | (number << 80) | 1,
        "NAT64": (0x64FF9B << 96) | number,
        "Teredo client": (0x20010000 << 96) | (public << 64) | flipped,
        "Teredo server": (0x20010000 << 96) | (number << 64) | (public ^ 0xFFFF_FFFF),
    }
    return {name: ipaddress.IPv6Address(value) for name, value in forms.items()}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", [*PRIVATE, *PRIVATE_V6])
def test_private_addresses_do_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("form", list(wrapped("127.0.0.1")))
def test_wrapping_hides_nothing(address: str, form: str) -> None:
    assert not is_public(wrapped(address)[form])


def test_a_public_address_may_be_wrapped_where_routers_do_that() -> None:
    forms = wrapped("8.8.8.8")
    assert is_public(forms["mapped"])
    assert is_public(forms["6to4"])
    assert is_public(forms["NAT64"])
    assert not is_public(forms["Teredo client"])


@given(st.ip_addresses())
def test_what_passes_is_nothing_that_python_calls_special(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_public(address):
        assert not address.is_multicast
        assert not address.is_loopback
        assert not address.is_link_local
        assert not address.is_unspecified
        if isinstance(address, ipaddress.IPv4Address):
            assert not address.is_private
            assert not address.is_reserved
