"""The machines of a Swarm: what is on them, and what has been changed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.e2e.laptop import NodeEntry
from tests.lab import Machine

# Files by their content; then what Docker holds, by id and by the version of its definition.
STATE = """
find /etc /usr/local /var/tmp /var/lib/dpkg/status -type f ! -name ballast \
    -exec sha256sum {} + | sort
nft list ruleset | grep --after-context=3 'set peers'
command -v docker > /dev/null || exit 0
docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.NodeID}} {{.Swarm.NodeAddr}}'
docker image ls --all --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}}' | sort
docker volume ls --quiet | sort
docker network ls --no-trunc --quiet --filter driver=overlay --filter name=tally | sort
docker container ls --no-trunc --format '{{.ID}} {{.Names}}' | sort
docker node ls > /dev/null 2>&1 || exit 0
for kind in node service secret config; do
    docker $kind ls --quiet | sort | xargs --no-run-if-empty docker $kind inspect \\
        --format "$kind {{.ID}} {{.Spec.Name}} {{.Version.Index}}"
done
"""


def entry(machine: Machine, role: str = "manager", **labels: str) -> NodeEntry:
    """Return a machine's part of an inventory."""
    return {"host": machine.address, "private": machine.address, "role": role,
            **({"labels": labels} if labels else {})}


def on_all(machines: Sequence[Machine], line: str) -> list[str]:
    """Run a shell line as root on machines side by side; return what it printed on each."""
    with ThreadPoolExecutor(len(machines)) as pool:
        return list(pool.map(lambda machine: machine.console(line).stdout, machines))


def state(machines: Sequence[Machine]) -> dict[str, list[str]]:
    """Return everything that bootstrap could change, for each machine."""
    return {machine.name: said.splitlines()
            for machine, said in zip(machines, on_all(machines, STATE))}


def difference(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """Return what is there only before, and what only after, with the machine's name."""
    gone = [f"{name} had: {line}" for name in before
            for line in before[name] if line not in after[name]]
    return gone + [f"{name} has: {line}" for name in after
                   for line in after[name] if line not in before[name]]


@contextmanager
def nothing_changed(machines: Sequence[Machine]) -> Iterator[None]:
    """See that all is as it was before, and nothing has been restarted."""
    before = state(machines)
    yield
    changed = difference(before, state(machines))
    assert not changed, "\n".join(changed)
