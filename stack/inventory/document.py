"""Read a YAML file into places: values that know their path and collect mistakes."""

import json
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stack.errors import Refused

LARGEST = 1024 * 1024  # bytes of a file that people write
# A user and a password, as in a URL.
CREDENTIALS = re.compile(r"[^/@\s]+:[^@\s]*@")


class Invalid(Refused):
    """The inventory breaks rules: one line for each, all at once."""

    def __init__(self, causes: Sequence[str]) -> None:
        super().__init__(causes[0])
        self.causes = tuple(causes)
        self.message = "\n".join(causes)


class Loader(yaml.BaseLoader):
    """YAML whose scalars all stay text and whose keys are given once.

    PyYAML would read `no` as false and 1:30 as 90, and of two equal keys silently
    take the last.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        composed = super().compose_mapping_node(anchor)
        known: list[Any] = []
        for key, _ in composed.value:
            if key.value in known:
                raise yaml.MarkedYAMLError(problem=f"duplicate key {shown(key.value)}",
                                           problem_mark=key.start_mark)
            known.append(key.value)
        return composed


def parse(path: Path) -> Any:
    """Return a file's content; raises Refused with the line that isn't YAML."""
    try:
        return yaml.load(text_of(path), Loader)
    except RecursionError:
        raise Refused(f"{path.name}: it is nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Refused(f"{path.name}, line {line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise Refused(f"{path.name}: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class Place:
    """A value, its path in the file, and the file's mistakes so far."""

    path: str
    value: Any
    mistakes: list[str]

    def key(self, name: str) -> "Place":
        quoted = name if re.fullmatch(r"[A-Za-z0-9_./-]{1,60}", name) else shown(name)
        return Place(f"{self.path}.{quoted}" if self.path else quoted, self.value.get(name),
                     self.mistakes)

    def item(self, index: int) -> "Place":
        return Place(f"{self.path}[{index}]", self.value[index], self.mistakes)

    def wrong(self, mistake: str) -> None:
        self.mistakes.append(f"{self.path}: {mistake}" if self.path else mistake)

    def wrong_value(self, rule: str) -> None:
        self.wrong(f"should be {rule}, not {shown(self.value) if self.value else 'nothing'}")


def text_of(path: Path) -> str:
    """Return a small text file's content; raises Refused for anything else."""
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            # A pipe may never end.
            raise Refused(f"{path} isn't a regular file")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise Refused(f"{path.name} is larger than {LARGEST // 1024} kB")
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path.name} can't be read", str(error)) from error


def shown(value: Any) -> str:
    """Quote a value so that it stays within a line, whatever it holds, and hide a password."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    open_value = CREDENTIALS.sub("***@", value)
    return json.dumps(open_value if len(open_value) <= 60 else f"{open_value[:60]}...")
