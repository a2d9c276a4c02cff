"""List what a deploy changes: in the last proven release, and in manual changes."""

from collections.abc import Collection, Mapping
from typing import Any

from stack.release.plan.diff import Difference, compare
from stack.state.releases import Record
from stack.swarm.stackfile import Stack

# The sections of a stack file, and the prefix for an item of each.
DECLARED = {"services": "", "networks": "network ", "volumes": "volume ", "secrets": "secret ",
            "configs": "config "}
# Docker creates these once: a later deploy neither changes nor removes them.
KEPT = ("networks", "volumes")
FORCED = "TaskTemplate.ForceUpdate"


def first(new: Stack, running: Collection[str]) -> list[str]:
    """Return a line for everything that a first deploy creates; `running` was never proven."""
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
    note = " (Docker leaves it unchanged)" if section in KEPT else ""
    return lines + [f"{kind}{name}: {difference}{note}" for name in new if name in old
                    for difference in compare(old[name], new[name])]


def _undeclared(stack: Stack) -> dict[str, Any]:
    return {key: value for key, value in stack.content.items() if key not in DECLARED}


def by_hand(record: Record, running: Mapping[str, dict[str, Any]]) -> dict[str, list[Difference]]:
    """Return each service's differences between Docker and the proven release.

    Services whose definition was not recorded are left out.
    """
    return {name: compare(record.definitions[name], definition)
            for name, definition in running.items() if name in record.definitions}


def manual_changes(record: Record, hashes: Mapping[str, str],
                   drifted: Mapping[str, list[Difference]], wanted: Collection[str]) -> list[str]:
    """Return a line for each manual change; those that a deploy can't undo are marked.

    `hashes` are those of Docker's definitions, `wanted` the stack's services.
    """
    lines = [f"{name}: removed by hand" for name in record.specs if name not in hashes]
    for name, found in hashes.items():
        if name not in record.specs:
            lines.append(f"{name}: added by hand" + ("" if name in wanted else ", will be removed"))
        elif name in drifted:
            lines += [f"{name}: {_marked(difference)}" for difference in drifted[name]]
        elif found != record.specs[name]:
            lines.append(f"{name}: changed by hand; {record.version}'s record lacks the old "
                         "definition")
    return lines


def _marked(difference: Difference) -> str:
    """Return a difference, marked if a stack update keeps it."""
    return f"{difference} (restarted with --force, kept)" if difference.within(FORCED) \
        else str(difference)
