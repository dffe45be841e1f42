"""Recipe tests compiled against their cell and recipe: times in scan cycles, conditions as code; or their problems."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

import msgspec

from drivers.value import Value
from edge.language import nodes, shape, units
from edge.language.binding import Binding, Context
from edge.language.calls import Memory
from edge.language.cell import Tag, outside, whole
from edge.language.expression import Compiled, Scope
from edge.language.program import Entry, Parameter, Plan, Prompt, Recipe
from edge.language.shape import FAILED, read_seconds
from edge.language.source import Node, Problems, suggest, tick
from edge.language.terms import Symbol, Type
from edge.language.trial_file import (
    DUE,
    GOES_WITH,
    MOMENTS,
    NEEDS,
    OF_DEVICE,
    OF_TAG,
    WHATS,
    Ends,
    Expectation,
    Happening,
    TrialFile,
    TrialForm,
    What,
)
from edge.language.trial_program import Condition, Event, Moment, Recording, Trial, Wish

Named = TypeVar("Named", Tag, int)


def compile_trials(
    form: TrialFile, plan: Plan, scope: Scope, broken: frozenset[str], problems: Problems
) -> list[Trial]:
    """The tests of a file whose recipe is in the plan; whole where no problem was found."""
    if not form.place("tests").entries:
        problems.error(form.place("tests"), "no-test", "here is no test", "name one by what it shows")
    bench = _Compiling(form, plan, scope, broken, problems)
    trials = [bench.trial(name, test) for name, test in form.tests.items()]
    blocks = tuple(bench.memory.blocks)
    return [msgspec.structs.replace(trial, blocks=blocks) for trial in trials]


class _Compiling:
    """Compiles the tests of one file."""

    def __init__(self, form: TrialFile, plan: Plan, scope: Scope, broken: frozenset[str], problems: Problems) -> None:
        self.form = form
        self.plan = plan
        self.problems = problems
        self.recipe = recipe = plan.recipes[form.recipe]
        self.tags = {tag.name: tag for tag in plan.cell.tags}
        self.devices = {device.name: device.index for device in plan.cell.devices}
        self.broken = broken
        self.prompts = _prompts(recipe)
        variables = _variables(recipe)
        self.memory = Memory(len(recipe.variables) + len(recipe.blocks), None)
        self.binding = self._binding(scope.with_variables(variables), recipe.variables, self.memory)
        self.entries = [entry for step in recipe.steps for entry in step.record]
        self.recorded = tuple(dict.fromkeys(entry.name for entry in self.entries))
        start = len(recipe.variables)
        kept = {entry.name: _recorded(entry, start + self.recorded.index(entry.name)) for entry in self.entries}
        names = (*recipe.variables, *self.recorded)
        self.record_binding = self._binding(scope.with_variables({**variables, **kept}), names)
        self.parameters = self._parameters(form)
        self.answers = self._answers(form.answers, form.place("answers"))
        self.always = self._always(form.always)

    def _binding(self, scope: Scope, names: tuple[str, ...], memory: Memory | None = None) -> Binding:
        choices = {place: one.choices for place, one in enumerate(self.recipe.parameters) if one.choices}
        asked = [prompt for prompt in self.prompts.values() if prompt.kind == "choice"]
        choices |= {prompt.into: prompt.answers for prompt in asked if prompt.into is not None}
        devices = range(len(self.plan.cell.devices))
        return Binding(Context(self.plan, scope, names, choices, devices, self.broken, {}), self.problems, memory)

    def trial(self, name: str, form: TrialForm) -> Trial:
        parameters = {**self.parameters, **self._parameters(form)}
        self._complete(parameters, name, form)
        ends = form.ends
        place = self.form.place("tests").entries[name].key.place
        return Trial(
            name=name,
            place=place,
            ends=ends.node.place if ends is not None else place,
            recipe=self.recipe.name,
            parameters=parameters,
            answers=self._answered(form),
            events=tuple(made for one in form.happens if (made := self._event(one)) is not None),
            wishes=tuple(made for one in form.expect if (made := self._wish(one)) is not None),
            always=(*self.always, *self._always(form.always)),
            recordings=tuple(self._recordings(ends)),
            recorded=self.recorded,
            state=ends.state if ends is not None else "complete",
            limit=self.plan.cycles(ends.by if ends is not None else 600.0),
            alarms=ends.alarms if ends is not None else (),
        )

    # Parameters and answers.

    def _parameters(self, form: TrialFile | TrialForm) -> dict[str, Value]:
        known = {one.name: one for one in self.recipe.parameters}
        found: dict[str, Value] = {}
        for name, node in form.parameters.items():
            if name not in known:
                hint = suggest(name, known) or f"it has {', '.join(known) or 'none'}"
                key = form.place("parameters").entries[name].key
                message = f"{self.recipe.name} has no parameter {tick(name)}"
                self.problems.error(key, "unknown-parameter", message, hint)
            elif (value := self._parameter(known[name], node)) is not None:
                found[name] = value
        return found

    def _parameter(self, one: Parameter, node: Node) -> Value | None:
        if one.choices:
            return nodes.as_choice(node, one.choices, self.problems)
        kind = {"number": "float", "bool": "bool", "text": "string"}[one.type]
        return self._within(shape.constant(node, kind, one.unit, self.problems), one, one.name, node)

    def _within(self, value: Value | None, limits: Parameter | Prompt, name: str, node: Node) -> Value | None:
        """The value, if it is in the range of the parameter or answer."""
        low, high = limits.low, limits.high
        if isinstance(value, float) and not ((low is None or low <= value) and (high is None or value <= high)):
            hint = f"it goes from {low:g} to {high:g} {limits.unit}".rstrip()
            return self.problems.error(node, "out-of-range", f"`{name}` cannot be {tick(node.text)}", hint)
        return value

    def _complete(self, given: Mapping[str, Value], test: str, form: TrialForm) -> None:
        """Reports the parameters that have no default and that a test does not give."""
        written = {*self.form.parameters, *form.parameters}
        for one in self.recipe.parameters:
            if one.default is None and one.name not in given and one.name not in written:
                key = self.form.place("tests").entries[test].key
                hint = f"add `parameters: {{{one.name}: …}}`"
                self.problems.error(key, "missing-parameter", f"the parameter `{one.name}` has no default", hint)

    def _answers(self, given: Mapping[str, Node], place: Node) -> dict[str, Value]:
        """The answers of a map at a place, by the variable or the step of their questions."""
        found: dict[str, Value] = {}
        for name, node in given.items():
            if name not in self.prompts:
                hint = suggest(name, self.prompts) or f"it asks {', '.join(_asked(self.recipe)) or 'nothing'}"
                key = place.entries[name].key
                self.problems.error(key, "no-such-question", f"{self.recipe.name} does not ask {tick(name)}", hint)
                continue
            value = self._answer(name, self.prompts[name], node)
            if value is not None:
                found[name] = value
        return found

    def _answered(self, form: TrialForm) -> dict[str, Value]:
        """The answers of a test, and those of the file that it does not give otherwise; null: none."""
        own = {name: node for name, node in form.answers.items() if node.quoted or node.text != "null"}
        others = {name: value for name, value in self.answers.items() if name not in form.answers}
        return others | self._answers(own, form.place("answers"))

    def _answer(self, name: str, prompt: Prompt, node: Node) -> Value | None:
        match prompt.kind:
            case "confirm":
                return True if nodes.as_choice(node, ("yes", "true"), self.problems) else None
            case "choice":
                return nodes.as_choice(node, prompt.answers, self.problems)
            case "number":
                return self._within(shape.constant(node, "float", prompt.unit, self.problems), prompt, name, node)
            case "text":
                return nodes.as_text(node, self.problems)

    # Conditions.

    def _compiled(self, node: Node | None, binding: Binding) -> Compiled | None:
        compiled = binding.condition(node, "step")
        if compiled is not None and node is not None and compiled.always is not None:
            binding.decided(node, compiled, f"{'always' if compiled.always else 'never'}-true", "it tests nothing")
        return compiled

    def _condition(self, node: Node | None) -> Condition | None:
        compiled = self._compiled(node, self.binding)
        return None if compiled is None or node is None else _condition(node, compiled)

    def _always(self, conditions: Iterable[Node]) -> tuple[Condition, ...]:
        return tuple(made for node in conditions if (made := self._condition(node)) is not None)

    def _recordings(self, ends: Ends | None) -> Iterable[Recording]:
        for node in ends.record if ends is not None else ():
            compiled = self._compiled(node, self.record_binding)
            if compiled is None:
                continue
            start = len(self.recipe.variables)
            names = tuple(self.recorded[index - start] for index in compiled.variables if index >= start)
            if not names:
                hint = f"it records {', '.join(self.recorded) or 'nothing'}"
                self.problems.error(node, "not-recorded", "this reads nothing that the recipe records", hint)
            for name in names:
                kinds = sorted({one.unit.name or f"a {one.type}" for one in self.entries if one.name == name})
                if len(kinds) > 1:
                    message = f"`{name}` is recorded as {' and as '.join(kinds)}: it cannot be compared"
                    self.problems.error(node, "other-type", message, "let the recipe record them under different names")
            yield Recording(_condition(node, compiled), names)

    # What happens, and what must come true.

    def _event(self, form: Happening) -> Event | None:
        before = self.problems.errors
        moment = self._moment(form, MOMENTS)
        what = cast("What | None", self._only(form, WHATS, "what happens"))
        for key, beside in GOES_WITH.items():
            if form.has(key) and what is not None and not any(form.has(other) for other in beside):
                words = ", ".join(f"`{other}`" for other in beside)
                self.problems.error(form.place(key), "not-here", f"`{key}` stands only beside {words}")
        if what is None:
            return None
        if (needed := NEEDS.get(what)) is not None and not form.has(needed):
            self.problems.error(form.place(what), "missing-key", f"`{what}` needs `{needed}`", _EXAMPLES[what])
        node = form.place(what)
        parts: dict[str, Any] = {}
        if what == "answer":
            parts["answers"] = self._answers(form.answer or {}, node)
        elif what == "command":
            parts["command"] = form.command or ""
        elif what in OF_DEVICE:
            parts = self._of_device(form, node)
        elif what in OF_TAG:
            parts = self._of_tag(form, what, node)
        if moment is None or self.problems.errors > before:
            return None
        cycles = self.plan.cycles(form.for_) if form.for_ is not None else None
        text = ", ".join(f"{key}: {entry.value.text}" for key, entry in node.entries.items()) or node.text
        return Event(moment, what, f"{what} {text}", node.place, cycles=cycles, **parts)

    def _of_device(self, form: Happening, node: Node) -> dict[str, Any]:
        device = self._named(node, self.devices, "device")
        late = read_seconds(form.by, self.problems) if form.by is not None else 0.0
        if late is FAILED or device is None:
            return {}
        return {"target": device, "late": self.plan.cycles(late)}

    def _of_tag(self, form: Happening, what: What, node: Node) -> dict[str, Any]:
        tag = self._named(node, self.tags, "tag")
        if tag is None:
            return {}
        if tag.index in self.plan.cell.heartbeats.values():
            self.problems.error(node, "heartbeat", f"`{tag.name}` is a heartbeat: edge itself counts it")
        elif tag.writable and what in ("spike", "drift"):
            hint = "an output can be `stuck` or `bad`"
            self.problems.error(node, "not-readable", f"`{tag.name}` is an output, it cannot {what}", hint)
        elif what == "drift" and tag.type.kind in ("bool", "string"):
            self.problems.error(node, "not-number", f"`{tag.name}` is a {tag.type.name}, it cannot drift")
        parts: dict[str, Any] = {"target": tag.index}
        if form.to is not None:
            parts["value"] = self._shown(tag, form.to)
        elif form.by is not None and what == "drift" and tag.type.kind in ("int", "float"):
            parts["rate"] = self._rate(tag, form.by)
        return parts

    def _shown(self, tag: Tag, node: Node) -> Value | None:
        """A value that a device can show for the tag; it may be outside the tag's range."""
        value = shape.constant(node, tag.type.kind, tag.unit, self.problems)
        if value is None:
            return None
        if reason := outside(value, msgspec.structs.replace(tag, low=None, high=None)):
            return self.problems.error(node, "out-of-range", reason)
        return whole(value, tag)

    def _rate(self, tag: Tag, node: Node) -> float:
        """How fast a value drifts, in the tag's unit a second. A temperature drifts in K/s."""
        unit = units.parse(tag.unit)
        name = "K/s" if unit.offset else f"{tag.unit or 1}/s"
        value = shape.constant(node, "float", name, self.problems)
        return float(value) / float(unit.factor if unit.offset else 1) if isinstance(value, int | float) else 0.0

    def _named(self, node: Node, known: Mapping[str, Named], kind: str) -> Named | None:
        """The tag or device that a node names."""
        name = node.text
        if name in known or name in self.broken:
            return known.get(name)
        other = "tag" if kind == "device" else "device"
        if name in (self.tags if kind == "device" else self.devices):
            hint = f"`{name}` is a {other}; name a {kind}"
        else:
            hint = suggest(name, known) or ("" if kind == "tag" else f"the devices are {', '.join(known)}")
        return self.problems.error(node, f"unknown-{kind}", f"no {kind} {tick(name)}", hint)

    def _wish(self, form: Expectation) -> Wish | None:
        before = self.problems.errors
        due = self._only(form, DUE, "when it is due")
        if due == "within":
            moment = self._moment(form, ("when", "step"))
        else:
            for key in ("when", "step"):
                if form.has(key):
                    self.problems.error(form.place(key), "not-here", f"`{key}` stands only beside `within`")
            moment = Moment(self.plan.cycles(form.at) if form.at is not None else 0)
        if not form.has("that") and not form.has("state"):
            hint = "say `that: CONDITION`, or `state: held`"
            self.problems.error(form.node, "missing-key", "nothing is expected here", hint)
        that = self._condition(form.that)
        if due is None or moment is None or self.problems.errors > before:
            return None
        words = [f"state {form.state}" if form.state else "", that.text if that is not None else ""]
        seconds = {"by": form.by, "within": form.within, "at": 0.0}[due] or 0.0
        place = form.place("that" if that is not None else "state").place
        text = " and ".join(filter(None, words))
        return Wish(moment, self.plan.cycles(seconds), text, place, that, form.state or "")

    def _moment(self, form: Happening | Expectation, among: tuple[str, ...]) -> Moment | None:
        key = self._only(form, among, "when")
        after = form.after if isinstance(form, Happening) else 0.0
        if key == "at" and form.at is not None:
            return Moment(self.plan.cycles(form.at))
        if key == "when" and form.when is not None:
            condition = self._condition(form.when)
            return None if condition is None else Moment(self.plan.cycles(after), condition.code, condition.tags)
        if key == "step" and form.step is not None:
            steps = tuple(step.index for step in self.recipe.steps if step.name == form.step)
            if steps:
                return Moment(self.plan.cycles(after), steps=steps)
            names = list(dict.fromkeys(step.name for step in self.recipe.steps))
            hint = suggest(form.step, names) or f"its first steps are {', '.join(names[:5])}"
            message = f"{self.recipe.name} has no step {tick(form.step)}"
            self.problems.error(form.place("step"), "unknown-step", message, hint)
        return None

    def _only(self, form: Happening | Expectation, among: tuple[str, ...], what: str) -> str | None:
        """The one of these keys that is there."""
        found = [key for key in among if form.has(key)]
        if len(found) == 1:
            return found[0]
        listed = ", ".join(f"`{key}`" for key in among)
        if found:
            message = f"`{found[0]}` and `{found[1]}` cannot stand together"
            self.problems.error(form.node.entries[found[1]].key, "two-keys", message, f"only one of {listed}")
        else:
            self.problems.error(form.node, "missing-key", f"it is not said {what}", f"add one of {listed}")
        return None


