"""Read a command line as Fabric does, and say what was meant by a mistyped one."""

import os
import re
import select
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import Any

import fabric
from fabric.main import Fab
from invoke.collection import Collection
from invoke.exceptions import ParseError
from invoke.parser.context import ParserContext, to_flag

from stack.errors import Refused

NAME = "./fab"
# The exit code of a program whose output nobody reads any more: 128 and the number of SIGPIPE.
UNREAD = 141
STDOUT = 1
# What Invoke's parser says.
UNKNOWN = re.compile(r"No idea what ['\"](.*)['\"] is!", re.DOTALL)
MISSING = re.compile(r"'.*' did not receive required positional arguments: (.*)")
NO_VALUE = re.compile(r"Flag <Argument: (\S+).*> needed value and was not given one!")


class Program(Fab):
    """Fabric with these tasks, under the name of the script that starts it."""

    def __init__(self, tasks: Collection) -> None:
        super().__init__(name="Fabric", version=fabric.__version__, namespace=tasks, binary=NAME,
                         binary_names=[NAME], executor_class=fabric.Executor,
                         config_class=fabric.Config)

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:
        """Run a command line, and end quietly if nobody reads the rest: ./fab --list | head."""
        try:
            super().run(argv, exit)
        except BrokenPipeError as error:
            if not _drop_unread():
                raise
            raise SystemExit(UNREAD) from error
        finally:
            _drop_unread()

    def task_list_opener(self, extra: str = "") -> str:
        """Return the title of a list of tasks; Invoke would call these tasks subcommands."""
        group = f" {self.list_root!r}" if self.list_root else ""
        depth = f"depth={self.list_depth}" if self.list_depth else ""
        limits = "; ".join(filter(None, (depth, extra)))
        return f"Available{group} tasks{f' ({limits})' if limits else ''}"

    def parse_core(self, argv: list[str] | None) -> None:
        with self._explained():
            super().parse_core(argv)

    def parse_tasks(self) -> None:
        with self._explained():
            super().parse_tasks()
        for context in self.tasks:
            for argument in context.positional_args:
                # Invoke takes a mistyped option for the argument that it still needs.
                if argument.value.startswith("-"):
                    raise self._unknown_option(argument.value, context)

    def parse_cleanup(self) -> None:
        group, groups = self.args.list.value, self.namespace.collections
        if isinstance(group, str) and group not in groups:
            raise Refused(f"there is no group of tasks {group!r}{meant(group, groups)}",
                          f"{NAME} --list")
        with self._explained():
            super().parse_cleanup()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ParseError as error:
            raise self._explain(str(error), error.context) from error
        except ValueError as error:
            # Invoke makes numbers of its own options' values: "invalid literal for …: 'deep'".
            value = str(error).rpartition(": ")[2]
            raise Refused(f"{value} isn't a number", f"{NAME} --help") from error

    def _explain(self, said: str, context: ParserContext | None) -> Refused:
        """Return the error for what Invoke's parser said about a task's arguments."""
        if unknown := UNKNOWN.fullmatch(said):
            word = unknown[1]
            return self._unknown_option(word, context) if word.startswith("-") \
                else self._unknown_task(word, context)
        if missing := MISSING.fullmatch(said):
            return Refused(f"{_task(context)} needs {missing[1]}", help_for(context))
        if no_value := NO_VALUE.fullmatch(said):
            return Refused(f"{to_flag(no_value[1])} needs a value", help_for(context))
        return Refused(said, help_for(context))

    def _unknown_task(self, word: str, context: ParserContext | None) -> Refused:
        names = [name for task, aliases in self.namespace.task_names.items()
                 for name in (task, *aliases)]
        task = _task(context)
        cause = f"{word!r} is neither a task nor an argument of {task}" if task \
            else f"there is no task {word!r}"
        return Refused(f"{cause}{meant(word, names)}", f"{NAME} --list")

    def _unknown_option(self, word: str, context: ParserContext | None) -> Refused:
        flags = [*(context.flags if context else ()), *self.initial_context.flags]
        return Refused(f"{_task(context) or NAME} has no option {word!r}{meant(word, flags)}",
                       help_for(context))


def meant(word: str, names: Iterable[Any]) -> str:
    """Return which of the names was probably meant, to be added to a message, or ""."""
    nearest = get_close_matches(word, names, n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def help_for(context: ParserContext | None) -> str:
    """Return the command that shows a task's options, or those of ./fab itself."""
    return f"{NAME} --help {_task(context)}".rstrip()


def _task(context: ParserContext | None) -> str:
    """Return a context's task; the options before the first task belong to none."""
    return context.name or "" if context else ""


def _drop_unread() -> bool:
    """Return whether nobody reads the output; what is left of it then goes nowhere.

    Python would try once more at its end, and complain.
    """
    with suppress(BrokenPipeError):
        print(end="", flush=True)
    poll = select.poll()
    # Without an event to wait for, it answers only if the other end is gone.
    poll.register(STDOUT, 0)
    unread = bool(poll.poll(0))
    if unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    return unread
