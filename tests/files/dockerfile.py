"""Read a Dockerfile's instructions."""

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction, such as FROM, RUN or COPY, with its value on one line."""

    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """The value's words without --options."""
        return [word for word in self.value.split() if not word.startswith("--")]

    @property
    def is_exec_form(self) -> bool:
        """Whether the value is a JSON list, so no shell runs it."""
        return isinstance(json.loads(self.value), list) if self.value.startswith("[") else False


def instructions(path: Path) -> list[Instruction]:
    """Return a Dockerfile's instructions in order, without comments."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    parts = [line.split(maxsplit=1) for line in lines if line.strip()]
    return [Instruction(name.upper(), rest[0] if rest else "") for name, *rest in parts]


def last_stage(path: Path) -> dict[str, Instruction]:
    """Return the last instruction of each kind in the final stage."""
    found: dict[str, Instruction] = {}
    for instruction in instructions(path):
        found = {} if instruction.name == "FROM" else {**found, instruction.name: instruction}
    return found
