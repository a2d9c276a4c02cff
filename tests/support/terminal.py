"""A terminal for the console, and what a person would see on it."""

import io
import re

from rich.console import Console

# An escape sequence or one character.
WORDS = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]|.", re.DOTALL)
UP, WIPE = "\x1b[1A", "\x1b[2K"


class Terminal:
    """A terminal of this size, and a console that writes to it."""

    def __init__(self, width: int = 80, height: int = 25) -> None:
        self.width = width
        self._file = io.StringIO()
        self.console = Console(
            file=self._file, force_terminal=True, highlight=False, soft_wrap=True, emoji=False,
            width=width, height=height, _environ={"TERM": "xterm-256color"})

    @property
    def said(self) -> str:
        """Everything that was written, including escape sequences."""
        return self._file.getvalue()

    def screen(self) -> list[str]:
        """Return the lines that are visible now, without empty ones.

        Like a terminal, it continues on the next line when one is full.
        """
        rows, row, column = [""], 0, 0
        for word in WORDS.findall(self.said):
            shown = word.isprintable()
            if word == "\n" or shown and column == self.width:
                row, column = row + 1, 0
                rows += [""] * (row + 1 - len(rows))
            if word == "\r":
                column = 0
            elif word == UP:
                row = max(0, row - 1)
            elif word == WIPE:
                rows[row] = ""
            elif shown:
                rows[row] = rows[row][:column].ljust(column) + word + rows[row][column + 1:]
                column += 1
        return [line.rstrip() for line in rows if line.strip()]
