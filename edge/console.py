"""The terminal of a person: lines that stay, below them one that lives with what is being typed, and the keys."""

import codecs
import contextlib
import os
import re
import sys
import termios
from collections.abc import Generator

from edge.language.report import clip, safe

_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?")
"""What the arrows and other keys without a character send (ECMA-48, 5.4)."""

_ENTER, _BACKSPACE, _CLEAR = "\r\n", "\x7f\b", "\x15"


class Console:
    """Standard input and output. `typing`: somebody can type here; `live`: the last line can be drawn anew.

    Where both are so, keys come one by one and unechoed (`keys_alone`): they are shown behind the live line, which is
    drawn anew without wiping out what is being typed.
    """

    def __init__(self) -> None:
        self.typing = _in_front(sys.stdin.fileno() if sys.stdin else -1)
        self.live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.typed = ""
        self._line = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")

    @contextlib.contextmanager
    def keys_alone(self) -> Generator[None]:
        """While this lasts, keys are not echoed and need no Enter; Ctrl-C stays what it is."""
        if not (self.typing and self.live):
            yield
            return
        before = termios.tcgetattr(sys.stdin)
        mode = list(before)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, mode)
        try:
            yield
        finally:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    def read(self) -> list[str]:
        """The lines that were completed since the last look. Nobody types any more once the terminal is gone."""
        try:
            data = os.read(sys.stdin.fileno(), 4096)
        except OSError:
            data = b""
        if not data:
            self.typing = False
        lines: list[str] = []
        for character in _ESCAPES.sub("", self._decoder.decode(data)):
            if character in _ENTER:
                lines.append(self.typed.strip())
                self.typed = ""
            elif character in _BACKSPACE:
                self.typed = self.typed[:-1]
            elif character == _CLEAR:
                self.typed = ""
            elif character.isprintable():
                self.typed += character
        self._draw()
        return lines

    def say(self, text: str) -> None:
        """A line that stays."""
        wiped = "\r\x1b[2K" if self.live else ""
        self._put(f"{wiped}{safe(text)}\n")
        self._draw()

    def show(self, line: str) -> None:
        """The line that lives; "" for none."""
        self._line = line
        self._draw()

    def _draw(self) -> None:
        if not self.live:
            return
        columns = _columns()
        typed = f"> {self.typed}"[-columns // 2 :] if self.typed else ""
        line = clip(self._line, columns - len(typed) - 2) if self._line else ""
        self._put(f"\r\x1b[2K{'  '.join(part for part in (line, safe(typed)) if part)}")

    def _put(self, text: str) -> None:
        """A terminal that is gone, or a reader that has seen enough, ends no batch."""
        with contextlib.suppress(OSError):
            sys.stdout.write(text)
            sys.stdout.flush()


def _in_front(stdin: int) -> bool:
    """Whether it is a terminal whose keys go to this process; one in the background has none."""
    try:
        return os.isatty(stdin) and os.tcgetpgrp(stdin) == os.getpgrp()
    except OSError:
        return False


def _columns() -> int:
    try:
        return max(20, os.get_terminal_size(sys.stdout.fileno()).columns - 1)
    except OSError:
        return 79
