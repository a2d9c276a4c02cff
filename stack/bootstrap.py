"""Make machines ready to deploy on: Docker, one Swarm of them, secrets, images for all."""

from collections.abc import Sequence

import docker

from stack import (
    console, engine, fleet, groups, images, install, joining, lock, overlay, peers, records,
    store, survey, swarm)
from stack.console import Step, step
from stack.errors import Refused, raise_all
from stack.fleet import Fleet, Member
from stack.privilege import require_root
from stack.settings import Settings, inventory_path
from stack.survey import Look

LOCK = "/run/tally-bootstrap.lock"
# Machines that were made a moment ago may still boot.
BOOTING = 15.0


@engine.in_one_line
def bootstrap(accept_new_host_keys: bool = False) -> None:
    """Change whatever differs from what a deploy needs, and say what that was."""
    if inventory_path() is None:
        require_root("./fab bootstrap")
    console.heading("Bootstrap")
    machines = fleet.reach(accept=accept_new_host_keys, patience=BOOTING)
    settings = Settings.load(machines.inventory)
    with machines.managers[0].machine.exclusively(LOCK):
        converge(machines, settings)


def converge(machines: Fleet, settings: Settings) -> None:
    """Look first, then install, join and make what is missing; safe to run at any time."""
    looks = survey.look(machines, settings)
    parts = {look.member: look.membership for look in looks}
    base = joining.first_manager(parts)
    if base is None:
        client = change(machines, looks, None)
        with lock.hold(client):
            prepare(machines, client)
        return
    # A deploy that is under way is not to lose a node or a label.
    with lock.hold(base.client):
        check_pinned(machines, base.client)
        client = change(machines, looks, base)
        prepare(machines, client)


def change(machines: Fleet, looks: Sequence[Look], base: Member | None) -> docker.DockerClient:
    """Open the firewalls, install Docker and its watch, make one Swarm; return a client of it."""
    if not machines.local:
        peers.introduce(machines, looks)
    found = {look.member: look for look in looks}
    machines.each("docker", lambda member, current: ensure_docker(found[member], current))
    machines.each("overlay", lambda member, current: ensure_overlay(found[member], current))
    parts = survey.memberships(looks)
    if not machines.local:
        raise_all(joining.complaints(parts))
    return ensure_swarm(machines, base or joining.first_manager(parts))


def ensure_docker(look: Look, current: Step) -> None:
    """Install Docker where there is none, and start it where it isn't running."""
    machine, done = look.member.machine, []
    if not look.installed:
        current.doing("installing it, a minute or so")
        install.install_docker(machine, look.system)
        done.append("installed")
    if not look.running:
        install.start_docker(machine, look.system)
        done.append("started")
    if done:
        version = look.member.client.version()["Version"]
        current.changed(f"{' and '.join(done)}, version {version}")


def ensure_overlay(look: Look, current: Step) -> None:
    """Have what Docker loses of its networks removed, where systemd can see to it."""
    if look.system.systemd and overlay.ensure(look.member.machine):
        current.changed("lost interfaces are removed from now on")


def ensure_swarm(machines: Fleet, base: Member | None) -> docker.DockerClient:
    """Make one Swarm of the machines, whatever there is of it; return a client of it."""
    with step("swarm") as current:
        if base is None:
            base = machines.managers[0]
            joining.begin(base)
            current.changed(f"initialised, with {base.name} as its manager")
    if machines.several:
        join_all(machines, base.client)
    return ensure_roles(machines, base.client)


def join_all(machines: Fleet, client: docker.DockerClient) -> None:
    """Let every machine join that isn't a node yet: managers in turn, then the workers."""
    nodes = {node.id for node in client.nodes.list()}
    new = [member for member in machines.members
           if member.membership().node_id not in nodes]
    managers = [str(node.attrs["Status"]["Addr"]) for node in client.nodes.list()
                if "ManagerStatus" in node.attrs]

    def join(member: Member, current: Step) -> None:
        joining.join(client, member, managers)
        current.changed(f"joined as a {member.node.role}")
    # Each new manager changes the majority that the next one needs.
    for member in new:
        if member.node.role == "manager":
            machines.each("join", join, [member])
            managers.append(member.private)
    if workers := [member for member in new if member.node.role == "worker"]:
        machines.each("join", join, workers)
    if not new:
        with step("join"):
            pass


def node_ids(machines: Fleet) -> dict[Member, str]:
    """Return the id of each machine's node."""
    return {member: member.membership().node_id
            for member in machines.members}


def ensure_roles(machines: Fleet, client: docker.DockerClient) -> docker.DockerClient:
    """Give every node its role and its labels; return a client of one that stays a manager."""
    ids = node_ids(machines)
    joining.wait_ready(client, ids.values())
    with step("roles") as current:
        # Promotions first: a majority has to be left at any time.
        changed = [f"{member.name} is now a manager" for member in machines.managers
                   if joining.promote(client, ids[member])]
        client = machines.managers[0].client
        changed += [f"{member.name} is now a worker" for member in machines.members
                    if member.node.role == "worker" and joining.demote(client, ids[member])]
        if changed:
            current.changed(", ".join(changed))
    with step("labels") as current:
        if changed := [f"{member.name}: {' and '.join(labels)}" for member in ids
                       if (labels := joining.give_labels(client, ids[member],
                                                         member.node.labels))]:
            current.changed(", ".join(changed))
    for node in client.nodes.list():
        if node.id not in ids.values():
            console.say(f"  note           {node.attrs['Description']['Hostname']} is a node, but "
                        f"not in the inventory: ./fab node.remove {str(node.id)[:12]}")
    return client


def check_pinned(machines: Fleet, client: docker.DockerClient) -> None:
    """Refuse to place Postgres or the registry elsewhere than where their volumes are."""
    for label in ("postgres", "registry"):
        wanted = fleet.holder(machines, label)
        for node in client.nodes.list():
            held = (node.attrs["Spec"].get("Labels") or {}).get(label) == "true"
            address = node.attrs["Status"].get("Addr")
            if held and wanted and address not in {wanted.private, swarm.LOOPBACK}:
                name = node.attrs["Description"]["Hostname"]
                raise Refused(
                    f"{label}'s volume is on {name}, not where the inventory has it",
                    f'give {name} the label {label}: "true" in the inventory; or, if its volume '
                    f"is lost, begin anew: docker node update --label-rm {label} {node.id}")


def prepare(machines: Fleet, client: docker.DockerClient) -> None:
    """Make what a deploy expects of a Swarm: secrets, the base image, the volume, a registry."""
    builder = fleet.builders(machines)[0]
    with step("secrets") as current:
        if made := swarm.make_secrets(client):
            current.changed("made " + ", ".join(made))
    if machines.several:
        with step("docker group") as current:
            if changed := groups.align(machines.managers):
                current.changed(changed)
    own = builder.client
    with step("base image") as current:
        if not images.image_id(own, images.BASE):
            current.doing("pulling or building it, a minute or so")
            current.changed(images.make_base(own, builder.machine))
    with step("data volume") as current:
        # Once there was a release, an empty volume is a loss, not a beginning.
        holder = fleet.holder(machines, "postgres")
        if holder and not records.history(client) and swarm.prepare_volume(holder.machine):
            current.changed("made, empty")
    if machines.inventory and store.uses_registry(machines.inventory):
        with step("registry") as current:
            if changes := store.ensure(machines, client, builder, current):
                current.changed(", ".join(changes))
