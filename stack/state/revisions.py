"""Which revisions does a tree's schema have, in order, and which break older code?

The files are read without running them: the operator's machine has no Alembic, and a
revision's imports exist only in the image.
"""

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.errors import Refused

# Alembic skips these too: a package's file and an editor's lock.
NO_REVISIONS = ("__init__", ".#")
EXAMPLE = 'contracts = "0.9 and older write the column visits.day"'


@dataclass(frozen=True)
class Revision:
    """One step of the schema, and the step before it, None for the first.

    `contracts` says what older code can no longer do after it, "" if nothing.
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
    """Return the revisions whose ids an older release doesn't know."""
    return tuple(revision for revision in revisions if revision.id not in known)


def parse(path: Path) -> Revision:
    """Return the revision that a file describes; raises Refused if it isn't one."""
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
    """Return the constants of a revision file; raises Refused if Python can't read it."""
    try:
        module = ast.parse(path.read_bytes())
    except OSError as error:
        raise Refused(f"{place(path)} can't be read", str(error.strerror)) from error
    except SyntaxError as error:
        raise Refused(f"{place(path)}, line {error.lineno or 1}: {error.msg}") from error
    except ValueError as error:
        # Before Python 3.11.4, a null byte raises ValueError.
        raise Refused(f"{place(path)}, line 1: {error}") from error
    return {name: literal(value) for name, value in assignments(module)
            if name in ("revision", "down_revision", "contracts")}


def assignments(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield a module's assigned names and values, with or without a type."""
    for statement in module.body:
        match statement:
            case ast.Assign(targets=targets, value=value):
                yield from ((target.id, value) for target in targets
                            if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value


def literal(value: ast.expr) -> object:
    """Return a constant's value; for any other expression, its syntax tree."""
    return value.value if isinstance(value, ast.Constant) else value


def text(path: Path, name: str, value: object) -> str:
    """Return a non-empty string; raises Refused for any other value."""
    if isinstance(value, str) and value.strip():
        return value
    needed = {
        "revision": "should be this revision's name, a plain string",
        "down_revision": "should be the one revision before it, a plain string, or None",
        "contracts": f"should say what older releases can no longer do, such as {EXAMPLE}",
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
    """Refuse two files with the same revision."""
    seen: dict[str, Path] = {}
    for path, one in found.items():
        if one.id in seen:
            raise Refused(f"{place(path)}: {seen[one.id].name} already has revision {one.id}",
                          "rename one of the two")
        seen[one.id] = path


def refuse_strangers(found: Mapping[Path, Revision]) -> None:
    """Refuse a revision whose predecessor doesn't exist."""
    known = {None, *(one.id for one in found.values())}
    for path, one in found.items():
        if one.down not in known:
            raise Refused(f"{place(path)}: down_revision is {one.down}, but no file has that "
                          "revision", "restore the file, or name the newest revision")


def successors(found: Mapping[Path, Revision]) -> dict[str | None, Revision]:
    """Return each revision by its predecessor; raises Refused where two share one."""
    after: dict[str | None, Revision] = {}
    for path, one in found.items():
        rival = after.setdefault(one.down, one)
        if rival is not one:
            raise Refused(f"{place(path)}: {rival.id} and {one.id} both come "
                          + (f"after {one.down}" if one.down else "first"),
                          "change the down_revision of the later one")
    return after


def refuse_circles(astray: Mapping[Path, Revision]) -> None:
    """Refuse revisions that form a cycle."""
    if astray:
        ids = ", ".join(sorted(one.id for one in astray.values()))
        raise Refused(f"{place(min(astray))}: down_revision forms a cycle: {ids}",
                      "set it to the revision that was newest before")


def place(path: Path) -> str:
    """Name a file by its path in the checkout, even if that was copied elsewhere."""
    return "/".join(path.parts[-3:])
