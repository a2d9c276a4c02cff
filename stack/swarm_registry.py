"""Run a registry on the Swarm itself, known to its nodes and to nobody else."""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import docker
from docker.errors import NotFound

from stack import certificates, definition
from stack.definition import Stack
from stack.engine import DockerCli
from stack.errors import Refused
from stack.machine import Machine
from stack.progress import Progress, judge
from stack.registry import (
    Registry, check, give_credentials, htpasswd, read_credentials, trust)
from stack.settings import ROOT

STACK = "tally-registry"
SERVICE = f"{STACK}_registry"
STACK_FILE = ROOT / "docker-registry.yml"
USER = "tally"
# Of the one node that has the images.
NODE_LABEL = "registry"
# Of the secrets and configs; its value says what each is.
LABEL = "tally.registry"
HEALTHY_WITHIN = 120.0  # seconds
Credentials = tuple[str, str]


def ensure(client: docker.DockerClient, cli: DockerCli, holder: str, nodes: Sequence[Machine],
           managers: Sequence[Machine], address: str, image: str) -> tuple[Registry, list[str]]:
    """See that a registry runs on the node with the id `holder` and every node can pull from it.

    `cli` works on that node. `address` is its IP address and port as nodes reach it, `image`
    what the registry itself runs, which the node has. Only what differs is changed; what was
    is returned in words. The password reaches the managers before the Swarm, so that
    a run that is broken off leaves none that nobody knows.
    """
    changes = pin(client, holder, cli.machine.name)
    chain, made = keep_certificate(client, address.rpartition(":")[0])
    changes += made
    user, password = find_credentials(client, managers, address)
    registry = Registry(address, user, password, certificate_authority(chain))
    changes += on_each(nodes, lambda machine: trust(machine, registry), "trust")
    changes += on_each(managers, lambda machine: give_credentials(machine, registry),
                       "credentials")
    changes += keep_password(client, registry)
    stack = render(image, chain, registry)
    changes += deploy(client, cli, stack)
    check(client, registry)
    prune(client, {certificate_name(chain), key_name(chain), htpasswd_name(user, password),
                   state_name(stack, service_spec(client))})
    return registry, changes


def pin(client: docker.DockerClient, wanted: str, name: str) -> list[str]:
    """Label the node of this id that keeps the images; refuses to leave them on another."""
    nodes = client.nodes.list()
    labelled = {node.id: node.attrs["Description"]["Hostname"] for node in nodes
                if node.attrs["Spec"].get("Labels", {}).get(NODE_LABEL) == "true"}
    if wanted in labelled and len(labelled) == 1:
        return []
    for hostname in [labelled[node] for node in labelled if node != wanted]:
        raise Refused(f"the registry's images are on {hostname}, not on {name}",
                      f"to begin anew there: docker node update --label-rm {NODE_LABEL} {hostname}")
    node = client.nodes.get(wanted)
    spec = node.attrs["Spec"]
    node.update({**spec, "Labels": {**spec.get("Labels", {}), NODE_LABEL: "true"}})
    return [f"label {NODE_LABEL}=true"]


def keep_certificate(client: docker.DockerClient, ip: str) -> tuple[str, list[str]]:
    """Return the certificate with its CA below, made anew unless the Swarm has one that serves."""
    keys = {secret.name for secret in client.secrets.list(filters={"label": f"{LABEL}=key"})}
    kept = sorted(client.configs.list(filters={"label": f"{LABEL}=certificate"}),
                  key=lambda config: int(config.attrs["Version"]["Index"]), reverse=True)
    for config in kept:
        chain = base64.b64decode(config.attrs["Spec"]["Data"]).decode()
        if key_name(chain) in keys and certificates.serves(chain, ip, datetime.now(UTC)):
            return chain, []
    made = certificates.certificate(ip)
    chain = made.cert + made.ca
    # The key first: a certificate that is there has its key.
    client.secrets.create(name=key_name(chain), data=made.key.encode(), labels={LABEL: "key"})
    client.configs.create(name=certificate_name(chain), data=chain.encode(),
                          labels={LABEL: "certificate"})
    return chain, ["certificate"]


def certificate_authority(chain: str) -> str:
    """Return the last certificate of a chain."""
    _, begin, rest = chain.rpartition("-----BEGIN CERTIFICATE-----")
    return begin + rest


def find_credentials(client: docker.DockerClient, managers: Sequence[Machine],
                     address: str) -> Credentials:
    """Return the user and the password that a manager knows, or new ones.

    If managers disagree, the one is right that the registry lets in.
    """
    with ThreadPoolExecutor(len(managers)) as pool:
        known = [found for found in pool.map(
            lambda machine: read_credentials(machine, address), managers) if found is not None]
    accepted = {secret.name for secret in client.secrets.list(filters={"label": LABEL})}
    usable = [each for each in known if htpasswd_name(*each) in accepted] or known
    return usable[0] if usable else (USER, secrets.token_hex(32))


