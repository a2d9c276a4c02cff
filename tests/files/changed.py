"""Remember which files a tool has passed, for tools without a cache of their own."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tests.files.tree import ROOT


@contextmanager
def only_changed(tool: str, names: Sequence[str], settings: str,
                 passed: Path = Path(sys.prefix)) -> Iterator[list[str]]:
    """Yield the files that have changed since the tool last passed them.

    The file `settings` holds the tool's settings. If the block raises no exception, all files
    have passed: the folder `passed` keeps their digests, in the environment that has the tool.
    """
    record = passed / f"{tool}-passed"
    common = f"{version(tool)} {digest(settings)}"
    now = {name: f"{common} {name} {digest(name)}" for name in names}
    before = set(record.read_text().splitlines()) if record.exists() else set()
    yield [name for name, line in now.items() if line not in before]
    record.write_text("".join(f"{line}\n" for line in now.values()))


def digest(name: str) -> str:
    """Return the SHA-256 of a file of the checkout."""
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
