"""Which keys an inventory has, and what each may hold."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, replace
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from stack.inventory import rules
from stack.inventory.document import Place
from stack.inventory.model import (
    MOST_REPLICAS, PLACEMENT, REPLACEABLE, Host, Inventory, Ports, Registry, Replicas, Role, Ssh)
from stack.inventory.scalars import (
    Reader, number, one_of, parse_host, parse_path, parse_private, parse_registry, read_image,
    scalar, text)

Section = TypeVar("Section")


def read_inventory(place: Place) -> Inventory | None:
    """Read the whole file; None if it now has mistakes."""
    inventory = _read_section(Inventory, place)
    if inventory:
        rules.check_registry(place.key("nodes"), inventory)
    return rules.placed(inventory) if inventory and not place.mistakes else None


def _read_section(kind: type[Section], place: Place, also: Mapping[str, str] | None = None
                  ) -> Section | None:
    """Read a mapping whose keys are the fields of `kind`; None if anything in it is wrong."""
    before = len(place.mistakes)
    found = _read_fields(kind, place, also)
    return kind(**found) if len(place.mistakes) == before else None


def _read_fields(kind: type[Any], place: Place, also: Mapping[str, str] | None = None
                 ) -> dict[str, Any]:
    """Read a mapping whose keys are the fields of `kind`; what is wrong is left out.

    A field without a default is required; `also` names further ones, with the words
    for when they are missing.
    """
    return _read_mapping(place, KEYS[kind], {**_required(kind), **(also or {})})


def _required(kind: type[Any]) -> dict[str, str]:
    return {key.name: "is missing" for key in fields(kind)
            if key.default is MISSING and key.default_factory is MISSING}


def _read_mapping(place: Place, readers: Mapping[str, Reader], required: Mapping[str, str]
                  ) -> dict[str, Any]:
    given = place.value
    if not isinstance(given, dict):
        place.wrong_value(f"a mapping with {_listed(readers)}")
        return {}
    misspelt = _check_known(place, readers)
    for name, mistake in required.items():
        if name not in given and name not in misspelt:
            place.key(name).wrong(mistake)
    read = {name: readers[name](place.key(name)) for name in given if name in readers}
    return {name: value for name, value in read.items() if value is not None}


def _check_known(place: Place, readers: Mapping[str, Reader]) -> set[str]:
    """Refuse unknown keys; return the known ones that seem to be meant."""
    meant = set()
    for name in place.value:
        if name not in readers:
            near = get_close_matches(name, readers, n=1)
            known = f"the {'keys are' if len(readers) > 1 else 'only key is'} {_listed(readers)}"
            place.key(name).wrong(f"unknown key; {f'did you mean {near[0]}?' if near else known}")
            meant.update(near)
    return meant


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _read_ssh(place: Place) -> Ssh | None:
    return _read_section(Ssh, place)


def _read_registry(place: Place) -> Registry | None:
    pair = ("user", "password_file")
    given = isinstance(place.value, dict) and any(name in place.value for name in pair)
    return _read_section(Registry, place, dict.fromkeys(
        pair if given else (), "is missing; user and password_file go together"))


def _read_images(place: Place) -> dict[str, str] | None:
    if isinstance(place.value, dict) and "app" in place.value:
        place.key("app").wrong("is built from this checkout, so no other image can be named")
        place = replace(place, value={name: image for name, image in place.value.items()
                                      if name != "app"})
    return _read_mapping(place, dict.fromkeys(REPLACEABLE, read_image), {})


def _read_ports(place: Place) -> Ports | None:
    ports = _read_section(Ports, place)
    if ports and ports.http == ports.https:
        place.wrong(f"http and https are both {ports.http}: choose two different ports")
    return ports


def _read_replicas(place: Place) -> Replicas | None:
    return _read_section(Replicas, place)


def _read_labels(place: Place) -> dict[str, str] | None:
    if not isinstance(place.value, dict):
        place.wrong_value("a mapping of labels to text")
        return None
    labels = {name: place.key(name) for name in place.value}
    for name, label in labels.items():
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?", name):
            label.wrong("a label's name should be letters, digits, dots, hyphens and slashes")
    return {name: (SWITCH if name in PLACEMENT else TEXT)(label)
            for name, label in labels.items()}


def _read_nodes(place: Place) -> tuple[Host, ...] | None:
    """Read the nodes, each for itself and then against each other."""
    if not isinstance(place.value, list) or not place.value:
        place.wrong_value("a list of nodes")
        return None
    before = len(place.mistakes)
    also = {"private": "is missing; several nodes reach each other at private addresses"} \
        if len(place.value) > 1 else {}
    found = [_read_fields(Host, place.item(index), also) for index in range(len(place.value))]
    # A misspelt key may be the one that holds the labels.
    if len(place.mistakes) == before:
        rules.check_labels(place, found)
    rules.check_addresses(place, found)
    rules.check_managers(place, found)
    return tuple(Host(**keys) for keys in found) if len(place.mistakes) == before else None


SWITCH = one_of(("true", "false"))
TEXT = scalar(str, "text")
PORT = number(1, 65535)
PATH_RULE = "a path that starts with / or ~/"
PATH = scalar(parse_path, PATH_RULE)
KEYS: Mapping[type[Any], Mapping[str, Reader]] = {
    Inventory: {
        "name": text(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?",
                     "letters, digits and hyphens"),
        "domain": text(r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]"
                       r"[A-Za-z0-9-]{0,61}[A-Za-z0-9]", "a domain name"),
        "ssh": _read_ssh,
        "registry": _read_registry,
        "images": _read_images,
        "ports": _read_ports,
        "replicas": _read_replicas,
        "nodes": _read_nodes,
    },
    Ssh: {
        "user": text(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", "a user name"),
        "port": PORT,
        "key": PATH,
    },
    Registry: {
        "address": scalar(parse_registry, "an address such as registry.example.org/team "
                                          "or 192.0.2.9:5000"),
        # HTTP's basic authentication ends it at a colon (RFC 7617).
        "user": text(r"[!-9;-~]{1,255}", "a user name without spaces and colons", secret=True),
        "password_file": scalar(parse_path, PATH_RULE, secret=True),
        "ca": PATH,
    },
    Ports: {"http": PORT, "https": PORT},
    Replicas: {"app": number(1, MOST_REPLICAS)},
    Host: {
        "host": scalar(parse_host, "an address or a host name"),
        "private": scalar(parse_private, "an IPv4 address that the other nodes can reach"),
        "role": one_of(get_args(Role)),
        "labels": _read_labels,
    },
}
