"""Run a registry on the Swarm itself, for its nodes only."""

import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from stack import waiting
from stack.engine.cli import DockerCli
from stack.engine.engine import Engine
from stack.engine.failures import Missing
from stack.errors import Refused
from stack.images import certificate
from stack.images.registry_access import (
    RegistryAccess, check, give_credentials, htpasswd, read_credentials, trust)
from stack.inventory.settings import ROOT
from stack.machines.machine import Machine
from stack.swarm import services, stackfile
from stack.swarm.nodes import add_label, all_nodes
from stack.swarm.service_state import Progress, judge
from stack.swarm.stackfile import Stack
from stack.swarm.tasks import find_tasks

STACK = "tally-registry"
SERVICE = f"{STACK}_registry"
STACK_FILE = ROOT / "docker-registry.yml"
USER = "tally"
# The label of the node that stores the images.
NODE_LABEL = "registry"
# The label of the registry's secrets and configs; its value is their kind.
LABEL = "tally.registry"
HEALTHY_WITHIN = 120.0  # seconds
Login = tuple[str, str]


def ensure(engine: Engine, cli: DockerCli, holder: str, nodes: Sequence[Machine],
           managers: Sequence[Machine], address: str, image: str
           ) -> tuple[RegistryAccess, list[str]]:
    """Ensure that a registry runs on the node with the id `holder` and all nodes can pull from it.

    `cli` works on that node. `address` is the IP address and port at which nodes reach it;
    `image` is the registry's own image, already on the node. Changes only what differs and
    returns the changes in words. The managers get the password before the Swarm does, so that
    an interrupted run never leaves a password that no manager knows.
    """
    changes = pin(engine, holder, cli.machine.name)
    chain, made = keep_certificate(engine, address.rpartition(":")[0])
    changes += made
    user, password = find_credentials(engine, managers, address)
    registry = RegistryAccess(address, user, password, certificate_authority(chain))
    changes += on_each(nodes, lambda machine: trust(machine, registry), "trust")
    changes += on_each(managers, lambda machine: give_credentials(machine, registry),
                       "credentials")
    changes += keep_password(engine, registry)
    stack = render(image, chain, registry)
    changes += deploy(engine, cli, stack)
    check(engine, registry)
    prune(engine, {certificate_name(chain), key_name(chain), htpasswd_name(user, password),
                   state_name(stack, service_spec(engine))})
    return registry, changes


def pin(engine: Engine, wanted: str, name: str) -> list[str]:
    """Label the node that stores the images; raises Refused if another one has them."""
    labelled = {node.id: node.hostname for node in all_nodes(engine) if node.has(NODE_LABEL)}
    if wanted in labelled and len(labelled) == 1:
        return []
    for hostname in [labelled[node] for node in labelled if node != wanted]:
        raise Refused(f"the registry's images are on {hostname}, not on {name}",
                      f"to start over there: docker node update --label-rm {NODE_LABEL} {hostname}")
    add_label(engine, wanted, name, NODE_LABEL)
    return [f"label {NODE_LABEL}=true"]


def keep_certificate(engine: Engine, ip: str) -> tuple[str, list[str]]:
    """Return the certificate with its CA below; makes one unless the Swarm has a valid one."""
    keys = {secret.name for secret in engine.secrets.list(f"{LABEL}=key")}
    kept = sorted(engine.configs.list(f"{LABEL}=certificate"),
                  key=lambda config: config.version, reverse=True)
    for config in kept:
        chain = config.data.decode()
        if key_name(chain) in keys and certificate.serves(chain, ip, datetime.now(UTC)):
            return chain, []
    made = certificate.certificate(ip)
    chain = made.cert + made.ca
    # The key first: every certificate has its key.
    engine.secrets.create(key_name(chain), made.key.encode(), {LABEL: "key"})
    engine.configs.create(certificate_name(chain), chain.encode(), {LABEL: "certificate"})
    return chain, ["certificate"]


def certificate_authority(chain: str) -> str:
    """Return the last certificate of a chain."""
    _, begin, rest = chain.rpartition("-----BEGIN CERTIFICATE-----")
    return begin + rest


