"""The main job as a user with sudo, on a machine that isn't ready yet."""

import time

import pytest

from tests.e2e.site import Page, Site, lines
from tests.lab import Machine, Result

pytestmark = pytest.mark.lab

Colleague = tuple[Machine, Site]


def docker_is_there(machine: Machine) -> bool:
    return machine.run("command -v dockerd", check=False).code == 0


def bootstrap_without_network(machine: Machine) -> Result:
    """Run ./fab bootstrap as the colleague while the machine's cable is out."""
    machine.cut_network()
    try:
        return machine.console("cd /home/deploy/tally && runuser -u deploy ./fab bootstrap",
                               check=False)
    finally:
        machine.restore_network()


def test_without_a_package_source_fab_says_what_is_missing(colleague: Colleague) -> None:
    machine, _ = colleague
    done = bootstrap_without_network(machine)
    assert done.code == 1
    assert done.stderr.splitlines()[-1].startswith("fab: python3-venv could not be installed")


def test_a_taken_port_is_refused_with_its_process(colleague: Colleague) -> None:
    machine, site = colleague
    machine.run("systemd-run --unit=squatter python3 -m http.server 80")
    deadline = time.monotonic() + 10
    while "squat" not in (said := site.fab("bootstrap").stderr) and time.monotonic() < deadline:
        if "port 80" in said:
            break
    machine.run("systemctl stop squatter")
    assert "port 80 of this machine is taken by python3 (pid " in said
    assert "stop it, or choose another: echo HTTP_PORT=8080 >> .env" in said
    assert not docker_is_there(machine)


def test_without_a_package_source_bootstrap_changes_nothing(colleague: Colleague) -> None:
    machine, _ = colleague
    done = bootstrap_without_network(machine)
    assert done.code == 1
    assert done.stderr.splitlines()[-1].startswith("no package source answers")
    assert not docker_is_there(machine)


def test_too_little_disk_is_refused(colleague: Colleague) -> None:
    machine, site = colleague
    machine.fill_disk(leave_bytes=2 * 1024 ** 3)
    try:
        done = site.fab("bootstrap")
    finally:
        machine.free_disk()
    assert done.code == 1
    assert lines(done)[-1].startswith(
        "/var/lib/docker on this machine has 2.0 GiB free, at least 3 GiB are needed")
    assert not docker_is_there(machine)


def test_without_sudo_nothing_is_attempted(colleague: Colleague) -> None:
    machine, site = colleague
    machine.run("mv /usr/bin/sudo /usr/bin/hidden")
    try:
        done = site.fab("bootstrap")
    finally:
        machine.run("mv /usr/bin/hidden /usr/bin/sudo")
    assert done.code == 1
    assert lines(done) == ["./fab bootstrap needs root, and there is no sudo: "
                           "run the same command as root"]


def test_a_sudo_that_asks_for_a_password_is_refused_without_a_terminal(
        colleague: Colleague) -> None:
    machine, site = colleague
    machine.run("mv /etc/sudoers.d /etc/sudoers.hidden && mkdir /etc/sudoers.d && "
                "usermod --append --groups sudo deploy")
    try:
        done = site.fab("bootstrap")
    finally:
        machine.run("rmdir /etc/sudoers.d && mv /etc/sudoers.hidden /etc/sudoers.d")
    assert done.code == 1
    assert "sudo asks for a password" in lines(done)[-1]


def test_bootstrap_deploy_as_a_user_with_sudo(colleague: Colleague, address: str) -> None:
    machine, site = colleague
    done = site.fab("bootstrap deploy", env="USER_NAME='Ada & Çö ☃' USER_URL=https://example.org/")
    assert done.code == 0, done.stdout + done.stderr
    assert site.visit(address) == Page(1, 1)
    assert site.visit(address) == Page(2, 1)
    text = site.ask("/", source=address).text
    assert "Ada &amp; Çö ☃" in text and 'href="https://example.org/"' in text


def test_the_checkout_still_belongs_to_its_owner(colleague: Colleague) -> None:
    machine, _ = colleague
    assert machine.run("find /home/deploy/tally ! -user deploy").stdout == ""


def test_the_developers_environment_serves_edited_files(colleague: Colleague) -> None:
    machine, site = colleague
    machine.run("DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes "
                "--no-install-recommends docker-compose")
    compose = ("sudo env BASE=localhost:1/tally/base:trixie "
               "CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt docker-compose")
    try:
        site.sh(f"{compose} up --build --detach --quiet-pull 2>&1")
        page = site.sh("for i in $(seq 60); do curl --silent --fail http://localhost:8000/ && "
                       "exit 0; sleep 1; done; exit 1")
        assert "You have visited this page 1 time. Total visitors: 1" in page
        site.replace("app/templates/base.html", "</main>", "<p>Edited</p></main>")
        edited = site.sh("sleep 2; curl --silent --fail http://localhost:8000/")
        assert "<p>Edited</p>" in edited
        assert "You have visited this page 2 times" in edited
    finally:
        gone = site.sh(f"{compose} down --volumes 2>&1")
        site.restore_files()
    assert "tally-dev" not in machine.run("docker ps --all; docker volume ls").stdout, gone
    assert machine.run("find /home/deploy/tally ! -user deploy").stdout == ""


def test_a_worker_of_another_swarm_is_refused(colleague: Colleague, machine: Machine) -> None:
    mine, site = colleague
    site.fab("destroy --data --yes")
    mine.run("docker swarm leave --force")
    machine.run("docker swarm leave --force")
    machine.run(f"docker swarm init --advertise-addr {machine.address}")
    token = machine.run("docker swarm join-token --quiet worker").stdout.strip()
    mine.run(f"docker swarm join --token {token} {machine.address}:2377")
    for command in ("bootstrap", "deploy"):
        done = site.fab(command)
        assert done.code == 1
        assert lines(done)[-1].startswith("this machine is a worker in a Swarm that another")
