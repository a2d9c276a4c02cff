"""Nothing calls the docker command but stack/machines/docker_command.py."""

import pytest

from tests.files.docker_calls import SHELL, calls
from tests.files.tree import ROOT, python_files, shell_files

pytestmark = pytest.mark.style

ONLY = "stack/machines/docker_command.py"


def test_each_call_reaches_the_machines_own_engine() -> None:
    found = [f"{name}:{call}" for name in python_files()
             if name.startswith(("stack/", "fab")) and name != ONLY
             for call in calls((ROOT / name).read_text())]

    assert found == []


def test_no_script_and_no_machines_file_calls_it() -> None:
    names = [name for name in shell_files() if name.startswith("stack/")]

    for name in (*names, "cloud-init/user-data.yml"):
        assert not SHELL.search((ROOT / name).read_text()), name


@pytest.mark.parametrize("source", [
    'machine.run(["docker", "ps"])', 'RUN = ("docker", "run")', 'run(["docker", *words])',
    'become(f"{sudo}docker exec {name}")', 'REMOVE = "docker image rm $1"\nrun(REMOVE)'])
def test_a_call_is_found(source: str) -> None:
    assert len(calls(source)) == 1


@pytest.mark.parametrize("source", [
    'raise Refused("it is gone", "docker node ls")', 'WANTED = ("docker.io", "docker-cli")',
    'name.startswith(("docker", "br-"))', '"""Run `docker push`."""',
    'REMOVE = "docker image rm $1"\ndocker_command.script(machine, REMOVE)'])
def test_what_calls_nothing_isnt(source: str) -> None:
    assert calls(source) == []
