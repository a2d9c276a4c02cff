"""Read a machine's Swarm membership."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stack.engine import failures
from stack.engine.engine import Engine
from stack.errors import Refused

# A single-node Swarm that no other node can reach. Growing it gives it an address:
# docker swarm init --force-new-cluster keeps running services.
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Membership:
    """A machine's Swarm membership; `state` is Docker's word.

    `cluster` is the Swarm's id, which only managers know; `address` is
    the address that the node advertises.
    """

    state: str = "inactive"
    manager: bool = False
    error: str = ""
    node_id: str = ""
    address: str = ""
    cluster: str = ""

    @classmethod
    def read(cls, swarm: Mapping[str, Any]) -> "Membership":
        """Read the Swarm section of the Engine API's info."""
        return cls(swarm["LocalNodeState"], bool(swarm["ControlAvailable"]),
                   swarm.get("Error", ""), swarm["NodeID"], swarm.get("NodeAddr", ""),
                   (swarm.get("Cluster") or {}).get("ID", ""))

    @property
    def member(self) -> bool:
        """Whether it belongs to a Swarm or is joining one."""
        return self.state != "inactive"


def membership(engine: Engine) -> Membership:
    """Read an engine's Swarm membership."""
    return Membership.read(engine.info()["Swarm"])


def check_membership(found: Membership, name: str = "this machine") -> None:
    """Refuse a machine that can't manage the stack: a worker, or one in trouble."""
    if not found.member or found.manager and not found.error:
        return
    if found.state == "active" and not found.manager:
        raise Refused(f"{name} is a worker in a Swarm that another machine manages",
                      "run ./fab there, or first leave it with: docker swarm leave")
    if failures.LEADERLESS in found.error:
        raise Refused("the Swarm has no leader: quorum is lost, or an election is under way",
                      "bring a majority back online, then the same command again")
    raise Refused(f"the Swarm of {name} is {found.state} ({found.error or 'no reason given'})",
                  "see: docker info")


def require_manager(engine: Engine, name: str) -> None:
    """Refuse to deploy where bootstrap hasn't made a Swarm."""
    found = membership(engine)
    check_membership(found, name)
    if not found.manager:
        raise Refused("there is no Swarm yet", "./fab bootstrap")
