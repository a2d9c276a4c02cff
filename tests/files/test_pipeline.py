""".gitlab-ci.yml: GitLab takes it, and each job is one command that people can run."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.files.commands import in_shell, parse
from tests.files.tree import ROOT, must_suit

pytestmark = pytest.mark.style

PIPELINE = ROOT / ".gitlab-ci.yml"
# What isn't a job at the top of the file (https://docs.gitlab.com/ci/yaml/#global-keywords).
GLOBAL = {"default", "include", "stages", "variables", "workflow", "spec"}
MERGED = "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"
Job = dict[str, Any]


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(PIPELINE.read_text())
    return content


@pytest.fixture(scope="module")
def jobs(pipeline: dict[str, Any]) -> dict[str, Job]:
    """Each job as GitLab sees it: laid over the hidden job that it extends."""
    return {name: {**pipeline.get(job.get("extends"), {}), **job}
            for name, job in pipeline.items() if name not in GLOBAL and name[0] != "."}


def on_swarm(jobs: dict[str, Job]) -> dict[str, Job]:
    return {name: job for name, job in jobs.items() if job["tags"] == ["tally-swarm"]}


def test_it_suits_gitlabs_schema() -> None:
    # The transform knows GitLab's own !reference tag.
    must_suit("gitlab-ci", PIPELINE, "--data-transform=gitlab-ci")


def test_each_job_suits_it_with_what_it_extends(
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


def test_each_stage_has_the_job_of_its_name(pipeline: dict[str, Any],
                                            jobs: dict[str, Job]) -> None:
    assert pipeline["stages"] == ["check", "test", "build", "deploy", "rollback"]
    assert {name: job["stage"] for name, job in jobs.items()} == {
        name: name for name in pipeline["stages"]}


def test_the_tests_have_the_whole_history_and_nothing_else_needs_it(
        pipeline: dict[str, Any], jobs: dict[str, Job]) -> None:
    depths = {name: {**pipeline["variables"], **job.get("variables", {})}["GIT_DEPTH"]
              for name, job in jobs.items()}

    # GitLab's word for all of it.
    assert depths == {**dict.fromkeys(jobs, "1"), "test": "0"}


def test_only_what_was_merged_reaches_the_swarm(jobs: dict[str, Job]) -> None:
    assert {name: [rule["if"] for rule in job["rules"]] for name, job in on_swarm(jobs).items()} \
        == dict.fromkeys(("build", "deploy", "rollback"), [MERGED])


def test_jobs_on_the_swarm_wait_for_each_other_and_are_never_cut_short(
        jobs: dict[str, Job]) -> None:
    assert {(job["resource_group"], job["interruptible"]) for job in on_swarm(jobs).values()} \
        == {("production", False)}


def test_tests_give_way_to_a_newer_commit(pipeline: dict[str, Any], jobs: dict[str, Job]) -> None:
    assert [(name, job["interruptible"], job["tags"]) for name, job in jobs.items()
            if name not in on_swarm(jobs)] \
        == [("check", True, ["tally-test"]), ("test", True, ["tally-test"])]
    assert pipeline["workflow"]["auto_cancel"] == {"on_new_commit": "interruptible"}


def test_a_person_can_roll_back_whatever_failed_before(jobs: dict[str, Job]) -> None:
    assert jobs["rollback"]["needs"] == []
    assert jobs["rollback"]["rules"] == [{"if": MERGED, "when": "manual", "allow_failure": True}]


def test_what_changes_the_site_says_where_it_is(jobs: dict[str, Job]) -> None:
    assert {name: job["environment"] for name, job in jobs.items() if "environment" in job} \
        == dict.fromkeys(("deploy", "rollback"), {"name": "production", "url": "$SITE_URL"})


def test_a_branch_with_a_merge_request_has_one_pipeline(pipeline: dict[str, Any]) -> None:
    assert pipeline["workflow"]["rules"] == [
        {"if": '$CI_PIPELINE_SOURCE == "merge_request_event"'},
        {"if": "$CI_COMMIT_BRANCH && $CI_OPEN_MERGE_REQUESTS", "when": "never"},
        {"if": "$CI_COMMIT_BRANCH"}]


def test_no_job_may_hang_for_ever(jobs: dict[str, Job]) -> None:
    assert [name for name, job in jobs.items() if "timeout" not in job] == []
