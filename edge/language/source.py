"""YAML text -> nodes with line and column; every problem of the files, collected.

YAML is read strictly (YAML 1.1 as libyaml reads it, less tags, anchors, merge keys and further documents): a scalar is
the text as written, and what the file's schema declares decides what it means. Size, depth and number of nodes are
limited while the parser's events come in, so that nothing is ever built from a file that is too deep.
"""

import difflib
import hashlib
import itertools
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from edge.language.syntax import explain

MAX_BYTES = 1_000_000
MAX_DEPTH = 64
MAX_NODES = 100_000
MAX_SHOWN = 200
_MAX_RESUMED = 20


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where something stands: line and column count from 1, column and length in characters."""

    file: str
    line: int
    column: int
    length: int = 1


class Node(msgspec.Struct, frozen=True, gc=False):
    """A node of a file. A scalar is `text` as written (`quoted` in any of YAML's ways); `key:` alone is "" unquoted."""

    kind: Literal["text", "list", "map"]
    place: Place
    text: str = ""
    quoted: bool = False
    items: "list[Node]" = []
    entries: "dict[str, Entry]" = {}


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A key of a map and its value."""

    key: Node
    value: Node


class Problem(msgspec.Struct, frozen=True, gc=False):
    """What is wrong, where, and what to do about it. `code` names the kind in kebab-case, for programs."""

    file: str
    line: int
    column: int
    severity: Literal["error", "warning"]
    code: str
    message: str
    hint: str = ""
    length: int = 1


class Problems:
    """The problems of some files, at most `MAX_SHOWN` kept for each; `errors` and `warnings` count them all.

    What is said a second time, since a file was read twice, counts once. `given` are texts by path
    that count in place of what is on the disk: of an editor, or of an earlier version.
    """

    def __init__(self, given: Mapping[str, str] | None = None) -> None:
        self.errors = 0
        self.warnings = 0
        self.left_out: dict[str, int] = {}
        self.given = given or {}
        self.texts: dict[str, str] = {}
        self._found: dict[str, list[Problem]] = {}
        self._lines: dict[str, list[str]] = {}

    def error(self, where: Place | Node, code: str, message: str, hint: str = "") -> None:
        self.errors += self._add(where, "error", code, message, hint)

    def warning(self, where: Place | Node, code: str, message: str, hint: str = "") -> None:
        self.warnings += self._add(where, "warning", code, message, hint)

    def withdraw(self, where: Node, codes: Collection[str]) -> str:
        """Takes back the warnings of these codes in a scalar for an error that says more: the message of the first."""
        place = where.place
        found = self._found.get(place.file, [])
        columns = range(place.column, place.column + place.length)
        taken = [one for one in found if one.code in codes and one.line == place.line and one.column in columns]
        taken = [one for one in taken if one.severity == "warning"]
        self.warnings -= len(taken)
        self._found[place.file] = [one for one in found if one not in taken]
        return taken[0].message if taken else ""

    def _add(
        self, where: Place | Node, severity: Literal["error", "warning"], code: str, message: str, hint: str
    ) -> bool:
        """Whether it is new."""
        place = where.place if isinstance(where, Node) else where
        found = self._found.setdefault(place.file, [])
        problem = Problem(place.file, place.line, place.column, severity, code, message, hint, place.length)
        if problem in found:
            return False
        if len(found) >= MAX_SHOWN:
            self.left_out[place.file] = self.left_out.get(place.file, 0) + 1
        else:
            found.append(problem)
        return True

    def __iter__(self) -> Iterator[Problem]:
        every = (problem for found in self._found.values() for problem in found)
        return iter(sorted(every, key=lambda problem: (problem.file, problem.line, problem.column)))

    def remember(self, file: str, text: str) -> None:
        """Keeps a file's text, for the lines that the report shows."""
        self.texts[file] = text
        self._lines[file] = _LINE_BREAK.split(text)

    def lines(self, file: str) -> list[str]:
        """The lines of a file that was loaded; none of any other."""
        return self._lines.get(file, [])


_LINE_BREAK = re.compile(r"\r\n|\n|\r")


def load(path: Path | str, problems: Problems) -> Node | None:
    """The root of a YAML file; None, with the problems added, where it cannot be read."""
    file = str(path)
    if file in problems.given:
        return parse(problems.given[file], file, problems)
    start = Place(file, 1, 1)
    data = _read(file, start, problems)
    if data is None:
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        lines = _LINE_BREAK.split(before)
        utf_16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        if not utf_16:
            problems.remember(file, data.decode("utf-8-sig", errors="replace"))
        problems.error(
            Place(file, len(lines), len(lines[-1]) + 1),
            "not-utf-8",
            f"the file is not UTF-8: byte 0x{data[error.start]:02X} at offset {error.start}",
            "it looks like UTF-16: save it as UTF-8" if utf_16 else "save it as UTF-8",
        )
        return None
    return parse(text, file, problems)


def _read(file: str, start: Place, problems: Problems) -> bytes | None:
    try:
        status = Path(file).stat()
        if not stat.S_ISREG(status.st_mode):
            problems.error(start, "not-a-file", "this is not a file", "name a YAML file")
            return None
        if status.st_size <= MAX_BYTES:
            with Path(file).open("rb") as opened:
                data = opened.read(MAX_BYTES + 1)
            if len(data) <= MAX_BYTES:
                return data
    except FileNotFoundError:
        problems.error(start, "no-file", "there is no such file", "check the path")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        problems.error(start, "unreadable", f"the file cannot be read: {reason}", "check its permissions")
    else:
        problems.error(start, "too-large", f"the file has more than {MAX_BYTES:,} bytes", "is it the right file?")
    return None


_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_TOP_KEY = re.compile(r"""[^\W\d][\w.-]*:(\s|$)""")


def parse(text: str, file: str, problems: Problems) -> Node | None:
    """The root of a YAML text; None, with the problems added, where it is no YAML or has what is not allowed here.

    After a syntax error reading goes on at the next key in column 1, to report what else is wrong.
    """
    problems.remember(file, text)
    lines = problems.lines(file)
    if not _characters(lines, file, problems):
        return None
    root, failed = _part(lines, 0, file, problems)
    for _ in range(_MAX_RESUMED):
        if failed is None:
            break
        resumed = next((n for n in range(failed + 1, len(lines)) if _TOP_KEY.match(lines[n])), None)
        if resumed is None:
            break
        root, failed = None, _part(lines, resumed, file, problems)[1]
    return root


def _characters(lines: list[str], file: str, problems: Problems) -> bool:
    """Whether only characters stand here that YAML allows and that every editor counts alike in lines."""
    good = True
    for number, line in enumerate(lines, 1):
        if found := _FORBIDDEN.search(line):
            place = Place(file, number, found.start() + 1)
            problems.error(place, "bad-character", f"the character U+{ord(found[0]):04X} is not allowed", "remove it")
            good = False
    first = next((n for n, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), None)
    if first is None:
        problems.error(Place(file, 1, 1), "empty-file", "the file is empty", "is it the right file?")
        return False
    if lines[first].startswith("%"):
        problems.error(
            Place(file, first + 1, 1), "yaml-directive", "YAML directives (`%…`) are not allowed", "remove it"
        )
        good = False
    return good


def _part(lines: list[str], first: int, file: str, problems: Problems) -> tuple[Node | None, int | None]:
    """The root of the text from a line on, or None and the line where its syntax failed (None: it went well)."""
    reader = _Reader(lines, first, file, problems)
    try:
        root = reader.document()
    except _Stopped:
        return None, None
    except yaml.MarkedYAMLError as error:
        fault = explain(error, lines, first)
        problems.error(Place(file, fault.line + 1, fault.column + 1), fault.code, fault.message, fault.hint)
        return None, fault.line
    return (None if reader.broken else root), None


class _Stopped(Exception):
    """The file is not to be read further; the problem is reported."""


class _Reader:
    """Builds nodes from the events of a YAML parser. `broken`: it had something for which no node can stand."""

    def __init__(self, lines: list[str], first: int, file: str, problems: Problems) -> None:
        text = "\n".join(lines[first:])
        parser = yaml.CBaseLoader(text) if yaml.__with_libyaml__ else yaml.BaseLoader(text)
        self._next: Any = parser.get_event
        self._lines = lines
        self._first = first
        self._file = file
        self._problems = problems
        self._nodes = 0
        self._forbidden: dict[str, list[tuple[Place, str, str]]] = {}
        self.broken = False

    def document(self) -> Node:
        try:
            return self._document()
        finally:
            self._report_forbidden()

    def _document(self) -> Node:
        self._next()  # the start of the stream
        self._next()  # the start of the document
        root = self._node(self._next(), 0)
        end = self._next()
        after = end if end.explicit else self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            self._problems.error(
                self._place(after.start_mark, after.start_mark),
                "several-documents",
                "a second document starts here",
                "one file holds one document: remove `---` or `...` and what follows",
            )
        return root

    def _place(self, start: Any, end: Any) -> Place:
        line: int = start.line + self._first
        width = (end.column if end.line == start.line else len(self._lines[line])) - start.column
        return Place(self._file, line + 1, start.column + 1, max(1, width))

    def _node(self, event: Any, depth: int) -> Node:
        place = self._place(event.start_mark, event.end_mark)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(place, "too-many-values", f"the file has more than {MAX_NODES:,} values")
        if isinstance(event, yaml.AliasEvent):
            self._forbid(place, "yaml-anchor", f"YAML anchors and aliases ({tick(f'*{event.anchor}')})", "write it out")
            return Node("text", place)
        if event.anchor is not None:
            self._forbid(place, "yaml-anchor", f"YAML anchors and aliases ({tick(f'&{event.anchor}')})", "write it out")
        if event.tag is not None:
            tag = tick(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self._forbid(place, "yaml-tag", f"YAML tags ({tag})", "remove it, or quote the text")
        if isinstance(event, yaml.ScalarEvent):
            return Node("text", place, event.value, bool(event.style))
        if depth >= MAX_DEPTH:
            self._stop(place, "too-deep", f"the file is nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(event, depth)
        return self._map(event, depth)

    def _list(self, event: Any, depth: int) -> Node:
        items: list[Node] = []
        while not isinstance(item := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(item, depth + 1))
        return Node("list", self._span(event, item), items=items)

    def _map(self, event: Any, depth: int) -> Node:
        entries: dict[str, Entry] = {}
        while not isinstance(item := self._next(), yaml.MappingEndEvent):
            key = self._node(item, depth + 1)
            value = self._node(self._next(), depth + 1)
            if self._is_key(key, value) and (first := entries.setdefault(key.text, Entry(key, value)).key) is not key:
                self._problems.error(
                    key,
                    "duplicate-key",
                    f"{tick(key.text)} stands here twice: the first is on line {first.place.line}",
                    "remove one of them",
                )
        return Node("map", self._span(event, item), entries=entries)

    def _span(self, start: Any, end: Any) -> Place:
        """A `[…]` or `{…}` in one line whole; of any other its first character."""
        if start.flow_style and end.end_mark.line == start.start_mark.line:
            return self._place(start.start_mark, end.end_mark)
        return self._place(start.start_mark, start.start_mark)

    def _is_key(self, key: Node, value: Node) -> bool:
        if key.kind != "text":
            hint = "put text that has braces or brackets in quotes"
            self._refuse(key.place, "bad-key", f"a key must be text, not a {key.kind}", hint)
        elif key.text == "<<" and not key.quoted:
            self._forbid(key.place, "yaml-merge", "YAML merge keys (`<<`)", "write the keys out")
        elif not key.text:
            self._refuse(key.place, "bad-key", "a key is missing before the colon", "write `key: value`")
        elif not key.quoted and is_empty(value) and ":" in key.text:
            name, _, rest = key.text.partition(":")
            hint = f"write {tick(f'{name}: {rest}')}"
            self._refuse(key.place, "missing-space", "a space is missing after the colon", hint)
        else:
            return True
        return False

    def _forbid(self, place: Place, code: str, what: str, hint: str) -> None:
        """Notes what YAML has and this does not: each kind is one problem, at its first place."""
        self.broken = True
        self._forbidden.setdefault(code, []).append((place, what, hint))

    def _report_forbidden(self) -> None:
        for code, found in self._forbidden.items():
            place, what, hint = found[0]
            more = f"; {len(found) - 1} more follow" if len(found) > 1 else ""
            self._problems.error(place, code, f"{what} are not allowed{more}", hint)

    def _refuse(self, place: Place, code: str, message: str, hint: str) -> None:
        self.broken = True
        self._problems.error(place, code, message, hint)

    def _stop(self, place: Place, code: str, message: str) -> None:
        self._problems.error(place, code, message, "is it the right file?")
        raise _Stopped


def origin(node: Node, offset: int, length: int, problems: Problems) -> Place:
    """Where `length` characters of a scalar's text from `offset` stand in its file, seen through quotes, escapes and
    folded lines.

    All that YAML does to a scalar's white space keeps the order of its other characters: those are counted.
    """
    place, lines = node.place, problems.lines(node.place.file)
    part = node.text[offset : offset + length]
    if part and part == part.strip() and _stands_as_it_is(node, lines):
        return Place(place.file, place.line, place.column + node.quoted + offset, len(part))
    before, inside = _solid(node.text[:offset]), _solid(part)
    found = list(itertools.islice(_written(node, lines), before + max(1, inside)))
    if not found:
        return Place(place.file, place.line, place.column + offset, max(1, length))
    line, start, end = found[before] if before < len(found) else found[-1]
    if not inside:
        line, start, end = found[before - 1] if before else found[0]
        return Place(place.file, line, end if before else start)
    last = [token for token in found[before:] if token[0] == line][-1]
    return Place(place.file, line, start, last[2] - start)


def _stands_as_it_is(node: Node, lines: list[str]) -> bool:
    """Whether a scalar's text is that of its file, in one line and with nothing escaped in it: most are."""
    line, column = lines[node.place.line - 1] if node.place.line <= len(lines) else "", node.place.column - 1
    if not node.quoted:
        return line.startswith(node.text, column)
    mark = line[column : column + 1]
    escaped = mark not in ("'", '"') or mark in node.text or "\\" in node.text
    return not escaped and line.startswith(f"{node.text}{mark}", column + 1)


def _solid(text: str) -> int:
    return sum(not character.isspace() for character in text)


_WRITTEN = {
    "'": re.compile(r"''|[^\s']"),
    '"': re.compile(r"\\(?:x(..)|u(.{4})|U(.{8})|[0abe\"/\\])|\\.|[^\s\"\\]"),
    "": re.compile(r"\S"),
}
_BLANK_ESCAPES = re.compile(r"\\[^0abexuU\"/\\]")


def _written(node: Node, lines: list[str]) -> Iterator[tuple[int, int, int]]:
    """What makes the characters of a scalar that are no white space: line, column, column after the end."""
    line, column = node.place.line - 1, node.place.column - 1
    style = lines[line][column : column + 1] if node.quoted and line < len(lines) else ""
    if style in ("|", ">"):
        line, column, style = line + 1, 0, ""
    for row in range(line, len(lines)):
        for token in _WRITTEN[style].finditer(lines[row], column + len(style) if row == line else 0):
            code = next(filter(None, token.groups()), "")
            if not (chr(int(code, 16)).isspace() if code else _BLANK_ESCAPES.fullmatch(token[0])):
                yield row + 1, token.start() + 1, token.end() + 1


def digest(text: str) -> str:
    """The SHA-256 of a file's text in UTF-8, in hexadecimal digits: what tells its versions apart."""
    return hashlib.sha256(text.encode()).hexdigest()


def tick(text: str) -> str:
    """A text of the user's in a message, cut where it is long."""
    return f"`{text}`" if len(text) <= 60 else f"`{text[:57]}…`"


def suggest(name: str, names: Iterable[str]) -> str:
    """`did you mean …?` where one of the names is close to this one, else nothing."""
    if len(name) > 100:
        return ""
    known = {known.casefold(): known for known in names}
    near = difflib.get_close_matches(name.casefold(), known, 1, 0.65)
    if not near and name:
        near = [folded for folded in known if folded.endswith("." + name.casefold())]
    return f"did you mean `{known[near[0]]}`?" if near else ""


def is_empty(node: Node) -> bool:
    return node.kind == "text" and not node.text and not node.quoted
