"""What the documents tell people to type and to read is there."""

import pytest
from invoke.exceptions import ParseError

from stack.settings import NAMES
from tests.files.commands import TASKS, Command, in_markdown, links, parse
from tests.files.tree import ROOT, files

pytestmark = pytest.mark.style

DOCUMENTS = ["README.md", *(name for name in files()
                            if name.startswith("docs/") and name.endswith(".md"))]
each_document = pytest.mark.parametrize("name", DOCUMENTS)


def fault(command: Command) -> str:
    """Say what Fabric would have against a command, or nothing."""
    try:
        names = parse(command)
    except (ParseError, ValueError) as error:
        return f"./fab {' '.join(command.arguments)}: {error}"
    # In capitals it stands for whatever the reader puts there.
    unknown = [name for name in names if name not in TASKS and not name.isupper()]
    unknown += command.settings - set(NAMES)
    return f"./fab {' '.join(command.arguments)}: {unknown}" if unknown else ""


@each_document
def test_every_command_is_a_task_with_such_options(name: str) -> None:
    commands = in_markdown((ROOT / name).read_text())

    assert [said for command in commands if (said := fault(command))] == []


@each_document
def test_every_link_within_the_project_leads_to_a_file(name: str) -> None:
    targets = [link.split("#")[0] for link in links((ROOT / name).read_text()) if ":" not in link]

    assert [target for target in targets if not ((ROOT / name).parent / target).exists()] == []


def test_the_readme_gives_the_two_commands() -> None:
    commands = [command.arguments for command in in_markdown((ROOT / "README.md").read_text())]

    assert ("bootstrap", "deploy") in commands
    assert ("test",) in commands
