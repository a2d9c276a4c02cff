"""The license and the changelog are in order, and no file names anybody's machines."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from stack.images.version import read_base
from stack.inventory.settings import SETTINGS, Settings
from tests.files.tree import ROOT, files
from tests.support.repository import Repository

pytestmark = pytest.mark.style

# The digest of the license's text from "Permission is hereby granted" to its end
# (https://spdx.org/licenses/MIT.html), with single spaces between words.
MIT = "fe2a9817987f862eaced948f0468c7f51d2fedfc48c5c505b246a49a3870e9a5"
# Each machine's own configuration says where packages come from.
REGISTRIES = re.compile(
    rb"\b(?:pypi|pythonhosted|npmjs)\.(?:org|com)\b"
    rb"|\b(?:deb|security|ftp(?:\.\w+)?|snapshot|archive)\.(?:debian\.org|ubuntu\.com)\b")
WORKPLACE = re.compile(b"/work" + rb"/(?:main|shared)\b")


def places(pattern: re.Pattern[bytes]) -> list[str]:
    """Return each file that matches the pattern, with the matching words."""
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


def test_no_workplace_path_is_named() -> None:
    assert places(WORKPLACE) == []


def test_the_example_settings_are_the_defaults(tmp_path: Path) -> None:
    example = dict(re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(),
                              re.MULTILINE))

    assert example.keys() == {*SETTINGS, "INVENTORY", "REGISTRY_PASSWORD"}
    assert Settings.load(environ=example, dotenv=tmp_path / "absent") == Settings()


@pytest.mark.parametrize("setting", ["core.autocrlf=true", "core.eol=crlf"])
def test_a_clone_has_every_file_as_it_is_here(tmp_path: Path, setting: str) -> None:
    origin, clone = Repository(tmp_path / "origin"), Repository(tmp_path / "clone")
    origin.git("init", "--quiet")
    for name in files():
        (origin.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, origin.root / name)
    origin.commit("The project")
    clone.git("clone", "--quiet", f"--config={setting}", str(origin.root), ".")

    assert [name for name in files()
            if (clone.root / name).read_bytes() != (ROOT / name).read_bytes()] == []
    assert clone.git("status", "--porcelain") == ""
