"""Snapshot the current work tree as a separate git tree."""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from stack.errors import Refused
from stack.images.export import export
from stack.images.version import Version, read_base
from stack.machines.local import LocalMachine


class Snapshot:
    """The current work tree as a separate git tree.

    `files` is a directory with its content as git keeps it, whatever the person's umask and
    git configuration. It includes uncommitted and untracked files, but not ignored ones. Index
    and objects are kept in a scratch directory: the repository is never written to, so any user
    may run this.
    """

    def __init__(self, root: Path, scratch: Path, machine: LocalMachine,
                 apart: Sequence[Path] = ()) -> None:
        self.root, self.scratch, self.machine = root, scratch, machine
        self.scratch.joinpath("objects").mkdir()
        objects = (root / self._git("rev-parse", "--git-path", "objects")).resolve()
        self.env = {"GIT_INDEX_FILE": str(scratch / "index"),
                    "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
                    "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects)}
        self.commit = self._git("rev-parse", "HEAD")
        self._git("read-tree", "HEAD", env=self.env)
        # Some configurations refuse a file whose line endings they would convert.
        self._git("-c", "core.safecrlf=false", "add", "--all", env=self.env)
        # The operator's own files don't change the release. `git add` can exclude a file
        # only if it isn't ignored.
        if own := [str(path.relative_to(root)) for path in apart if path.is_relative_to(root)]:
            self._git("--literal-pathspecs", "reset", "--quiet", "HEAD", "--", *own, env=self.env)
        self.tree = self._git("write-tree", env=self.env)
        self.files = scratch / "files"
        export(root, self.tree, self.files, self.env)

    def _git(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        return self.machine.must(["git", *arguments], cwd=self.root, env=env).strip()

    @property
    def dirty(self) -> bool:
        """Whether the tree differs from the commit."""
        return self.tree != self._git("rev-parse", "HEAD^{tree}")

    def content(self, path: str) -> str:
        """Return the hash of a folder's or file's content; raises Refused if it's missing."""
        done = self.machine.run(["git", "rev-parse", f"{self.tree}:{path}"], cwd=self.root,
                                env=self.env)
        if not done.ok:
            raise Refused(f"{path} is missing", f"restore it with: git checkout -- {path}")
        return done.stdout.strip()

    def _count(self) -> str:
        """Count the commits; in a shallow clone the count would be too low.

        A laptop and CI count alike: a commit has one number, a later one a higher number.
        """
        if self._git("rev-parse", "--is-shallow-repository") == "true":
            raise Refused("this clone is shallow, so its commits can't be counted",
                          'git fetch --unshallow (in GitLab CI: GIT_DEPTH: "0"), '
                          "or set BUILD_NUMBER")
        return self._git("rev-list", "--count", "HEAD")

    def version(self, environ: Mapping[str, str] = os.environ) -> Version:
        """Return the tree's version; BUILD_NUMBER takes the place of the commit count."""
        number = environ.get("BUILD_NUMBER") or self._count()
        if not re.fullmatch(r"[0-9]{1,18}", number):
            raise Refused(f"BUILD_NUMBER={number!r}", "it should be a number")
        return Version(read_base(self.files / "version.txt"), int(number), self.commit,
                       f"dirty.{self.tree[:8]}" if self.dirty else "")


@contextmanager
def snapshot(root: Path, machine: LocalMachine,
             apart: Sequence[Path] = ()) -> Iterator[Snapshot]:
    """Take a snapshot of a checkout and drop its scratch files at the end.

    The files `apart` are included as committed, if they are. Raises Refused without
    git, a repository or a commit.
    """
    if machine.run(["git", "--version"]).code != 0:
        raise Refused("git isn't installed", "apt-get install git")
    head = machine.run(["git", "rev-parse", "--verify", "HEAD"], cwd=root)
    if not head.ok:
        raise Refused(f"{root} isn't a git checkout with a commit ({head.last_line})",
                      "clone the repository, or: git init && git add . && git commit")
    with tempfile.TemporaryDirectory(prefix="tally-") as scratch:
        yield Snapshot(root, Path(scratch), machine, apart)
