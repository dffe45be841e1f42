"""The syntax errors of a YAML parser (libyaml's words and PyYAML's own) as an engineer can use them."""

import itertools
import re
from typing import Any

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """A syntax error: line and column from 0, and the words for it."""

    line: int
    column: int
    code: str
    message: str
    hint: str


class _Case(msgspec.Struct, frozen=True):
    """A kind of error: what the parser says, our words (`{}`: the character), whether its context is the place."""

    says: str
    message: str
    hint: str
    at_context: bool = False


_CASES = (
    _Case(
        r"unexpected end of stream|unexpected document (indicator|separator)",
        "this quote is not closed",
        "close it with {}",
        True,
    ),
    _Case(
        r"sequence entries are not allowed",
        "a list item cannot stand on the line of its key",
        "put `- …` on a line of its own below the key, or write `[…]`",
    ),
    _Case(r"mapping keys are not allowed", "text cannot start with `?` here", "put it in quotes"),
    _Case(
        r"escape",
        "this is no escape of a text in double quotes",
        r"put the text in single quotes, or write `\\` for a backslash",
    ),
    _Case(r"hexdecimal", "hexadecimal digits are missing in this escape", r"write `\x41`, `\u0041` or `\U00000041`"),
    _Case(
        r"comment or (a )?line break|chomping or indentation|indentation indicator|indicator in the range",
        "text cannot start with {} here",
        "put it in quotes",
        True,
    ),
    _Case(r"alphabetic or numeric character", "text cannot start with {}", "put it in quotes", True),
    _Case(r"directive|non-alphabetical|version number", "a line cannot start with `%`", "put the text in quotes", True),
    _Case(r"tag|'!'|'>'|URI", "YAML tags (`!…`) are not allowed", "put text that starts with `!` in quotes", True),
    _Case(r"'-' indicator", "this line is no item of the list above", "items of a list start with `- ` in one column"),
)


def explain(error: Any, lines: list[str], first: int) -> Fault:
    """A `yaml.MarkedYAMLError` in plain words. The text was parsed from line `first` (from 0) of `lines` on."""
    says = str(error.problem)
    at = _position(error.problem_mark or error.context_mark, lines, first)
    context = _position(error.context_mark or error.problem_mark, lines, first)
    if "could not find expected ':'" in says:
        return _no_colon(*context, lines)
    if "mapping values are not allowed" in says or "unexpected ':'" in says:
        return _second_colon(*at, lines)
    if "cannot start any token" in says or "a tab character" in says:
        return _bad_start(*at, lines)
    if re.search(r"expected ',' or '", says):
        return _unclosed(at, context, lines)
    misplaced = re.search(r"expected (the )?(node content|key|<block end>|'?<document start>)", says)
    if misplaced and re.match(r":(\s|$)", lines[at[0]][at[1] :]):
        return Fault(*at, "bad-key", "a key is missing before the colon", "write `key: value`")
    if misplaced and "node content" in says:
        return _no_value(*at, lines)
    if misplaced:
        return _after_value(*at, lines)
    for case in _CASES:
        if re.search(case.says, says):
            line, column = context if case.at_context else at
            character = f"`{_character(line, column, lines)}`"
            hint = case.hint.replace("{}", character)
            return Fault(line, column, "yaml-syntax", case.message.replace("{}", character), hint)
    return Fault(*at, "yaml-syntax", f"this is no YAML: {says}", "check indentation, brackets and quotes")


def _position(mark: Any, lines: list[str], first: int) -> tuple[int, int]:
    """The line and column of a mark; the end of the last line that has text for one behind it."""
    line = mark.line + first
    if line < len(lines) and (lines[line].strip() or any(row.strip() for row in lines[line:])):
        return line, mark.column
    last = max((n for n, row in enumerate(lines) if row.strip()), default=0)
    return last, len(lines[last].rstrip())


def _character(line: int, column: int, lines: list[str]) -> str:
    return lines[line][column : column + 1]