def find_credentials(engine: Engine, managers: Sequence[Machine],
                     address: str) -> Login:
    """Return the user and password that a manager has, or new ones.

    If managers disagree, the credentials that the registry accepts win.
    """
    with ThreadPoolExecutor(len(managers)) as pool:
        known = [found for found in pool.map(
            lambda machine: read_credentials(machine, address), managers) if found is not None]
    accepted = {secret.name for secret in engine.secrets.list(LABEL)}
    usable = [each for each in known if htpasswd_name(*each) in accepted] or known
    return usable[0] if usable else (USER, secrets.token_hex(32))


def keep_password(engine: Engine, registry: RegistryAccess) -> list[str]:
    """Make the secret with the registry's htpasswd file, unless it exists."""
    name = htpasswd_name(registry.user, registry.password)
    if engine.secrets.named(name):
        return []
    engine.secrets.create(name, htpasswd(registry.user, registry.password).encode(),
                          {LABEL: "htpasswd"})
    return ["password"]


def certificate_name(chain: str) -> str:
    return f"{STACK}-certificate-{fingerprint(chain)}"


def key_name(chain: str) -> str:
    """Name a key after its certificate: a secret can't be read to compare them."""
    return f"{STACK}-key-{fingerprint(chain)}"


def htpasswd_name(user: str, password: str) -> str:
    """Name the htpasswd file by its content; a random password's hash reveals nothing."""
    return f"{STACK}-htpasswd-{fingerprint(f'{user}:{password}')}"


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def state_name(stack: Stack, spec: dict[str, Any]) -> str:
    """Name the state by the deployed stack and Swarm's spec; a change of either changes it."""
    return f"{STACK}-state-{fingerprint(stack.text() + json.dumps(spec, sort_keys=True))}"


def on_each(machines: Sequence[Machine], change: Callable[[Machine], bool],
            what: str) -> list[str]:
    """Change machines in parallel; return in words which of them changed."""
    with ThreadPoolExecutor(max_workers=len(machines) or 1) as pool:
        changed = list(pool.map(change, machines))
    names = [machine.name for machine, new in zip(machines, changed) if new]
    return [f"{what} on {', '.join(names)}"] if names else []


def render(image: str, chain: str, registry: RegistryAccess) -> Stack:
    """Return the registry's stack with these secrets."""
    return stackfile.load(STACK_FILE, {
        "REGISTRY_IMAGE": image, "CERTIFICATE": certificate_name(chain), "KEY": key_name(chain),
        "HTPASSWD": htpasswd_name(registry.user, registry.password),
    }, (*stackfile.SECTIONS, "configs"))


def deploy(engine: Engine, cli: DockerCli, stack: Stack) -> list[str]:
    """Deploy the stack and wait until it is healthy.

    An unchanged stack isn't deployed again: Swarm would count it as an update. Raises
    Refused if it doesn't start.
    """
    before = service_spec(engine)
    if before and engine.configs.named(state_name(stack, before)):
        wait(engine)
        return []
    # The image is local to the holder; no registry knows its digest.
    done = cli.stack("deploy", "--compose-file=-", "--resolve-image=never", STACK,
                     stdin=stack.text())
    if not done.ok:
        raise Refused(f"docker stack deploy refused {STACK_FILE.name}: {done.last_line}")
    wait(engine)
    after = service_spec(engine)
    name = state_name(stack, after)
    if not engine.configs.named(name):
        engine.configs.create(name, b"deployed", {LABEL: "state"})
    return [] if after == before else ["service"]


def service_spec(engine: Engine) -> dict[str, Any]:
    """Return the service's spec in Swarm, or {} if there is none."""
    try:
        return services.inspect(engine, SERVICE).definition
    except Missing:
        return {}


def wait(engine: Engine, timeout: float = HEALTHY_WITHIN) -> None:
    """Wait until the task is healthy; raises Refused on failure or timeout."""
    now = waiting.until(lambda: look(engine), timeout,
                        done=lambda now: now.settled or bool(now.broken))
    if not now.settled:
        raise Refused("the registry did not start: "
                      f"{now.broken or f'not healthy after {timeout:.0f} s'}",
                      f"docker service ps --no-trunc {SERVICE}")


def look(engine: Engine) -> Progress:
    """Return the current state of the registry's service."""
    service = services.inspect(engine, SERVICE)
    return judge(engine, "registry", service, find_tasks(engine, {"service": service.id}))


def prune(engine: Engine, needed: set[str]) -> None:
    """Remove the secrets and configs of earlier certificates and passwords."""
    for kept in (engine.secrets, engine.configs):
        for each in kept.list(LABEL):
            if each.name not in needed:
                kept.remove(each.id)
