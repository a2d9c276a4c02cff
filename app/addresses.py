"""Convert a client's address to a visitor's digest."""

import hashlib
import hmac
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

DIGEST_BYTES = 16


def canonical(address: str) -> str:
    """Return the same text for all addresses of one visitor.

    An IPv4 address identifies a visitor, also when it is mapped into IPv6. A
    household or a phone has a whole IPv6 /64, so the /64 identifies the visitor.
    Raises ValueError if the text is not an address.
    """
    parsed = ip_address(address)
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or network(parsed))


def network(address: IPv6Address) -> IPv6Network:
    """Return the /64 of an address, without its zone (such as %eth0)."""
    return IPv6Network((int(address), 64), strict=False)


def visitor_digest(address: str, key: bytes) -> bytes:
    """Return the keyed digest that is stored instead of an address.

    Unlike a plain hash, it cannot be reversed by trying all addresses unless the
    key is known. Raises ValueError if the text is not an address.
    """
    return hmac.digest(key, canonical(address).encode(), hashlib.sha256)[:DIGEST_BYTES]
