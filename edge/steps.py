"""The steps of a recipe file, compiled: each checked by itself, its expressions typed, its levels held to their ranges.

What only the whole recipe shows (branches that write the same tag, answers that are used too early) is in `flow.py`.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec

from edge import grammar, recipe
from edge.cell import Tag, outside, whole
from edge.expression import Compiled, Scope, Type, compile_expression
from edge.program import Block, Branch, Code, Entry, Level, Plan, Prompt, Repeat, Run, Step
from edge.recipe import Kind
from edge.source import Node, Place, Problems, origin, suggest, tick
from edge.units import NONE, Unit, parse

_SECOND = parse("s")
_WORD = re.compile(r"[\w.]+")

Written = tuple[str, bool, Type | None, str | None]
"""An expression as it is written (text, and whether in quotes), and what is expected of it (type, name of the unit)."""


class Made(msgspec.Struct, frozen=True):
    """A compiled step beside its form, and the expressions that it evaluates with the places where they stand."""

    step: Step
    form: recipe.Step
    reads: tuple[tuple[Node, Compiled], ...]


class Compiler:
    """Compiles the expressions and steps of one recipe against its cell and phases.

    `variables` are those of `scope` by index, `choices` what texts may be, `owned` the devices of the units that the
    recipe uses. `broken` names have problems of their own: an expression over them is left out in silence. `made` has
    the steps by index, in the order of the file; where problems were found they may lack parts. `known` are
    expressions that were compiled before, for any recipe of the cell: those without variables mean the same in each.
    """

    def __init__(
        self,
        plan: Plan,
        scope: Scope,
        variables: Sequence[str],
        choices: Mapping[int, Sequence[str]],
        owned: Collection[int],
        broken: frozenset[str],
        known: dict[Written, Compiled],
        problems: Problems,
    ) -> None:
        self.plan = plan
        self.scope = scope
        self.variables = variables
        self.choices = choices
        self.owned = owned
        self.broken = broken
        self.known = known
        self.problems = problems
        self.made: dict[int, Made] = {}
        self.used: set[int] = set()
        self.variables_read: set[int] = set()
        self._tags = {tag.name: tag for tag in plan.cell.tags}
        self._phases = {phase.name: index for index, phase in enumerate(plan.phases)}
        self._reads: list[tuple[Node, Compiled]] = []
        self._count = 0
        self._handler = ""
        self._kinds: dict[Kind, Callable[[recipe.Step], dict[str, Any]]] = {
            "set": self._set,
            "until": self._until,
            "wait": self._wait,
            "parallel": self._parallel,
            "choose": self._choose,
            "repeat": self._repeat,
            "ask": self._ask,
            "do": self._do,
            "record": self._record,
        }

    # Expressions.

    def expression(self, node: Node | None, expect: Type | None, unit: Unit | None = None) -> Compiled | None:
        """The expression at a node, None with its problems reported."""
        if node is None or (self.broken and not self.broken.isdisjoint(_WORD.findall(node.text))):
            return None
        written = node.text, node.quoted, expect, unit and unit.name
        tags = self.plan.cell.tags
        compiled = self.known.get(written)
        if compiled is None or any(tags[tag].device not in self.owned for tag in compiled.tags):
            before = self.problems.errors + self.problems.warnings
            compiled = compile_expression(node, self.scope, self.problems, expect=expect, unit=unit)
            if (
                compiled is not None
                and not compiled.variables
                and self.problems.errors + self.problems.warnings == before
            ):
                self.known[written] = compiled
        if compiled is not None:
            self._reads.append((node, compiled))
            self.variables_read.update(compiled.variables)
            for tag, place in compiled.places.items():
                self._owns(tags[tag].device, place)
            if not self.choices.keys().isdisjoint(compiled.variables):
                self._compared(grammar.parse(node.text), node)
        return compiled

    def _compared(self, tree: grammar.Tree, node: Node) -> None:
        """Reports an answer that is compared with a text that it can never be."""
        for part in tree.args:
            self._compared(part, node)
        if tree.kind != "compare":
            return
        names = [str(part.value) for part in tree.args if part.kind == "name" and part.value in self.variables]
        choices = self.choices.get(self.variables.index(names[0])) if names else None
        for part in tree.args:
            if choices is not None and part.kind == "text" and part.value not in choices:
                hint = suggest(str(part.value), choices) or f"it is one of {', '.join(map(tick, choices))}"
                place = origin(node, part.start, part.end - part.start, self.problems)
                self.problems.error(place, "no-such-answer", f"`{names[0]}` is never {tick(str(part.value))}", hint)

    def condition(self, node: Node | None) -> Compiled | None:
        """An expression that is true or false."""
        return self.expression(node, "bool")

    def decided(self, node: Node, condition: Compiled, code: str, so: str) -> None:
        """Reports a condition that cannot be otherwise as an error, with the reason where the checker gave one."""
        reason = self.problems.withdraw(node, ("always-true", "never-true"))
        message = f"{reason}; {so}" if reason else f"this is {'always' if condition.always else 'never'} true: {so}"
        self.problems.error(node, code, message, "check the value, or the range of the tag" if reason else "")

    def _owns(self, device: int, node: Place | Node) -> None:
        """Reports a device whose unit the recipe does not use, once."""
        if device not in self.owned and device not in self.used:
            name = self.plan.cell.devices[device].name
            unit = next((unit for unit, members in self.plan.cell.units.items() if device in members), name)
            hint = f"add `{unit}` to `uses`, so that no other recipe drives it meanwhile"
            self.problems.error(node, "unit-not-used", f"the recipe does not use the unit `{unit}`", hint)
        self.used.add(device)

    def _seconds(self, node: Node | None) -> Compiled | None:
        compiled = self.expression(node, "number", _SECOND)
        if compiled is not None and node is not None and compiled.high is not None and compiled.high < 0:
            self.problems.error(node, "negative-time", "a time cannot be negative")
            return None
        return compiled

    def _cycles(self, seconds: Compiled | None) -> int | Code | None:
        if seconds is None:
            return None
        constant = seconds.constant
        return seconds.code if constant is None else self.plan.cycles(float(constant))

    # Levels.

    def _levels(self, form: recipe.Step, key: str, nodes: dict[str, Node]) -> tuple[Level, ...]:
        """The levels of `set` or `during`."""
        if not nodes:
            return ()
        entries = form.place(key).entries
        levels: list[Level] = []
        for name, node in nodes.items():
            tag = self._written(name, entries[name].key)
            level = None if tag is None else self._level(tag, node)
            if level is not None:
                levels.append(level)
        return tuple(levels)

    def _written(self, name: str, node: Node) -> Tag | None:
        """The tag of this name, which the recipe may write; else None."""
        tag = self._tags.get(name)
        if tag is None:
            if name not in self.broken:
                hint = suggest(name, self._tags)
                self.problems.error(node, "unknown-tag", f"no tag {tick(name)}", hint)
            return None
        self._owns(tag.device, node)
        if not tag.writable:
            self.problems.error(
                node, "not-writable", f"`{name}` is only read", "in the cell, give it `access: write` and a `failsafe`"
            )
            return None
        if tag.index in self.plan.cell.heartbeats.values():
            self.problems.error(node, "heartbeat", f"`{name}` is a heartbeat: edge itself writes it")
            return None
        return tag

    def _level(self, tag: Tag, node: Node) -> Level | None:
        """A value for a tag: of its type, in its unit, within its range."""
        kinds: dict[str, Literal["bool", "text"]] = {"bool": "bool", "string": "text"}
        value = self.expression(node, kinds.get(tag.type.kind, "number"), parse(tag.unit))
        if value is None:
            return None
        if value.constant is not None:
            if reason := outside(value.constant, tag):
                self.problems.error(node, "out-of-range", reason)
                return None
            return Level(tag.index, whole(value.constant, tag))
        self._within_range(value, tag, node)
        return Level(tag.index, value.code)

    def _within_range(self, value: Compiled, tag: Tag, node: Node) -> None:
        """Reports a computed value that may be outside the tag's range, or, made of parameters alone, of its type."""
        lowest, highest = tag.low, tag.high
        if lowest is None and not value.tags and tag.scale is None and tag.type.kind == "int":
            lowest, highest = tag.type.low, tag.type.high
        low, high = value.low, value.high
        if value.type != "number" or lowest is None or highest is None:
            return
        if (low is not None and low < lowest) or (high is not None and high > highest):
            unit = f" {tag.unit}" if tag.unit else ""
            message = (
                f"this can be {_interval(low, high)}{unit}; `{tag.name}` goes from {lowest:g} to {highest:g}{unit}"
            )
            hint = f"narrow the `range` of what it is made of, or use `clamp(…, {lowest:g}{unit}, {highest:g}{unit})`"
            self.problems.error(node, "out-of-range", message, hint)

    # Steps.

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
        outer, self._reads = self._reads, []
        kind = self._kind(form)
        levels = {"set": self._levels(form, "set", form.set), "during": self._levels(form, "during", form.during)}
        parts = self._kinds[kind](form)
        step = Step(
            index=index,
            name=form.name or form.title(kind),
            kind=kind,
            line=form.node.place.line,
            on_timeout=form.on_timeout or "hold",
            within=self._within(kind, form),
            **levels,
            **parts,
        )
        tags = sorted({tag for _, compiled in self._reads for tag in compiled.tags})
        self.made[index] = Made(msgspec.structs.replace(step, inputs=tuple(tags)), form, tuple(self._reads))
        self._reads = outer
        return index

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
        if self._handler and (kind not in recipe.PLAIN or form.has("during")):
            key = "during" if kind in recipe.PLAIN else kind
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
        seconds = self._seconds(node)
        if seconds is not None and seconds.high is not None and seconds.high * 1e9 < self.plan.cell.scan_ns:
            scan = f"{self.plan.cell.scan_ns / 1e6:g} ms"
            self.problems.error(node, "short-within", f"this is shorter than the scan of the cell, {scan}")
        return self._cycles(seconds)

    def _set(self, form: recipe.Step) -> dict[str, Any]:
        return {}

    def _until(self, form: recipe.Step) -> dict[str, Any]:
        condition = self.condition(form.until)
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
        seconds = self._seconds(form.wait)
        limit = None if form.within is None or form.within.text == "none" else form.within
        if limit is not None:
            hint = "a `wait` ends by itself: leave `within` out"
            self.problems.warning(limit, "within-wait", "`within` does nothing useful beside `wait`", hint)
        return {"wait": self._cycles(seconds), "condition": form.place("wait").text}

    def _parallel(self, form: recipe.Step) -> dict[str, Any]:
        branches = [
            Branch(name, self._inner(form.place("parallel").entries[name].value, steps))
            for name, steps in (form.parallel or {}).items()
        ]
        if not form.place("parallel").entries:
            self.problems.error(
                form.place("parallel"), "no-steps", "here are no branches", "such as `stir: [{wait: 30 s}]`"
            )
        return {"branches": tuple(branches), "condition": ", ".join(branch.name for branch in branches)}

    def _choose(self, form: recipe.Step) -> dict[str, Any]:
        ways = form.choose or []
        if form.choose is not None and not ways:
            self.problems.error(form.place("choose"), "no-steps", "here are no ways", "such as `- when: …`")
        branches: list[Branch] = []
        reached = True
        for number, way in enumerate(ways):
            if not reached:
                self.problems.error(way.node, "unreachable", "this way is never taken: the one before it always is")
            branch, always_taken = self._way(way, last=number == len(ways) - 1)
            branches.append(branch)
            reached = reached and not always_taken
        if ways and not any(way.has("else") for way in ways) and reached and not form.has("within"):
            hint = "add `- else: [...]`, or `- else: []` to go on"
            key = form.node.entries["choose"].key
            self.problems.warning(key, "no-else", "this `choose` does not say what is done when no way is true", hint)
        conditions = [way.when.text for way in ways if way.when is not None]
        return {"branches": tuple(branches), "condition": " / ".join(conditions)}

    def _way(self, way: recipe.Way, *, last: bool) -> tuple[Branch, bool]:
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
        condition = self.condition(way.when)
        sure = None if condition is None else condition.always
        if condition is not None and sure is False:
            self.decided(way.place("when"), condition, "unreachable", "the way is never taken")
        block = self._inner(way.place("steps"), way.steps)
        return Branch(way.place("when").text, block, None if condition is None else condition.code), sure is True

    def _repeat(self, form: recipe.Step) -> dict[str, Any]:
        if not form.has("steps"):
            self.problems.error(form.node, "missing-key", "`steps` is missing here", "`repeat` runs the step's `steps`")
        block = self._inner(form.place("steps"), form.steps)
        loop = form.repeat
        if loop is None:
            return {"repeat": Repeat(block)}
        given = [key for key in ("times", "while", "until") if loop.has(key)]
        if len(given) != 1:
            hint = "such as `times: 3`, `while: mixer.level < 20 L` or `until: mixer.level >= 20 L`"
            self.problems.error(loop.node, "bad-repeat", "`repeat` has one of `times`, `while` and `until`", hint)
        while_, until = self.condition(loop.while_), self.condition(loop.until)
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
        ask = form.ask
        if ask is None:
            return {}
        kinds = [key for key in ("answers", "number", "text") if ask.has(key)]
        if len(kinds) > 1:
            message = f"a question has `{kinds[0]}` or `{kinds[1]}`, not both"
            self.problems.error(ask.node.entries[kinds[1]].key, "two-kinds", message, "make two questions of it")
        if ask.answers is not None:
            for node, answer in zip(ask.place("answers").items, ask.answers, strict=False):
                if ask.answers.count(answer) > 1 and node is not ask.place("answers").items[ask.answers.index(answer)]:
                    self.problems.error(node, "answer-twice", f"{tick(answer)} is already among the answers")
        if kinds and not ask.has("into"):
            self.problems.error(ask.node, "missing-key", "`into` is missing here", "name what keeps the answer")
        number = ask.number or recipe.Number(node=ask.node)
        low, high = number.range or (None, None)
        known = ask.into is not None and ask.into in self.variables
        prompt = Prompt(
            recipe.texts(ask.say),
            ask.kind,
            ask.answers or (),
            number.unit,
            low,
            high,
            self.variables.index(ask.into) if known and ask.into else None,
        )
        return {"ask": prompt, "condition": next(iter(prompt.say.values()), "")}

    def _do(self, form: recipe.Step) -> dict[str, Any]:
        name = form.do
        place = form.place("do")
        if name is None:
            return {}
        index = self._phases.get(name)
        if index is None:
            if name not in self.broken:
                hint = suggest(name, self._phases) or "the cell's `phases` name what its units can do"
                self.problems.error(place, "unknown-phase", f"no phase {tick(name)}", hint)
            return {"condition": name}
        phase = self.plan.phases[index]
        tags = self.plan.cell.tags
        for tag in (*phase.inputs, *phase.parameters.values()):
            self._owns(tags[tag].device, place)
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
            if key in phase.parameters and (level := self._level(tags[phase.parameters[key]], node)) is not None
        ]
        return {"do": Run(index, tuple(levels)), "condition": f"{name} done"}

    def _record(self, form: recipe.Step) -> dict[str, Any]:
        entries: list[Entry] = []
        for name, node in (form.record or {}).items():
            compiled = self.expression(node, None)
            if compiled is not None:
                entries.append(Entry(name, compiled.code, compiled.unit.name, compiled.type))
        return {"record": tuple(entries)}


_ENDS: dict[Kind, str] = {
    "set": "only sets outputs",
    "until": "waits for a condition",
    "wait": "waits a time",
    "parallel": "has branches",
    "choose": "chooses",
    "repeat": "repeats",
    "ask": "asks",
    "do": "runs a phase",
    "record": "records",
}


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"{high:g} and less" if high is not None else f"{low:g} and more"
    return f"{low:g} to {high:g}"
