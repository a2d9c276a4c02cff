"""Which version a tree is: version.txt, the build number and the exact content."""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from stack.errors import Refused
from stack.machine import LocalMachine

BASE_VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Version:
    """A build's version: `1.4.0+57`, and as an image tag `1.4.0-57`.

    `mark` tells a build from another one with the same number: uncommitted
    changes, or a commit whose number is taken.
    """

    base: str
    build: int
    commit: str
    mark: str = ""

    @property
    def text(self) -> str:
        """The version as /version gives it (Semantic Versioning 2.0.0, section 10)."""
        return f"{self.base}+{self._build}"

    @property
    def tag(self) -> str:
        """The version as an image tag, in which a plus sign isn't allowed."""
        return f"{self.base}-{self._build}"

    @property
    def _build(self) -> str:
        return f"{self.build}.{self.mark}" if self.mark else str(self.build)

    def distinguished(self) -> "Version":
        """Return the version for when its number belongs to another commit."""
        return replace(self, mark=".".join(filter(None, (f"g{self.commit[:7]}", self.mark))))


def read_base(path: Path) -> str:
    """Return version.txt's MAJOR.MINOR.PATCH; raises Refused for anything else."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path.name} can't be read", f"git checkout -- {path.name}") from error
    if not BASE_VERSION.fullmatch(text):
        raise Refused(f"{path.name}: {text[:40]!r} isn't a version",
                      "it should be MAJOR.MINOR.PATCH, such as 1.4.0")
    return text


class Snapshot:
    """The work tree as it is now, as a git tree that holds nothing but it.

    `files` is a directory with its content. Uncommitted and untracked files are in
    it, ignored ones aren't. Index and objects are kept in a scratch directory: the
    repository is never written to, so it doesn't matter who runs this.
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
        self._git("add", "--all", env=self.env)
        # An operator's own files, whose changes are no change of what is released. To
        # exclude one from the start, `git add` wants it not to be ignored.
        if own := [str(path.relative_to(root)) for path in apart if path.is_relative_to(root)]:
            self._git("--literal-pathspecs", "reset", "--quiet", "HEAD", "--", *own, env=self.env)
        self.tree = self._git("write-tree", env=self.env)
        self.files = scratch / "files"
        self._git("checkout-index", "--all", f"--prefix={self.files}/", env=self.env)

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
        """Count the commits; a shallow clone lacks some, and its number would go back."""
        if self._git("rev-parse", "--is-shallow-repository") == "true":
            raise Refused("this clone is shallow, so its commits can't be counted",
                          "git fetch --unshallow, or set BUILD_NUMBER")
        return self._git("rev-list", "--count", "HEAD")

    def version(self, environ: Mapping[str, str] = os.environ) -> Version:
        """Return the tree's version; CI gives the build number, else commits are counted."""
        number = environ.get("BUILD_NUMBER") or environ.get("CI_PIPELINE_IID") \
            or self._count()
        if not re.fullmatch(r"[0-9]{1,18}", number):
            raise Refused(f"BUILD_NUMBER={number!r}", "it should be a number")
        return Version(read_base(self.files / "version.txt"), int(number), self.commit,
                       f"dirty.{self.tree[:8]}" if self.dirty else "")


@contextmanager
def snapshot(root: Path, machine: LocalMachine,
             apart: Sequence[Path] = ()) -> Iterator[Snapshot]:
    """Take a snapshot of a checkout and drop its scratch files at the end.

    The files `apart` are in it as they were committed, if they were. Raises Refused
    where there is no git, no repository or no commit.
    """
    if machine.run(["git", "--version"]).code != 0:
        raise Refused("git isn't installed", "apt-get install git")
    head = machine.run(["git", "rev-parse", "--verify", "HEAD"], cwd=root)
    if not head.ok:
        raise Refused(f"{root} isn't a git checkout with a commit ({head.last_line})",
                      "clone the repository, or: git init && git add . && git commit")
    with tempfile.TemporaryDirectory(prefix="tally-") as scratch:
        yield Snapshot(root, Path(scratch), machine, apart)
