"""What a single value may be: a number, an address, a path, an image's name."""

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

from stack.inventory.document import Place, shown

# Reads the value at a place. None means that it was wrong and is now among the mistakes.
Reader = Callable[[Place], Any]

# The grammar of image names is that of the OCI distribution specification and of
# the reference package of distribution/distribution.
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
_HOST_AND_PORT = rf"{_HOST}(?::(?P<port>[0-9]{{1,5}}))?"
REGISTRY = re.compile(rf"(?P<host>{_HOST_AND_PORT})(?:/{_PATH})?")
IMAGE = re.compile(rf"(?P<name>(?:{_HOST_AND_PORT}/)?{_PATH})"
                   r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
                   r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?")
LONGEST_NAME = 255  # of an image, less its tag and digest
LONGEST_IMAGE = LONGEST_NAME + len(":") + 128 + len("@sha256:") + 64
LONGEST_REGISTRY = 200  # leaves room for what is put into it


def scalar(parse: Callable[[str], Any], rule: str, *, secret: bool = False) -> Reader:
    """Return a reader of one scalar; `parse` raises ValueError where the rule is broken.

    A `secret` one is never shown: somebody may have written a password into it.
    """
    def read(place: Place) -> Any:
        try:
            if isinstance(place.value, str):
                return parse(place.value)
        except ValueError:
            pass
        if secret and place.value:
            place.wrong(f"should be {rule}")
        else:
            place.wrong_value(rule)
        return None
    return read


def text(pattern: str, rule: str, *, secret: bool = False) -> Reader:
    def parse(given: str) -> str:
        if not re.fullmatch(pattern, given):
            raise ValueError(given)
        return given
    return scalar(parse, rule, secret=secret)


def one_of(choices: Sequence[str]) -> Reader:
    return text("|".join(choices), " or ".join(choices))


def number(least: int, most: int) -> Reader:
    def parse(given: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", given) or not least <= int(given) <= most:
            raise ValueError(given)
        return int(given)
    return scalar(parse, f"a number from {least} to {most}")


def parse_host(given: str) -> str:
    """Return an address in its one spelling, or a name from DNS or ssh's own config."""
    try:
        return str(ip_address(given))
    except ValueError:
        # Only digits and dots: an address with a mistake in it, not a name.
        if re.fullmatch(r"[0-9.]+", given) \
                or not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", given) \
                or not all(1 <= len(label) <= 63 for label in given.split(".")):
            raise
        return given


def parse_private(given: str) -> IPv4Address:
    """Return an address that a peer can reach.

    Not IPv6: Docker 20.10, Debian 12's, forms a Swarm over it, but then sends no
    traffic of overlay networks (moby#41691).
    """
    address = IPv4Address(given)
    if address.is_loopback or address.is_unspecified or address.is_link_local \
            or address.is_multicast or address.is_reserved:
        raise ValueError(given)
    return address


def parse_path(given: str) -> Path:
    """Return an absolute path; ~ is the current user's home."""
    try:
        path = Path(given).expanduser()
    except RuntimeError as error:  # ~somebody whom this machine doesn't know.
        raise ValueError(given) from error
    if not path.is_absolute() or not given.isprintable():
        raise ValueError(given)
    return path


def parse_registry(given: str) -> str:
    """Return a registry's address: a host, maybe its port, maybe where in it images go.

    A host without a dot or a port would be the name of an image on Docker Hub.
    """
    found = REGISTRY.fullmatch(given) if len(given) <= LONGEST_REGISTRY else None
    if not found or not re.search("[.:]", found["host"]) or not _is_port(found["port"]):
        raise ValueError(given)
    return given


def _is_port(digits: str | None) -> bool:
    return digits is None or 1 <= int(digits) <= 65535


def read_image(place: Place) -> str | None:
    """Read the name of an image that stays the same: with a digest, or a version's tag."""
    given = place.value if isinstance(place.value, str) else ""
    found = IMAGE.fullmatch(given) if len(given) <= LONGEST_IMAGE else None
    if not found or len(found["name"]) > LONGEST_NAME or not _is_port(found["port"]):
        place.wrong_value("an image's name with a tag or a digest")
        return None
    if not found["digest"] and found["tag"] in {None, "latest"}:
        place.wrong(f"{shown(given)} may be another image tomorrow; "
                    "give it a version's tag or a digest")
        return None
    return given
