"""The functions of expressions: of values as they are, and those with memory, which are function blocks
(IEC 61131-3, 2.5.2: `rising` is R_TRIG, `falling` F_TRIG, `stable` of a condition TON).

A function block's input is code of its own, which the engine calls once a cycle; its result is a variable of the
batch. Where an expression is calculated only once, an edge or a time since then has no meaning; an average is taken
all the time since the batch began.
"""

from collections.abc import Mapping

import msgspec

from edge.language.arithmetic import absolute_range, range_of_call, rounded
from edge.language.checker import Checker
from edge.language.grammar import Tree
from edge.language.program import LONGEST_S, BlockKind, BlockScope, Code, FunctionBlock
from edge.language.source import Problems, suggest, tick
from edge.language.terms import WORDS, Locate, Symbol, Term, Type
from edge.language.units import KELVIN, NONE, Unit
from edge.language.units import parse as parse_unit

ARGUMENTS = {
    "min": (2, 100),
    "max": (2, 100),
    "abs": (1, 1),
    "round": (1, 1),
    "clamp": (3, 3),
    "good": (1, 1),
    "age": (1, 1),
    "rising": (1, 1),
    "falling": (1, 1),
    "stable": (2, 3),
    "average": (2, 2),
}
"""The functions, and how many arguments each takes at least and at most."""

ELAPSED = "elapsed"
"""The name of the time since the step began."""

_SECOND = parse_unit("s")
_ONCE = "this is calculated only once, when the step begins"
_AGAIN = "ask it where a condition is asked again and again: `until`, `while`, a `when` without `else`, an interlock"


class Memory:
    """The function blocks of one recipe, as its expressions make them.

    Their results are the variables from `first` on. `tags` is how many the cell has, where their values are followed
    by their ages; None: they have none.
    """

    def __init__(self, first: int, tags: int | None) -> None:
        self.first = first
        self.tags = tags
        self.blocks: list[FunctionBlock] = []

    def add(self, block: FunctionBlock) -> FunctionBlock:
        """The block with its place among the variables."""
        placed = msgspec.structs.replace(block, result=self.first + len(self.blocks))
        self.blocks.append(placed)
        return placed


class Use(msgspec.Struct, frozen=True):
    """How an expression is used: asked again and again in a step or as an interlock, or calculated once (`batch`)."""

    memory: Memory
    scope: BlockScope = "batch"


class _Input(msgspec.Struct, frozen=True):
    """An argument that is calculated by itself. `fixed`: it reads nothing but parameters."""

    term: Term
    code: Code
    fixed: bool


