"""Bad input ends with one clear line and exit code 1, and changes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.site import Site, lines
from tests.lab import Machine

pytestmark = pytest.mark.lab


@contextmanager
def nothing_changed(site: Site) -> Iterator[None]:
    """Check that tasks, services, secrets, configs, images and volumes stay the same.

    Tasks that are still stopping after an earlier test don't count.
    """
    def state() -> str:
        return site.sh(
            "docker service ls --format '{{.Name}} {{.Image}}' | sort; "
            "docker stack ps tally --quiet --no-trunc --filter desired-state=running | sort; "
            "docker secret ls --quiet | sort; "
            "docker config ls --quiet | sort; docker images --quiet | sort; "
            "docker volume ls --quiet | sort")
    before = state()
    yield
    assert state() == before


def refusal(site: Site, arguments: str, env: str = "") -> str:
    """Run a command that must be refused; return its error message."""
    with nothing_changed(site):
        done = site.fab(arguments, env=env)
    assert done.code == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    said = lines(done)
    assert len(said) == 1, said
    return said[0]


def test_a_malformed_version(edited: Site) -> None:
    edited.sh("echo 1.2.x > version.txt")
    assert refusal(edited, "deploy") == (
        "version.txt: '1.2.x' isn't a version: it should be MAJOR.MINOR.PATCH, such as 1.4.0")


@pytest.mark.parametrize("path", ["app/templates/page.html", "Dockerfile",
                                  "stack/images/postgres/Dockerfile"])
def test_a_missing_file(edited: Site, path: str) -> None:
    edited.sh(f"rm {path}")
    assert refusal(edited, "deploy") == (
        f"{path} is missing: restore it with: git checkout -- {path}")


def test_a_stack_file_that_does_not_parse(edited: Site) -> None:
    edited.replace("docker-stack.yml", "    networks: [edge, control]", "    networks: [edge")
    number = int(edited.sh("grep --line-number 'networks: .edge$' docker-stack.yml").split(":")[0])
    said = refusal(edited, "deploy")
    assert said.startswith("docker-stack.yml, line ")
    assert abs(int(said.split("line ")[1].split(":")[0]) - number) <= 1


@pytest.mark.parametrize(("new", "path"), [
    ("    privileged: true\n    networks: [edge, control]",
     "Ignoring unsupported options: privileged"),
    ("    netwroks: [edge]\n    networks: [edge, control]", "netwroks"),
    ("    networks: [edge, nowhere]",
     "services.traefik.networks: nowhere isn't declared")])
def test_a_stack_file_with_a_wrong_key(edited: Site, new: str, path: str) -> None:
    edited.replace("docker-stack.yml", "    networks: [edge, control]", new)
    assert path in refusal(edited, "deploy")


@pytest.mark.parametrize(("env", "said"), [
    ("HTTP_PORT=web", "HTTP_PORT='web': it should be a number from 1 to 65535"),
    ("HTTPS_PORT=80", "HTTP_PORT and HTTPS_PORT are both 80: choose two different ports"),
    ("APP_REPLICAS=0", "APP_REPLICAS='0': it should be a number from 1 to 100"),
    ("USER_URL=javascript:alert(1)",
     "USER_URL='javascript:alert(1)': it should start with http:// or https://"),
    ("USER_NAME={{.Node.Hostname}}",
     "USER_NAME='{{.Node.Hostname}}': Swarm would fill in {{…}}: write it without"),
    ("BUILD_NUMBER=seven", "BUILD_NUMBER='seven': it should be a number")])
def test_an_invalid_setting(site: Site, env: str, said: str) -> None:
    assert refusal(site, "deploy", env=f"env '{env}'") == said


def test_a_full_disk(site: Site, machine: Machine) -> None:
    machine.fill_disk(leave_bytes=500 * 1024 * 1024)
    try:
        said = refusal(site, "deploy")
    finally:
        machine.free_disk()
    assert said.startswith(
        "/var/lib/docker on this machine has 0.5 GiB free, at least 1 GiB are needed")


def test_a_task_or_service_that_does_not_exist(site: Site) -> None:
    assert "there is no service 'mail'" in refusal(site, "logs --service mail")


def test_destroy_without_a_terminal_and_without_yes(site: Site) -> None:
    assert refusal(site, "destroy --data") == "nothing was removed: confirm with y, or pass --yes"


def test_a_checkout_without_git(site: Site) -> None:
    site.sh("mv .git /root/hidden")
    try:
        said = refusal(site, "deploy")
    finally:
        site.sh("mv /root/hidden .git")
    assert "isn't a git checkout" in said
