"""Where a cursor stands in a file that is being written, be it sound or not: the keys around it, by indentation."""

import re
from collections.abc import Sequence

import msgspec

_LINE = re.compile(r"(?P<space> *)(?P<dashes>(?:- +)*)(?:(?P<key>[\w.-]+):(?=\s|$))?")
_TOKEN = re.compile(r"""(?P<key>[\w.-]+):(?=\s|$)|(?P<mark>[{}\[\],])|"[^"]*"?|'[^']*'?|[^\s{}\[\],]+""")
_WORD = re.compile(r"[\w.-]*\Z")
_REST = re.compile(r"[\w.-]*")


class Cursor(msgspec.Struct, frozen=True):
    """`path` are the keys around it from the top, `key` the one whose value is being written ("": a key is), `word` the
    word at the cursor, from column `start` (from 0) on, `before` that part of the line.
    """

    path: tuple[str, ...]
    key: str
    word: str
    start: int
    before: str


def at(lines: Sequence[str], line: int, column: int) -> Cursor:
    """The cursor in a line and column, both from 0."""
    text = lines[line] if line < len(lines) else ""
    before = text[:column]
    start = len(before) - len(_WORD.search(before)[0])  # type: ignore[index]
    rest = _REST.match(text, start)
    word = rest[0].rstrip(":") if rest else ""
    first = _LINE.match(before)
    assert first is not None
    bound = len(first["space"]) + len(first["dashes"]) if before.strip() else column
    path = _around(lines[:line], bound, dashed=len(first["space"]) if first["dashes"] else None)
    inside, key = _within(before[first.start("key") :] if first["key"] else before[first.end() :])
    return Cursor((*path, *inside), key, word, start, before)


def _around(lines: Sequence[str], bound: int, dashed: int | None) -> list[str]:
    """The keys of the lines above that stand around an indentation; `dashed`: where the item of a list begins."""
    path: list[str] = []
    if dashed is not None:
        bound = dashed + 1
    for text in reversed(lines):
        found = _LINE.match(text)
        if found is None or not text.strip() or text.lstrip().startswith("#"):
            continue
        space, column = len(found["space"]), len(found["space"]) + len(found["dashes"])
        if found["key"] and column < bound:
            path.insert(0, found["key"])
            bound = space + 1 if found["dashes"] else column
        elif found["dashes"] and column <= bound:
            bound = min(bound, space + 1)
        if not bound:
            break
    return path


def _within(text: str) -> tuple[list[str], str]:
    """The keys of the braces that are open at the end of a line's part, and the key whose value is being written."""
    stack: list[str] = []
    key = ""
    for found in _TOKEN.finditer(text):
        match found["key"], found["mark"]:
            case str(name), _:
                key = name
            case _, "{":
                stack.append(key)
                key = ""
            case _, "[":
                stack.append(f"[{key}")
            case _, "]" | "}":
                key = stack.pop().removeprefix("[") if stack else ""
            case _, ",":
                key = stack[-1].removeprefix("[") if stack and stack[-1].startswith("[") else ""
            case _:
                pass
    keys = [one for one in stack if one and not one.startswith("[")]
    lists = [one[1:] for place, one in enumerate(stack) if one.startswith("[") and place < len(stack) - 1]
    return [*dict.fromkeys([*lists, *keys])], key
