"""Turn a client's address into the digest of a visitor."""

import hashlib
import hmac
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

DIGEST_BYTES = 16


def canonical(address: str) -> str:
    """Write every address that one visitor may come from in the same way.

    An IPv4 address stands for itself, also when it arrives mapped into IPv6. A
    household or a phone has a whole IPv6 /64, so that stands for its visitor.
    Raises ValueError for what is no address.
    """
    parsed = ip_address(address)
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or network(parsed))


def network(address: IPv6Address) -> IPv6Network:
    """Return the /64 of an address; through its number, which has no zone (%eth0)."""
    return IPv6Network((int(address), 64), strict=False)


def visitor_digest(address: str, key: bytes) -> bytes:
    """Return the only thing that is kept of an address: a keyed digest.

    Without the key it can't be reversed by trying all addresses, as a plain hash
    could. Raises ValueError for what is no address.
    """
    return hmac.digest(key, canonical(address).encode(), hashlib.sha256)[:DIGEST_BYTES]
