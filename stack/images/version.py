"""A tree's version: version.txt, the build number and the exact content."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from stack.errors import Refused

BASE_VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")

# What comes before a version's renewal.
RENEWED = ".base."


@dataclass(frozen=True)
class Version:
    """A build's version: `1.4.0+57`, and as an image tag `1.4.0-57`.

    `mark` distinguishes builds with the same number: it names uncommitted changes,
    or a commit whose number is taken. `renewal` distinguishes builds upon a renewed base image.
    """

    base: str
    build: int
    commit: str
    mark: str = ""
    renewal: str = ""

    @property
    def text(self) -> str:
        """The version that /version returns (Semantic Versioning 2.0.0, section 10)."""
        return f"{self.base}+{self._build}"

    @property
    def tag(self) -> str:
        """The version as an image tag, which can't contain a plus sign."""
        return f"{self.base}-{self._build}"

    @property
    def _build(self) -> str:
        renewal = f"{RENEWED}{self.renewal}" if self.renewal else ""
        return (f"{self.build}.{self.mark}" if self.mark else str(self.build)) + renewal

    def distinguished(self) -> "Version":
        """Return the version to use when another commit has its number."""
        return replace(self, mark=".".join(filter(None, (f"g{self.commit[:7]}", self.mark))))

    def upon(self, renewal: str) -> "Version":
        """Return the version of this commit upon a base image of this renewal, "" for none."""
        return replace(self, renewal=renewal)


def renewal_of(text: str) -> str:
    """Return the renewal of the base image upon which a version was built, "" for none."""
    return text.rpartition(RENEWED)[2] if RENEWED in text else ""


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