_EXAMPLES: dict[What, str] = {
    "slow": "such as `by: 200 ms`",
    "drift": "such as `by: 0.5 L/s`",
    "spike": "such as `to: 50 kg`",
    "cut": "such as `for: 5 s`",
}


_ANSWERS: dict[str, Type] = {"confirm": "bool", "number": "number", "choice": "text", "text": "text"}


def _condition(node: Node, compiled: Compiled) -> Condition:
    return Condition(compiled.code, node.text, node.place, compiled.tags)


def _variables(recipe: Recipe) -> dict[str, Symbol]:
    """The parameters, answers and other variables of a recipe as an expression may use them."""
    found = {
        one.name: Symbol("variable", place, one.type, units.parse(one.unit), one.low, one.high)
        for place, one in enumerate(recipe.parameters)
    }
    for step in recipe.steps:
        if step.ask is not None and step.ask.into is not None:
            ask, place = step.ask, step.ask.into
            kind = _ANSWERS[ask.kind]
            found[recipe.variables[place]] = Symbol("variable", place, kind, units.parse(ask.unit), ask.low, ask.high)
        for let in step.let:
            name, place = recipe.variables[let.variable], let.variable
            found[name] = Symbol("variable", place, let.type, let.unit, let.low, let.high)
    return found


def _recorded(entry: Entry, index: int) -> Symbol:
    return Symbol("variable", index, entry.type, entry.unit)


def _prompts(recipe: Recipe) -> dict[str, Prompt]:
    """The questions of a recipe by the variables that keep their answers, and by the names of their steps."""
    return {**{step.name: step.ask for step in recipe.steps if step.ask is not None}, **_asked(recipe)}


def _asked(recipe: Recipe) -> dict[str, Prompt]:
    """The questions by the variables that keep their answers, or else by the names of their steps."""
    found: dict[str, Prompt] = {}
    for step in recipe.steps:
        if step.ask is not None:
            found[step.name if step.ask.into is None else recipe.variables[step.ask.into]] = step.ask
    return found
