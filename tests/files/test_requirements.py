"""Every requirement is locked to one version and its hashes, without an index's address."""

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from tests.files.tree import ROOT, files

SOURCES = [name for name in files() if re.fullmatch(r"requirements.*\.in", Path(name).name)]

pytestmark = pytest.mark.style
each_source = pytest.mark.parametrize("source", SOURCES)

LOCKED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==(?P<version>[A-Za-z0-9.+!]+)"
                    r"(?: ; [^#]+?)?(?: --hash=sha256:[0-9a-f]{64})+")


def lock_of(source: str) -> str:
    return source.removesuffix(".in") + ".txt"


def lines(name: str) -> list[str]:
    """Return a requirements file's entries, each on one line, without comments."""
    text = re.sub(r"\s*\\\n\s*", " ", (ROOT / name).read_text())
    return [line.strip() for line in text.splitlines() if line.split("#")[0].strip()]


def locked(source: str) -> dict[NormalizedName, set[str]]:
    """Return each package's versions: several if they depend on Python's version."""
    versions: dict[NormalizedName, set[str]] = {}
    for line in lines(lock_of(source)):
        if entry := LOCKED.fullmatch(line):
            versions.setdefault(canonicalize_name(entry["name"]), set()).add(entry["version"])
    return versions


def wanted(source: str) -> list[Requirement]:
    """Return the required packages: the entries that aren't options."""
    return [Requirement(line) for line in lines(source) if not line.startswith("-")]


def needed(source: str) -> set[NormalizedName]:
    """Return the required packages with all of their dependencies, on any platform."""
    seen: set[tuple[NormalizedName, frozenset[str]]] = set()
    waiting = wanted(source)
    while waiting:
        one = waiting.pop()
        key = canonicalize_name(one.name), frozenset(one.extras)
        if key not in seen:
            seen.add(key)
            waiting += needs(one)
    return {name for name, _ in seen}


def needs(one: Requirement) -> Iterator[Requirement]:
    """Yield a package's dependencies with these extras, from its metadata."""
    try:
        requirements = map(Requirement, importlib.metadata.requires(one.name) or [])
    except importlib.metadata.PackageNotFoundError:
        return
    for each in requirements:
        extra = re.search(r'extra == "([^"]+)"', str(each.marker))
        if extra is None or extra[1] in one.extras:
            yield each


def test_every_lock_file_has_a_source_and_every_source_a_lock_file() -> None:
    locks = [name for name in files() if re.fullmatch(r"requirements.*\.txt", Path(name).name)]

    assert sorted(lock_of(source) for source in SOURCES) == locks
    assert locks


@each_source
def test_each_entry_is_one_version_with_its_hashes_and_nothing_else(source: str) -> None:
    assert [line for line in lines(lock_of(source)) if not LOCKED.fullmatch(line)] == []


@each_source
def test_every_requirement_is_locked_at_a_matching_version(source: str) -> None:
    packages = locked(source)
    names = {str(each): canonicalize_name(each.name) for each in wanted(source)}
    unsuited = [str(each) for each in wanted(source)
                for version in packages.get(names[str(each)], ())
                if version not in each.specifier]

    assert names
    assert set(names.values()) - packages.keys() == set()
    assert unsuited == []


@each_source
def test_nothing_is_locked_that_is_not_required(source: str) -> None:
    assert locked(source).keys() - needed(source) == set()


def test_no_developers_package_was_compiled_here() -> None:
    compiled = {}
    for source in ("requirements.in", "requirements.server.in"):
        wheels = {name: importlib.metadata.distribution(name).read_text("WHEEL")
                  for name in locked(source) if is_installed(name)}
        # Published wheels are for any platform or for many Linux systems, never just for linux.
        compiled[source] = {name for name, wheel in wheels.items()
                            if re.search("^Tag: .*-linux_", wheel or "", re.MULTILINE)}

    assert compiled == {"requirements.in": set(), "requirements.server.in": {"uwsgi"}}


def is_installed(name: str) -> bool:
    return any(importlib.metadata.distributions(name=name))


def test_a_package_has_the_same_version_in_every_lock_file() -> None:
    versions: dict[str, set[frozenset[str]]] = {}
    for source in SOURCES:
        for name, found in locked(source).items():
            versions.setdefault(name, set()).add(frozenset(found))

    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
