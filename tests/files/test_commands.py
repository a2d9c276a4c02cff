"""The parser reads commands like a shell and Fabric."""

import pytest
from invoke.exceptions import ParseError

from tests.files.commands import Command, in_markdown, in_shell, parse

pytestmark = pytest.mark.style


def command(*arguments: str, settings: frozenset[str] = frozenset()) -> Command:
    return Command(settings, arguments)


def test_commands_are_found_in_code_only() -> None:
    text = "Say ./fab nothing, or `./fab status`.\n\n    cd tally && ./fab build  # slow\n"

    assert in_markdown(text) == [command("status"), command("build")]


def test_settings_and_quotes_are_read_like_in_a_shell() -> None:
    assert in_shell("$ HTTP_PORT=8080 ./fab logs --service 'app' | less") == [
        command("logs", "--service", "app", settings=frozenset({"HTTP_PORT"}))]


def test_a_task_is_known_by_its_name_and_its_collection() -> None:
    assert parse(command("bootstrap", "deploy")) == ["bootstrap", "deploy"]
    assert parse(command("test")) == ["test.all"]
    assert parse(command("--help", "logs")) == ["logs"]
    assert parse(command("--list")) == []


@pytest.mark.parametrize("arguments", [("depoly",), ("deploy", "--now"), ("--nothing",)])
def test_an_unknown_task_or_option_is_an_error(arguments: tuple[str, ...]) -> None:
    with pytest.raises(ParseError, match="No idea what"):
        parse(command(*arguments))
