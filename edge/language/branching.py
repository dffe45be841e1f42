"""Steps that have others inside them: branches, ways, loops."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from drivers.value import Value
from edge.language import recipe
from edge.language.binding import Binding
from edge.language.expression import RESERVED, Compiled, Symbol
from edge.language.program import Block, BlockScope, Branch, Code, Repeat
from edge.language.source import Node
from edge.language.units import NONE
from edge.language.variables import loop_variable

_LOOPS = ("times", "while", "until", "each")
_LISTED = "`times`, `while`, `until` and `each`"


class Branching(Binding, ABC):
    """Compiles what a step has inside it; `in_handler`: it stands in a handler of `on`."""

    in_handler = False

    @abstractmethod
    def block(self, forms: Sequence[recipe.Step]) -> Block:
        """Steps one after another."""

    def _inner(self, where: Node, forms: Sequence[recipe.Step] | None) -> Block:
        """The steps of a branch or loop, which has some."""
        if forms is not None and not where.items:
            self.problems.error(where, "no-steps", "here are no steps", "at least one step is needed")
        return self.block(forms or ())

    def parallel(self, form: recipe.Step) -> dict[str, Any]:
        return self._branches(form, "parallel", form.parallel or {})

    def first(self, form: recipe.Step) -> dict[str, Any]:
        into = self.variables.index(form.into) if form.into in self.variables else None
        return {**self._branches(form, "first", form.first or {}), "into": into}

    def _branches(self, form: recipe.Step, key: str, given: Mapping[str, Sequence[recipe.Step]]) -> dict[str, Any]:
        place = form.place(key)
        branches = [Branch(name, self._inner(place.entries[name].value, steps)) for name, steps in given.items()]
        if not place.entries:
            self.problems.error(place, "no-steps", "here are no branches", "such as `stir: [{wait: 30 s}]`")
        return {"branches": tuple(branches), "condition": ", ".join(branch.name for branch in branches)}

    def choose(self, form: recipe.Step) -> dict[str, Any]:
        ways = form.choose or []
        if form.choose is not None and not ways:
            self.problems.error(form.place("choose"), "no-steps", "here are no ways", "such as `- when: …`")
        waits: BlockScope = "batch" if self.in_handler or any(way.has("else") for way in ways) else "step"
        branches: list[Branch] = []
        reached = True
        for number, way in enumerate(ways):
            if not reached:
                self.problems.error(way.node, "unreachable", "this way is never taken: the one before it always is")
            branch, always_taken = self._way(way, waits, last=number == len(ways) - 1)
            branches.append(branch)
            reached = reached and not always_taken
        if ways and not any(way.has("else") for way in ways) and reached and not form.has("within"):
            hint = "add `- else: [...]`, or `- else: []` to go on"
            key = form.node.entries["choose"].key
            self.problems.warning(key, "no-else", "this `choose` does not say what is done when no way is true", hint)
        conditions = [way.when.text for way in ways if way.when is not None]
        return {"branches": tuple(branches), "condition": " / ".join(conditions)}

    def _way(self, way: recipe.Way, scope: BlockScope, *, last: bool) -> tuple[Branch, bool]:
        """A way of a `choose`, and whether it is always taken."""
        if way.has("else"):
            extra = next((key for key in ("when", "steps") if way.has(key)), "")
            if extra:
                key = way.node.entries[extra].key
                self.problems.error(key, "else-alone", f"a way with `else` has no `{extra}`", "make two ways of it")
            if not last:
                hint = "put it last"
                self.problems.error(way.node.entries["else"].key, "else-not-last", "what follows is never taken", hint)
            return Branch("else", self.block(way.else_ or ())), last
        for key in ("when", "steps"):
            if not way.has(key):
                hint = "a way is `when: …` with `steps: […]`, or `else: […]`"
                self.problems.error(way.node, "missing-key", f"`{key}` is missing here", hint)
        condition = self.condition(way.when, scope)
        sure = None if condition is None else condition.always
        if condition is not None and sure is False:
            self.decided(way.place("when"), condition, "unreachable", "the way is never taken")
        block = self._inner(way.place("steps"), way.steps)
        return Branch(way.place("when").text, block, None if condition is None else condition.code), sure is True

    def repeat(self, form: recipe.Step) -> dict[str, Any]:
        if not form.has("steps"):
            self.problems.error(form.node, "missing-key", "`steps` is missing here", "`repeat` runs the step's `steps`")
        loop = form.repeat
        if loop is not None and (loop.has("each") or loop.has("of")):
            return self._each(form, loop)
        block = self._inner(form.place("steps"), form.steps)
        if loop is None:
            return {"repeat": Repeat(block)}
        given = [key for key in _LOOPS if loop.has(key)]
        if len(given) != 1:
            hint = "such as `times: 3`, `while: mixer.level < 20 L` or `each: dose, of: [5 L, 10 L]`"
            self.problems.error(loop.node, "bad-repeat", f"`repeat` has one of {_LISTED}", hint)
        while_, until = self.condition(loop.while_, "step"), self.condition(loop.until, "step")
        for node, condition, endless in ((loop.while_, while_, True), (loop.until, until, False)):
            if node is None or condition is None:
                continue
            if condition.always is endless and condition.constant is None:
                self.decided(node, condition, "endless-loop", "the loop has no end")
            elif condition.always is (not endless):
                self.decided(node, condition, "no-loop", "the loop never runs" if endless else "the loop runs once")
        repeat = Repeat(
            block,
            times=self._times(loop.times),
            while_=while_ and while_.code,
            until=until and until.code,
        )
        return {"repeat": repeat, "condition": " ".join(f"{key} {loop.place(key).text}" for key in given)}

    def _each(self, form: recipe.Step, loop: recipe.Repeat) -> dict[str, Any]:
        """A loop over values: its variable is known in its steps only."""
        other = next((key for key in _LOOPS if loop.has(key) and key != "each"), "")
        if other:
            message = f"`repeat` has one of {_LISTED}"
            self.problems.error(loop.node.entries[other].key, "bad-repeat", message, "make two loops of it")
        for key, example in (("each", "each: dose"), ("of", "of: [5 L, 10 L]")):
            if not loop.has(key):
                self.problems.error(loop.node, "missing-key", f"`{key}` is missing here", f"such as `{example}`")
        values, symbol = self._values(loop)
        slot = self.slots.get(id(form))
        outer, broken = self.scope, self.broken
        if loop.each is not None:
            self._new_name(loop)
            if symbol is None or slot is None:
                self.broken = self.broken | {loop.each}
            else:
                self.scope = self.scope.with_variables({loop.each: msgspec.structs.replace(symbol, index=slot)})
        if symbol is not None and symbol.type == "text" and slot is not None:
            self.choices = {**self.choices, slot: [value for value in values if isinstance(value, str)]}
        block = self._inner(form.place("steps"), form.steps)
        self.scope, self.broken = outer, broken
        listed = ", ".join(node.text for node in loop.of)
        unit = symbol.unit.name if symbol is not None else ""
        return {"repeat": Repeat(block, each=slot, of=values, unit=unit), "condition": f"each {loop.each} of {listed}"}

    def _new_name(self, loop: recipe.Repeat) -> None:
        """Reports a variable whose name has a meaning already."""
        name, place = loop.each or "", loop.place("each")
        if name in RESERVED:
            message = f"`{name}` means something in expressions"
            self.problems.error(place, "reserved-name", message, "choose another name")
        elif name in self.scope.symbols:
            hint = "choose another name"
            self.problems.error(place, "name-taken", f"`{name}` is a parameter or another variable", hint)

    def _values(self, loop: recipe.Repeat) -> tuple[tuple[Value | Code, ...], Symbol | None]:
        """The values of a loop, and what its variable is; None where one of them is wrong."""
        if loop.has("of") and not loop.place("of").items:
            self.problems.error(loop.place("of"), "empty-list", "this list is empty", "at least one value is needed")
        found: list[Compiled] = []
        for node in loop.of:
            kind, unit = (found[0].type, found[0].unit) if found else ("text" if node.quoted else None, None)
            value = self.expression(node, kind, unit if kind == "number" else None)
            if value is not None:
                found.append(value)
        if not found or len(found) < len(loop.place("of").items):
            return (), None
        values = tuple(value.code if value.constant is None else value.constant for value in found)
        return values, loop_variable(found)

    def _times(self, node: Node | None) -> int | Code | None:
        times = self.expression(node, "number", NONE)
        if times is None or node is None:
            return None
        if times.constant is None:
            return times.code
        number = float(times.constant)
        if number < 1 or number != int(number):
            self.problems.error(node, "bad-repeat", f"a loop cannot run {number:g} times", "a whole number from 1")
            return None
        return int(number)
