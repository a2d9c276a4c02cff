"""The commands, links and paths in the documents exist."""

import re
import subprocess

import pytest
from invoke.exceptions import ParseError

from stack.inventory.settings import NAMES
from tests.files.commands import TASKS, Command, in_markdown, links, parse
from tests.files.tree import ROOT, files

pytestmark = pytest.mark.style

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", *(
    name for name in files() if name.startswith("docs/") and name.endswith(".md"))]
# A path of the project in backticks; an asterisk matches any name.
PATH = re.compile(r"`((?:app|bench|docs|migrations|stack|tests)/[\w/.*-]*"
                  r"|[\w.-]+\.(?:py|cfg|in|txt))`")
each_document = pytest.mark.parametrize("name", DOCUMENTS)


def fault(command: Command) -> str:
    """Return Fabric's objection to a command, or ""."""
    try:
        names = parse(command)
    except (ParseError, ValueError) as error:
        return f"./fab {' '.join(command.arguments)}: {error}"
    # A name in capitals is a placeholder.
    unknown = [name for name in names if name not in TASKS and not name.isupper()]
    unknown += command.settings - set(NAMES)
    return f"./fab {' '.join(command.arguments)}: {unknown}" if unknown else ""


@each_document
def test_every_command_is_a_task_with_these_options(name: str) -> None:
    commands = in_markdown((ROOT / name).read_text())

    assert [said for command in commands if (said := fault(command))] == []


@each_document
def test_every_internal_link_leads_to_a_file(name: str) -> None:
    targets = [link.split("#")[0] for link in links((ROOT / name).read_text()) if ":" not in link]

    assert [target for target in targets if not ((ROOT / name).parent / target).exists()] == []


@each_document
def test_every_path_in_the_text_exists(name: str) -> None:
    paths = PATH.findall((ROOT / name).read_text())

    assert [path for path in paths if not any(ROOT.glob(path.rstrip("/")))] == []


def test_the_readme_gives_the_two_commands() -> None:
    commands = [command.arguments for command in in_markdown((ROOT / "README.md").read_text())]

    assert ("bootstrap", "deploy") in commands
    assert ("test",) in commands


def test_the_readmes_own_environment_is_no_change_of_the_checkout() -> None:
    made = re.findall(r"python3 -m venv (\S+)", (ROOT / "README.md").read_text())

    # Before 3.13, Python's venv writes no .gitignore of its own.
    ignored = [name for name in made if subprocess.run(
        ["git", "check-ignore", "--quiet", f"{name}/pyvenv.cfg"], cwd=ROOT).returncode == 0]
    assert ignored == made == [".dev"]
