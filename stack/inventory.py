"""Read inventory.yml: which machines there are, what each is for, how to reach them."""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from difflib import get_close_matches
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from stack.errors import Refused

DEFAULT = "inventory.yml"
EXAMPLE = "inventory.example.yml"
Role = Literal["manager", "worker"]
# The labels by which docker-stack.yml places services.
PLACEMENT = ("edge", "postgres")
# More managers than five only make every change wait for more of them.
MANAGERS = (1, 3, 5)


@dataclass(frozen=True)
class Ssh:
    """How every node is reached; without a key, the agent and ssh's own config decide."""

    user: str = "deploy"
    port: int = 22
    key: Path | None = None


@dataclass(frozen=True)
class Node:
    """One machine: `host` is where SSH finds it, `private` where the other nodes do."""

    host: str
    role: Role
    private: IPv4Address | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Inventory:
    """The machines of one Swarm, in the file's order and with every label decided."""

    name: str
    nodes: tuple[Node, ...]
    domain: str | None = None
    ssh: Ssh = Ssh()

    @property
    def managers(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.role == "manager")


class Invalid(Refused):
    """The inventory breaks rules: one line for each, all at once."""

    def __init__(self, causes: Sequence[str]) -> None:
        super().__init__(causes[0])
        self.causes = tuple(causes)
        self.message = "\n".join(causes)


def chosen(environ: Mapping[str, str], root: Path) -> Path | None:
    """Return the inventory that INVENTORY names, else inventory.yml; None if there is none.

    A relative name is looked for in the checkout `root`, wherever the command was typed.
    Raises Refused for a named file that isn't there.
    """
    name = environ.get("INVENTORY", "")
    path = root / (name or DEFAULT)
    if name and not os.path.exists(path):
        raise Refused(f"INVENTORY={name}: there is no {path}",
                      f"begin with a copy of {EXAMPLE}")
    # A link that leads nowhere is a mistake to report, not a choice of this machine.
    return path if os.path.lexists(path) else None


def load(path: Path) -> Inventory:
    """Read an inventory; raises Invalid with a line for every mistake in it."""
    mistakes: list[str] = []
    found = _read_keys(Inventory, Place("", _parse(path), mistakes))
    if mistakes:
        raise Invalid([f"{path.name}: {mistake}" for mistake in mistakes])
    return Inventory(**found)


class Loader(yaml.BaseLoader):
    """YAML whose scalars all stay text and whose keys are given once.

    PyYAML would read `no` as false and 1:30 as 90, and of two equal keys silently
    take the last.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        composed = super().compose_mapping_node(anchor)
        known: list[Any] = []
        for key, _ in composed.value:
            if key.value in known:
                raise yaml.MarkedYAMLError(problem=f"the key {_shown(key.value)} is there twice",
                                           problem_mark=key.start_mark)
            known.append(key.value)
        return composed


def _parse(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path.name} can't be read", str(error)) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Refused(f"{path.name}, line {line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise Refused(f"{path.name}: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class Place:
    """A value, its path in the file, and the file's mistakes so far."""

    path: str
    value: Any
    mistakes: list[str]

    def key(self, name: str) -> "Place":
        shown = name if re.fullmatch(r"[A-Za-z0-9_./-]{1,60}", name) else _shown(name)
        return Place(f"{self.path}.{shown}" if self.path else shown, self.value.get(name),
                     self.mistakes)

    def item(self, index: int) -> "Place":
        return Place(f"{self.path}[{index}]", self.value[index], self.mistakes)

    def wrong(self, mistake: str) -> None:
        self.mistakes.append(f"{self.path}: {mistake}" if self.path else mistake)

    def wrong_value(self, rule: str) -> None:
        self.wrong(f"should be {rule}, not {_shown(self.value) if self.value else 'nothing'}")


def _shown(value: Any) -> str:
    """Quote a value so that it stays within a line, whatever it holds."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return json.dumps(value if len(value) <= 60 else f"{value[:60]}...")


# Reads the value at a place. None means that it was wrong and is now among the mistakes.
Reader = Callable[[Place], Any]


def _scalar(parse: Callable[[str], Any], rule: str) -> Reader:
    """Return a reader of one scalar; `parse` raises ValueError where the rule is broken."""
    def read(place: Place) -> Any:
        try:
            if isinstance(place.value, str):
                return parse(place.value)
        except ValueError:
            pass
        place.wrong_value(rule)
        return None
    return read


def _text(pattern: str, rule: str) -> Reader:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(text)
        return text
    return _scalar(parse, rule)


def _one_of(choices: Sequence[str]) -> Reader:
    return _text("|".join(choices), " or ".join(choices))


def _parse_host(text: str) -> str:
    """Return an address in its one spelling, or a name from DNS or ssh's own config."""
    try:
        return str(ip_address(text))
    except ValueError:
        # Only digits and dots: an address with a mistake in it, not a name.
        if re.fullmatch(r"[0-9.]+", text) \
                or not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", text):
            raise
        return text


def _parse_private(text: str) -> IPv4Address:
    """Return an address that a peer can reach.

    Not IPv6: Docker 20.10, Debian 12's, forms a Swarm over it, but then sends no
    traffic of overlay networks (moby#41691).
    """
    address = IPv4Address(text)
    if address.is_loopback or address.is_unspecified or address.is_link_local \
            or address.is_multicast or address.is_reserved:
        raise ValueError(text)
    return address


