"""Write a git tree's files exactly as git keeps them."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.errors import Refused

FOLDER, LINK, SUBMODULE, PROGRAM = "040000", "120000", "160000", "100755"


@dataclass(frozen=True)
class TreeEntry:
    """One path of a tree: its mode and its object's name, as in git-ls-tree(1)."""

    mode: str
    name: str
    path: str


def export(root: Path, tree: str, target: Path, env: Mapping[str, str]) -> None:
    """Write a tree of the repository at `root` to the new folder `target`.

    Read from git's objects, since a checkout converts files as the person's configuration says:
    line endings, filters. Git alone says which files are executable; the umask has no say. So
    the same tree always gives the same files.
    """
    entries = [TreeEntry(FOLDER, tree, ""), *_entries(root, tree, env)]
    files = [entry for entry in entries if entry.mode not in (FOLDER, SUBMODULE)]
    contents = dict(zip((entry.path for entry in files), _contents(root, files, env)))
    for entry in entries:
        path = target / entry.path
        if entry.mode == LINK:
            os.symlink(contents[entry.path], os.fsencode(path))
        elif entry.path in contents:
            path.write_bytes(contents[entry.path])
            path.chmod(0o755 if entry.mode == PROGRAM else 0o644)
        else:
            path.mkdir()
            path.chmod(0o755)


def _entries(root: Path, tree: str, env: Mapping[str, str]) -> Iterator[TreeEntry]:
    """Yield everything in a tree, each folder before its content."""
    listed = _git(["ls-tree", "-r", "-t", "-z", "--full-tree", tree], root, env)
    for line in listed.split(b"\0")[:-1]:
        about, _, path = line.partition(b"\t")
        mode, _, name = about.decode().split()
        yield TreeEntry(mode, name, os.fsdecode(path))


def _contents(root: Path, files: list[TreeEntry], env: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the content of each file."""
    names = "".join(f"{entry.name}\n" for entry in files)
    output = _git(["cat-file", "--batch"], root, env, names.encode())
    start = 0
    for _ in files:
        # "<name> blob <size>", the content, and a line feed.
        end = output.index(b"\n", start)
        size = int(output[start:end].split()[2])
        yield output[end + 1:end + 1 + size]
        start = end + size + 2


def _git(arguments: list[str], root: Path, env: Mapping[str, str], stdin: bytes = b"") -> bytes:
    done = subprocess.run(["git", *arguments], cwd=root, env={**os.environ, **env}, input=stdin,
                          capture_output=True)
    if done.returncode != 0:
        raise Refused(f"git {arguments[0]} failed ({done.stderr.decode(errors='replace')})",
                      "git fsck shows what is broken")
    return done.stdout
