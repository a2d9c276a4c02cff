"""Every image has the same base, locked packages and an unprivileged user."""

import re

import pytest

from tests.files.dockerfile import Instruction, instructions, last_stage
from tests.files.tree import ROOT, dockerfiles, installed, must_pass

pytestmark = [pytest.mark.style, pytest.mark.parametrize("name", dockerfiles())]


def every(kind: str, name: str) -> list[Instruction]:
    return [each for each in instructions(ROOT / name) if each.name == kind]


def test_hadolint_finds_nothing(name: str) -> None:
    must_pass(installed("hadolint"), "--no-color", name)


def test_every_stage_has_the_same_base(name: str) -> None:
    stages = [each.words for each in every("FROM", name)]
    named = {words[2] for words in stages if len(words) == 3}

    assert instructions(ROOT / name)[0] == Instruction("ARG", "BASE=debian:trixie-slim")
    assert stages
    assert {words[0] for words in stages} <= {"${BASE}"} | named


def test_pip_installs_only_what_is_locked_by_hash(name: str) -> None:
    installing = re.compile(r"\bpip\b.* install\b(?!.*--require-hashes)")

    assert [each for each in every("RUN", name) if installing.search(each.value)] == []


def test_the_image_runs_as_a_fixed_unprivileged_user(name: str) -> None:
    user = last_stage(ROOT / name)["USER"].value

    assert re.fullmatch(r"[1-9][0-9]{4}(:[1-9][0-9]{4})?", user)


def test_docker_starts_the_server_without_a_shell(name: str) -> None:
    stage = last_stage(ROOT / name)

    assert stage["CMD"].is_exec_form
    assert "ENTRYPOINT" not in stage or stage["ENTRYPOINT"].is_exec_form
