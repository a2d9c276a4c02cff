"""Make and remove a lab's network: a bridge, a cable to each machine, and NAT to the outside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.lab import host
from tests.lab.slot import Slot


@dataclass(frozen=True)
class Cable:
    """A machine's cable: the names of its network namespace and of its port on the bridge.

    The MAC address stays the same over reboots, or neighbours would send to the old one.
    """

    namespace: str
    port: str
    mac: str

    @property
    def namespace_path(self) -> Path:
        return Path("/run/netns") / self.namespace


class Network:
    """The network of one lab: everything named after its bridge."""

    def __init__(self, slot: Slot) -> None:
        self.bridge = slot.bridge
        self.subnet = slot.network
        self.gateway = str(slot.network[1])
        self._clients = slot.clients

    def create(self) -> None:
        """Make the bridge, the client addresses and the firewall rules."""
        host.call(["ip", "link", "add", self.bridge, "type", "bridge"])
        host.call(["ip", "addr", "add", f"{self.gateway}/{self.subnet.prefixlen}",
                   "dev", self.bridge])
        host.call(["ip", "link", "set", self.bridge, "up"])
        # One route makes all client addresses local: a test may bind to any of them.
        host.call(["ip", "route", "add", "local", str(self._clients), "dev", self.bridge])
        # It stays enabled afterwards, as with Docker: something else may rely on it by then.
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
        for table, chain, rule in self._rules():
            host.call(["iptables", "-w", "-t", table, "-I", chain, *rule])

    def remove(self) -> None:
        """Remove whatever is left of this network, also after a killed lab."""
        for table, chain, rule in self._rules():
            while host.succeeds(["iptables", "-w", "-t", table, "-C", chain, *rule]):
                host.call(["iptables", "-w", "-t", table, "-D", chain, *rule])
        for path in Path("/sys/class/net").glob(f"{self.bridge}[!0-9]*"):
            _delete_link(path.name)
        for path in Path("/run/netns").glob(f"{self.bridge}-*"):
            host.call(["ip", "netns", "del", path.name])
        _delete_link(self.bridge)

    def cable(self, number: int) -> Cable:
        """Return the cable of the machine with this number in the subnet."""
        # A locally administered address; its last two bytes are the IPv4 address's.
        return Cable(f"{self.bridge}-{number}", f"{self.bridge}.{number}",
                     "02:00:00:00:%02x:%02x" % tuple(self.subnet[number].packed[2:]))

    def plug(self, cable: Cable) -> None:
        """Make a new network namespace with an `eth0` for a machine that is about to boot."""
        self.unplug(cable)
        host.call(["ip", "netns", "add", cable.namespace])
        host.call(["ip", "link", "add", cable.port, "type", "veth",
                   "peer", "name", "eth0", "address", cable.mac, "netns", cable.namespace])
        host.call(["ip", "link", "set", cable.port, "master", self.bridge])

    def unplug(self, cable: Cable) -> None:
        """Remove a machine's namespace and port, with everything that Docker left in them."""
        _delete_link(cable.port)
        if cable.namespace_path.exists():
            host.call(["ip", "netns", "del", cable.namespace])

    def carry(self, cable: Cable, on: bool) -> None:
        """Connect the cable, or cut it."""
        host.call(["ip", "link", "set", cable.port, "up" if on else "down"])

    def _rules(self) -> list[tuple[str, str, list[str]]]:
        """Return our firewall rules: inbound, outbound and masquerading.

        The first two come before the forward policy DROP, which Docker sets on its hosts and
        which br_netfilter also applies between the bridge's own ports.
        """
        return [
            ("filter", "FORWARD", ["-i", self.bridge, "-j", "ACCEPT"]),
            ("filter", "FORWARD", ["-o", self.bridge, "-j", "ACCEPT"]),
            ("nat", "POSTROUTING",
             ["-s", str(self.subnet), "!", "-o", self.bridge, "-j", "MASQUERADE"]),
        ]


def _delete_link(name: str) -> None:
    """Delete an interface if it exists: the kernel may remove it at the same time."""
    if host.succeeds(["ip", "link", "del", name]):
        return
    host.wait_until(lambda: not Path("/sys/class/net", name).exists(), 5, f"removal of {name}")
