"""Read the networks that Docker has."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from stack.engine.engine import Engine

MTU_OPTION = "com.docker.network.driver.mtu"


@dataclass(frozen=True)
class Network:
    """A network: its IPv4 subnets, and the MTU in bytes that it was made for, if it was given."""

    name: str
    is_overlay: bool
    subnets: tuple[IPv4Network, ...]
    mtu: int | None

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "Network":
        """Read an element of the Engine's answer (docs.docker.com/engine/api, NetworkList)."""
        pools = (found.get("IPAM") or {}).get("Config") or []
        mtu = (found.get("Options") or {}).get(MTU_OPTION)
        return cls(found["Name"], found.get("Driver") == "overlay",
                   tuple(IPv4Network(pool["Subnet"]) for pool in pools if "." in pool["Subnet"]),
                   int(mtu) if mtu else None)


def find_networks(engine: Engine, filters: Mapping[str, str] | None = None) -> list[Network]:
    """Return the networks, or those that match Docker's filters."""
    return [Network.read(found) for found in engine.networks.list(filters)]
