"""Find the ./fab commands in a text, and parse them like Fabric."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from invoke.parser import Parser
from markdown_it import MarkdownIt
from markdown_it.token import Token

import fabfile

# A command starts a line or follows another one; a comment, a pipe or a redirection ends it.
COMMAND = re.compile(r"(?:^|&&|;)\s*(?:\$ )?(?P<settings>(?:[A-Z_]+=\S+ )*)\./fab\b"
                     r"(?P<arguments>[^#|;&>\n]*)", re.MULTILINE)
CONTEXTS = fabfile.namespace.to_contexts()
TASKS = frozenset(name for context in CONTEXTS for name in (context.name, *context.aliases))


@dataclass(frozen=True)
class Command:
    """One ./fab command: the settings before it, by name, and its arguments."""

    settings: frozenset[str]
    arguments: tuple[str, ...]


def in_shell(text: str) -> list[Command]:
    """Return the commands in shell lines."""
    return [Command(frozenset(re.findall(r"([A-Z_]+)=", found["settings"])),
                    tuple(shlex.split(found["arguments"])))
            for found in COMMAND.finditer(text)]


def in_markdown(text: str) -> list[Command]:
    """Return the commands in a document's code blocks and code spans."""
    return [command for token in tokens(text)
            if token.type in {"fence", "code_block", "code_inline"}
            for command in in_shell(token.content)]


def links(text: str) -> list[str]:
    """Return the targets of a document's links and images."""
    return [str(token.attrs[key]) for token in tokens(text)
            for key in ("href", "src") if key in token.attrs]


def tokens(text: str) -> Iterator[Token]:
    """Yield a Markdown text's tokens, including those inside paragraphs."""
    for token in MarkdownIt().parse(text):
        yield token
        yield from token.children or ()


def parse(command: Command) -> list[str]:
    """Return the tasks that a command runs or shows help for.

    Raises ParseError for a task or an option that doesn't exist.
    """
    # Like Fabric: its own options first; the rest is for the tasks.
    core = Parser(initial=fabfile.program.initial_context, ignore_unknown=True)
    general = core.parse_argv(list(command.arguments))
    asked = general[0].args.help.value
    ran = Parser(contexts=CONTEXTS).parse_argv(general.unparsed)
    named = [context.name for context in ran] + [asked]
    return [name for name in named if isinstance(name, str)]