class Calls(Checker):
    """A checker that knows the functions; `blocks` are the function blocks that the expression has made."""

    def __init__(
        self,
        text: str,
        symbols: Mapping[str, Symbol],
        problems: Problems,
        locate: Locate,
        *,
        use: Use | None,
        runs: bool,
    ) -> None:
        super().__init__(text, symbols, problems, locate, runs=runs)
        self._use = use
        self.blocks: list[FunctionBlock] = []
        self.ages: set[int] = set()

    def _name(self, tree: Tree, expect: Type | None = None) -> Term | None:
        return self._elapsed(tree) if tree.value == ELAPSED else super()._name(tree, expect)

    def _call(self, tree: Tree) -> Term | None:
        name = str(tree.value)
        if name not in ARGUMENTS:
            hint = suggest(name, ARGUMENTS) or f"there are {', '.join(f'`{known}`' for known in ARGUMENTS)}"
            hint = "write it without brackets" if name == ELAPSED else hint
            return self._error(tree, "unknown-function", f"no function {tick(name)}", hint)
        least, most = ARGUMENTS[name]
        if not least <= len(tree.args) <= most:
            wanted = f"{least} or more" if most > 3 else f"{least} or {most}" if most > least else str(least)
            return self._error(tree, "wrong-arguments", f"`{name}` takes {wanted} arguments, not {len(tree.args)}")
        match name:
            case "good":
                return self._good(tree)
            case "age":
                return self._age(tree)
            case "rising" | "falling":
                return self._edge(tree, name)
            case "stable":
                return self._stable(tree)
            case "average":
                return self._average(tree)
            case _:
                return self._of_numbers(tree, name)

    # Of values as they are.

    def _of_numbers(self, tree: Tree, name: str) -> Term | None:
        """`min`, `max`, `clamp`, `abs`, `round`."""
        terms = self._checked(tree.args, "number")
        aligned = None if terms is None else self._aligned(terms)
        if aligned is None:
            return None
        first = aligned[0]
        if name == "abs" and first.unit.offset:
            return self._no_scale(first)
        called = {"min": "minimum", "max": "maximum", "clamp": "clamp", "abs": "absolute", "round": "rounded"}[name]
        if name == "abs":
            low, high = absolute_range((first.low, first.high))
        elif name == "round":
            low, high = rounded(first.low), rounded(first.high)
        else:
            low, high = range_of_call(name, [(term.low, term.high) for term in aligned])
        whole = name == "round" or all(term.whole for term in aligned)
        code = f"{called}({', '.join(term.ref for term in aligned)})"
        return self._made(code, Term("", "number", tree, first.unit, low, high, whole=whole), aligned)

    def _tag(self, tree: Tree, function: str) -> Symbol | None:
        """The tag that a function is asked of."""
        argument = tree.args[0]
        symbol = self._symbols.get(str(argument.value)) if argument.kind == "name" else None
        if argument.kind != "name" or (symbol is not None and symbol.kind != "tag") or argument.value == ELAPSED:
            message = f"`{function}` takes the name of a tag"
            return self._error(argument, "wrong-arguments", message, f"as in `{function}(mixer.level)`")
        return self._symbol(argument)

    def _good(self, tree: Tree) -> Term | None:
        tag = self._tag(tree, "good")
        if tag is None:
            return None
        term = Term(self._loaded("v", tag.index), tag.type, tree.args[0])
        return self._made(f"{term.ref} is not None", Term("", "bool", tree, NONE, 0, 1, certain=True), [term])

    def _age(self, tree: Tree) -> Term | None:
        use, tag = self._memory(tree), self._tag(tree, "age")
        if tag is None or use is None:
            return None
        if use.memory.tags is None:
            hint = "a recipe test asks the plant, whose values have no age"
            return self._error(tree, "no-memory", "`age` cannot stand here", hint)
        self.ages.add(tag.index)
        ref = self._loaded("v", use.memory.tags + tag.index)
        return Term(ref, "number", tree, _SECOND, 0, None)

    # With memory.

    def _memory(self, tree: Tree) -> Use | None:
        if self._use is None:
            hint = "use it in a recipe: in `until`, `while`, `when` or an interlock"
            return self._error(tree, "no-memory", f"`{tree.value}` cannot stand here: nothing is remembered", hint)
        return self._use

    def _again(self, tree: Tree) -> Use | None:
        """Where the expression is asked again and again."""
        use = self._memory(tree)
        if use is not None and use.scope == "batch":
            return self._error(tree, "asked-once", f"`{tree.value}` has no meaning here: {_ONCE}", _AGAIN)
        return use

    def _elapsed(self, tree: Tree) -> Term | None:
        use = self._again(tree)
        if use is None:
            return None
        return self._block(use, FunctionBlock("elapsed"), Term("", "number", tree, _SECOND, 0, None))

    def _edge(self, tree: Tree, name: BlockKind) -> Term | None:
        use, condition = self._again(tree), self._input(tree, "bool")
        if use is None or condition is None:
            return None
        sure = condition.term.low == condition.term.high
        block = FunctionBlock(name, input=condition.code)
        return self._block(use, block, Term("", "bool", tree, NONE, 0, 0 if sure else 1))

    def _stable(self, tree: Tree) -> Term | None:
        use, value, time = self._again(tree), self._input(tree, None), self._time(tree)
        if use is None or value is None or time is None:
            return None
        kind, argument = value.term.type, tree.args[0]
        if kind == "text":
            return self._error(argument, "wrong-type", f"{self._said(argument)} is {WORDS[kind]}", "compare it")
        if (kind == "number") != (len(tree.args) == 3):
            message = "a condition has no band" if kind == "bool" else "by how much may it move?"
            hint = "leave it out" if kind == "bool" else "add a band, as in `stable(mixer.level, 2 s, 0.1 L)`"
            return self._error(tree.args[2] if kind == "bool" else tree, "wrong-arguments", message, hint)
        high = 1 if kind == "number" else value.term.high
        block = FunctionBlock("stable", input=value.code, seconds=time)
        if kind == "number":
            band = self._band(tree.args[2], value.term.unit)
            if band is None:
                return None
            block = msgspec.structs.replace(block, band=band)
        return self._block(use, block, Term("", "bool", tree, NONE, 0, high))

    def _average(self, tree: Tree) -> Term | None:
        use, value, time = self._memory(tree), self._input(tree, "number"), self._time(tree)
        if use is None or value is None or time is None:
            return None
        block = FunctionBlock("average", input=value.code, seconds=time)
        return self._block(use, block, msgspec.structs.replace(value.term, tree=tree, whole=False))

    def _block(self, use: Use, block: FunctionBlock, term: Term) -> Term:
        block = use.memory.add(msgspec.structs.replace(block, scope=use.scope))
        self.blocks.append(block)
        return msgspec.structs.replace(term, ref=self._loaded("p", block.result))

    def _alone(self) -> "Calls":
        return Calls(self._text, self._symbols, self._problems, self._locate, use=self._use, runs=self._runs)

    def _closed(self, inner: "Calls", term: Term) -> _Input:
        """A part that `inner` has checked by itself; what it reads, the whole reads."""
        self.tags = {**inner.tags, **self.tags}
        self.variables |= inner.variables
        self.blocks += inner.blocks
        self.ages |= inner.ages
        names = {symbol.index: symbol for symbol in self._symbols.values() if symbol.kind == "variable"}
        fixed = not inner.tags and not inner.blocks and all(names[index].fixed for index in inner.variables)
        return _Input(term, inner.code(term), fixed)

    def _input(self, tree: Tree, expect: Type | None) -> _Input | None:
        """The first argument, which something must be able to change."""
        argument = tree.args[0]
        inner = self._alone()
        term = inner.check(argument, expect)
        if term is None or not inner.is_expected(term, expect):
            return None
        made = self._closed(inner, term)
        if made.fixed:
            message = f"nothing in {self._said(argument)} changes"
            return self._error(argument, "never-changes", message, "name a tag in it")
        return made

    def _time(self, tree: Tree) -> float | Code | None:
        """The second argument, a time in s, a constant or made of parameters."""
        inner, argument = self._alone(), tree.args[1]
        term = inner.check(argument, "number")
        if term is None or not inner.is_expected(term, "number") or (term := inner.in_unit(term, _SECOND)) is None:
            return None
        time = self._closed(inner, term)
        if not self._is_fixed(argument, time, "the time"):
            return None
        if term.low is None or term.low <= 0:
            return self._too_low(argument, term, "the time must be more than 0 s", "above 0 s")
        if term.low > LONGEST_S:
            return self._error(argument, "bad-duration", "this is longer than 10 years")
        return float(term.constant) if isinstance(term.constant, int | float) else time.code

    def _band(self, argument: Tree, of: Unit) -> float | Code | None:
        """The third argument, in the unit of the value; for a temperature a difference in the steps of its scale."""
        inner = self._alone()
        term = inner.check(argument, "number")
        if term is None or not inner.is_expected(term, "number"):
            return None
        if of.offset and term.unit.offset:
            return self._no_scale(term)
        term = inner.in_unit(term, KELVIN if of.offset else of)
        term = inner._in_steps(term, of) if term is not None and of.offset else term
        if term is None:
            return None
        band = self._closed(inner, term)
        if not self._is_fixed(argument, band, "the band"):
            return None
        if term.low is None or term.low < 0:
            return self._too_low(argument, term, "a band cannot be negative", "from 0 on")
        return float(term.constant) if isinstance(term.constant, int | float) else band.code

    def _is_fixed(self, argument: Tree, made: _Input, what: str) -> bool:
        if not made.fixed:
            message = f"{what} must stay what it is, but {self._said(argument)} may change"
            self._error(argument, "wrong-arguments", message, "write a constant, or a parameter")
        return made.fixed

    def _too_low(self, argument: Tree, term: Term, message: str, wanted: str) -> None:
        hint = "" if term.constant is not None else f"give the parameter a `range` {wanted}"
        self._error(argument, "negative-time" if wanted.endswith(" s") else "out-of-range", message, hint)
