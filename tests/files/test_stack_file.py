"""docker-stack.yml is valid for Docker, which reads it like ./fab."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from stack.engine.cli import DockerCli
from stack.machines.local import LocalMachine
from stack.swarm.stackfile import Stack
from tests.files.sample import STACK_FILE, VARIABLES
from tests.files.tree import must_suit

pytestmark = pytest.mark.style

FIRST_WITH_CONFIG = 23  # the Docker command's version that has `docker stack config`


@pytest.fixture(scope="module")
def docker() -> str:
    """A docker command that can validate a stack file, without an engine."""
    for command in DockerCli(LocalMachine()).commands:
        said = LocalMachine().must([command, "--version"])
        if int(re.findall(r"[0-9]+", said)[0]) >= FIRST_WITH_CONFIG:
            return command
    pytest.fail("no docker command here is version 23 or newer: install docker-cli of Debian 13, "
                "docker.io of Ubuntu 24.04, or Docker's static client before it on PATH")


def test_it_and_the_migration_job_are_valid_by_the_compose_schema(
        stack: Stack, tmp_path: Path) -> None:
    services = {**stack.services, "migrate": stack.migrate}
    rendered = tmp_path / "docker-stack.yml"
    rendered.write_text(Stack({**stack.content, "services": services}).text())

    must_suit("compose-spec", rendered)


def test_docker_reads_what_a_deploy_renders(stack: Stack, docker: str) -> None:
    variables = {name: str(value) for name, value in VARIABLES.items()}
    command = [docker, "stack", "config", "--compose-file"]
    itself = subprocess.run([*command, str(STACK_FILE)], env={**os.environ, **variables},
                            capture_output=True, text=True)
    rendered = subprocess.run([*command, "-"], input=stack.text(), capture_output=True, text=True)

    assert (rendered.stderr, rendered.returncode) == ("", 0)
    assert (itself.stderr, itself.stdout) == ("", rendered.stdout)
