"""Write inventories, and read them back."""

from pathlib import Path

import pytest

from stack import inventory
from stack.inventory import Invalid, Inventory


def node(number: int, role: str = "manager", **changes: str) -> str:
    """Return a node in YAML; a key with an empty value is left out."""
    keys = {"host": f"203.0.113.{number}", "private": f"10.0.0.{number}", "role": role, **changes}
    return "{" + ", ".join(f"{key}: {value}" for key, value in keys.items() if value) + "}"


def swarm(*nodes: str) -> str:
    return "name: production\nnodes:\n" + "".join(f"  - {node}\n" for node in nodes)


ONE = swarm(node(11))


def load(tmp_path: Path, text: str) -> Inventory:
    path = tmp_path / "inventory.yml"
    path.write_text(text, encoding="utf-8")
    return inventory.load(path)


def mistakes(tmp_path: Path, text: str) -> list[str]:
    """Return the lines that refuse an inventory, without the file's name."""
    with pytest.raises(Invalid) as raised:
        load(tmp_path, text)
    lines = str(raised.value.message).split("\n")
    assert all(line.startswith("inventory.yml: ") and line.isprintable() for line in lines)
    return [line.removeprefix("inventory.yml: ") for line in lines]


def labels(tmp_path: Path, *nodes: str, more: str = "") -> list[dict[str, str]]:
    """Return each node's labels, as read from the inventory with `more` added."""
    return [dict(each.labels) for each in load(tmp_path, swarm(*nodes) + more).nodes]
