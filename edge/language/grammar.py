"""The grammar of expressions: text -> tree.

    or < and < not < == != < <= > >= < + - < * / < -x        names, numbers with units, texts, f(x, …), (…)

A unit follows its number and has no spaces in it (`200 mm/s`): `10 L / t` divides. Comparisons are not chained.
"""

import math
import re
from typing import Literal

import msgspec

from drivers.value import Value
from edge.language.units import is_unit

MAX_TOKENS = 500
MAX_DEPTH = 32
MAX_CHARACTERS = 8_000
_MAX_DIGITS = 40

Kind = Literal["number", "text", "bool", "name", "call", "not", "negative", "sum", "product", "compare", "and", "or"]


class Tree(msgspec.Struct, frozen=True):
    """A part of an expression, from character `start` to before `end` of its text.

    A number has `value` and `unit` (as written), a text or bool its `value`, a name or call its name as `value`. A
    chain of operations of one rank (`a - b + c`) is one part with one more of `args` than of `ops`.
    """

    kind: Kind
    start: int
    end: int
    value: Value = ""
    unit: str = ""
    args: "tuple[Tree, ...]" = ()
    ops: tuple[str, ...] = ()
    height: int = 1


class SyntaxFault(Exception):
    """What is wrong from character `start` to before `end`, and what to do."""

    def __init__(self, start: int, end: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.start = start
        self.end = end
        self.message = message
        self.hint = hint


class _Token(msgspec.Struct, frozen=True):
    kind: Literal["number", "text", "name", "operator", "end"]
    text: str
    start: int
    end: int
    unit: str = ""


KEYWORDS = frozenset({"and", "or", "not", "true", "false"})

_UNIT_NAME = r"(?:mmH2O|mH2O|(?:[^\W\d_¹²³⁴⁵⁶⁷⁸⁹]|[°%‰℃])+)(?:\^?[+-]?[1-9](?![0-9.])|[⁺⁻]?[¹²³⁴⁵⁶⁷⁸⁹])?"
_UNIT = rf"(?!(?:and|or|not|true|false)\b)(?>(?:1/)?{_UNIT_NAME}(?:[/*·]{_UNIT_NAME})*)(?![\w.(])"
_TOKEN = re.compile(
    rf"""(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?:\s*(?P<unit>{_UNIT}))?
    |(?P<text>"[^"]*"|'[^']*')
    |(?P<name>[^\W\d]\w*(?:\.\w+)*)
    |(?P<operator>==|!=|<=|>=|[-+*/()<>,])""",
    re.VERBOSE,
)
_SPACE = re.compile(r"\s*")
_TURNED = {"=<": "write `<=`", "=>": "write `>=`"}
_MEANT = {
    "=": "write `==` to compare",
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not`",
    "≥": "write `>=`",
    "≤": "write `<=`",
    "≠": "write `!=`",
    "×": "write `*`",
    "÷": "write `/`",
    "−": "write `-`",
    "–": "write `-`",
    "“": 'write `"`',
    "”": 'write `"`',
    "«": 'write `"`',
}


def _tokens(text: str) -> list[_Token]:
    if len(text) > MAX_CHARACTERS:
        raise SyntaxFault(0, 1, f"an expression has at most {MAX_CHARACTERS} characters", "split it")
    tokens: list[_Token] = []
    position = 0
    while True:
        position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
        if position == len(text):
            tokens.append(_Token("end", "", position, position))
            return tokens
        match = _TOKEN.match(text, position)
        if match is None:
            character = text[position]
            if character in "\"'":
                raise SyntaxFault(position, len(text), "this quote is not closed", f"close it with `{character}`")
            hint = _TURNED.get(text[position : position + 2]) or _MEANT.get(character, "")
            raise SyntaxFault(position, position + 1, f"`{character}` means nothing here", hint)
        if len(tokens) == MAX_TOKENS:
            raise SyntaxFault(0, 1, f"an expression has at most {MAX_TOKENS} parts", "split it")
        kind = "number" if match["number"] else match.lastgroup
        assert kind in ("number", "text", "name", "operator")
        tokens.append(_Token(kind, match[kind], position, match.end(), match["unit"] or ""))
        position = match.end()


_TIMES = ("d", "h", "min", "s", "ms")
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_NOT, _SIGN = 3, 7
_RANKS: dict[str, tuple[int, Kind]] = {
    "or": (1, "or"),
    "and": (2, "and"),
    **dict.fromkeys(_COMPARISONS, (4, "compare")),
    **dict.fromkeys(("+", "-"), (5, "sum")),
    **dict.fromkeys(("*", "/"), (6, "product")),
}


def parse(text: str) -> Tree:
    """The tree of an expression. Raises SyntaxFault."""
    tokens = _tokens(text)
    if len(tokens) == 1:
        raise SyntaxFault(0, len(text), "an expression is missing here", "as in `mixer.level >= 20 L`")
    parser = _Parser(tokens)
    tree = parser.expression(0)
    token = parser.token
    if token.kind == "end":
        return tree
    if token.text in (")", ","):
        hint = "the decimal point is `.`" if token.text == "," else "remove it, or open it with `(`"
        raise SyntaxFault(token.start, token.end, f"`{token.text}` means nothing here", hint)
    raise parser.no_operator()


class _Parser:
    """A Pratt parser: one call for each rank and bracket, one loop for each chain."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    @property
    def token(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self.token
        self._at += 1
        return token

    def no_operator(self) -> SyntaxFault:
        token = self.token
        shown = token.text[:40]
        hint = "a unit stands right after a number" if token.kind == "name" and is_unit(shown) else ""
        hint = f"`{shown.casefold()}` is written in small letters" if shown.casefold() in KEYWORDS else hint
        return SyntaxFault(token.start, token.end, f"an operator is missing before `{shown}`", hint)

    def expression(self, floor: int) -> Tree:
        """What stands here, up to an operator that binds no tighter than `floor`."""
        left = self._prefix()
        while (rank := self._rank())[0] > floor:
            args, ops = [left], list[str]()
            while self._rank()[0] == rank[0]:
                if ops and rank[1] == "compare":
                    hint = "join two comparisons with `and`, as in `0 < x and x < 5`"
                    raise SyntaxFault(self.token.start, self.token.end, "comparisons cannot be chained", hint)
                ops.append(self._take().text)
                args.append(self.expression(rank[0]))
            left = self._tree(rank[1], left.start, args[-1].end, args=tuple(args), ops=tuple(ops))
        return left

    def _rank(self) -> tuple[int, Kind]:
        token = self.token
        return _RANKS.get(token.text, (0, "or")) if token.kind in ("operator", "name") else (0, "or")

    def _tree(
        self,
        kind: Kind,
        start: int,
        end: int,
        value: Value = "",
        args: tuple[Tree, ...] = (),
        ops: tuple[str, ...] = (),
    ) -> Tree:
        height = 1 + max((arg.height for arg in args), default=0)
        if height > MAX_DEPTH:
            raise SyntaxFault(start, end, f"an expression is nested at most {MAX_DEPTH} deep", "split it")
        return Tree(kind, start, end, value, args=args, ops=ops, height=height)

    def _prefix(self) -> Tree:
        token = self._take()
        match token.kind, token.text:
            case "number", _:
                return self._quantity(token)
            case "text", _:
                return Tree("text", token.start, token.end, token.text[1:-1])
            case "name", "true" | "false":
                return Tree("bool", token.start, token.end, token.text == "true")
            case ("name", "not") | ("operator", "-" | "("):
                return self._nested(token)
            case "name", name if name not in KEYWORDS:
                if self.token.text == "(" and self.token.kind == "operator":
                    return self._nested(token)
                return Tree("name", token.start, token.end, name)
            case "end", _:
                raise SyntaxFault(
                    max(0, token.start - 1), token.start, "the expression ends too soon: a value is missing"
                )
            case _:
                hint = "`!=` compares for inequality" if token.text == ">" else ""
                raise SyntaxFault(token.start, token.end, f"expected a value, not `{token.text}`", hint)

    def _quantity(self, token: _Token) -> Tree:
        """A number with its unit, or a time of several such as `1 h 30 min`."""
        parts = [token]
        while (following := self.token.unit) in _TIMES and parts[-1].unit in _TIMES[: _TIMES.index(following)]:
            parts.append(self._take())
        trees = tuple(Tree("number", part.start, part.end, _number(part), part.unit) for part in parts)
        if len(trees) == 1:
            return trees[0]
        return self._tree("sum", token.start, parts[-1].end, args=trees, ops=("+",) * (len(trees) - 1))

    def _nested(self, token: _Token) -> Tree:
        """`not x`, `-x`, `(x)`, `f(x, …)`: what takes a level of depth."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SyntaxFault(token.start, token.end, f"an expression is nested at most {MAX_DEPTH} deep", "split it")
        if token.text == "(":
            inner = self.expression(0)
            end = self._close(token)
            tree = msgspec.structs.replace(inner, start=token.start, end=end)
        elif token.kind == "name" and token.text != "not":
            tree = self._call(token)
        else:
            inner = self.expression(_NOT if token.text == "not" else _SIGN)
            tree = self._tree("not" if token.text == "not" else "negative", token.start, inner.end, args=(inner,))
        self._depth -= 1
        return tree

    def _call(self, name: _Token) -> Tree:
        opened = self._take()
        args: list[Tree] = []
        if self.token.text != ")":
            args.append(self.expression(0))
            while self.token.text == "," and self.token.kind == "operator":
                self._take()
                args.append(self.expression(0))
        return self._tree("call", name.start, self._close(opened), name.text, tuple(args))

    def _close(self, opened: _Token) -> int:
        if self.token.kind == "operator" and self.token.text == ")":
            return self._take().end
        if self.token.kind == "end":
            raise SyntaxFault(opened.start, opened.end, "`(` is not closed", _NOT_CLOSED)
        raise self.no_operator()


_NOT_CLOSED = "close it with `)`; inside YAML's `{…}` or `[…]` an expression with a comma must be in quotes"


def _number(token: _Token) -> int | float:
    if len(token.text) > _MAX_DIGITS:
        raise SyntaxFault(token.start, token.end, f"a number has at most {_MAX_DIGITS} characters")
    value = int(token.text) if token.text.isdecimal() else float(token.text)
    if not math.isfinite(value):
        raise SyntaxFault(token.start, token.end, "this number is too large")
    return value
