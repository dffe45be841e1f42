"""One master recipe (ISA-88), compiled against its cell: its variables, its steps and handlers, its interlocks."""

from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from edge.language import edition, recipe, shape, source, translations, units
from edge.language.binding import Context, Written
from edge.language.cell import unknown_unit
from edge.language.expression import RESERVED, Compiled, Scope, Symbol
from edge.language.flow import Flow
from edge.language.guards import permissives
from edge.language.program import Parameter, Plan, Recipe
from edge.language.reach import Reach
from edge.language.sharing import Order, Sharing
from edge.language.source import Node, Problems, suggest, tick
from edge.language.steps import Compiler, Included
from edge.language.variables import loop_variables, set_variables

Include = Callable[[Node], recipe.RecipeFile | None]
"""The recipe of the name at a node, sound; None where there is none, which is reported."""

MOST_STEPS = 10_000
"""Of a recipe with all that it includes: recipes that include each other twice and twice again are soon endless."""


class Master:
    """Compiles one master recipe against its cell."""

    def __init__(
        self,
        form: recipe.RecipeFile,
        plan: Plan,
        scope: Scope,
        broken: frozenset[str],
        known: dict[Written, Compiled],
        problems: Problems,
        include: Include,
        first: int = 0,
    ) -> None:
        self.form = form
        self.first = first
        self.plan = plan
        self.problems = problems
        self._before = problems.errors
        self.handlers = form.on.blocks() if form.on else {}
        self.every = [step for steps in (form.steps, *self.handlers.values()) for step in recipe.walk(steps)]
        self.said = translations.of_recipe(form, self.every)
        self.asks = [step for step in self.every if step.has("ask")]
        self.lets = [step for step in self.every if step.let]
        self.parameters = [made for name, entry in form.parameters.items() if (made := self._parameter(name, entry))]
        variables, choices = self._variables()
        loops = [step for step in self.every if step.repeat is not None and step.repeat.each is not None]
        variables |= self._set_variables(scope.with_variables(variables), first + len(variables))
        own = (*variables, *(step.repeat.each for step in loops if step.repeat and step.repeat.each))
        self.steps = len(self.every)
        if self.steps > MOST_STEPS:
            self._too_many(form.place("steps"))
        self.texts: dict[str, str] = {}
        self.whole = True
        self.inner: dict[int, Included] = {}
        self.names = (*own, *self._included(include, (scope, broken, known), first + len(own)))
        self.orders: list[Order] = []
        context = Context(
            plan,
            scope.with_variables(variables),
            (*[""] * first, *self.names),
            {first + own.index(name): texts for name, texts in choices.items()},
            self._owned(broken),
            broken | self._broken() - set(variables),
            known,
            {id(step): first + len(variables) + number for number, step in enumerate(loops)},
            form.shares,
        )
        self.compiler = Compiler(context, first + len(self.parameters), problems)
        self.compiler.included = self.inner

    def compile(self, path: Path) -> Recipe:
        """The recipe; it is whole where no problem was found."""
        form, compiler = self.form, self.compiler
        guards = len(compiler.guard(form.interlocks))
        permits = permissives(compiler, form.permissives, compiler.given)
        text = edition.joined(self.problems.texts.get(str(path), ""), self.texts)
        body = compiler.block(form.steps)
        handlers = {name: compiler.handler(steps) for name, steps in self.handlers.items()}
        limits = form.on.limits() if form.on else {}
        made = [compiler.made[index] for index in range(len(compiler.made))]
        Flow(compiler.made, self.plan, self.names, len(self.parameters), self.problems).check(
            body, list(handlers.values())
        )
        Reach(compiler.made, self.plan, self.problems).check([body, *handlers.values()])
        sharing = Sharing(form, compiler.made, self.plan, self.problems)
        sharing.check(body, list(handlers.values()), compiler.interlocks[:guards])
        self.orders = sharing.orders
        translations.report_empty(self.said, self.problems)
        self._restart()
        self._operation()
        if self.problems.errors == self._before and not self.compiler.broken:
            self._unused()
        steps = tuple(step.step for step in made)
        phases = [self.plan.phases[step.do.phase] for step in steps if step.do is not None]
        reads = [*(step.inputs for step in steps), *(phase.inputs for phase in phases)]
        reads += [interlock.inputs for interlock in compiler.interlocks]
        writes = [phase.outputs for phase in phases]
        writes += [tuple(level.tag for level in (*step.set, *step.during, *step.ramp, *step.pulse)) for step in steps]
        return Recipe(
            name=form.recipe,
            file=str(path),
            hash=source.digest(text),
            uses=form.uses,
            shares=form.shares,
            devices=tuple(sorted({device for unit in form.uses for device in self.plan.cell.units.get(unit, ())})),
            parameters=tuple(self.parameters),
            variables=self.names,
            steps=steps,
            body=body,
            handlers=handlers,
            interlocks=tuple(compiler.interlocks),
            inputs=tuple(sorted({tag for tags in reads for tag in tags})),
            outputs=tuple(sorted({tag for tags in writes for tag in tags})),
            after_power_loss=form.after_power_loss,
            handler_limits={name: self.plan.cycles(limit) for name, limit in limits.items()},
            say=recipe.texts(form.say),
            ages=tuple(sorted(compiler.ages)),
            blocks=tuple(compiler.blocks),
            guards=guards,
            permissives=permits,
            text=text,
        )

    def _included(
        self, include: Include, names: tuple[Scope, frozenset[str], dict[Written, Compiled]], first: int
    ) -> tuple[str, ...]:
        """Prepares the recipes that steps include, each with variables of its own from `first` on; gives their names.

        They have been compiled alone, and what is wrong in them was reported there.
        """
        found: list[str] = []
        for step in self.every:
            form = include(step.place("include")) if step.include is not None else None
            self.whole = self.whole and (form is not None or step.include is None)
            if form is None:
                continue
            start = first + len(found)
            scope, broken, known = names
            inner = Master(form, self.plan, scope, broken, known, Problems(), include, start)
            inner.compiler.file = form.node.place.file
            self.steps += inner.steps
            if self.steps > MOST_STEPS:
                self._too_many(step.place("include"))
                self.whole = False
                break
            self.inner[id(step)] = Included(form, inner.compiler, tuple(inner.parameters), start)
            self.texts |= {form.recipe: self.problems.texts.get(inner.compiler.file, ""), **inner.texts}
            found += [f"{step.name or form.recipe}.{name}" for name in inner.names]
        return tuple(found)

    def _too_many(self, node: Node) -> None:
        message = f"a recipe has at most {MOST_STEPS:,} steps, with those of the recipes that it includes"
        hint = "make two recipes of it, or a loop of what comes again and again"
        self.problems.error(node, "too-many-steps", message, hint)

    def _owned(self, broken: frozenset[str]) -> set[int]:
        """The devices of the units that the recipe uses or shares."""
        owned: set[int] = set()
        units_of = self.plan.cell.units
        for name, node in self._units():
            if name in units_of:
                owned.update(units_of[name])
            elif name not in broken:
                unknown_unit(self.plan.cell, name, node, self.problems)
        return owned

    def _units(self) -> Iterator[tuple[str, Node]]:
        """The units that the recipe uses or shares, each with its place."""
        yield from zip(self.form.uses, self.form.place("uses").items, strict=False)
        yield from zip(self.form.shares, self.form.place("shares").items, strict=False)

    # Variables.

    def _parameter(self, name: str, form: recipe.Parameter) -> Parameter | None:
        """A parameter; None where its unit is wrong."""
        if not self._named(name, self.form.place("parameters").entries[name].key) or not self._unit(form, form.unit):
            return None
        for key, kind in (("unit", "number"), ("range", "number"), ("choices", "text")):
            if form.has(key) and form.type != kind:
                message = f"only a {kind} has `{key}`; this is a {form.type}"
                self.problems.error(form.place(key), "not-here", message, f"is `type: {kind}` missing?")
        low, high = self._range(form, form.range)
        default = None
        if form.default is not None:
            kind = {"number": "float", "bool": "bool", "text": "string"}[form.type]
            default = shape.constant(form.default, kind, form.unit, self.problems)
            if isinstance(default, float) and not (
                (low is None or low <= default) and (high is None or default <= high)
            ):
                message = f"the default is outside the range, {low:g} to {high:g} {form.unit}".rstrip()
                self.problems.error(form.default, "out-of-range", message)
            if form.choices and default is not None and default not in form.choices:
                hint = suggest(str(default), form.choices)
                self.problems.error(
                    form.default, "no-such-choice", f"{tick(str(default))} is not among the choices", hint
                )
        if form.identify is not None:
            self._identified(name, form)
        return Parameter(
            name, form.type, form.unit, default, low, high, form.choices, recipe.texts(form.say), form.identify
        )

    def _identified(self, name: str, form: recipe.Parameter) -> None:
        """A lot or order number is a text that is asked for at every start, and there is one of each."""
        key = form.node.entries["identify"].key
        if form.type != "text":
            hint = "give it `type: text`"
            self.problems.error(key, "not-here", f"the {form.identify} number is a text; this is a {form.type}", hint)
        for extra in ("default", "choices"):
            if form.has(extra):
                message = f"the {form.identify} number is asked for at every start: it has no `{extra}`"
                self.problems.error(form.node.entries[extra].key, "not-here", message, "leave it out")
        first = next(other for other, one in self.form.parameters.items() if one.identify == form.identify)
        if first != name:
            message = f"`{first}` is the {form.identify} number already"
            self.problems.error(key, "identify-twice", message, "a batch has one of each")

    def _named(self, name: str, node: Node) -> bool:
        if name not in RESERVED:
            return True
        self.problems.error(node, "reserved-name", f"`{name}` means something in expressions", "choose another name")
        return False

    def _unit(self, form: recipe.Parameter | recipe.Number, unit: str) -> bool:
        try:
            units.parse(unit)
        except ValueError as error:
            self.problems.error(form.place("unit"), "unknown-unit", str(error))
            return False
        return True

    def _range(
        self, form: recipe.Parameter | recipe.Number, ends: shape.Range | None
    ) -> tuple[float | None, float | None]:
        if ends is None:
            return None, None
        if ends[0] >= ends[1]:
            message = f"the range goes from {ends[0]:g} to {ends[1]:g}"
            self.problems.error(form.place("range"), "bad-range", message, "the lowest value comes first")
            return None, None
        return ends

    def _variables(self) -> tuple[dict[str, Symbol], dict[str, tuple[str, ...]]]:
        """The names of the recipe by index, and what its texts may be."""
        found: dict[str, Symbol] = {}
        choices: dict[str, tuple[str, ...]] = {}
        for made in self.parameters:
            found[made.name] = Symbol(
                "variable", self.first + len(found), made.type, units.parse(made.unit), made.low, made.high, fixed=True
            )
            if made.choices:
                choices[made.name] = made.choices
        for step in self.every:
            if step.first is not None and step.into is not None:
                if step.into in found:
                    hint = "choose another name"
                    self.problems.error(step.place("into"), "name-taken", f"`{step.into}` is taken already", hint)
                elif self._named(step.into, step.place("into")):
                    choices[step.into] = tuple(step.first)
                    found[step.into] = Symbol("variable", self.first + len(found), "text")
        first: dict[str, Node] = {}
        for step in self.asks:
            ask = step.ask
            if ask is None or ask.into is None:
                continue
            name, place = ask.into, ask.place("into")
            symbol = self._answer(ask, self.first + len(found))
            if name in found and name not in first:
                what = "a parameter" if name in self.form.parameters else "the branch that ended first"
                self.problems.error(place, "name-taken", f"`{name}` is {what}", "choose another name")
            elif not self._named(name, place) or symbol is None:
                continue
            elif name not in found:
                found[name], first[name] = symbol, place
            elif not _alike(found[name], symbol):
                message = f"`{name}` already keeps another kind of answer, from line {first[name].place.line}"
                self.problems.error(place, "other-type", message, "choose another name")
            if ask.kind == "choice":
                choices[name] = (*choices.get(name, ()), *(ask.answers or ()))
        return found, {name: texts for name, texts in choices.items() if name in found}

    def _set_variables(self, scope: Scope, first: int) -> dict[str, Symbol]:
        """What `let` sets."""
        lets: list[tuple[str, Node]] = []
        for step in self.lets:
            for name, node in (step.let or {}).items():
                key = step.place("let").entries[name].key
                if name in scope.symbols:
                    kind = "a parameter" if name in self.form.parameters else "the variable of an answer"
                    self.problems.error(key, "name-taken", f"`{name}` is {kind}", "choose another name")
                elif self._named(name, key):
                    lets.append((name, node))
        tags = len(self.plan.cell.tags)
        loops = [(step.repeat.each, step.repeat.of) for step in self.every if step.repeat and step.repeat.each]
        found = set_variables(lets, scope.with_variables(loop_variables(loops, scope, tags)), tags)
        return {name: replace(symbol, index=first + symbol.index) for name, symbol in found.items()}

    def _answer(self, ask: recipe.Ask, index: int) -> Symbol | None:
        """What an answer is; None where its unit is wrong."""
        if ask.number is None:
            return Symbol("variable", index, "bool" if ask.kind == "confirm" else "text")
        if not self._unit(ask.number, ask.number.unit):
            return None
        low, high = self._range(ask.number, ask.number.range)
        return Symbol("variable", index, "number", units.parse(ask.number.unit), low, high)

    def _broken(self) -> set[str]:
        """Names of parameters and answers that have problems of their own."""
        names = set(self.form.place("parameters").entries) if self.form.has("parameters") else set[str]()
        for step in self.every:
            for place in (step.place("ask"), step.node):
                names |= {place.entries["into"].value.text} if "into" in place.entries else set()
        for step in self.lets:
            names |= set(step.let or ())
        return names

    # The rest.

    def _restart(self) -> None:
        """Reports a restart by itself where the cell does not allow one."""
        if self.form.after_power_loss == "resume" and not self.plan.cell.unexpected_restart:
            self.problems.error(
                self.form.place("after_power_loss"),
                "unexpected-restart",
                "the machines would start by themselves when power returns, and the cell does not allow that",
                "write `hold`: a person restarts it; or say in the cell why nobody can come to harm: "
                "`unexpected_restart: {allowed: …}` (IEC 60204-1, 7.5)",
            )

    def _operation(self) -> None:
        """Reports what an operation cannot have: the recipe that includes it has it."""
        if not self.form.operation:
            return
        for key in ("permissives", "on", "after_power_loss"):
            if self.form.has(key):
                message = f"an operation has no `{key}`: that of the recipe that includes it counts"
                self.problems.error(self.form.node.entries[key].key, "not-here", message, "leave it out")

    def _unused(self) -> None:
        """Warns of parameters, variables and units that nothing uses."""
        read = self.compiler.variables_read
        for step in self.every:
            self._unread(step)
        for index, parameter in enumerate(self.parameters):
            if index not in read and parameter.identify is None:
                key = self.form.place("parameters").entries[parameter.name].key
                self.problems.warning(
                    key, "unused-parameter", f"nothing uses the parameter `{parameter.name}`", "leave it out"
                )
        for name, node in self._units():
            if self.compiler.used.isdisjoint(self.plan.cell.units[name]):
                hint = "leave it out: no other recipe can use the unit meanwhile"
                self.problems.warning(node, "unused-unit", f"the recipe does nothing with the unit `{name}`", hint)

    def _unread(self, step: recipe.Step) -> None:
        """Warns of the variables of a step that no expression reads. A number or text that is asked for is recorded."""
        given = [(name, entry.key, "leave it out, or keep it with `record`") for name, entry in self._lets(step)]
        if step.ask is not None and step.ask.into is not None and step.ask.kind == "choice":
            hint = f'`choose` what is done after each answer, with `when: {step.ask.into} == "…"`'
            given.append((step.ask.into, step.ask.place("into"), hint))
        if step.into is not None:
            given.append((step.into, step.place("into"), "leave it out: the record says which branch has ended"))
        for name, node, hint in given:
            if self.first + self.names.index(name) not in self.compiler.variables_read:
                self.problems.warning(node, "unused-variable", f"nothing uses the variable `{name}`", hint)
        loop, slot = step.repeat, self.compiler.slots.get(id(step))
        if loop is not None and slot is not None and slot not in self.compiler.variables_read:
            message, hint = f"nothing uses the variable `{loop.each}`", f"write `times: {len(loop.of)}`"
            self.problems.warning(loop.place("each"), "unused-variable", message, hint)

    def _lets(self, step: recipe.Step) -> Iterator[tuple[str, source.Entry]]:
        if step.let is not None:
            yield from step.place("let").entries.items()


def _alike(a: Symbol, b: Symbol) -> bool:
    """Whether two answers may be kept by one variable."""
    return (a.type, a.unit, a.low, a.high) == (b.type, b.unit, b.low, b.high)
