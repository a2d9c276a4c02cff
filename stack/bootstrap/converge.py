"""Make machines ready to deploy on: Docker, one Swarm of them, secrets, images for all."""

from collections.abc import Sequence

from stack import progress
from stack.bootstrap import (
    docker_group, firewall, inspection, install_docker, join, networks, own_name, stale_interfaces)
from stack.bootstrap.inspection import Look
from stack.bootstrap.join import add_node
from stack.engine.engine import Engine
from stack.errors import Refused, raise_all
from stack.images import base, store
from stack.inventory.settings import Settings
from stack.machines.machine import Machine
from stack.progress import Step, step
from stack.state import lock, releases
from stack.swarm import fleet, membership, nodes, secrets, volume
from stack.swarm.fleet import Fleet, Member


def converge(machines: Fleet, settings: Settings, renew_base: bool = False) -> None:
    """Inspect first, then install, join and create what is missing; safe to run at any time.

    With `renew_base`, also build the base image again.
    """
    looks = inspection.look(machines, settings)
    parts = {look.member: look.membership for look in looks}
    base = join.first_manager(parts)
    if base is None:
        engine = change(machines, looks, None)
        with lock.hold(engine):
            prepare(machines, engine, renew_base)
        return
    # A running deploy must not lose a node or a label.
    with lock.hold(base.engine):
        check_pinned(machines, base.engine)
        engine = change(machines, looks, base)
        prepare(machines, engine, renew_base)


def change(machines: Fleet, looks: Sequence[Look], base: Member | None) -> Engine:
    """Open the firewalls, install Docker and its watch, and make one Swarm.

    Returns the engine of a manager.
    """
    if not machines.local:
        firewall.introduce(machines, looks)
        machines.each("host name", ensure_name)
    found = {look.member: look for look in looks}
    members = machines.members
    machines.each("docker", lambda member, current: ensure_docker(found[member], current, members))
    machines.each("overlay", lambda member, current: ensure_overlay(
        found[member], current, members if machines.several else ()))
    parts = inspection.memberships(looks)
    if not machines.local:
        raise_all(join.complaints(parts))
    return ensure_swarm(machines, base or join.first_manager(parts))


def ensure_name(member: Member, current: Step) -> None:
    """Let a machine find its own name."""
    if name := own_name.ensure(member.machine):
        current.changed(f"{name} is now in /etc/hosts")


def ensure_docker(look: Look, current: Step, members: Sequence[Member] = ()) -> None:
    """Install Docker where there is none, and start it where it isn't running."""
    machine, done = look.member.machine, []
    if not look.installed:
        current.doing("installing it, a minute or so")
        install_docker.install_docker(machine, look.system,
                                      networks.bridge_settings(members))
        done.append("installed")
    if not look.running:
        install_docker.start_docker(machine, look.system)
        done.append("started")
    if done:
        version = look.member.engine.version()
        current.changed(f"{' and '.join(done)}, version {version}")


def ensure_overlay(look: Look, current: Step, members: Sequence[Member] = ()) -> None:
    """Prepare for the networks that several members share.

    Installs the service that removes stale interfaces, where there is systemd.
    """
    done = []
    if look.system.systemd and stale_interfaces.ensure(look.member.machine):
        done.append("now removes stale interfaces")
    if members and (made := networks.ensure_gateway(look.member, members)):
        done.append(made)
    if done:
        current.changed(", ".join(done))


def ensure_swarm(machines: Fleet, base: Member | None) -> Engine:
    """Make one Swarm of the machines, or complete it; return the engine of a manager."""
    with step("swarm") as current:
        if base is None:
            base = machines.managers[0]
            join.begin(base, machines.members)
            current.changed(f"initialized, with {base.name} as its manager")
    for overlap in networks.overlaps(base.engine, machines.members):
        progress.note(str(overlap))
    if machines.several:
        join_all(machines, base.engine)
    return ensure_roles(machines, base.engine)


