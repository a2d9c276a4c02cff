"""Share one lab between all tests of a process."""

from collections.abc import Generator, Iterator

import pytest

from tests.lab import Lab
from tests.tooling import evidence, groups

LAB = pytest.StashKey[Lab]()


def pytest_configure(config: pytest.Config) -> None:
    groups.divide(config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
        item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the lab's machines' logs of a failure while the machines still run."""
    report = yield
    lab = item.config.stash.get(LAB, None)
    if report.failed and lab and (folder := evidence.keep(item.nodeid, lab.machines)):
        report.sections.append(("machines", f"their logs are in {folder}"))
    return report


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Iterator[Lab]:
    """One lab for all tests of this process."""
    with Lab() as lab:
        pytestconfig.stash[LAB] = lab
        yield lab
        del pytestconfig.stash[LAB]
