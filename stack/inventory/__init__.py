"""Read inventory.yml: which machines there are, what each is for, how to reach them."""

import os
from collections.abc import Mapping
from pathlib import Path

from stack.errors import Refused
from stack.inventory.document import Invalid, Place, parse
from stack.inventory.keys import read_inventory
from stack.inventory.model import (
    MOST_REPLICAS, PLACEMENT, REPLACEABLE, Host, Inventory, Ports, Registry, Replicas, Role, Ssh)

__all__ = ["DEFAULT", "EXAMPLE", "MOST_REPLICAS", "PLACEMENT", "REPLACEABLE", "Host", "Invalid",
           "Inventory", "Ports", "Registry", "Replicas", "Role", "Ssh", "chosen", "load"]

DEFAULT = "inventory.yml"
EXAMPLE = "inventory.example.yml"


def chosen(environ: Mapping[str, str], root: Path) -> Path | None:
    """Return the inventory that INVENTORY names, else inventory.yml; None if there is none.

    A relative name is looked for in the checkout `root`, wherever the command was typed.
    Raises Refused for a named file that isn't there.
    """
    name = environ.get("INVENTORY", "")
    path = root / (name or DEFAULT)
    if name and not os.path.exists(path):
        raise Refused(f"INVENTORY={name}: there is no {path}",
                      f"start from a copy of {EXAMPLE}")
    # A link that leads nowhere is a mistake to report, not a choice of this machine.
    return path if os.path.lexists(path) else None


def load(path: Path) -> Inventory:
    """Read an inventory; raises Invalid with a line for every mistake in it."""
    mistakes: list[str] = []
    found = read_inventory(Place("", parse(path), mistakes))
    if found is None:
        raise Invalid([f"{path.name}: {mistake}" for mistake in mistakes])
    return found
