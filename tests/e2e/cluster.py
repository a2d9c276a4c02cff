"""The machines of a Swarm: their state, and what has changed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.e2e.laptop import NodeEntry
from tests.lab import Machine, host

# Files by their content; then Docker's objects, by ID and by the version of their definition.
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
# A node by its definition: Swarm itself changes its version after a late heartbeat.
docker node ls --quiet | sort | xargs docker node inspect --format 'node {{.ID}} {{json .Spec}}'
for kind in service secret config; do
    docker $kind ls --quiet | sort | xargs --no-run-if-empty docker $kind inspect \\
        --format "$kind {{.ID}} {{.Spec.Name}} {{.Version.Index}}"
done
"""

# Fails, and so prints nothing, where there is no Swarm or no manager.
STOPPING = "docker node ps $(docker node ls --quiet) --filter desired-state=shutdown " \
    "--format '{{.Node}} {{.CurrentState}}' 2> /dev/null"


def entry(machine: Machine, role: str = "manager", **labels: str) -> NodeEntry:
    """Return a machine's part of an inventory."""
    return {"host": machine.address, "private": machine.address, "role": role,
            **({"labels": labels} if labels else {})}


def on_all(machines: Sequence[Machine], line: str) -> list[str]:
    """Run a shell line as root on machines in parallel; return its output on each."""
    with ThreadPoolExecutor(len(machines)) as pool:
        return list(pool.map(lambda machine: machine.console(line).stdout, machines))


def state(machines: Sequence[Machine]) -> dict[str, list[str]]:
    """Return everything on each machine that bootstrap could change."""
    return {machine.name: said.splitlines()
            for machine, said in zip(machines, on_all(machines, STATE))}


def difference(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """Return the lines that have disappeared or appeared, with their machine's name."""
    gone = [f"{name} had: {line}" for name in before
            for line in before[name] if line not in after[name]]
    return gone + [f"{name} has: {line}" for name in after
                   for line in after[name] if line not in before[name]]


@contextmanager
def nothing_changed(machines: Sequence[Machine]) -> Iterator[None]:
    """Check that nothing changes or restarts during the block, once stopping tasks have ended."""
    # A deploy doesn't wait for them.
    host.wait_until(lambda: not stopping(machines), 60, "end of the stopping tasks")
    before = state(machines)
    yield
    changed = difference(before, state(machines))
    assert not changed, "\n".join(changed)


def stopping(machines: Sequence[Machine]) -> list[str]:
    """Return the tasks on these machines that are stopping but still run."""
    names = {machine.name for machine in machines}
    told = machines[0].console(STOPPING, check=False).stdout.splitlines()
    return [line for line in told
            if line.split()[0] in names and line.split()[1:2] == ["Running"]]