def _parse_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError(text)
    return int(text)


def _parse_path(text: str) -> Path:
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:  # ~somebody whom this machine doesn't know.
        raise ValueError(text) from error
    if not path.is_absolute() or not text.isprintable():
        raise ValueError(text)
    return path


def _read_keys(kind: type[Any], place: Place, also: Mapping[str, str] | None = None
               ) -> dict[str, Any]:
    """Read a mapping with the fields of `kind` as its keys; what is wrong is left out.

    A field without a default is required; `also` names further ones, with the words
    for when they are missing.
    """
    readers, given = KEYS[kind], place.value
    if not isinstance(given, dict):
        place.wrong_value(f"a mapping with {_listed(readers)}")
        return {}
    misspelt = _check_known(place, readers)
    for name, mistake in {**_required(kind), **(also or {})}.items():
        if name not in given and name not in misspelt:
            place.key(name).wrong(mistake)
    read = {name: readers[name](place.key(name)) for name in given if name in readers}
    return {name: value for name, value in read.items() if value is not None}


def _required(kind: type[Any]) -> dict[str, str]:
    return {key.name: "is missing" for key in fields(kind)
            if key.default is MISSING and key.default_factory is MISSING}


def _check_known(place: Place, readers: Mapping[str, Reader]) -> set[str]:
    """Refuse unknown keys; return the known ones that seem to be meant."""
    meant = set()
    for name in place.value:
        if name not in readers:
            near = get_close_matches(name, readers, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {_listed(readers)}"
            place.key(name).wrong(f"unknown key; {hint}")
            meant.update(near)
    return meant


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}"


def _read_ssh(place: Place) -> Ssh:
    return Ssh(**_read_keys(Ssh, place))


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


def _read_nodes(place: Place) -> tuple[Node, ...] | None:
    """Read the nodes, each for itself and then against each other."""
    if not isinstance(place.value, list) or not place.value:
        place.wrong_value("a list of nodes")
        return None
    before = len(place.mistakes)
    also = {"private": "is missing; several nodes reach each other at private addresses"} \
        if len(place.value) > 1 else {}
    found = [_read_keys(Node, place.item(index), also) for index in range(len(place.value))]
    # A misspelt key may be the one that holds the labels.
    if len(place.mistakes) == before:
        _check_labels(place, found)
    _check_addresses(place, found)
    _check_managers(place, found)
    return _placed([Node(**keys) for keys in found]) if len(place.mistakes) == before else None


def _check_addresses(place: Place, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an address of two nodes, whether public or private."""
    owners: dict[str, tuple[int, Place]] = {}
    for index, node in enumerate(nodes):
        for name in [name for name in ("host", "private") if name in node]:
            here = place.item(index).key(name)
            owner, there = owners.setdefault(str(node[name]).lower(), (index, here))
            if owner != index:
                here.wrong(f"{_shown(here.value)} is {there.path} already")


def _check_managers(place: Place, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a number of managers that is no use to Raft, unless some role is unknown."""
    count = sum(node.get("role") == "manager" for node in nodes)
    if count in MANAGERS or any("role" not in node for node in nodes):
        return
    why = "every change waits for a majority of them"
    if not count:
        why = "a Swarm is run by them"
    elif count % 2 == 0:
        why = f"a majority has to be left, so {count} survive no more losses than {count - 1}"
    place.wrong(f"should have 1, 3 or 5 managers, not {count}: {why}")


def _check_labels(place: Place, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse labels with which Postgres or Traefik would find no node, or Postgres two."""
    if not any(node.get("labels") for node in nodes):
        return
    holders, edges = (sum(node.get("labels", {}).get(label) == "true" for node in nodes)
                      for label in ("postgres", "edge"))
    if holders != 1:
        place.wrong(f'should have one node with the label postgres: "true", not {holders}')
    if not edges:
        place.wrong('should have a node with the label edge: "true"')


def _placed(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Decide where Postgres and Traefik run, unless any label says that somebody has."""
    if any(node.labels for node in nodes):
        return tuple(nodes)
    first = next(node for node in nodes if node.role == "manager")
    labels = {"manager": {"edge": "true"}, "worker": {}}
    return tuple(replace(node, labels={**labels[node.role],
                                       **({"postgres": "true"} if node is first else {})})
                 for node in nodes)


SWITCH = _one_of(("true", "false"))
TEXT = _scalar(str, "text")
KEYS: Mapping[type[Any], Mapping[str, Reader]] = {
    Inventory: {
        "name": _text(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?",
                      "letters, digits and hyphens"),
        "domain": _text(r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]"
                        r"[A-Za-z0-9-]{0,61}[A-Za-z0-9]", "a domain name"),
        "ssh": _read_ssh,
        "nodes": _read_nodes,
    },
    Ssh: {
        "user": _text(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", "a user name"),
        "port": _scalar(_parse_port, "a number from 1 to 65535"),
        "key": _scalar(_parse_path, "a path that starts with / or ~/"),
    },
    Node: {
        "host": _scalar(_parse_host, "an address or a host name"),
        "private": _scalar(_parse_private, "an IPv4 address that the other nodes can reach"),
        "role": _one_of(get_args(Role)),
        "labels": _read_labels,
    },
}
