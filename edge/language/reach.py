"""What a recipe never comes to: steps after one that never ends, ways of a `choose` that an earlier one takes first,
branches of a `first` that another one is sure to end before."""

import operator
from collections.abc import Mapping, Sequence
from math import inf

from edge.language import grammar
from edge.language.program import Block, Plan
from edge.language.recipe import Way
from edge.language.source import Node, Problems, tick
from edge.language.steps import Made, inside

_BETWEEN_S = 1.0
"""So long it may take from one step to the next, until its record is on the disk."""

Span = tuple[float, float]
"""The cycles that something takes, at least and at most; inf: it may never end."""


class Reach:
    """Goes through the compiled steps of one recipe, by index, and reports what is never reached."""

    def __init__(self, made: Mapping[int, Made], plan: Plan, problems: Problems) -> None:
        self.made = made
        self.problems = problems
        self._between = plan.cycles(_BETWEEN_S)

    def check(self, blocks: Sequence[Block]) -> None:
        """Reports everything about these blocks: the body and the handlers of `on`."""
        for block in blocks:
            self._block(block)

    # Steps after one that never ends.

    def _block(self, block: Block) -> Span:
        """How long a block takes."""
        least = most = 0.0
        for index in block:
            made = self.made[index]
            if least == inf:
                before = self.made[block[block.index(index) - 1]].step
                message = f"this step is never reached: the one on line {before.line} never ends"
                hint = "give that one an end, or `within` a time with `on_timeout: continue`"
                self.problems.error(made.form.node, "unreachable", message, hint)
                break
            shortest, longest = self._step(made)
            least, most = least + shortest, most + longest + self._between
        return least, most

    def _step(self, made: Made) -> Span:
        """How long a step takes, unless something holds the batch meanwhile."""
        step = made.step
        inner = [self._block(block) for block in inside(step)]
        if step.kind == "choose":
            decided = [node for node, compiled in made.reads if compiled.always is not None]
            self._ways([way for way in made.form.choose or () if not any(way.when is node for node in decided)])
        elif step.kind == "first":
            self._first(made, inner)
        least, most = self._own(made, inner)
        if step.within is not None and step.on_timeout == "continue":
            limit = step.within if isinstance(step.within, int) else inf
            return min(least, 0 if limit == inf else limit), min(most, limit)
        return least, most

    def _own(self, made: Made, inner: Sequence[Span]) -> Span:
        step = made.step
        shortest, longest = [one[0] for one in inner], [one[1] for one in inner]
        match step.kind:
            case "set" | "let" | "record":
                return 0, 0
            case "wait" | "pulse" if isinstance(step.wait, int):
                return step.wait, step.wait
            case "parallel" | "include":
                return max(shortest, default=0), max(longest, default=inf)
            case "first":
                return min(shortest, default=0), min(longest, default=inf)
            case "choose":
                waits = step.branches and step.branches[-1].when is not None
                return min(shortest, default=0), inf if waits else max(longest, default=inf)
            case "repeat":
                return self._loop(made, *inner[0])
            case _:
                return 0, inf

    def _loop(self, made: Made, least: float, most: float) -> Span:
        loop, form = made.step.repeat, made.form.repeat
        if loop is None or form is None:
            return 0, inf
        written = {id(node): compiled.constant for node, compiled in made.reads}
        if written.get(id(form.while_)) is True or written.get(id(form.until)) is False:
            return inf, inf
        rounds = loop.times if isinstance(loop.times, int) else len(loop.of)
        if rounds:
            return rounds * least, rounds * (most + self._between)
        return (least if loop.until is not None else 0), inf

    # Ways and branches.

    def _ways(self, ways: Sequence[Way]) -> None:
        """Reports a way that an earlier one always takes first."""
        for number, way in enumerate(ways):
            if way.when is None:
                continue
            for before in ways[:number]:
                if before.when is not None and _implies(way.when, before.when):
                    line = before.when.place.line
                    message = f"this way is never taken: the one of line {line}, {tick(before.when.text)}, comes first"
                    hint = "put the narrower condition first, or leave one of them out"
                    self.problems.error(way.when, "unreachable", message, hint)
                    break

    def _first(self, made: Made, spans: Sequence[Span]) -> None:
        """Warns of a branch that cannot be the first to end. One without an end is meant to be cut."""
        entries = made.form.place("first").entries
        ends = [(most, branch.name) for branch, (_, most) in zip(made.step.branches, spans, strict=True)]
        soonest, name = min(ends, default=(inf, ""))
        for branch, (least, _) in zip(made.step.branches, spans, strict=True):
            if soonest < least < inf:
                message = f"{tick(branch.name)} is never the first to end: {tick(name)} always ends before it"
                hint = "is one of the times wrong? What only goes on until it is cut is `repeat: {while: true}`"
                self.problems.warning(entries[branch.name].key, "never-first", message, hint)


_BOUNDS = {">": operator.ge, ">=": operator.ge, "<": operator.le, "<=": operator.le}


def _implies(narrow: Node, wide: Node) -> bool:
    """Whether one condition is true only where another is: the same, or a bound of the same value that is no wider."""
    if narrow.text == wide.text:
        return True
    a, b = _bound(narrow), _bound(wide)
    if a is None or b is None or a[0] != b[0] or a[1][0] != b[1][0]:
        return False
    if a[2] == b[2]:
        return a[1] == b[1] or b[1].endswith("=")
    return bool(_BOUNDS[a[1]](a[2], b[2]))


def _bound(node: Node) -> tuple[tuple[object, str], str, float] | None:
    """`mixer.level > 20 L`: what is compared (and the unit), how, and the number; None of any other condition."""
    try:
        tree = grammar.parse(node.text)
    except grammar.SyntaxFault:
        return None
    if tree.kind != "compare" or tree.ops[0] not in _BOUNDS:
        return None
    name, number = tree.args
    if name.kind != "name" or number.kind != "number" or not isinstance(number.value, int | float):
        return None
    return (name.value, number.unit), tree.ops[0], number.value
