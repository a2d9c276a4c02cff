"""The project's own papers are in order, and it names nobody else's machines."""

import hashlib
import re
from pathlib import Path

import pytest

from stack.settings import SETTINGS, Settings
from stack.version import read_base
from tests.files.tree import ROOT, files

pytestmark = pytest.mark.style

# Of the licence's text from "Permission is hereby granted" to its end
# (https://spdx.org/licenses/MIT.html), with single spaces between its words.
MIT = "fe2a9817987f862eaced948f0468c7f51d2fedfc48c5c505b246a49a3870e9a5"
# Where packages come from is the business of each machine's own configuration.
REGISTRIES = re.compile(
    rb"\b(?:pypi|pythonhosted|npmjs)\.(?:org|com)\b"
    rb"|\b(?:deb|security|ftp(?:\.\w+)?|snapshot|archive)\.(?:debian\.org|ubuntu\.com)\b")
WORKPLACE = re.compile(b"/work" + rb"/(?:main|shared)\b")


def places(pattern: re.Pattern[bytes]) -> list[str]:
    """Return each file that has the pattern, with the words that matched."""
    return [f"{name}: {found[0].decode()}" for name in files()
            for found in pattern.finditer((ROOT / name).read_bytes())]


def test_version_txt_is_one_line_with_a_version() -> None:
    assert (ROOT / "version.txt").read_text() == read_base(ROOT / "version.txt") + "\n"


def test_the_licence_is_mit() -> None:
    title, holder, terms = (ROOT / "LICENSE").read_text().split("\n\n", 2)

    assert title == "MIT License"
    assert re.fullmatch(r"Copyright \(c\) [0-9]{4}(-[0-9]{4})? \S.*", holder)
    assert hashlib.sha256(" ".join(terms.split()).encode()).hexdigest() == MIT


def test_no_package_registry_is_named() -> None:
    assert places(REGISTRIES) == []


def test_no_path_of_a_workplace_is_named() -> None:
    assert places(WORKPLACE) == []


def test_the_example_settings_are_the_defaults(tmp_path: Path) -> None:
    example = dict(re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(),
                              re.MULTILINE))

    assert example.keys() == {*SETTINGS, "INVENTORY", "REGISTRY_PASSWORD"}
    assert Settings.load(environ=example, dotenv=tmp_path / "absent") == Settings()
