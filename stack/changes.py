"""Say what a deploy changes: in the release that was proven last, and of what was done by hand."""

from collections.abc import Collection, Mapping
from typing import Any

from stack.definition import Stack
from stack.differences import Difference, compare
from stack.records import Record

# What a stack file declares, and what one of it is called.
DECLARED = {"services": "", "networks": "network ", "volumes": "volume ", "secrets": "secret ",
            "configs": "config "}
# Docker makes these once: a later deploy neither changes nor removes them.
KEPT = ("networks", "volumes")
FORCED = "TaskTemplate.ForceUpdate"


def first(new: Stack, running: Collection[str]) -> list[str]:
    """Return a line for everything that a first deploy makes; `running` was never proven."""
    return [f"{kind}{name}: "
            + ("runs, but was never proven" if kind == "" and name in running else "new")
            for section, kind in DECLARED.items() if section not in ("secrets", "configs")
            for name in new.content.get(section) or {}]


def between(old: Stack, new: Stack) -> list[str]:
    """Return a line for each difference, none if and only if the two are equal."""
    lines = [line for section in DECLARED for line in _declared(
        section, old.content.get(section) or {}, new.content.get(section) or {})]
    rest = compare(_undeclared(old), _undeclared(new))
    if not lines and not rest:
        # A section that is empty on one side and missing on the other.
        rest = compare(old.content, new.content)
    return lines + [f"docker-stack.yml: {difference}" for difference in rest]


def _declared(section: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    kind = DECLARED[section]
    lines = [f"{kind}{name}: new" for name in new if name not in old]
    lines += [f"{kind}{name}: removed{' (Docker keeps it)' if section in KEPT else ''}"
              for name in old if name not in new]
    note = " (Docker keeps it as it is)" if section in KEPT else ""
    return lines + [f"{kind}{name}: {difference}{note}" for name in new if name in old
                    for difference in compare(old[name], new[name])]


def _undeclared(stack: Stack) -> dict[str, Any]:
    return {key: value for key, value in stack.content.items() if key not in DECLARED}


def by_hand(record: Record, running: Mapping[str, dict[str, Any]]) -> dict[str, list[Difference]]:
    """Return for each service what Docker holds that isn't what was proven.

    Nothing for a service of which the record doesn't have the definition.
    """
    return {name: compare(record.definitions[name], definition)
            for name, definition in running.items() if name in record.definitions}


def told(record: Record, hashes: Mapping[str, str], drifted: Mapping[str, list[Difference]],
         wanted: Collection[str]) -> list[str]:
    """Return a line for each change by hand, and for what the deploy can't undo that it can't.

    `hashes` are those of the definitions that Docker holds, `wanted` the stack's services.
    """
    lines = [f"{name}: removed by hand" for name in record.specs if name not in hashes]
    for name, found in hashes.items():
        if name not in record.specs:
            lines.append(f"{name}: added by hand" + ("" if name in wanted else ", to be removed"))
        elif name in drifted:
            lines += [f"{name}: {_marked(difference)}" for difference in drifted[name]]
        elif found != record.specs[name]:
            lines.append(f"{name}: changed by hand, and {record.version}'s record doesn't say what "
                         "it was")
    return lines


def _marked(difference: Difference) -> str:
    """Return a difference, marked if an update of the stack leaves it as it is."""
    return f"{difference} (restarted with --force, stays)" if difference.within(FORCED) \
        else str(difference)
