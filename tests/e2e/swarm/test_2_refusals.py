"""Bad input ends with exit code 1 and one line per cause, and changes no machine."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.cluster import entry, nothing_changed
from tests.e2e.laptop import Laptop, NodeEntry
from tests.e2e.site import lines
from tests.lab import Lab, LabError, Machine
from tests.lab.seed import default_user_data

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"
# Drops VXLAN packets between nodes, and nothing else.
NO_VXLAN = """
nft 'table inet cut { chain arriving {
    type filter hook input priority 0; udp dport 4789 drop; }; }'
"""


@pytest.fixture(scope="module")
def failed(lab: Lab, swarm: list[Machine]) -> Iterator[Machine]:
    """A machine without Docker whose first boot failed."""
    data = default_user_data(lab.public_key).rstrip("}\n") + ', "runcmd": [["false"]]}'
    with pytest.raises(LabError, match="cloud-init on frida"):
        lab.boot(user_data=data, names=["frida"])
    frida = next(machine for machine in lab.machines if machine.name == "frida")
    yield frida
    lab.discard(frida)


@pytest.fixture(scope="module")
def plain(failed: Machine) -> Machine:
    """The same machine after a reboot, when cloud-init had nothing to do."""
    failed.power_off()
    failed.boot()
    return failed


@contextmanager
def changed(machine: Machine, change: str, undo: str) -> Iterator[None]:
    """Change a machine during the block."""
    machine.console(change)
    try:
        yield
    finally:
        machine.console(undo)


def refusal(laptop: Laptop, machines: list[Machine], *further: NodeEntry,
            flags: str = "") -> set[str]:
    """Run a bootstrap that must be refused; return the lines of its error message."""
    laptop.choose([*(entry(machine) for machine in machines[:3]),
                   *(entry(machine, "worker") for machine in machines[3:]), *further])
    with nothing_changed(machines):
        done = laptop.fab(f"bootstrap {flags}")
    assert done.code == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    said = lines(done)
    assert len(set(said)) == len(said)
    return set(said)


def fingerprint(machine: Machine) -> str:
    """Return the fingerprint of the machine's host key, as read on the machine."""
    return machine.console(f"ssh-keygen -l -f {HOST_KEY}").stdout.split()[1]


def forget(laptop: Laptop, machine: Machine) -> None:
    """Remove a machine's host key from the laptop."""
    known = laptop.known_hosts.read_text().splitlines(keepends=True)
    laptop.known_hosts.write_text("".join(
        line for line in known if line.split()[0] != machine.address))


def confuse(laptop: Laptop, machine: Machine, other: Machine) -> None:
    """Pin another machine's host key for this one on the laptop."""
    key = other.console(f"cut --delimiter=' ' --fields=1,2 {HOST_KEY}").stdout
    forget(laptop, machine)
    with laptop.known_hosts.open("a") as known:
        known.write(f"{machine.address} {key}")


def no_key(machine: Machine) -> str:
    return (f"{machine.address}: deploy@{machine.address}:22 accepts none of the keys from the "
            f"inventory, the agent and ~/.ssh: try: ssh -p 22 deploy@{machine.address}")


def unknown(machine: Machine) -> str:
    return (f"{machine.address}: its host key ssh-ed25519 {fingerprint(machine)} isn't known "
            "here: compare it with the machine's own; then answer y on a terminal, or say "
            "--accept-new-host-keys")


def mistaken(laptop: Laptop, machine: Machine, other: Machine) -> str:
    return (f"{machine.address}: its host key has changed from ssh-ed25519 {fingerprint(other)} "
            f"to ssh-ed25519 {fingerprint(machine)}, so this may be another machine: if it was "
            f"rebuilt: ssh-keygen -R '{machine.address}' -f {laptop.known_hosts}; else find out "
            "who answers there")


def no_sudo(machine: Machine) -> str:
    return (f"{machine.address}: deploy can't become root there (sudo: a password is required): "
            "let deploy run sudo without a password, as cloud-init's user may")


NO_KEY = ("mv /home/deploy/.ssh/authorized_keys /home/deploy/.ssh/away",
          "mv /home/deploy/.ssh/away /home/deploy/.ssh/authorized_keys")
SUDO_ASKS = ("mv /etc/sudoers.d /etc/away && mkdir /etc/sudoers.d && "
             "echo 'deploy ALL=(ALL) ALL' > /etc/sudoers.d/deploy",
             "rm -r /etc/sudoers.d && mv /etc/away /etc/sudoers.d")


def test_a_key_that_a_machine_rejects(laptop: Laptop, chosen: list[Machine]) -> None:
    with changed(chosen[1], *NO_KEY):
        assert refusal(laptop, chosen) == {no_key(chosen[1])}


def test_a_machine_whose_host_key_is_unknown(laptop: Laptop, chosen: list[Machine]) -> None:
    forget(laptop, chosen[2])
    assert refusal(laptop, chosen) == {unknown(chosen[2])}


def test_a_machine_whose_host_key_has_changed(laptop: Laptop, chosen: list[Machine]) -> None:
    confuse(laptop, chosen[0], chosen[1])
    assert refusal(laptop, chosen, flags="--accept-new-host-keys") \
        == {mistaken(laptop, chosen[0], chosen[1])}


def test_a_sudo_that_asks_for_a_password(laptop: Laptop, chosen: list[Machine]) -> None:
    with changed(chosen[0], *SUDO_ASKS):
        assert refusal(laptop, chosen) == {no_sudo(chosen[0])}


