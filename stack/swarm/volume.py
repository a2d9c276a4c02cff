"""Make and find the data volume."""

from stack.machines import docker_command
from stack.machines.machine import Machine
from stack.swarm.names import STACK

VOLUME = f"{STACK}_postgres-data"
# The postgres user of stack/images/postgres/Dockerfile.
POSTGRES_OWNER = "10070:10070"
# Argument: the volume's name. Prints a line if it changed something.
MARK = f"""
set -eu
docker volume create "$1" > /dev/null
cd "$(docker volume inspect --format '{{{{.Mountpoint}}}}' "$1")"
for known in */PG_VERSION initdb-allowed; do
    [ ! -e "$known" ] || exit 0
done
chmod 0700 .
touch initdb-allowed
chown {POSTGRES_OWNER} . initdb-allowed
echo marked
"""


def has_volume(machine: Machine) -> bool:
    """Return whether a machine has the data volume."""
    return docker_command.run(machine, "volume", "inspect", VOLUME).ok


def prepare_volume(machine: Machine) -> bool:
    """Make the data volume and, if it is empty, mark it as ready to initialise.

    Postgres refuses an empty volume without the mark: Docker makes one when the task
    starts on a node without the data. Returns whether the volume was made or marked.
    """
    return bool(machine.must(
        ["sh", "-c", docker_command.script(machine, MARK), "mark", VOLUME]))
