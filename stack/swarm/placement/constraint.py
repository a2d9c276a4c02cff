"""Read a placement constraint as Swarm does, and return whether a node meets it."""

import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from stack.swarm.nodes import Node

# The rules are those of moby/swarmkit, manager/constraint/constraint.go.
SYNTAX = re.compile(r"\s*(?P<key>[a-z_][a-z0-9\-_.]+)\s*(?P<operator>==|!=)"
                    r"\s*(?P<value>(?=\S)[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+?)\s*",
                    re.IGNORECASE | re.ASCII)
NODE_LABEL, ENGINE_LABEL = "node.labels.", "engine.labels."


@dataclass(frozen=True)
class Constraint:
    """One condition on a node."""

    key: str
    equal: bool
    value: str

    @classmethod
    def read(cls, text: str) -> "Constraint | None":
        """Return what a text says, or None if Swarm would refuse it."""
        found = SYNTAX.fullmatch(text)
        return cls(found["key"], found["operator"] == "==", found["value"]) if found else None

    def fits(self, node: Node) -> bool:
        """Return whether a node meets the condition.

        A label that isn't there is an empty one; a key that Swarm doesn't know fits no
        node. Only a label's name is compared with regard to case.
        """
        if self.key.lower() == "node.ip":
            return self._fits_address(node.address)
        found = self._label(node)
        if found is None:
            found = _fact(node, self.key.lower())
        return found is not None and (found.casefold() == self.value.casefold()) is self.equal

    def _label(self, node: Node) -> str | None:
        for prefix, labels in ((NODE_LABEL, node.labels), (ENGINE_LABEL, node.engine_labels)):
            if self.key.lower().startswith(prefix) and len(self.key) > len(prefix):
                return labels.get(self.key[len(prefix):], "")
        return None

    def _fits_address(self, address: str) -> bool:
        try:
            subnet = ip_network(self.value, strict=False)
        except ValueError:
            return False
        try:
            return (ip_address(address) in subnet) is self.equal
        except ValueError:
            # A node without an address is in no subnet.
            return not self.equal


def _fact(node: Node, key: str) -> str | None:
    """Return what a node says of itself, or None for what Swarm doesn't ask."""
    return {"node.id": node.id, "node.hostname": node.hostname, "node.role": node.role,
            "node.platform.os": node.os, "node.platform.arch": node.architecture}.get(key)