def test_all_of_these_and_a_machine_that_is_off_are_reported_together(
        laptop: Laptop, chosen: list[Machine], spare: list[Machine]) -> None:
    anna, berta, carla = chosen
    dora, emma = spare
    for machine in (dora, emma):
        learn(laptop, machine)
    confuse(laptop, carla, anna)
    forget(laptop, berta)
    with changed(anna, *SUDO_ASKS), changed(emma, *NO_KEY):
        expected = {no_sudo(anna), unknown(berta), mistaken(laptop, carla, anna), no_key(emma)}
        dora.cut_network()
        try:
            said = refusal(laptop, [*chosen, *spare])
        finally:
            dora.restore_network()

    lost, = said - expected
    assert said > expected
    assert lost.startswith(f"{dora.address}: no ")
    assert lost.endswith(f": try: ssh -p 22 deploy@{dora.address}")


def learn(laptop: Laptop, machine: Machine) -> None:
    """Pin a machine's host key on the laptop."""
    confuse(laptop, machine, machine)


def test_a_machine_on_which_cloud_init_failed(
        laptop: Laptop, chosen: list[Machine], failed: Machine) -> None:
    learn(laptop, failed)
    assert refusal(laptop, [*chosen, failed]) == {
        f"cloud-init on {failed.address} failed: ('scripts-user', RuntimeError('Runparts: 1 "
        "failures (runcmd) in 1 attempted commands')): see /var/log/cloud-init-output.log on it"}


def test_an_unsupported_system_without_docker_and_a_full_disk(
        laptop: Laptop, chosen: list[Machine], spare: list[Machine], plain: Machine) -> None:
    for machine in (spare[0], plain):
        learn(laptop, machine)
    spare[0].fill_disk(leave_bytes=500 * 1024 * 1024)
    other = ("mv /etc/os-release /etc/away && "
             "printf 'ID=slackware\\nPRETTY_NAME=\"Slackware 15.0\"\\n' > /etc/os-release")
    try:
        with changed(plain, other, "mv /etc/away /etc/os-release"):
            said = refusal(laptop, [*chosen, spare[0], plain])
    finally:
        spare[0].free_disk()

    assert said == {
        f"Docker isn't installed on {plain.address}, and Slackware 15.0 isn't Debian 12, Debian "
        "13 or Ubuntu 24.04: install Docker 20.10 or newer, then ./fab bootstrap",
        f"/var/lib/docker on {spare[0].address} has 0.5 GiB free, at least 1 GiB are needed: "
        "make room, with docker system prune for example"}


def test_clocks_that_are_wrong(laptop: Laptop, chosen: list[Machine], spare: list[Machine]) -> None:
    for machine in spare:
        learn(laptop, machine)
    chosen[1].fake_clock(3600)
    spare[0].fake_clock(-90)
    try:
        said = refusal(laptop, [*chosen, *spare])
    finally:
        chosen[1].real_clock()
        spare[0].real_clock()

    assert said == {f"{chosen[1].address}: its clock is 60 min ahead: see timedatectl on it",
                    f"{spare[0].address}: its clock is 90 s behind: see timedatectl on it"}


def test_a_manager_of_another_swarm(
        laptop: Laptop, chosen: list[Machine], spare: list[Machine]) -> None:
    learn(laptop, spare[0])
    with changed(spare[0], f"docker swarm init --advertise-addr={spare[0].address}",
                 "docker swarm leave --force"):
        assert refusal(laptop, [*chosen, spare[0]]) == {
            f"{spare[0].address} belongs to another Swarm than {chosen[0].address}: run on the "
            "one that is wrong: docker swarm leave --force"}


def test_a_worker_of_another_swarm(
        laptop: Laptop, chosen: list[Machine], spare: list[Machine]) -> None:
    dora, emma = spare
    learn(laptop, emma)
    begin = (f"docker swarm init --advertise-addr={dora.address} && "
             f"nft add element inet tally peers4 {{ {emma.address} }}")
    with changed(dora, begin, "docker swarm leave --force; /usr/local/sbin/tally-peers"):
        token = dora.console("docker swarm join-token --quiet worker").stdout.strip()
        # It has joined once it has the network ingress.
        join = (f"docker swarm join --token={token} {dora.address}:2377 && "
                "until docker network inspect ingress > /dev/null 2>&1; do sleep 0.1; done")
        with changed(emma, join, "docker swarm leave"):
            said = refusal(laptop, [*chosen, emma])

    assert said == {f"{emma.address} belongs to another Swarm: run on it: docker swarm leave, "
                    "then ./fab bootstrap"}


def test_private_addresses_that_cannot_reach_each_other_on_a_port(
        laptop: Laptop, chosen: list[Machine], spare: list[Machine]) -> None:
    learn(laptop, spare[0])
    with changed(spare[0], NO_VXLAN, "nft delete table inet cut"):
        assert refusal(laptop, [*chosen, spare[0]]) == {
            f"no other machine can reach {spare[0].address} on udp/4789"}


def test_an_inventory_with_a_mistake(laptop: Laptop, chosen: list[Machine]) -> None:
    assert refusal(laptop, chosen[:2], {**entry(chosen[2]), "role": "mangaer"}) == {
        'inventory.yml: nodes[2].role: should be manager or worker, not "mangaer"'}
