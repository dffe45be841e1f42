"""The steps of a recipe file, compiled: each checked by itself, its expressions and levels bound to the cell.

What only the whole recipe shows (branches that write the same tag, answers that are used too early) is in `flow.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from edge.language import recipe, rules
from edge.language.binding import Context
from edge.language.branching import Branching
from edge.language.calls import Memory
from edge.language.endings import expects, in_handler, kind_of, within
from edge.language.expression import Compiled
from edge.language.guards import interlock
from edge.language.operations import arguments, run
from edge.language.program import (
    Block,
    Entry,
    Interlock,
    Let,
    Notice,
    Operation,
    Parameter,
    Step,
)
from edge.language.questions import prompt
from edge.language.ramps import ramps
from edge.language.recipe import Kind
from edge.language.source import Node, Problems, suggest, tick


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


class Compiler(Branching):
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
        self.included: dict[int, Included] = {}
        self.file = ""
        self._count = 0
        self._kinds: dict[Kind, Callable[[recipe.Step], dict[str, Any]]] = {
            "set": self._set,
            "until": self._until,
            "wait": self._wait,
            "ramp": self._ramp,
            "pulse": self._pulse,
            "parallel": self.parallel,
            "first": self.first,
            "choose": self.choose,
            "repeat": self.repeat,
            "ask": self._ask,
            "do": self._do,
            "include": self._include,
            "record": self._record,
            "let": self._let,
            "alarm": self._alarm,
            "acquire": self._acquire,
            "release": self._release,
        }

    def handler(self, forms: Sequence[recipe.Step]) -> Block:
        """The steps of a handler of `on`."""
        self.in_handler = True
        block = self.block(forms)
        self.in_handler = False
        return block

    def block(self, forms: Sequence[recipe.Step]) -> Block:
        """Steps one after another."""
        return tuple(self._step(form) for form in forms)

    def _step(self, form: recipe.Step) -> int:
        index = self._count
        self._count += 1
        outer, self.reads = self.reads, []
        handler = self.in_handler
        kind = kind_of(self, form, handler=handler)
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
            within=within(self, kind, form, handler=handler),
            **expects(self, form, handler=handler),
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

    def _ask(self, form: recipe.Step) -> dict[str, Any]:
        if form.ask is None:
            return {}
        made = prompt(self, form, form.ask)
        return {"ask": made, "condition": next(iter(made.say.values()), "")}

    def _do(self, form: recipe.Step) -> dict[str, Any]:
        return {"do": run(self, form), "condition": f"{form.do} done"}

    def _include(self, form: recipe.Step) -> dict[str, Any]:
        """The steps of another recipe, compiled in its own names; its interlocks count while the step is active."""
        one = self.included.get(id(form))
        if one is None:
            return {"condition": form.include or ""}
        inner = one.compiler
        for device in sorted(set(inner.owned) - set(self.owned)):
            self.owns(device, form.place("include"))
        read = len(self.reads)
        values = arguments(self, form, one.parameters, one.first)
        inner.memory, inner.blocks, inner.interlocks, inner.made = self.memory, self.blocks, self.interlocks, self.made
        inner._count, inner.in_handler = self._count, self.in_handler
        guards, block = inner.guard(one.form.interlocks), inner.block(one.form.steps)
        self._count = inner._count
        self.used |= inner.used
        self.ages |= inner.ages
        if self.in_handler:
            tags = any(compiled.tags for _, compiled in self.reads[read:])
            waits = "a handler waits for no value, and one of `with` reads a tag" if tags else ""
            in_handler(self, form, waits or ("it has interlocks" if guards else ""), inner.problems)
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
        elif self.in_handler and not form.has("within"):
            hint = "add a time, such as `within: 60 s`"
            self.problems.error(alarm.place("acknowledge"), "endless-wait", "a handler must come to its end", hint)
        say = recipe.texts(alarm.say)
        return {"alarm": Notice(say, alarm.priority, alarm.acknowledge), "condition": next(iter(say.values()), "")}


def inside(step: Step) -> tuple[Block, ...]:
    """The blocks inside a step."""
    others = [one.block for one in (step.repeat, step.include) if one is not None]
    return (*(branch.block for branch in step.branches), *others)