def join_all(machines: Fleet, engine: Engine) -> None:
    """Join every machine that isn't a node yet: managers in turn, then the workers."""
    known = nodes.all_nodes(engine)
    ids = {node.id for node in known}
    new = [member for member in machines.members if member.membership().node_id not in ids]
    managers = [node.address for node in known if node.manages]

    def join(member: Member, current: Step) -> None:
        add_node(engine, member, managers)
        current.changed(f"joined as a {member.host.role}")
    # Each new manager changes the majority that the next one needs.
    for member in new:
        if member.host.role == "manager":
            machines.each("join", join, [member])
            managers.append(member.private)
    if workers := [member for member in new if member.host.role == "worker"]:
        machines.each("join", join, workers)
    if not new:
        progress.unchanged("join")


def node_ids(machines: Fleet) -> dict[Member, str]:
    """Return the id of each machine's node."""
    return {member: member.membership().node_id
            for member in machines.members}


def ensure_roles(machines: Fleet, engine: Engine) -> Engine:
    """Give every node its role and its labels; return the engine of one that stays a manager."""
    ids = node_ids(machines)
    nodes.wait_ready(engine, ids.values())
    with step("roles") as current:
        # Promotions first: a majority must remain at any time.
        changed = [f"{member.name} is now a manager" for member in machines.managers
                   if nodes.promote(engine, ids[member])]
        engine = machines.managers[0].engine
        changed += [f"{member.name} is now a worker" for member in machines.members
                    if member.host.role == "worker" and nodes.demote(engine, ids[member])]
        if changed:
            current.changed(", ".join(changed))
    with step("labels") as current:
        if changed := [f"{member.name}: {' and '.join(labels)}" for member in ids
                       if (labels := nodes.give_labels(engine, ids[member],
                                                       member.host.labels))]:
            current.changed(", ".join(changed))
    for node in nodes.all_nodes(engine):
        if node.id not in ids.values():
            progress.note(f"{node.hostname} is a node, but not in the inventory: "
                          f"./fab node.remove {node.id[:12]}")
    return engine


def check_pinned(machines: Fleet, engine: Engine) -> None:
    """Refuse to place Postgres or the registry elsewhere than where their volumes are."""
    for label in ("postgres", "registry"):
        wanted = fleet.holder(machines, label)
        for node in nodes.all_nodes(engine):
            if node.has(label) and wanted \
                    and node.address not in {wanted.private, membership.LOOPBACK}:
                raise Refused(
                    f"{label}'s volume is on {node.hostname}, not where the inventory has it",
                    f'give {node.hostname} the label {label}: "true" in the inventory; or, if its '
                    f"volume is lost, start over: docker node update --label-rm {label} {node.id}")


def ensure_base(engine: Engine, builder: Machine, current: Step, renew: bool) -> None:
    """Make the base image on the machine that builds all images, or renew it there."""
    if renew:
        current.doing("building it from today's packages, a minute or so")
        current.changed(base.renew_base(builder))
    elif not engine.images.id(base.BASE):
        current.doing("pulling or building it, a minute or so")
        current.changed(base.make_base(engine, builder))


def prepare(machines: Fleet, engine: Engine, renew_base: bool = False) -> None:
    """Make what a deploy expects of a Swarm: secrets, the base image, the volume, a registry."""
    builder = fleet.builders(machines)[0]
    with step("secrets") as current:
        if made := secrets.make_secrets(engine):
            current.changed("made " + ", ".join(made))
    if machines.several:
        with step("docker group") as current:
            if changed := docker_group.align(machines.managers):
                current.changed(changed)
    with step("base image") as current:
        ensure_base(builder.engine, builder.machine, current, renew_base)
    with step("data volume") as current:
        # Once there was a release, an empty volume is a loss, not a beginning.
        holder = fleet.holder(machines, "postgres")
        if holder and not releases.history(engine) and volume.prepare_volume(holder.machine):
            current.changed("made, empty")
    if machines.inventory and machines.inventory.uses_registry:
        with step("registry") as current:
            if changes := store.ensure(machines, engine, builder, current):
                current.changed(", ".join(changes))