def _no_colon(line: int, column: int, lines: list[str]) -> Fault:
    text = lines[line][column:].rstrip()
    if gap := re.match(r"([\w.-]+):(\S.*)", text):
        fixed = f"{gap[1]}: {gap[2]}"[:60]
        place = column + len(gap[1]) + 1
        return Fault(line, place, "missing-space", "a space is missing after the colon", f"write `{fixed}`")
    return Fault(line, column, "yaml-syntax", "expected `key: value` on this line", "is a colon missing?")


def _second_colon(line: int, column: int, lines: list[str]) -> Fault:
    before = lines[line][:column]
    if re.search(r":\s", before) and not re.match(r"\s*- *[\w.-]+$", before):
        hint = 'put the value in quotes: `key: "…: …"`'
        return Fault(line, column, "yaml-syntax", "a value cannot have `: ` in it", hint)
    start = len(before) - len(before.lstrip())
    if bare := re.match(r"(\s*(?:- +)?)([A-Za-z_]+) [^:#]*$", lines[line - 1] if line else ""):
        hint = f"is a colon missing: `{bare[2]}: …`?"
        return Fault(line - 1, len(bare[1]), "yaml-syntax", "expected `key: value` on this line", hint)
    hint = "the line above has its value already: give both lines one indentation, or leave that value out"
    return Fault(line, start, "bad-indentation", "a key cannot stand here", hint)


def _bad_start(line: int, column: int, lines: list[str]) -> Fault:
    indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
    if "\t" in indent or _character(line, column, lines) == "\t":
        block = itertools.takewhile(lambda row: not row[:1].strip(), lines[line + 1 :])
        more = sum(bool(re.match(r" *\t\s*\S", row)) for row in block)
        too = f" (and in {more} more line{'s' if more > 1 else ''})" if more else ""
        column = indent.index("\t") if "\t" in indent else column
        return Fault(line, column, "tab", f"a tab cannot indent a line{too}", "indent with spaces")
    return Fault(
        line, column, "yaml-syntax", f"text cannot start with `{_character(line, column, lines)}`", "put it in quotes"
    )


def _unclosed(at: tuple[int, int], context: tuple[int, int], lines: list[str]) -> Fault:
    opened = _character(*context, lines)
    closed = {"[": "]", "{": "}"}.get(opened, "]")
    if at[0] != context[0] or at[1] >= len(lines[at[0]].rstrip()):
        return Fault(*context, "unclosed-bracket", f"`{opened}` is not closed", f"close it with `{closed}`")
    return Fault(
        *at, "yaml-syntax", f"expected `,` or `{closed}` here", "put text that has `: `, `,` or brackets in quotes"
    )


def _no_value(line: int, column: int, lines: list[str]) -> Fault:
    found = _character(line, column, lines)
    if not found:
        hint = "close every `[` with `]` and every `{` with `}`"
        return Fault(line, column, "unclosed-bracket", "the file ends within brackets", hint)
    return Fault(line, column, "yaml-syntax", f"expected a value, not `{found}`", "put text in quotes if it is meant")


def _after_value(line: int, column: int, lines: list[str]) -> Fault:
    found = _character(line, column, lines)
    if found in ("]", "}"):
        return Fault(line, column, "yaml-syntax", f"`{found}` closes nothing here", "remove it")
    if not lines[line][:column].strip() and lines[line][:1] == " ":
        hint = "keys of one map start in one column"
        return Fault(line, column, "bad-indentation", "this line fits the indentation of none above", hint)
    if not column:
        hint = "the whole file is one map: `key: value`, all of its keys in column 1"
        if lines[line].startswith("- "):
            hint = "indent it as deep as the other `- ` of its list"
        return Fault(line, column, "yaml-syntax", "this line does not fit the one above", hint)
    if re.search(r":\s+'[^']*'$", lines[line][:column]):
        hint = "write '' for a quote within single quotes, or use double quotes"
        return Fault(line, column, "yaml-syntax", "text goes on after its closing quote", hint)
    hint = "put a text that starts with a bracket, brace or quote in quotes as a whole"
    return Fault(line, column, "yaml-syntax", "text goes on after the end of this value", hint)
