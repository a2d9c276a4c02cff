"""Find the fields that differ between two definitions, from a stack file or from Docker."""

import json
import re
from dataclasses import dataclass
from typing import Any

# An environment variable, as Docker lists it.
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
MISSING = object()


@dataclass(frozen=True)
class Difference:
    """One field: its path and its value on each side, None if absent."""

    path: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        where = f"{self.path} " if self.path else ""
        if self.old is None:
            return f"{where}{self.new} (new)"
        if self.new is None:
            return f"{where}{self.old} (removed)"
        return f"{where}{self.old} -> {self.new}"

    def within(self, *paths: str) -> bool:
        """Return whether the field is, or lies within, one of these paths."""
        return any(self.path == path or self.path.startswith(f"{path}.") for path in paths)


def compare(old: Any, new: Any, path: str = "") -> list[Difference]:
    """Return the fields that differ, none if and only if the two are equal.

    Lists of named items, such as variables or ports, are compared name by name; any other
    list is one field, as its order may matter.
    """
    if old == new:
        return []
    before, after = _entries(old), _entries(new)
    if before is None or after is None or type(old) is not type(new):
        return [Difference(path, *_texts(old, new))]
    found = [difference for name in {**before, **after}
             for difference in compare(before.get(name, MISSING), after.get(name, MISSING),
                                       f"{path}.{name}" if path else str(name))]
    # The same entries in another order count as a difference.
    return found or [Difference(path, *_texts(list(before), list(after)))]


def _entries(value: Any) -> dict[str, Any] | None:
    """Return a value's items by name; None unless each has a unique name."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        return None
    entries = [_entry(item) for item in value]
    named = dict(entry for entry in entries if entry)
    return named if len(named) == len(value) else None


def _entry(item: Any) -> tuple[str, Any] | None:
    """Return the name and content of a list item, None if it has no name."""
    match item:
        case {"target": name} | {"Target": name} | {"TargetPort": name} | {"File": {"Name": name}}:
            return str(name), item
        case str() if found := ASSIGNMENT.fullmatch(item):
            return found[1], found[2]
    return None


def _texts(old: Any, new: Any) -> tuple[str | None, str | None]:
    """Return two values as texts that differ if the values do."""
    old, new = _without_digests(old, new)
    texts = _text(old), _text(new)
    return texts if texts[0] != texts[1] else (_exactly(old), _exactly(new))


def _without_digests(old: Any, new: Any) -> tuple[Any, Any]:
    """Drop the digests of two images if their names already differ."""
    if not (isinstance(old, str) and isinstance(new, str)):
        return old, new
    names = old.partition("@sha256:")[0], new.partition("@sha256:")[0]
    return names if names[0] != names[1] else (old, new)


def _text(value: Any) -> str | None:
    """Return a value as one line, a plain string as it is."""
    if value is MISSING:
        return None
    plain = isinstance(value, str) and value.isprintable() and value == value.strip() != ""
    return str(value) if plain else _exactly(value)


def _exactly(value: Any) -> str:
    """Return a value as one line of printable JSON."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if text.isprintable() else json.dumps(value, default=str)
