"""A git repository that a test fills."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

IDENTITY = ("-c", "user.name=Ada Example", "-c", "user.email=ada@example.org")
SUPPORTING = ("postgres", "traefik", "socket-proxy")


@dataclass(frozen=True)
class Repository:
    """A checkout; `git` runs in it and must succeed."""

    root: Path

    def git(self, *arguments: str) -> str:
        self.root.mkdir(exist_ok=True)
        done = subprocess.run(["git", *IDENTITY, *arguments], cwd=self.root, check=True,
                              capture_output=True, text=True)
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def commit(self, message: str) -> str:
        """Commit everything that isn't ignored and return the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", f"--message={message}")
        return self.git("rev-parse", "HEAD")

    def add_images(self) -> None:
        """Commit what each image is built from."""
        self.write("Dockerfile", "FROM scratch\n")
        self.write("app/required-files", "app/templates/page.html\n")
        self.write("app/templates/page.html", "<p>You have visited this page.</p>\n")
        for name in SUPPORTING:
            self.write(f"stack/images/{name}/Dockerfile", f"# {name}\nFROM scratch\n")
        self.commit("Add the images")

    def state(self) -> dict[str, tuple[int, int, bytes]]:
        """Return the content of .git: each path's mode, owner and content.

        Not its times: git updates an object's time when it writes the same object again.
        """
        return {str(path.relative_to(self.root)): (
            path.stat().st_mode, path.stat().st_uid, path.read_bytes() if path.is_file() else b"")
            for path in [self.root / ".git", *sorted(self.root.glob(".git/**/*"))]}
