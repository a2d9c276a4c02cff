"""Find out, before a Swarm forms, whether its nodes reach each other's private addresses.

Swarm doesn't report it: nodes that can't reach each other over UDP join and look healthy, but
their containers' packets are lost. So every machine tests every port of every other. Where Docker
doesn't listen yet, stack/bootstrap/port_listener.py answers.
"""

import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from stack.inventory import Role
from stack.machines.machine import Completed, Machine

# Gossip and VXLAN, between all nodes (docs.docker.com/engine/swarm/swarm-tutorial).
EVERYWHERE = ("tcp/7946", "udp/4789", "udp/7946")
MANAGERS = "tcp/2377"
REGISTRY = "tcp/5000"
PROGRAM = Path(__file__).with_name("port_listener.py")
# The programs that listen on behalf of Docker, and so may answer.
DOCKER = frozenset({"dockerd", "docker-proxy"})
# A machine that takes longer to start its listener or to ask counts as unreachable.
TIMEOUT = 15.0
# Just longer than the slowest machine takes to start and to ask.
LIFETIME = 40


@dataclass(frozen=True)
class Peer:
    """A machine, the address at which the others reach it, and its role."""

    machine: Machine
    private: str
    role: Role
    joined: bool
    registry: bool

    @property
    def ports(self) -> tuple[str, ...]:
        """What its peers have to reach."""
        manager = (MANAGERS,) if self.role == "manager" else ()
        return tuple(sorted((*EVERYWHERE, *manager, *((REGISTRY,) if self.registry else ()))))

    @property
    def own(self) -> tuple[str, ...]:
        """Those of its ports on which Docker doesn't listen yet.

        The registry is a service of the Swarm, so it may or may not run on a node that has
        joined.
        """
        return tuple(port for port in self.ports if port == REGISTRY or not self.joined)


@dataclass(frozen=True)
class Probe:
    """One port that has to be open from one machine to another."""

    source: Peer
    target: Peer
    port: str


@dataclass(frozen=True)
class Start:
    """The result of starting a listener: why it failed, and which ports others hold."""

    peer: Peer
    trouble: str = ""
    taken: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def complaints(self) -> list[str]:
        lines = [self.trouble] if self.trouble else []
        return lines + [
            f"{self.peer.machine.name}: {port} is taken by {_listed(sorted(holders - DOCKER))}, "
            f"and {'the registry' if port == REGISTRY else 'Swarm'} needs it: stop that program"
            for port, holders in self.taken.items() if holders - DOCKER]

    def target(self, port: str) -> str | None:
        """Return how to test a port there, or None if nothing there would answer."""
        kind, number = port.split("/")
        holders = self.taken.get(port)
        if holders is not None and holders - DOCKER:
            return None
        if holders is None and port in self.peer.own:
            return f"{kind}/{self.peer.private}:{number}"
        # Docker listens there, or the kernel for VXLAN. Neither knows the token, so only a TCP
        # connection can be tried.
        return f"connect/{self.peer.private}:{number}" if kind == "tcp" else None


def wanted(peers: Sequence[Peer]) -> list[Probe]:
    """Return the ports that have to be open and can be tried, between nodes new to each other.

    On a node that has joined, only TCP can be tried: Docker and the kernel echo no datagrams.
    """
    return [Probe(source, target, port)
            for target in peers for source in peers for port in target.ports
            if source is not target and not (source.joined and target.joined)
            and not (target.joined and port.startswith("udp/"))]


def check(peers: Sequence[Peer]) -> list[str]:
    """Return a line for everything that keeps the machines from being one Swarm.

    Takes about a second, and three more where something doesn't answer. Nothing is left
    behind on the machines, whatever happens: listeners also end by themselves.
    """
    probes = wanted(peers)
    if not probes:
        return []
    token = secrets.token_hex(16)
    with ThreadPoolExecutor(len(peers)) as pool:
        try:
            starts = list(pool.map(partial(_listen, token), peers))
            able = {start.peer: start for start in starts if not start.trouble}
            tried = _askable(probes, able)
            asked = list(pool.map(partial(_ask, token, tried), able))
        finally:
            list(pool.map(partial(_end, token), [peer for peer in peers if peer.own]))
    broken = {probe for failed, _ in asked for probe in failed}
    return [*(line for start in starts for line in start.complaints),
            *(trouble for _, trouble in asked if trouble), *described(list(tried), broken)]


def _run(peer: Peer, *arguments: str) -> Completed:
    return peer.machine.run(["python3", "-I", "-", *arguments], timeout=TIMEOUT,
                            stdin=PROGRAM.read_text(encoding="utf-8"))


def _listen(token: str, peer: Peer) -> Start:
    done = _run(peer, "listen", token, str(LIFETIME), peer.private, *peer.own)
    if done.code == 127:
        return Start(peer, f"{peer.machine.name} has no python3: apt-get install python3")
    if not done.ok:
        return Start(peer, f"the port test could not start on {peer.machine.name}: "
                           f"{done.last_line}")
    words = [line.split(" ", 2) for line in done.stdout.splitlines()]
    if ["elsewhere"] in words:
        return Start(peer, f"{peer.machine.name}: {peer.private} isn't its address, "
                           f"it has {_listed(_addresses(peer.machine))}")
    return Start(peer, taken={port: frozenset(holders.split(",")) - {""}
                              for _, port, holders in words})


