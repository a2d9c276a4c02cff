"""Make the Swarm, its labels, its secrets and the data volume what the stack needs."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker

from stack import engine
from stack.errors import Refused
from stack.machine import Machine

STACK = "tally"
# Docker's own label of what belongs to a stack, and a filter for it.
NAMESPACE = "com.docker.stack.namespace"
OF_STACK: dict[str, str | list[str] | bool] = {"label": f"{NAMESPACE}={STACK}"}
# Of a service whose update was begun anew, when: changed for its own sake, it restarts no task.
BEGUN_ANEW = "tally.begun-anew"
VOLUME = f"{STACK}_postgres-data"
LABEL = "tally.secret"
LABELS = ("edge", "postgres")
SECRETS = ("app-password", "owner-password", "visitor-key")
# This Swarm of one listens for nobody else. Growing it gives it an address:
# docker swarm init --force-new-cluster keeps everything that runs.
LOOPBACK = "127.0.0.1"
# The postgres user of stack/images/postgres/Dockerfile.
POSTGRES_OWNER = "10070:10070"
# Given the volume's name; says something if it changed something.
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


@dataclass(frozen=True)
class Membership:
    """What a machine is in a Swarm: `state` as Docker gives it.

    `cluster` is the Swarm's id, which only managers know; `address` is where the
    node says that it is found.
    """

    state: str = "inactive"
    manager: bool = False
    error: str = ""
    node_id: str = ""
    address: str = ""
    cluster: str = ""

    @classmethod
    def read(cls, swarm: Mapping[str, Any]) -> "Membership":
        """Read the Engine API's info, its part about Swarm."""
        return cls(swarm["LocalNodeState"], bool(swarm["ControlAvailable"]),
                   swarm.get("Error", ""), swarm["NodeID"], swarm.get("NodeAddr", ""),
                   (swarm.get("Cluster") or {}).get("ID", ""))

    @property
    def member(self) -> bool:
        """Whether it belongs to some Swarm, or is on the way into one."""
        return self.state != "inactive"


def membership(client: docker.DockerClient) -> Membership:
    """Read a machine's part in a Swarm."""
    return Membership.read(client.info()["Swarm"])


def check_membership(found: Membership, name: str = "this machine") -> None:
    """Refuse a machine that can't manage the stack: a worker, or one in trouble."""
    if not found.member or found.manager and not found.error:
        return
    if found.state == "active" and not found.manager:
        raise Refused(f"{name} is a worker in a Swarm that another machine manages",
                      "run ./fab there, or first leave it with: docker swarm leave")
    if engine.LEADERLESS in found.error:
        raise Refused("the Swarm has no leader: too few of its managers are online, or they are "
                      "electing one", "bring most of them back, then the same command again")
    raise Refused(f"the Swarm of {name} is {found.state} ({found.error or 'no reason given'})",
                  "see: docker info")


def require_manager(client: docker.DockerClient, name: str) -> None:
    """Refuse to deploy where bootstrap hasn't made a Swarm."""
    found = membership(client)
    check_membership(found, name)
    if not found.manager:
        raise Refused("there is no Swarm yet", "./fab bootstrap")


def missing_labels(client: docker.DockerClient) -> list[str]:
    """Return the labels that docker-stack.yml places services by and no node has."""
    nodes = client.nodes.list()
    return [label for label in LABELS if not any(
        node.attrs["Spec"].get("Labels", {}).get(label) == "true" for node in nodes)]


def require_labels(client: docker.DockerClient) -> None:
    """Refuse a Swarm in which a service would find no node."""
    for label in missing_labels(client):
        raise Refused(f"no node has the label {label}=true", "./fab bootstrap sets it")


def secret_names(client: docker.DockerClient) -> dict[str, str]:
    """Return the name in the Swarm of each secret that exists: the newest of each."""
    found = sorted(client.secrets.list(filters={"label": LABEL}),
                   key=lambda secret: str(secret.attrs["CreatedAt"]))
    return {secret.attrs["Spec"]["Labels"][LABEL]: secret.name for secret in found}


def make_secrets(client: docker.DockerClient) -> list[str]:
    """Make the secrets that don't exist yet; return which.

    A secret's name ends in a hash of its content, since Swarm can't change one
    in place. The values are random and 256 bits long, so the hash tells nothing.
    """
    missing = [name for name in SECRETS if name not in secret_names(client)]
    for name in missing:
        value = secrets.token_hex(32)
        content = hashlib.sha256(value.encode()).hexdigest()[:12]
        client.secrets.create(name=f"{STACK}-{name}-{content}", data=value.encode(),
                              labels={LABEL: name})
    return missing


def require_secrets(client: docker.DockerClient) -> dict[str, str]:
    """Return every secret's name in the Swarm; raises Refused naming the first missing one."""
    names = secret_names(client)
    for name in SECRETS:
        if name not in names:
            raise Refused(f"the secret {name} is missing in the Swarm", "./fab bootstrap makes it")
    return names


def has_volume(machine: Machine) -> bool:
    """Tell whether the data volume is on a machine."""
    return machine.run(["docker", "volume", "inspect", VOLUME]).ok


def prepare_volume(machine: Machine) -> bool:
    """Make the data volume and mark it, if empty, as one that may be initialised.

    Postgres refuses an empty volume without the mark: it is one that Docker made
    because the task came to a node where the data isn't. Returns whether the
    volume was made or marked.
    """
    return bool(machine.must(["sh", "-c", MARK, "mark", VOLUME]))
