"""What only the whole of a recipe shows before it runs: outputs that two branches drive, answers that are used before
they are asked, waits for what never changes."""

from collections.abc import Mapping, Sequence

from edge.language.expression import Compiled
from edge.language.program import Block, Plan, Step
from edge.language.source import Node, Problems
from edge.language.steps import Made, inside

Writes = dict[str, Node]
"""What is driven, a tag or an equipment phase by name -> where it stands."""
Known = frozenset[int]
"""Variables that have a value."""


class Flow:
    """Goes through the compiled steps of one recipe as the engine will, and reports what cannot go well.

    `made` are the steps by index, `variables` names by index, the first `given` of them are parameters.
    """

    def __init__(
        self, made: Mapping[int, Made], plan: Plan, variables: Sequence[str], given: int, problems: Problems
    ) -> None:
        self.made = made
        self.plan = plan
        self.variables = variables
        self.given: Known = frozenset(range(given))
        self.problems = problems

    def check(self, body: Block, handlers: Sequence[Block]) -> None:
        """Reports everything about the body and the handlers of `on`."""
        for block in (body, *handlers):
            self._writes(block)
            self._answers(block, self.given, frozenset())
        for block in handlers:
            self._certain(block)

    # Who drives what.

    def _writes(self, block: Block) -> Writes:
        """All that a block drives, each where it does so first."""
        found: Writes = {}
        for index in block:
            found = {**self._step_writes(self.made[index]), **found}
        return found

    def _step_writes(self, made: Made) -> Writes:
        step, form = made.step, made.form
        own: Writes = {}
        if form.let is not None:
            own |= {name: entry.key for name, entry in form.place("let").entries.items()}
        for key in ("set", "during", "ramp", "pulse"):
            for name, entry in form.place(key).entries.items() if form.has(key) else ():
                if name in own:
                    self._twice(entry.key, name, "by the same step", own[name])
                own[name] = entry.key
        if step.do is not None:
            for name in (self.plan.cell.tags[tag].name for tag in self.plan.phases[step.do.phase].outputs):
                if name in own:
                    self._twice(own[name], name, "by the phase", form.place("do"))
                own[name] = form.place("do")
            own[form.do or ""] = form.place("do")
        inner: Writes = {}
        for block in inside(step):
            branch = self._writes(block)
            clashes = {
                branch[name].place: name for name in branch if name in inner and step.kind in ("parallel", "first")
            }
            for name in clashes.values():
                self._twice(branch[name], name, "by another branch", inner[name])
            inner = {**branch, **inner}
        if step.include is not None:  # where its own steps clash with others is said at the step that includes them
            inner = dict.fromkeys(inner, form.place("include"))
        for name in inner.keys() & form.during.keys():
            self._twice(
                inner[name], name, "by `during` of the step around this", form.place("during").entries[name].key
            )
        return {**inner, **own}

    def _twice(self, node: Node, name: str, by: str, first: Node) -> None:
        verb, what = ("driven", "drives an output") if "." in name else ("set", "sets a variable")
        hint = f"one thing at a time {what}: leave one of them out, or let one come after the other"
        self.problems.error(node, "driven-twice", f"`{name}` is {verb} {by} too, on line {first.place.line}", hint)

    # What a handler does, whatever has failed.

    def _certain(self, block: Block) -> None:
        """Warns of what a handler leaves out when a tag has no value: it runs just when something is wrong."""
        for index in block:
            made = self.made[index]
            form = made.form
            ramps = [node for ramp in (form.ramp or {}).values() for node in (ramp.to, ramp.rate, ramp.from_)]
            given = (*form.set.values(), *(form.pulse or {}).values(), *ramps)
            for node, compiled in made.reads:
                if not compiled.tags or compiled.certain:
                    continue
                tag = self.plan.cell.tags[compiled.tags[0]].name
                if any(node is one for one in given):
                    what, hint = (
                        "this output is left as it is",
                        "a handler acts when something is wrong: give a constant or a parameter",
                    )
                elif node is form.wait or node is form.for_:
                    what, hint = "it does not wait at all", "give it a time that reads no tag"
                else:
                    continue
                self.problems.warning(node, "may-be-left-out", f"when `{tag}` has no value, {what}", hint)
            for inner in inside(made.step):
                self._certain(inner)

    # Which answers are there.

    def _answers(self, block: Block, known: Known, meanwhile: Known) -> Known:
        """The variables that have a value after a block. `meanwhile` may get theirs in branches beside it."""
        for index in block:
            made = self.made[index]
            after = self._step_answers(made, known, meanwhile)
            if made.step.within is None or made.step.on_timeout != "continue" or _has_default(made.step):
                known = after
        return known

    def _step_answers(self, made: Made, known: Known, meanwhile: Known) -> Known:
        step, form = made.step, made.form
        loop = form.repeat
        lets = {id(node): name for name, node in (form.let or {}).items() if name in self.variables}
        for node, compiled in made.reads:
            if loop is None or node is not loop.until:
                self._read(node, compiled, known | meanwhile if node is form.until else known)
            if id(node) in lets:
                known |= {self.variables.index(lets[id(node)])}
            if node is form.until:
                self._changes(node, compiled, meanwhile, "it waits for ever")
        match step.kind:
            case "ask":
                return known if step.ask is None or step.ask.into is None else known | {step.ask.into}
            case "parallel" | "first":
                after = self._parallel(step, known, meanwhile)
                return after if step.into is None else after | {step.into}
            case "choose":
                ways = [self._answers(way.block, known, meanwhile) for way in step.branches]
                complete = bool(ways) and step.branches[-1].when is None
                return ways[0].intersection(*ways[1:]) if complete else known
            case "repeat":
                return self._repeat(made, known, meanwhile)
            case _:
                return known

    def _parallel(self, step: Step, known: Known, meanwhile: Known) -> Known:
        """What is known after all branches have ended; of `first`, after any one of them."""
        asked = [self._asked(branch.block) for branch in step.branches]
        ends: list[Known] = []
        for number, branch in enumerate(step.branches):
            beside = meanwhile.union(*asked[:number], *asked[number + 1 :])
            ends.append(self._answers(branch.block, known, beside))
        if step.kind == "first":
            return ends[0].intersection(*ends[1:]) if ends else known
        return known.union(*ends)

    def _repeat(self, made: Made, known: Known, meanwhile: Known) -> Known:
        loop, form = made.step.repeat, made.form.repeat
        if loop is None or form is None:
            return known
        own: Known = frozenset() if loop.each is None else frozenset((loop.each,))
        inner = self._answers(loop.block, known | own, meanwhile)
        for node, compiled in made.reads:
            if node is form.until:
                self._read(node, compiled, inner)
            if node is form.until or node is form.while_:
                self._changes(node, compiled, meanwhile | self._asked(loop.block), "the loop has no end")
                if self._instant(loop.block):
                    hint = "add a step that waits, such as `wait: 1 s`"
                    self.problems.warning(
                        node, "busy-loop", "the steps of this loop take no time: it runs at every scan", hint
                    )
        runs = form.until is not None or isinstance(loop.times, int) or loop.each is not None
        return inner - own if runs else known

    def _read(self, node: Node, compiled: Compiled, known: Known) -> None:
        for variable in sorted(set(compiled.variables) - known):
            name = self.variables[variable]
            giver = next((made.step for made in self.made.values() if variable in _given(made.step)), None)
            asked = giver is None or giver.ask is not None
            verb, what = ("ask", "answer") if asked else ("set", "value")
            hint = ""
            if giver is not None:
                did = "asked" if asked else "set"
                hint = f"it is {did} on line {giver.line}; a step before this must {verb} it, whatever way is taken"
                if giver.ask is not None and giver.on_timeout == "continue" and giver.ask.default is None:
                    hint = f"give the question of line {giver.line} a `default`, which counts when its time is over"
            self.problems.error(node, "not-yet-answered", f"`{name}` may have no {what} yet here", hint)

    def _changes(self, node: Node, compiled: Compiled, variables: Known, so: str) -> None:
        """Reports a condition that stays what it is."""
        changes = compiled.tags or compiled.blocks or variables & set(compiled.variables)
        if compiled.always is None and not changes:
            hint = "parameters and answers stay what they are: wait for a tag"
            self.problems.error(node, "never-changes", f"nothing in this changes: {so}", hint)

    def _asked(self, block: Block) -> Known:
        """The variables that a block asks for."""
        found: set[int] = set()
        for index in block:
            step = self.made[index].step
            found.update(_given(step))
            found.update(*(self._asked(inner) for inner in inside(step)))
        return frozenset(found)

    def _instant(self, block: Block) -> bool:
        """Whether nothing in a block takes time."""
        steps = [self.made[index].step for index in block]
        return all(
            step.kind in ("set", "record", "let")
            or (step.alarm is not None and not step.alarm.acknowledge)
            or (step.kind == "choose" and all(map(self._instant, inside(step))))
            for step in steps
        )


def _given(step: Step) -> Known:
    """The variables that a step itself gives a value."""
    answered = () if step.ask is None or step.ask.into is None else (step.ask.into,)
    won = () if step.into is None else (step.into,)
    return frozenset((*answered, *won, *(let.variable for let in step.let)))


def _has_default(step: Step) -> bool:
    """Whether its question has an answer whatever happens."""
    return step.ask is not None and step.ask.default is not None