def _addresses(machine: Machine) -> list[str]:
    """Return the IPv4 addresses at which others may reach a machine, without Docker's."""
    shown = json.loads(machine.must(["ip", "-json", "-4", "address", "show", "scope", "global"]))
    return [address["local"] for link in shown
            if not link.get("ifname", "").startswith(("docker", "br-"))
            for address in link.get("addr_info", ())]


def _askable(probes: Iterable[Probe], able: Mapping[Peer, Start]) -> dict[Probe, str]:
    """Return how to try each probe, between machines whose listeners started."""
    targets = {probe: able[probe.target].target(probe.port) for probe in probes
               if probe.source in able and probe.target in able}
    return {probe: target for probe, target in targets.items() if target}


def _ask(token: str, tried: Mapping[Probe, str], peer: Peer) -> tuple[list[Probe], str]:
    """Return which of a machine's probes had no answer, or why it couldn't ask."""
    mine = {target: probe for probe, target in tried.items() if probe.source is peer}
    if not mine:
        return [], ""
    done = _run(peer, "ask", token, *mine)
    if not done.ok:
        return [], f"the port test failed on {peer.machine.name}: {done.last_line}"
    return [mine[target] for target in done.stdout.split()], ""


def _end(token: str, peer: Peer) -> None:
    # A listener that can't be reached ends after its LIFETIME.
    _run(peer, "end", token, peer.private)


def described(tried: Sequence[Probe], broken: Collection[Probe]) -> list[str]:
    """Describe the failures in as few lines as possible."""
    new = not any(peer.joined for probe in tried for peer in (probe.source, probe.target))
    if broken and new and len(broken) == len(tried) and len(_targets(tried)) > 1:
        return ["no machine can reach another at its private address, on any port: "
                + _listed([peer.private for peer in _targets(tried)])]
    lines, rest = _without_lost(tried, broken)
    left = [probe for probe in rest if probe in broken]
    # Nothing was tried between nodes that have joined, so no line may speak of all machines.
    common = _common(rest, left) if new else []
    if common:
        lines.append(f"no machine can reach another on {_listed(common)}")
    return lines + _grouped(rest, [probe for probe in left if probe.port not in common])


def _without_lost(tried: Sequence[Probe], broken: Collection[Probe]
                  ) -> tuple[list[str], list[Probe]]:
    """Name the machines that no other can reach at all; return the probes of the rest."""
    lines, rest, whole = [], list(tried), set(broken)
    for peer in _targets(tried):
        there = [probe for probe in tried if probe.target is peer]
        back = [probe for probe in tried if probe.source is peer]
        if len({probe.source for probe in there}) < 2 or not whole.issuperset(there):
            continue
        cut = whole.issuperset(back)
        lines.append(f"no other machine can reach {peer.private}, the private address of "
                     f"{peer.machine.name}, on any port" + (", nor it any other" if cut else ""))
        rest = [probe for probe in rest
                if probe.target is not peer and not (cut and probe.source is peer)]
    return lines, rest


def _common(tried: Sequence[Probe], broken: Sequence[Probe]) -> list[str]:
    """Return the ports that failed wherever they were tried, on several machines."""
    closed = {probe.port for probe in broken} \
        - {probe.port for probe in tried if probe not in broken}
    return [port for port in sorted(closed)
            if len({probe.target for probe in broken if probe.port == port}) > 1]


def _grouped(tried: Sequence[Probe], broken: Sequence[Probe]) -> list[str]:
    """Say which machines can't reach which on what: one line for all that fail alike."""
    sources: dict[tuple[Peer, str], list[Peer]] = {}
    for target in _targets(broken):
        for source in dict.fromkeys(probe.source for probe in broken if probe.target is target):
            ports = _ports(_between(tried, source, target), _between(broken, source, target))
            sources.setdefault((target, ports), []).append(source)
    targets: dict[tuple[tuple[Peer, ...], str], list[Peer]] = {}
    for (target, ports), found in sources.items():
        targets.setdefault((tuple(found), ports), []).append(target)
    return [f"{_subject(tried, found, there)} reach "
            f"{_listed([peer.private for peer in there])} on {ports}"
            for (found, ports), there in targets.items()]


def _subject(tried: Sequence[Probe], sources: Sequence[Peer], targets: Sequence[Peer]) -> str:
    """Name the machines that can't; if no machine can, say so instead of listing them all."""
    others = {probe.source for probe in tried if probe.target in targets}
    if len(sources) > 1 and others.issubset(sources):
        return "no other machine can"
    return f"{_listed([peer.machine.name for peer in sources])} can't"


def _between(probes: Iterable[Probe], source: Peer, target: Peer) -> list[str]:
    return [probe.port for probe in probes if probe.source is source and probe.target is target]


def _ports(tried: Sequence[str], broken: Sequence[str]) -> str:
    return "any port" if len(tried) > 1 and len(broken) == len(tried) else _listed(broken)


def _targets(probes: Iterable[Probe]) -> list[Peer]:
    return list(dict.fromkeys(probe.target for probe in probes))


def _listed(names: Sequence[str]) -> str:
    *others, last = names or ["none"]
    return f"{', '.join(others)} and {last}" if others else last
