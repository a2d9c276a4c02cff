"""Read a command line as Fabric does, and say what was meant by a mistyped one."""

import errno
import os
import re
import select
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import fabric
from invoke.collection import Collection
from invoke.config import Config
from invoke.exceptions import ParseError
from invoke.executor import Executor
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext, to_flag
from invoke.program import Program as Invoke

from stack.errors import Refused

NAME = "./fab"
# The exit code of a program whose output nobody reads any more: 128 and the number of SIGPIPE.
UNREAD = 141
STDOUT = 1
# Those of Invoke's options that have a meaning here. The others, and all of Fabric's, are about
# commands that a task runs on a host of the command line.
OPTIONS = {"complete", "debug", "help", "list", "list-depth", "list-format",
           "print-completion-script", "version", "write-pyc"}
FORMATS = ("flat", "nested", "json")
# What ./fab makes of the words after --.
COMMAND = "--command"
# What Invoke's parser says.
UNKNOWN = re.compile(r"No idea what ['\"](.*)['\"] is!", re.DOTALL)
MISSING = re.compile(r"'.*' did not receive required positional arguments: (.*)")
NO_VALUE = re.compile(r"Flag <Argument: (\S+).*> needed value and was not given one!")


class Defaults(Config):
    """Invoke's defaults only: nobody's ~/.invoke.yml and no variable has a say."""

    def load_base_conf_files(self) -> None:
        """Read nothing."""

    def load_project(self, merge: bool = True) -> None:
        """Read nothing."""

    def load_shell_env(self) -> None:
        """Read nothing."""


class Program(Invoke):
    """Fabric's command line with these tasks, under the name of the script that starts it."""

    namespace: Collection

    def __init__(self, tasks: Collection) -> None:
        super().__init__(name="Fabric", version=fabric.__version__, namespace=tasks, binary=NAME,
                         binary_names=[NAME], executor_class=Executor,
                         config_class=Defaults)

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:
        """Run a command line, and end quietly if nobody reads the rest: ./fab --list | head."""
        try:
            super().run(argv, exit)
        except BrokenPipeError as error:
            if not _is_unread():
                raise
            raise SystemExit(UNREAD) from error
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise _ended_by(error) from error
        finally:
            _end_output()

    def core_args(self) -> list[Argument]:
        """Return the options before the first task."""
        return [option for option in super().core_args() if option.name in OPTIONS]

    def update_config(self, merge: bool = True) -> None:
        """Change nothing: no option is about the configuration."""

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
        if self.args["list-format"].value not in FORMATS:
            raise Refused(f"--list-format={self.args['list-format'].value!r}",
                          f"it should be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
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
        if word in self.namespace.collections:
            return Refused(f"{word} is a group of tasks", f"{NAME} --list {word}")
        cause = f"{word!r} is neither a task nor an argument of {task}" if task \
            else f"there is no task {word!r}"
        return Refused(f"{cause}{meant(word, names)}", f"{NAME} --list")

    def _unknown_option(self, word: str, context: ParserContext | None) -> Refused:
        if word.partition("=")[0] == COMMAND:
            takers = [name for name, task in self.namespace.tasks.items()
                      if any(argument.name == "command" for argument in task.get_arguments())]
            return Refused(f"{_task(context) or NAME} takes no command after --",
                           f"these do: {', '.join(takers)}" if takers else f"{NAME} --list")
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


def _end_output() -> None:
    """Write the rest of the output, or drop it: Python would try once more, and complain."""
    try:
        sys.stdout.flush()
        lost = _is_unread()
    except BrokenPipeError:
        lost = True
    except OSError as error:
        _drop_output()
        raise _ended_by(error) from error
    if lost:
        _drop_output()


def _is_unread() -> bool:
    """Return whether nobody reads the output."""
    poll = select.poll()
    # Without an event to wait for, it answers only if the other end is gone.
    poll.register(STDOUT, 0)
    return bool(poll.poll(0))


def _drop_output() -> None:
    """Let what is left of the output go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)


def _ended_by(error: OSError) -> SystemExit:
    """Say that something couldn't be written, and return the program's end."""
    sys.stderr.write(f"the output or a temporary file can't be written: {error.strerror}\n")
    return SystemExit(1)