def keep_password(client: docker.DockerClient, registry: Registry) -> list[str]:
    """Make the secret by which the registry knows the password, unless it is there."""
    name = htpasswd_name(registry.user, registry.password)
    if client.secrets.list(filters={"name": name}):
        return []
    client.secrets.create(name=name, labels={LABEL: "htpasswd"},
                          data=htpasswd(registry.user, registry.password).encode())
    return ["password"]


def certificate_name(chain: str) -> str:
    return f"{STACK}-certificate-{fingerprint(chain)}"


def key_name(chain: str) -> str:
    """Name a key after its certificate: nobody can read it to see whether they fit."""
    return f"{STACK}-key-{fingerprint(chain)}"


def htpasswd_name(user: str, password: str) -> str:
    """Name the htpasswd file after what it holds; of a random password the name tells nothing."""
    return f"{STACK}-htpasswd-{fingerprint(f'{user}:{password}')}"


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def state_name(stack: Stack, spec: dict[str, Any]) -> str:
    """Name what was deployed and what Swarm made of it; a change of either gives another."""
    return f"{STACK}-state-{fingerprint(stack.text() + json.dumps(spec, sort_keys=True))}"


def on_each(machines: Sequence[Machine], change: Callable[[Machine], bool],
            what: str) -> list[str]:
    """Change machines side by side; return in words on which it was necessary."""
    with ThreadPoolExecutor(max_workers=len(machines) or 1) as pool:
        changed = list(pool.map(change, machines))
    names = [machine.name for machine, new in zip(machines, changed) if new]
    return [f"{what} on {', '.join(names)}"] if names else []


def render(image: str, chain: str, registry: Registry) -> Stack:
    """Return the registry's stack with these secrets."""
    return definition.load(STACK_FILE, {
        "REGISTRY_IMAGE": image, "CERTIFICATE": certificate_name(chain), "KEY": key_name(chain),
        "HTPASSWD": htpasswd_name(registry.user, registry.password),
    }, (*definition.SECTIONS, "configs"))


def deploy(client: docker.DockerClient, cli: DockerCli, stack: Stack) -> list[str]:
    """Hand the stack to Swarm and wait until it runs as wanted.

    What is unchanged isn't handed over again: Swarm would count it as an update. Raises
    Refused if it doesn't start.
    """
    before = service_spec(client)
    if before and client.configs.list(filters={"name": state_name(stack, before)}):
        wait(client)
        return []
    # The image is the holder's own; no registry could tell its digest.
    done = cli.stack("deploy", "--compose-file=-", "--resolve-image=never", STACK,
                     stdin=stack.text())
    if not done.ok:
        raise Refused(f"docker stack deploy refused {STACK_FILE.name}: {done.last_line}")
    wait(client)
    after = service_spec(client)
    name = state_name(stack, after)
    if not client.configs.list(filters={"name": name}):
        client.configs.create(name=name, data=b"deployed", labels={LABEL: "state"})
    return [] if after == before else ["service"]


def service_spec(client: docker.DockerClient) -> dict[str, Any]:
    """Return the service as Swarm holds it, or nothing if there is none."""
    try:
        spec: dict[str, Any] = client.api.inspect_service(SERVICE)["Spec"]
    except NotFound:
        return {}
    return spec


def wait(client: docker.DockerClient, timeout: float = HEALTHY_WITHIN) -> None:
    """Wait until the one task is healthy; raises Refused if it can't be, or isn't in time."""
    deadline = time.monotonic() + timeout
    while not (now := look(client)).settled:
        if now.broken or time.monotonic() > deadline:
            raise Refused("the registry doesn't start: "
                          f"{now.broken or f'it is not healthy after {timeout:.0f} s'}",
                          f"docker service ps --no-trunc {SERVICE}")
        time.sleep(0.3)


def look(client: docker.DockerClient) -> Progress:
    """Look at the registry's service, as Swarm has it now."""
    service = client.api.inspect_service(SERVICE)
    tasks = client.api.tasks(filters={"service": service["ID"]})
    return judge(client, "registry", service, tasks)


def prune(client: docker.DockerClient, needed: set[str]) -> None:
    """Remove what earlier certificates and passwords have left."""
    for collection in (client.secrets, client.configs):
        for each in collection.list(filters={"label": LABEL}):
            if each.name not in needed:
                each.remove()
