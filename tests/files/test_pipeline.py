""".gitlab-ci.yml is valid, and each job is one command that people can run too."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.files.commands import in_shell, parse
from tests.files.gitlab_rules import jobs_of
from tests.files.tree import ROOT, must_suit

pytestmark = pytest.mark.style

PIPELINE = ROOT / ".gitlab-ci.yml"
# Top-level keys that aren't jobs (https://docs.gitlab.com/ci/yaml/#global-keywords).
GLOBAL = {"default", "include", "stages", "variables", "workflow", "spec"}
Job = dict[str, Any]
TESTS = ("check", "test")
ALL = (*TESTS, "build", "deploy", "rollback")


@dataclass(frozen=True)
class Kind:
    """One kind of pipeline, by its name in docs/pipeline.md, and the jobs that it should have."""

    name: str
    jobs: tuple[str, ...]
    given: Mapping[str, str]

    @property
    def variables(self) -> dict[str, str]:
        """What GitLab gives it; an empty value is a variable that isn't there."""
        every = {"CI_DEFAULT_BRANCH": "main", "CI_PIPELINE_SOURCE": "push",
                 "SITE_URL": "https://tally.example.org", **self.given}
        return {name: value for name, value in every.items() if value}


def on_branch(name: str, source: str = "push", **more: str) -> dict[str, str]:
    return {"CI_COMMIT_BRANCH": name, "CI_PIPELINE_SOURCE": source, **more}


OPEN = {"CI_OPEN_MERGE_REQUESTS": "group/tally!7"}
# https://docs.gitlab.com/ci/variables/predefined_variables/
KINDS = [
    Kind("a merge request", TESTS, {
        "CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_IID": "7", **OPEN}),
    Kind("a push to a branch", TESTS, on_branch("feature")),
    Kind("a push to a branch with an open merge request", (), on_branch("feature", **OPEN)),
    Kind("a push to the default branch", ALL, on_branch("main")),
    Kind("the same with an open merge request from it", ALL, on_branch("main", **OPEN)),
    Kind("a tag", TESTS, {"CI_COMMIT_TAG": "v1.4.0"}),
    Kind("a schedule", TESTS, on_branch("main", "schedule")),
    Kind("**New pipeline** on the default branch", ALL, on_branch("main", "web")),
    Kind("**New pipeline** on another branch", TESTS, on_branch("feature", "web", **OPEN)),
    Kind("**New pipeline** on a tag", TESTS, {
        "CI_COMMIT_TAG": "v1.4.0", "CI_PIPELINE_SOURCE": "web"}),
    Kind("the API or a trigger, on the default branch", TESTS, on_branch("main", "trigger")),
    Kind("the default branch of a fork", TESTS, on_branch("main", SITE_URL=""))]


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(PIPELINE.read_text())
    return content


@pytest.fixture(scope="module")
def jobs(pipeline: dict[str, Any]) -> dict[str, Job]:
    """Each job, merged with the hidden job that it extends, as GitLab does."""
    return {name: {**pipeline.get(job.get("extends"), {}), **job}
            for name, job in pipeline.items() if name not in GLOBAL and name[0] != "."}


def on_swarm(jobs: dict[str, Job]) -> dict[str, Job]:
    return {name: job for name, job in jobs.items() if job["tags"] == ["tally-swarm"]}


def test_it_is_valid_by_gitlabs_schema() -> None:
    # The transform handles GitLab's !reference tag.
    must_suit("gitlab-ci", PIPELINE, "--data-transform=gitlab-ci")


def test_each_job_is_valid_with_the_job_it_extends(
        pipeline: dict[str, Any], jobs: dict[str, Job], tmp_path: Path) -> None:
    whole = {key: pipeline[key] for key in GLOBAL & pipeline.keys()} | {
        name: {key: job[key] for key in job.keys() - {"extends"}} for name, job in jobs.items()}
    expanded = tmp_path / ".gitlab-ci.yml"
    expanded.write_text(yaml.safe_dump(whole))

    must_suit("gitlab-ci", expanded)


def test_each_job_is_one_command(jobs: dict[str, Job]) -> None:
    commands = {name: [task for line in job["script"] for command in in_shell(line)
                       for task in parse(command)] for name, job in jobs.items()}

    assert commands == {"check": ["test.style"], "test": ["test.all"], "build": ["build"],
                        "deploy": ["deploy"], "rollback": ["rollback"]}
    assert [line for job in jobs.values() for line in job["script"][1:]] == []


def test_no_job_does_more_than_its_command(pipeline: dict[str, Any]) -> None:
    keys = {key for value in pipeline.values() if isinstance(value, dict) for key in value}

    assert keys & {"before_script", "after_script", "hooks"} == set()


def test_each_stage_has_one_job_of_its_name(pipeline: dict[str, Any],
                                            jobs: dict[str, Job]) -> None:
    assert pipeline["stages"] == ["check", "test", "build", "deploy", "rollback"]
    assert {name: job["stage"] for name, job in jobs.items()} == {
        name: name for name in pipeline["stages"]}


def test_every_job_has_the_full_history(
        pipeline: dict[str, Any], jobs: dict[str, Job]) -> None:
    depths = {name: {**pipeline["variables"], **job.get("variables", {})}["GIT_DEPTH"]
              for name, job in jobs.items()}

    # GitLab's value for a full clone.
    assert depths == dict.fromkeys(jobs, "0")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_of_pipeline_has_its_jobs(
        pipeline: dict[str, Any], jobs: dict[str, Job], kind: Kind) -> None:
    found = jobs_of(pipeline, jobs, kind.variables)

    assert sorted(found) == sorted(kind.jobs)
    assert {name for name, when in found.items() if when == "manual"} \
        == {"rollback"} & found.keys()


def test_the_document_tells_which_jobs_each_kind_has() -> None:
    text = (ROOT / "docs" / "pipeline.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in text.splitlines() if line.startswith("|")]

    told = {cells[0]: cells[1] for cells in rows}
    assert {kind.name: told.get(kind.name) for kind in KINDS} \
        == {kind.name: ", ".join(kind.jobs) or "none" for kind in KINDS}


def test_jobs_on_the_swarm_run_one_at_a_time_and_are_never_cancelled(
        jobs: dict[str, Job]) -> None:
    assert {(job["resource_group"], job["interruptible"]) for job in on_swarm(jobs).values()} \
        == {("production", False)}


def test_a_newer_commit_cancels_tests(pipeline: dict[str, Any], jobs: dict[str, Job]) -> None:
    assert [(name, job["interruptible"], job["tags"]) for name, job in jobs.items()
            if name not in on_swarm(jobs)] \
        == [("check", True, ["tally-test"]), ("test", True, ["tally-test"])]
    assert pipeline["workflow"]["auto_cancel"] == {"on_new_commit": "interruptible"}


def test_a_person_can_roll_back_after_any_failure(jobs: dict[str, Job]) -> None:
    assert jobs["rollback"]["needs"] == []
    assert jobs["rollback"]["rules"] == [
        {**jobs["deploy"]["rules"][0], "when": "manual", "allow_failure": True}]


def test_jobs_that_change_the_site_name_its_environment(jobs: dict[str, Job]) -> None:
    assert {name: job["environment"] for name, job in jobs.items() if "environment" in job} \
        == dict.fromkeys(("deploy", "rollback"), {"name": "production", "url": "$SITE_URL"})


def test_every_job_has_a_timeout(jobs: dict[str, Job]) -> None:
    assert [name for name, job in jobs.items() if "timeout" not in job] == []
