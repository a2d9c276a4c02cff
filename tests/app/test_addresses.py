"""A visitor's address has one spelling, and only its digest is stored."""

import pytest

from app.addresses import canonical, visitor_digest

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:C000:0201", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:0DB8:0:0:ffff:ffff:ffff:ffff", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_an_address_is_written_canonically(address: str, written: str) -> None:
    assert canonical(address) == written


@pytest.mark.parametrize(
    "address",
    ["", "unknown", "192.0.2", "192.0.2.256", "192.0.2.01", "192.0.2.1:80", "[2001:db8::1]",
     "192.0.2.1, 192.0.2.2", "2001:db8::1::", "192.0.2.1/32", "\u0661.0.2.1"],
)
def test_anything_but_an_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError):
        canonical(address)


def test_a_digest_is_the_first_half_of_hmac_sha256() -> None:
    # printf 192.0.2.1 | openssl dgst -sha256 -hmac key
    digest = visitor_digest("192.0.2.1", b"key")
    assert digest.hex() == "0d01cd1f8c54f86cc05c8f0c75925c3a"


def test_a_digest_depends_on_the_key() -> None:
    assert visitor_digest("192.0.2.1", b"key") != visitor_digest("192.0.2.1", b"other")
