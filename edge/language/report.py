"""Problems as a person reads them, each with its line of source and carets below the fault; and as a program does.

Also what makes a text safe for a terminal, whatever is in it.
"""

import itertools
import unicodedata
from collections.abc import Sequence
from typing import Any

from edge.language.source import Problem, Problems

_WIDTH = 110
_SHOWN_AS_THEY_ARE = "\u200c\u200d\u200e\u200f"


def _cell(character: str) -> tuple[str, int]:
    """A character as a terminal may safely be given it, and how many columns it takes."""
    if " " <= character <= "~":
        return character, 1
    category = unicodedata.category(character)
    if character == "\t":
        return "    ", 4
    if category in ("Mn", "Me") or character in _SHOWN_AS_THEY_ARE:
        return character, 0
    if category in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        escaped = f"<U+{ord(character):04X}>"
        return escaped, len(escaped)
    return character, 2 if unicodedata.east_asian_width(character) in "WF" else 1


def safe(text: str) -> str:
    """A text as a terminal may be given it: what would move its cursor is shown as a code."""
    return "".join(_cell(character)[0] for character in text)


def clip(text: str, columns: int) -> str:
    """The same, cut to so many columns."""
    cells = [_cell(character) for character in text]
    if sum(width for _, width in cells) <= columns:
        return "".join(shown for shown, _ in cells)
    ends = list(itertools.accumulate(width for _, width in cells))
    return "".join(shown for (shown, _), end in zip(cells, ends, strict=True) if end < columns) + "…"


def _excerpt(line: str, column: int, length: int) -> tuple[str, str]:
    """A line of the source, cut around the fault, and the carets below it."""
    at = min(column - 1, len(line))
    first = 0 if len(line) <= _WIDTH else max(0, at - _WIDTH // 2)
    last = min(len(line), first + _WIDTH)
    cells = [_cell(character) for character in line[first:last]]
    before = sum(width for _, width in cells[: at - first]) + (1 if first else 0)
    under = sum(width for _, width in cells[at - first : at - first + length])
    shown = ("…" if first else "") + "".join(text for text, _ in cells) + ("…" if last < len(line) else "")
    return shown.rstrip(), " " * before + "^" * max(1, under)


def colors(wanted: bool) -> tuple[str, str, str, str, str, str]:
    """What makes a terminal write red, yellow, green, blue, bold and plain again; nothing where no colour is wanted."""
    codes = "1;31", "1;33", "1;32", "1;34", "1", "0"
    red, yellow, green, blue, bold, plain = (f"\33[{code}m" if wanted else "" for code in codes)
    return red, yellow, green, blue, bold, plain


def shown(problem: Problem, lines: Sequence[str], *, color: bool = False) -> str:
    """A problem with its line of source, of the lines of its file, and carets under the fault."""
    red, yellow, _, blue, bold, plain = colors(color)
    tone = red if problem.severity == "error" else yellow
    place = safe(f"{problem.file}:{problem.line}:{problem.column}")
    block = [f"{bold}{place}: {tone}{problem.severity}{plain}{bold}: {safe(problem.message)}{plain}"]
    number = str(problem.line)
    if problem.line <= len(lines) and lines[problem.line - 1].strip():
        line, carets = _excerpt(lines[problem.line - 1], problem.column, problem.length)
        block += [f" {blue}{number} |{plain} {line}", f" {' ' * len(number)} {blue}|{plain} {tone}{carets}{plain}"]
    if problem.hint:
        block.append(f" {' ' * len(number)} {blue}={plain} hint: {safe(problem.hint)}")
    return "\n".join(block) + "\n"


def report(problems: Problems, *, color: bool = False) -> str:
    """Every problem with its line of source and carets under the fault, then how many there are; "" where none is."""
    *_, bold, plain = colors(color)
    blocks = [shown(problem, problems.lines(problem.file), color=color) for problem in problems]
    blocks += [f"… and {count} more in {safe(file)}\n" for file, count in sorted(problems.left_out.items())]
    if not blocks:
        return ""
    counts = ((problems.errors, "error"), (problems.warnings, "warning"))
    told = ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for count, word in counts if count)
    return "\n".join(blocks) + f"\n{bold}{told}{plain}\n"


def as_json(problems: Problems) -> list[dict[str, Any]]:
    """The problems for a program: a list of `file`, `line`, `column`, `severity`, `code`, `message`, `hint`."""
    names = ("file", "line", "column", "severity", "code", "message", "hint")
    return [{name: getattr(problem, name) for name in names} for problem in problems]
