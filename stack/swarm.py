"""Make the Swarm, its labels, its secrets and the data volume what the stack needs."""

import hashlib
import secrets
from dataclasses import dataclass

import docker
from docker.errors import NotFound

from stack.errors import Refused

STACK = "tally"
VOLUME = f"{STACK}_postgres-data"
LABEL = "tally.secret"
LABELS = ("edge", "postgres")
SECRETS = ("app-password", "owner-password", "visitor-key")
# This Swarm of one listens for nobody else. Growing it gives it an address:
# docker swarm init --force-new-cluster keeps everything that runs.
LOOPBACK = "127.0.0.1"
# The postgres user of stack/images/postgres/Dockerfile.
POSTGRES_OWNER = "10070:10070"
# Run in a container, with the volume at /v; says something if it changed something.
MARK = f"""
set -eu
for known in /v/*/PG_VERSION /v/initdb-allowed; do
    [ ! -e "$known" ] || exit 0
done
chmod 0700 /v
touch /v/initdb-allowed
chown {POSTGRES_OWNER} /v /v/initdb-allowed
echo marked
"""


@dataclass(frozen=True)
class Membership:
    """What this machine is in a Swarm: `state` as Docker gives it."""

    state: str
    manager: bool
    error: str


def membership(client: docker.DockerClient) -> Membership:
    """Read this machine's part in a Swarm."""
    found = client.info()["Swarm"]
    return Membership(found["LocalNodeState"], bool(found["ControlAvailable"]),
                      found.get("Error", ""))


def check_membership(found: Membership) -> None:
    """Refuse a machine that can't manage the stack: a worker, or one in trouble."""
    if found.state == "inactive" or found.manager and not found.error:
        return
    if found.state == "active" and not found.manager:
        raise Refused("this machine is a worker in a Swarm that another machine manages",
                      "run ./fab there, or first leave it with: docker swarm leave")
    raise Refused(f"this machine's Swarm is {found.state} ({found.error or 'no reason given'})",
                  "see: docker info")


def require_manager(client: docker.DockerClient) -> None:
    """Refuse to deploy where bootstrap hasn't made a Swarm."""
    found = membership(client)
    check_membership(found)
    if not found.manager:
        raise Refused("this machine isn't in a Swarm yet", "./fab bootstrap")


def init(client: docker.DockerClient) -> bool:
    """Make a Swarm of this machine unless it is in one; tell whether that was needed."""
    found = membership(client)
    check_membership(found)
    if found.manager:
        return False
    client.swarm.init(advertise_addr=LOOPBACK, listen_addr=f"{LOOPBACK}:2377")
    return True


def missing_labels(client: docker.DockerClient) -> list[str]:
    """Return the labels that docker-stack.yml places services by and no node has."""
    nodes = client.nodes.list()
    return [label for label in LABELS if not any(
        node.attrs["Spec"].get("Labels", {}).get(label) == "true" for node in nodes)]


def require_labels(client: docker.DockerClient) -> None:
    """Refuse a Swarm in which a service would find no node."""
    for label in missing_labels(client):
        raise Refused(f"no node has the label {label}=true", "./fab bootstrap sets it")


def label_nodes(client: docker.DockerClient) -> list[str]:
    """Choose where Traefik and Postgres run, unless somebody has; return the new labels."""
    missing = missing_labels(client)
    if missing:
        node = client.nodes.get(client.info()["Swarm"]["NodeID"])
        spec = node.attrs["Spec"]
        node.update({**spec, "Labels": {**spec.get("Labels", {}),
                                        **{label: "true" for label in missing}}})
    return [f"{label}=true" for label in missing]


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


def has_volume(client: docker.DockerClient) -> bool:
    """Tell whether the data volume is on this machine."""
    try:
        client.volumes.get(VOLUME)
    except NotFound:
        return False
    return True


def prepare_volume(client: docker.DockerClient, base: str) -> bool:
    """Make the data volume and mark it, if empty, as one that may be initialised.

    Postgres refuses an empty volume without the mark: it is one that Docker made
    because the task came to a node where the data isn't. Returns whether the
    volume was made or marked.
    """
    said = client.containers.run(base, ["sh", "-c", MARK], volumes={VOLUME: {"bind": "/v"}},
                                 remove=True, network_mode="none")
    return bool(said)
