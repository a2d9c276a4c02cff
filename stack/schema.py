"""Which revisions a tree's schema has, in order, and which of them older code can't bear.

Read from the files without running them: whoever deploys has no Alembic, and what
a revision imports is only in the image.
"""

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.errors import Refused

# What Alembic passes over as well: a package's file and an editor's lock.
NO_REVISIONS = ("__init__", ".#")
EXAMPLE = 'contracts = "0.9 and older write the column visits.day"'


@dataclass(frozen=True)
class Revision:
    """One step of the schema, and the step before it, None for the first.

    `contracts` says what older code can't do any more after it, "" if nothing.
    """

    id: str
    down: str | None
    contracts: str = ""


def read(folder: Path) -> tuple[Revision, ...]:
    """Return the revisions in a folder, migrations/versions, from the first to the newest.

    Raises Refused unless they are one line, each after exactly one other.
    """
    paths = sorted(path for path in folder.glob("*.py") if not path.name.startswith(NO_REVISIONS))
    return in_line({path: parse(path) for path in paths})


def newer_than(revisions: Iterable[Revision], known: Collection[str]) -> tuple[Revision, ...]:
    """Return the revisions that came after what an older release knows by their ids."""
    return tuple(revision for revision in revisions if revision.id not in known)


def parse(path: Path) -> Revision:
    """Return the revision that a file describes; raises Refused for what isn't one."""
    values = constants(path)
    for name in ("revision", "down_revision"):
        if name not in values:
            raise Refused(f"{place(path)}: {name} is missing", "write it as Alembic does")
    down = values["down_revision"]
    return Revision(
        id=text(path, "revision", values["revision"]),
        down=None if down is None else text(path, "down_revision", down),
        contracts=text(path, "contracts", values["contracts"]) if "contracts" in values else "",
    )


def constants(path: Path) -> dict[str, object]:
    """Return what a file says of its revision; raises Refused if Python can't read it."""
    try:
        module = ast.parse(path.read_bytes())
    except OSError as error:
        raise Refused(f"{place(path)} can't be read", str(error.strerror)) from error
    except SyntaxError as error:
        raise Refused(f"{place(path)}, line {error.lineno or 1}: {error.msg}") from error
    except ValueError as error:
        # Before 3.11.4, a null byte is no SyntaxError.
        raise Refused(f"{place(path)}, line 1: {error}") from error
    return {name: literal(value) for name, value in assignments(module)
            if name in ("revision", "down_revision", "contracts")}


def assignments(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Go through a module's own names and what they are set to, with or without a type."""
    for statement in module.body:
        match statement:
            case ast.Assign(targets=targets, value=value):
                yield from ((target.id, value) for target in targets
                            if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value


def literal(value: ast.expr) -> object:
    """Return a constant's value; for what only running the file would tell, its code."""
    return value.value if isinstance(value, ast.Constant) else value


def text(path: Path, name: str, value: object) -> str:
    """Return a value that is a text and says something; raises Refused for any other."""
    if isinstance(value, str) and value.strip():
        return value
    needed = {
        "revision": "should be this revision's name, a plain string",
        "down_revision": "should be the one revision before it, a plain string, or None",
        "contracts": f"should say what older releases can't do any more, such as {EXAMPLE}",
    }
    raise Refused(f"{place(path)}: {name} {needed[name]}")


def in_line(found: Mapping[Path, Revision]) -> tuple[Revision, ...]:
    """Put revisions in order; raises Refused unless they are one line from first to newest."""
    refuse_twins(found)
    refuse_strangers(found)
    after = successors(found)
    line: list[Revision] = []
    following = after.get(None)
    while following:
        line.append(following)
        following = after.get(following.id)
    refuse_circles({path: one for path, one in found.items() if one not in line})
    return tuple(line)


def refuse_twins(found: Mapping[Path, Revision]) -> None:
    """Refuse two files of the same revision."""
    seen: dict[str, Path] = {}
    for path, one in found.items():
        if one.id in seen:
            raise Refused(f"{place(path)}: {seen[one.id].name} is revision {one.id} already",
                          "give one of them another name")
        seen[one.id] = path


def refuse_strangers(found: Mapping[Path, Revision]) -> None:
    """Refuse a revision that comes after one that isn't there."""
    known = {None, *(one.id for one in found.values())}
    for path, one in found.items():
        if one.down not in known:
            raise Refused(f"{place(path)}: down_revision is {one.down}, and no file has that "
                          "revision", "restore the file, or name the newest revision")


def successors(found: Mapping[Path, Revision]) -> dict[str | None, Revision]:
    """Return each revision by the one before it; raises Refused where two have the same."""
    after: dict[str | None, Revision] = {}
    for path, one in found.items():
        rival = after.setdefault(one.down, one)
        if rival is not one:
            raise Refused(f"{place(path)}: {rival.id} and {one.id} both come "
                          + (f"after {one.down}" if one.down else "first"),
                          "change the down_revision of the one that came last")
    return after


def refuse_circles(astray: Mapping[Path, Revision]) -> None:
    """Refuse revisions that lead back to themselves instead of to the first one."""
    if astray:
        ids = ", ".join(sorted(one.id for one in astray.values()))
        raise Refused(f"{place(min(astray))}: down_revision leads round in a circle: {ids}",
                      "let it name the revision that was the newest before")


def place(path: Path) -> str:
    """Name a file as people see it in the checkout, wherever that was copied to."""
    return "/".join(path.parts[-3:])
