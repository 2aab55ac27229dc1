"""Which addresses are public, whatever form they hide in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Blocks inside of the public ranges that lead to no single public host; Python's own list of them
# depends on its version.
_NEVER_V6 = tuple(
    ipaddress.IPv6Network(block)
    for block in ("2001::/23", "2001:db8::/32", "3fff::/20", "2620:4f:8000::/48")
)
_NEVER_V4 = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)


def is_public(address: Address) -> bool:
    """Whether an address, and every IPv4 address that it wraps, is one of the public internet.

    IPv6 wraps IPv4 in mapped addresses (``::ffff:0:0/96``), 6to4 (``2002::/16``), Teredo
    (``2001::/32``: the server's and the client's) and NAT64 (``64:ff9b::/96``); a router or the
    kernel unwraps them, so ``::ffff:127.0.0.1`` is this machine. Teredo is refused even so, since
    its block is.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not any(address in block for block in _NEVER_V4)
    if address.scope_id is not None:
        return False
    inner = tuple(_wrapped(address))
    if not all(map(is_public, inner)):
        return False
    if address in _NAT64 or address.ipv4_mapped is not None:
        return True
    return address in _GLOBAL_UNICAST and not any(address in block for block in _NEVER_V6)


def _wrapped(address: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64:
        yield ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
