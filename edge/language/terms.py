"""The parts of an expression while it is checked: what each is, what is said of it, its line of the code."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from drivers.value import Value
from edge.language.arithmetic import CALLED
from edge.language.grammar import Tree
from edge.language.program import Code, Values
from edge.language.source import Place, Problems, tick
from edge.language.units import NONE, Unit, describe, quantity

Type = Literal["bool", "number", "text"]


class Symbol(msgspec.Struct, frozen=True):
    """What a name stands for: a tag (`index` in `Cell.tags`) or a variable (`index` in `Recipe.variables`).

    `whole`: it is always a whole number in its unit. `fixed`: a parameter, which stays what it is.
    """

    kind: Literal["tag", "variable"]
    index: int
    type: Type
    unit: Unit = NONE
    low: float | None = None
    high: float | None = None
    whole: bool = False
    fixed: bool = False


Locate = Callable[[int, int], Place]
"""Start and length of a part in its text -> where it stands."""

FILE = "<expression>"
"""The file that the byte code of every expression names."""

WORDS = {"bool": "a condition (true or false)", "number": "a number", "text": "a text"}


class Term(msgspec.Struct, frozen=True):
    """A checked part: `ref` is its name or literal in the code. `bare`: a constant that was written without a unit.

    The range of a bool is 0 to 1. `certain`: it is never unknown. `whole`: a number that is whole in its unit.
    """

    ref: str
    type: Type
    tree: Tree
    unit: Unit = NONE
    low: float | None = None
    high: float | None = None
    constant: Value | None = None
    bare: bool = False
    certain: bool = False
    whole: bool = False


class Parts(ABC):
    """The parts of one expression: one assignment for each that is no constant, all of them in one function.

    `tags` are those that were read, each with the place where it was first; `runs`: the code is wanted.
    """

    def __init__(
        self, text: str, symbols: Mapping[str, Symbol], problems: Problems, locate: Locate, *, runs: bool
    ) -> None:
        self._text = text
        self._symbols = symbols
        self._problems = problems
        self._locate = locate
        self._runs = runs
        self._loads: dict[str, str] = {}
        self._lines: list[str] = []
        self.tags: dict[int, Place] = {}
        self.variables: set[int] = set()

    def code(self, result: Term) -> Code:
        """The function of everything that was checked."""
        if not self._runs:
            return _no_code
        loads = [f"{name} = {source}" for name, source in self._loads.items()]
        source = "\n ".join(["def code(v, p):", *loads, *self._lines, f"return {result.ref}"])
        names = dict(CALLED)
        exec(compile(source, FILE, "exec"), names)
        return names["code"]

    # Reports.

    def _error(self, tree: Tree, code: str, message: str, hint: str = "") -> None:
        self._problems.error(self._place(tree), code, message, hint)

    def _place(self, tree: Tree) -> Place:
        return self._locate(tree.start, tree.end - tree.start)

    def _said(self, tree: Tree) -> str:
        return tick(self._text[tree.start : tree.end]) if tree.end > tree.start else "this"

    def _measured(self, term: Term) -> str:
        """`mixer.level` is in L, a volume; `20 kg` is a mass."""
        if not term.unit.name:
            return f"{self._said(term.tree)} has no unit"
        named = quantity(term.unit)
        if term.constant is not None and named:
            return f"{self._said(term.tree)} is {named}"
        return f"{self._said(term.tree)} is in {describe(term.unit)}"

    def is_expected(self, term: Term, expect: Type | None) -> bool:
        """Whether a part has the type that must stand there; reports where not."""
        if expect is None or term.type == expect:
            return True
        hint = {"bool": "compare it with a value", "number": "", "text": 'a text is written in quotes: "…"'}[expect]
        if expect == "bool" and term.type == "number" and term.constant in (0, 1):
            hint = f"true or false stands here: did you mean `{'true' if term.constant else 'false'}`?"
        message = f"expected {WORDS[expect]}, but {self._said(term.tree)} is {WORDS[term.type]}"
        self._error(term.tree, "wrong-type", message, hint)
        return False

    # Parts.

    @abstractmethod
    def check(self, tree: Tree, expect: Type | None = None) -> Term | None:
        """A part with its type, unit and range, or None where it is wrong; `expect` helps to say what was meant."""

    def _checked(self, trees: tuple[Tree, ...], expect: Type | None) -> list[Term] | None:
        """All of some parts, or None where any is wrong."""
        terms = [self.check(tree, expect) for tree in trees]
        good = [term for term in terms if term is not None and self.is_expected(term, expect)]
        return good if len(good) == len(terms) else None

    def _made(self, code: str, term: Term, parts: list[Term]) -> Term | None:
        """A part that `code` computes from others: at once where all are constants, else in the function."""
        if any(part.constant is None for part in parts):
            name = f"r{len(self._lines)}"
            self._lines.append(f"{name} = {code}")
            return msgspec.structs.replace(term, ref=name)
        value: Value | None = eval(code, {**CALLED, "__builtins__": {}})
        if value is None:
            hint = "it divides by zero, or is too large"
            return self._error(term.tree, "no-value", f"{self._said(term.tree)} has no value", hint)
        if term.type == "number" and isinstance(value, int | float):
            return constant(value, term.tree, term.unit, bare=all(part.bare for part in parts))
        return msgspec.structs.replace(term, ref=repr(value), constant=value, low=value, high=value, certain=True)


def constant(value: float, tree: Tree, unit: Unit, *, bare: bool) -> Term:
    whole = float(value).is_integer()
    return Term(repr(value), "number", tree, unit, value, value, value, bare=bare, certain=True, whole=whole)


def _no_code(_values: Values, _variables: Values) -> Value | None:
    raise RuntimeError("this expression was only checked")
