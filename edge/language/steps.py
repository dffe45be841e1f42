"""The steps of a recipe file, compiled: each checked by itself, its expressions and levels bound to the cell.

What only the whole recipe shows (branches that write the same tag, answers that are used too early) is in `flow.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from drivers.value import Value
from edge.language import recipe, rules
from edge.language.binding import Binding, Context
from edge.language.calls import Memory
from edge.language.expression import RESERVED, Compiled, Symbol
from edge.language.guards import interlock
from edge.language.operations import arguments
from edge.language.program import (
    Block,
    BlockScope,
    Branch,
    Code,
    Entry,
    Interlock,
    Let,
    Notice,
    Operation,
    Parameter,
    Repeat,
    Run,
    Step,
)
from edge.language.questions import prompt
from edge.language.ramps import ramps
from edge.language.recipe import Kind
from edge.language.source import Node, Problems, suggest, tick
from edge.language.units import NONE
from edge.language.variables import loop_variable


class Made(msgspec.Struct, frozen=True):
    """A compiled step beside its form, and the expressions that it evaluates with the places where they stand."""

    step: Step
    form: recipe.Step
    reads: tuple[tuple[Node, Compiled], ...]


class Included(msgspec.Struct, frozen=True):
    """A recipe that a step includes, to be compiled there; its parameters are the variables from `first` on."""

    form: recipe.RecipeFile
    compiler: "Compiler"
    parameters: tuple[Parameter, ...]
    first: int


class Compiler(Binding):
    """Compiles the steps of one recipe against its cell and phases.

    `made` has the steps by index, in the order of the file; where problems were found they may lack parts. The first
    `given` variables are parameters. `interlocks` are those that were compiled, `included` the recipes by the `id` of
    the step's form that includes them, `file` where another recipe than this stands.
    """

    def __init__(self, context: Context, given: int, problems: Problems) -> None:
        memory = Memory(len(context.variables), len(context.plan.cell.tags))
        super().__init__(context, problems, memory)
        self.blocks = memory.blocks
        self.given = given
        self.interlocks: list[Interlock] = []
        self.made: dict[int, Made] = {}
        self._phases = {phase.name: index for index, phase in enumerate(self.plan.phases)}
        self.included: dict[int, Included] = {}
        self.file = ""
        self._count = 0
        self._handler = ""
        self._kinds: dict[Kind, Callable[[recipe.Step], dict[str, Any]]] = {
            "set": self._set,
            "until": self._until,
            "wait": self._wait,
            "ramp": self._ramp,
            "pulse": self._pulse,
            "parallel": self._parallel,
            "first": self._first,
            "choose": self._choose,
            "repeat": self._repeat,
            "ask": self._ask,
            "do": self._do,
            "include": self._include,
            "record": self._record,
            "let": self._let,
            "alarm": self._alarm,
            "acquire": self._acquire,
            "release": self._release,
        }

    def handler(self, name: str, forms: Sequence[recipe.Step]) -> Block:
        """The steps of a handler of `on`."""
        self._handler = name
        block = self.block(forms)
        self._handler = ""
        return block

    def block(self, forms: Sequence[recipe.Step]) -> Block:
        """Steps one after another."""
        return tuple(self._step(form) for form in forms)

    def _inner(self, where: Node, forms: Sequence[recipe.Step] | None) -> Block:
        """The steps of a branch or loop, which has some."""
        if forms is not None and not where.items:
            self.problems.error(where, "no-steps", "here are no steps", "at least one step is needed")
        return self.block(forms or ())

    def _step(self, form: recipe.Step) -> int:
        index = self._count
        self._count += 1
        outer, self.reads = self.reads, []
        kind = self._kind(form)
        levels = {"set": self.levels(form, "set", form.set), "during": self.levels(form, "during", form.during)}
        parts = self._kinds[kind](form)
        inner: tuple[int, ...] = parts.pop("guards", ())
        step = Step(
            index=index,
            name=form.name or form.title(kind),
            kind=kind,
            line=form.node.place.line,
            file=self.file,
            on_timeout=form.on_timeout or "hold",
            within=self._within(kind, form),
            **self._expects(form),
            **levels,
            **parts,
        )
        tags = sorted({tag for _, compiled in self.reads for tag in compiled.tags})
        reads = tuple(self.reads)
        blocks = tuple(block for _, compiled in reads for block in compiled.blocks if block.scope == "step")
        guards = (*self.guard(form.interlocks), *inner)
        step = msgspec.structs.replace(step, inputs=tuple(tags), blocks=blocks, interlocks=guards)
        self.made[index] = Made(step, form, reads)
        self.reads = outer
        return index

    def guard(self, forms: Sequence[rules.Interlock]) -> tuple[int, ...]:
        """Interlocks of the recipe or of a step, by their places in `interlocks`."""
        first = len(self.interlocks)
        self.interlocks += [made for form in forms if (made := interlock(self, form, self.given)) is not None]
        return tuple(range(first, len(self.interlocks)))

    def _kind(self, form: recipe.Step) -> Kind:
        """What ends the step; what goes with no such step is reported."""
        entries = form.node.entries
        endings: list[Kind] = [key for key in recipe.COMPLETIONS if form.has(key)]
        kind: Kind = endings[0] if endings else "set"
        if len(endings) > 1:
            self.problems.error(
                entries[endings[1]].key,
                "two-endings",
                f"a step ends in one way: this one has `{endings[0]}` and `{endings[1]}`",
                "make two steps of it, or two branches of a `parallel`",
            )
        elif entries.keys() <= {"name"}:
            hint = f"a step has `set`, or one of {', '.join(f'`{key}`' for key in recipe.COMPLETIONS)}"
            self.problems.error(form.node, "empty-step", "this step does nothing", hint)
        elif not endings and form.has("during"):
            hint = "say when it ends with `until` or `wait`, or use `set`"
            self.problems.error(entries["during"].key, "during-no-end", "this step ends at once", hint)
        for key, kinds in recipe.GOES_WITH.items():
            if key in entries and kind not in kinds:
                goes = " or ".join(f"`{name}`" for name in recipe.COMPLETIONS if name in kinds)
                message = f"`{key}` has no meaning in a step that {_ENDS[kind]}"
                self.problems.error(entries[key].key, "key-not-here", message, f"it goes with {goes}")
        if form.has("on_timeout") and (form.within is None or form.within.text == "none"):
            hint = "add the time, such as `within: 60 s`"
            self.problems.error(entries["on_timeout"].key, "no-within", "`on_timeout` needs a time in `within`", hint)
        barred = [key for key in (kind, "during", "interlocks") if key in entries and key not in recipe.PLAIN]
        if self._handler and barred:
            key = barred[0]
            message = f"`{key}` cannot stand in a handler of `on`"
            hint = f"a handler has steps with {', '.join(f'`{name}`' for name in sorted(recipe.PLAIN))}"
            self.problems.error(entries[key].key, "not-in-handler", message, hint)
        return kind

    def _within(self, kind: Kind, form: recipe.Step) -> int | Code | None:
        node = form.within
        if node is None or kind not in recipe.LASTING:
            return None
        if node.text == "none":
            if self._handler:
                hint = "give it a time, such as `within: 10 s`"
                self.problems.error(node, "endless-wait", "a handler must come to its end", hint)
            return None
        seconds = self.seconds(node)
        if seconds is not None and seconds.high is not None and seconds.high * 1e9 < self.plan.cell.scan_ns:
            scan = f"{self.plan.cell.scan_ns / 1e6:g} ms"
            self.problems.error(node, "short-within", f"this is shorter than the scan of the cell, {scan}")
        return self.cycles(seconds)

    def _expects(self, form: recipe.Step) -> dict[str, Any]:
        if form.expects is not None and self._handler:
            message = "`expects` cannot stand in a handler of `on`"
            hint = "a handler is not continued after a hold: ask with `until` where it must wait"
            self.problems.error(form.node.entries["expects"].key, "not-in-handler", message, hint)
        condition = self.condition(form.expects)
        if form.expects is None or condition is None:
            return {}
        if condition.always is False:
            self.decided(form.expects, condition, "never-true", "the step could not go on after a hold")
        return {"expects": condition.code, "expected": condition.text}

    def _set(self, form: recipe.Step) -> dict[str, Any]:
        return {}

    def _until(self, form: recipe.Step) -> dict[str, Any]:
        condition = self.condition(form.until, "step")
        place = form.place("until")
        if not form.has("within"):
            hint = "add `within: 60 s`, or `within: none` if it may take for ever"
            self.problems.error(form.node.entries["until"].key, "no-within", "this `until` has no `within`", hint)
        if condition is None:
            return {"condition": place.text}
        if condition.always is False:
            self.decided(place, condition, "never-true", "the step cannot end")
        elif condition.always is True and not condition.tags:
            self.problems.warning(place, "always-true", "this is always true: the step ends at once")
        return {"until": condition.code, "condition": condition.text}

    def _wait(self, form: recipe.Step) -> dict[str, Any]:
        seconds = self.seconds(form.wait)
        limit = None if form.within is None or form.within.text == "none" else form.within
        if limit is not None:
            hint = "a `wait` ends by itself: leave `within` out"
            self.problems.warning(limit, "within-wait", "`within` does nothing useful beside `wait`", hint)
        return {"wait": self.cycles(seconds), "condition": form.place("wait").text}

    def _parallel(self, form: recipe.Step) -> dict[str, Any]:
        return self._branches(form, "parallel", form.parallel or {})

    def _first(self, form: recipe.Step) -> dict[str, Any]:
        into = self.variables.index(form.into) if form.into in self.variables else None
        return {**self._branches(form, "first", form.first or {}), "into": into}

    def _branches(self, form: recipe.Step, key: str, given: Mapping[str, Sequence[recipe.Step]]) -> dict[str, Any]:
        place = form.place(key)
        branches = [Branch(name, self._inner(place.entries[name].value, steps)) for name, steps in given.items()]
        if not place.entries:
            self.problems.error(place, "no-steps", "here are no branches", "such as `stir: [{wait: 30 s}]`")
        return {"branches": tuple(branches), "condition": ", ".join(branch.name for branch in branches)}

    def _choose(self, form: recipe.Step) -> dict[str, Any]:
        ways = form.choose or []
        if form.choose is not None and not ways:
            self.problems.error(form.place("choose"), "no-steps", "here are no ways", "such as `- when: …`")
        waits: BlockScope = "batch" if self._handler or any(way.has("else") for way in ways) else "step"
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

    def _repeat(self, form: recipe.Step) -> dict[str, Any]:
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
            if condition.always is endless:
                self.decided(node, condition, "endless-loop", "the loop has no end")
            elif condition.always is not None:
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

    def _ask(self, form: recipe.Step) -> dict[str, Any]:
        if form.ask is None:
            return {}
        made = prompt(self, form, form.ask)
        return {"ask": made, "condition": next(iter(made.say.values()), "")}

    def _do(self, form: recipe.Step) -> dict[str, Any]:
        name = form.do
        place = form.place("do")
        if name is None:
            return {}
        index = self._phases.get(name)
        if index is None:
            if name not in self.broken:
                unit = name.partition(".")[0]
                able = [known for known in self._phases if known.partition(".")[0] == unit]
                hint = suggest(name.partition(".")[2], [known.partition(".")[2] for known in able])
                hint = hint.replace("`", f"`{unit}.", 1) or suggest(name, set(self._phases) - set(able))
                if able and not hint:
                    hint = f"what {unit} can do: {', '.join(able)}"
                hint = hint or "the cell's `phases` name what its units can do"
                self.problems.error(place, "unknown-phase", f"no phase {tick(name)}", hint)
            return {"condition": name}
        phase = self.plan.phases[index]
        tags = self.plan.cell.tags
        for tag in (*phase.inputs, *phase.outputs):
            self.owns(tags[tag].device, place)
        given = form.place("with").entries if form.has("with") else {}
        for key, entry in given.items():
            if key not in phase.parameters:
                hint = suggest(key, phase.parameters) or f"it has {', '.join(phase.parameters) or 'none'}"
                self.problems.error(entry.key, "unknown-parameter", f"{name} has no parameter {tick(key)}", hint)
        for key in phase.parameters:
            if key not in given:
                hint = f"add `with: {{{key}: …}}`"
                self.problems.error(place, "missing-parameter", f"the parameter `{key}` of {name} is missing", hint)
        if not form.has("within"):
            hint = "add `within: 60 s`, or `within: none`"
            self.problems.warning(place, "no-within", "this `do` has no `within`: it may wait for ever", hint)
        levels = [
            level
            for key, node in form.with_.items()
            if key in phase.parameters and (level := self.level(tags[phase.parameters[key]], node)) is not None
        ]
        return {"do": Run(index, tuple(levels)), "condition": f"{name} done"}

    def _include(self, form: recipe.Step) -> dict[str, Any]:
        """The steps of another recipe, compiled in its own names; its interlocks count while the step is active."""
        one = self.included.get(id(form))
        if one is None:
            return {"condition": form.include or ""}
        inner = one.compiler
        for device in sorted(set(inner.owned) - set(self.owned)):
            self.owns(device, form.place("include"))
        values = arguments(self, form, one.parameters, one.first)
        inner.memory, inner.blocks, inner.interlocks, inner.made = self.memory, self.blocks, self.interlocks, self.made
        inner._count = self._count
        guards, block = inner.guard(one.form.interlocks), inner.block(one.form.steps)
        self._count = inner._count
        self.used |= inner.used
        self.ages |= inner.ages
        operation = Operation(form.name or one.form.recipe, block, values)
        return {"include": operation, "guards": guards, "condition": one.form.recipe}

    def _acquire(self, form: recipe.Step) -> dict[str, Any]:
        if not form.has("within"):
            hint = "add `within: 60 s`, or `within: none`"
            message = "this `acquire` has no `within`: it may wait for ever"
            self.problems.warning(form.node.entries["acquire"].key, "no-within", message, hint)
        units = self._shared(form, "acquire", form.acquire or ())
        return {"acquire": units, "condition": ", ".join(units)}

    def _release(self, form: recipe.Step) -> dict[str, Any]:
        return {"release": self._shared(form, "release", form.release or ())}

    def _shared(self, form: recipe.Step, key: str, units: Sequence[str]) -> tuple[str, ...]:
        """The units that the recipe shares; others are reported."""
        found: list[str] = []
        for name, node in zip(units, form.place(key).items, strict=False):
            if name in self.shares:
                found.append(name)
            elif name not in self.broken:
                hint = suggest(name, self.shares) or f"add `shares: [{name}]` to the recipe, in place of `uses`"
                self.problems.error(node, "not-shared", f"{tick(name)} is not a unit that the recipe shares", hint)
        return tuple(dict.fromkeys(found))

    def _record(self, form: recipe.Step) -> dict[str, Any]:
        entries: list[Entry] = []
        for name, node in (form.record or {}).items():
            compiled = self.expression(node, None)
            if compiled is not None:
                entries.append(Entry(name, compiled.code, compiled.unit, compiled.type))
        return {"record": tuple(entries)}

    def _let(self, form: recipe.Step) -> dict[str, Any]:
        lets: list[Let] = []
        for name, node in (form.let or {}).items():
            symbol = self.scope.symbols.get(name) if name in self.variables else None
            if symbol is None or symbol.fixed:  # its name, or its first value, is reported
                self.expression(node, None)
                continue
            compiled = self.expression(node, None, symbol.unit if symbol.type == "number" else None)
            if compiled is None:
                continue
            if compiled.type != symbol.type:
                message = f"`{name}` is a {symbol.type}, but this is a {compiled.type}"
                self.problems.error(node, "other-type", message, "choose another name")
            index = self.variables.index(name)
            lets.append(Let(index, compiled.code, symbol.unit, symbol.type, symbol.low, symbol.high))
        return {"let": tuple(lets)}

    def _ramp(self, form: recipe.Step) -> dict[str, Any]:
        targets = [f"{name} to {one.to.text}" for name, one in (form.ramp or {}).items()]
        return {"ramp": ramps(self, form), "condition": ", ".join(targets)}

    def _pulse(self, form: recipe.Step) -> dict[str, Any]:
        place = form.place("pulse")
        if form.pulse is not None and not place.entries:
            self.problems.error(place, "no-outputs", "here is no output", "such as `{mixer.reset: true}`")
        if not form.has("for"):
            hint = "add how long, such as `for: 500 ms`"
            self.problems.error(form.node.entries["pulse"].key, "missing-key", "`for` is missing here", hint)
        seconds = self.seconds(form.for_)
        said = f"{form.for_.text}" if form.for_ is not None else ""
        return {"pulse": self.levels(form, "pulse", form.pulse or {}), "wait": self.cycles(seconds), "condition": said}

    def _alarm(self, form: recipe.Step) -> dict[str, Any]:
        alarm = form.alarm
        if alarm is None:
            return {}
        if not alarm.acknowledge:
            for key in ("within", "during"):
                if form.has(key):
                    message = f"`{key}` does nothing beside an alarm that nobody waits for"
                    hint = "add `acknowledge: true` to the alarm, or leave it out"
                    self.problems.error(form.node.entries[key].key, "key-not-here", message, hint)
        elif self._handler and not form.has("within"):
            hint = "add a time, such as `within: 60 s`"
            self.problems.error(alarm.place("acknowledge"), "endless-wait", "a handler must come to its end", hint)
        say = recipe.texts(alarm.say)
        return {"alarm": Notice(say, alarm.priority, alarm.acknowledge), "condition": next(iter(say.values()), "")}


_LOOPS = ("times", "while", "until", "each")
_LISTED = "`times`, `while`, `until` and `each`"


def inside(step: Step) -> tuple[Block, ...]:
    """The blocks inside a step."""
    others = [one.block for one in (step.repeat, step.include) if one is not None]
    return (*(branch.block for branch in step.branches), *others)


_ENDS: dict[Kind, str] = {
    "set": "only sets outputs",
    "until": "waits for a condition",
    "wait": "waits a time",
    "ramp": "goes to a value",
    "pulse": "gives a pulse",
    "parallel": "has branches",
    "first": "has branches",
    "choose": "chooses",
    "repeat": "repeats",
    "ask": "asks",
    "do": "runs a phase",
    "include": "includes a recipe",
    "record": "records",
    "let": "sets variables",
    "alarm": "raises an alarm",
    "acquire": "acquires units",
    "release": "releases units",
}
