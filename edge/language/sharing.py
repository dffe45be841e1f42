"""Units that steps acquire and give back (ISA-88: allocation): which are certainly held where, and in which order.

Two recipes that acquire units in opposite orders while they hold the others may wait for each other for ever.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from edge.language import recipe
from edge.language.program import Block, Interlock, Plan, Step
from edge.language.source import Node, Place, Problems
from edge.language.steps import Made, inside

Units = frozenset[str]


class Order(msgspec.Struct, frozen=True):
    """A step of a recipe that acquires `units` while it certainly holds `sure`, and may hold all of `held`."""

    recipe: str
    uses: Units
    sure: Units
    held: Units
    units: tuple[str, ...]
    node: Node


class Held(msgspec.Struct, frozen=True):
    """The shared units that are held at a place: certainly, and perhaps."""

    sure: Units
    perhaps: Units

    def either(self, other: "Held") -> "Held":
        """What is held where one or the other is so."""
        return Held(self.sure & other.sure, self.perhaps | other.perhaps)


NOTHING = Held(frozenset(), frozenset())


class Sharing:
    """Goes through the steps of one recipe as the engine will. `orders` are the steps that acquire something."""

    def __init__(self, form: recipe.RecipeFile, made: Mapping[int, Made], plan: Plan, problems: Problems) -> None:
        self.form = form
        self.made = made
        self.cell = plan.cell
        self.plan = plan
        self.shares = frozenset(form.shares) - frozenset(form.uses)
        self.problems = problems
        self.unit_of = {device: unit for unit, devices in plan.cell.units.items() for device in devices}
        self.tags = {tag.name: tag.index for tag in plan.cell.tags}
        self.orders: list[Order] = []
        self._quiet = 0
        self._include: Node | None = None
        self._told: set[tuple[Place, str]] = set()
        self._in_handler = False

    def check(self, body: Block, handlers: Sequence[Block], interlocks: Sequence[Interlock]) -> None:
        """Reports each step that uses a shared unit which it does not certainly hold, or acquires it twice."""
        for name, node in zip(self.form.shares, self.form.place("shares").items, strict=False):
            if name in self.form.uses:
                hint = "leave it out of `uses`, where steps acquire it, or out of `shares`"
                self._error(node, "unit-twice", f"the recipe has `{name}` all the time, by its `uses`", hint)
        self._block(body, NOTHING)
        self._in_handler = True
        for block in handlers:
            self._block(block, NOTHING)
        for form, interlock in zip(self.form.interlocks, interlocks, strict=False):
            for unit in {self._unit(tag) for tag in interlock.inputs} & self.shares:
                hint = f"put `{unit}` into `uses`: an interlock watches from the start on"
                self._error(form.when, "unit-not-acquired", f"the unit `{unit}` is not held all the time", hint)

    def _unit(self, tag: int) -> str:
        return self.unit_of.get(self.cell.tags[tag].device, "")

    def _error(self, node: Node | Place, code: str, message: str, hint: str) -> None:
        """An operation is sound by itself: what is wrong in it is wrong where it is included, and told there once."""
        if self._quiet:
            return
        if self._include is not None:
            node = self._include
            if (node.place, message) in self._told:
                return
            self._told.add((node.place, message))
        self.problems.error(node, code, message, hint)

    # What a step uses.

    def _used(self, made: Made) -> Iterator[tuple[str, Node | Place]]:
        """The units whose tags a step itself reads or drives, each with the place."""
        step, form = made.step, made.form
        for _, compiled in made.reads:
            yield from ((self._unit(tag), place) for tag, place in compiled.places.items())
        for key in ("set", "during", "pulse", "ramp"):
            for name, entry in form.place(key).entries.items() if form.has(key) else ():
                if name in self.tags:
                    yield self._unit(self.tags[name]), entry.key
        if step.do is not None:
            yield self.plan.phases[step.do.phase].unit, form.place("do")

    def _uses(self, made: Made, held: Held) -> None:
        seen: set[str] = set()
        for unit, place in self._used(made):
            if unit in self.shares and unit not in held.sure and unit not in seen:
                seen.add(unit)
                maybe = "may not be" if unit in held.perhaps else "is not"
                hint = f"a step before it must `acquire: [{unit}]`, whatever way the recipe takes"
                if self._in_handler:
                    hint = f"put `{unit}` into `uses`: a handler may run before a step has acquired anything"
                self._error(place, "unit-not-acquired", f"the unit `{unit}` {maybe} acquired here", hint)

    # What is held.

    def _block(self, block: Block, held: Held) -> Held:
        for index in block:
            made = self.made[index]
            self._uses(made, held)
            after = self._step(made, held)
            left_early = made.step.within is not None and made.step.on_timeout == "continue"
            held = held.either(after) if left_early else after
        return held

    def _step(self, made: Made, held: Held) -> Held:
        step = made.step
        match step.kind:
            case "acquire":
                return self._acquire(made, held)
            case "release":
                return self._release(made, held)
            case "parallel":
                return self._parallel(step, held)
            case "first":
                return held.either(self._parallel(step, held))
            case "include":
                return self._included(made, held)
            case "choose":
                ways = [self._block(way.block, held) for way in step.branches]
                result = ways[0] if ways else held
                for way in ways[1:]:
                    result = result.either(way)
                return result
            case "repeat":
                return self._repeat(step, held)
            case _:
                return held

    def _included(self, made: Made, held: Held) -> Held:
        if made.step.include is None:
            return held
        outer = self._include
        self._include = outer or made.form.place("include")
        held = self._block(made.step.include.block, held)
        self._include = outer
        return held

    def _acquire(self, made: Made, held: Held) -> Held:
        units, node = made.step.acquire, made.form.place("acquire")
        for name, item in zip(units, node.items, strict=False):
            if name not in self.shares:
                hint = f"the recipe that includes this must share it: `shares: [{name}]`"
                self._error(item, "not-shared", f"`{self.form.recipe}` does not share the unit `{name}`", hint)
            elif name in held.sure:
                self._error(item, "acquired-twice", f"`{name}` is acquired already", "leave it out")
        uses = frozenset(self.form.uses)
        if not self._quiet:
            wanted = tuple(name for name in units if name not in held.perhaps)
            self.orders.append(
                Order(self.form.recipe, uses, held.sure | uses, held.perhaps | held.sure | uses, wanted, node)
            )
        return Held(held.sure | set(units), held.perhaps | set(units))

    def _release(self, made: Made, held: Held) -> Held:
        units = frozenset(made.step.release)
        for name, item in zip(made.step.release, made.form.place("release").items, strict=False):
            if name not in held.sure:
                maybe = "may not be" if name in held.perhaps else "is not"
                hint = "release what every way before has acquired; all is released at the end by itself"
                self._error(item, "unit-not-acquired", f"the unit `{name}` {maybe} acquired here", hint)
        return Held(held.sure - units, held.perhaps - units)

    def _parallel(self, step: Step, held: Held) -> Held:
        """A branch holds what was held before it, but for what another one releases meanwhile."""
        changes = [self._changes(branch.block) for branch in step.branches]
        results: list[Held] = []
        for number, branch in enumerate(step.branches):
            others = changes[:number] + changes[number + 1 :]
            acquired = frozenset(name for other in others for name in other[0])
            released = frozenset(name for other in others for name in other[1])
            for name in acquired & changes[number][0].keys():
                if any(name in other[0] for other in changes[:number]):
                    hint = "acquire it before the `parallel`, or in one branch"
                    place = changes[number][0][name]
                    self._error(place, "acquired-twice", f"another branch acquires `{name}` too", hint)
            results.append(self._block(branch.block, Held(held.sure - released, held.perhaps | acquired)))
        touched = [frozenset(acquired) | frozenset(released) for acquired, released in changes]
        every = frozenset[str]().union(*touched)
        sure = {
            name
            for name in every
            if all(name in result.sure for result, own in zip(results, touched, strict=True) if name in own)
        }
        perhaps = frozenset[str]().union(*(result.perhaps for result in results))
        return Held((held.sure - every) | sure, perhaps | held.perhaps - every)

    def _changes(self, block: Block) -> tuple[dict[str, Node], dict[str, Node]]:
        """What a block acquires and releases somewhere."""
        acquired: dict[str, Node] = {}
        released: dict[str, Node] = {}
        for index in block:
            made = self.made[index]
            for name in made.step.acquire:
                acquired.setdefault(name, made.form.place("acquire"))
            for name in made.step.release:
                released.setdefault(name, made.form.place("release"))
            for inner in inside(made.step):
                more = self._changes(inner)
                acquired, released = {**more[0], **acquired}, {**more[1], **released}
        return acquired, released

    def _repeat(self, step: Step, held: Held) -> Held:
        """Before each round that is held which was before the first one, and still is after any."""
        if step.repeat is None:
            return held
        self._quiet += 1
        again = held.either(self._block(step.repeat.block, held))
        self._quiet -= 1
        after = self._block(step.repeat.block, again)
        return again.either(after) if step.repeat.while_ is not None else after


def report_deadlocks(orders: Sequence[Order], problems: Problems) -> None:
    """Reports where batches can hold what the others wait for, each ring once."""
    told: set[frozenset[int]] = set()
    for first in orders:
        for ring in _rings([first], orders):
            places = frozenset(id(order.node) for order in ring)
            if places not in told:
                told.add(places)
                _report(ring, problems)


def _rings(path: list[Order], orders: Sequence[Order]) -> Iterator[list[Order]]:
    """Each holds what the one before it acquires, and the first what the last one does."""
    if _holds(path[0], path[-1]) and (len(path) > 1):
        yield path
        return
    if len(path) == 4:
        return
    for order in orders:
        if _holds(order, path[-1]) and all(_together(order, other) for other in path):
            yield from _rings([*path, order], orders)


def _holds(order: Order, wanted: Order) -> bool:
    return not order.held.isdisjoint(wanted.units)


def _together(a: Order, b: Order) -> bool:
    """Whether two batches can stand at these steps at once: no unit is certainly held by both."""
    return a.uses.isdisjoint(b.uses) and a.sure.isdisjoint(b.sure)


def _report(ring: list[Order], problems: Problems) -> None:
    last, *others = sorted(ring, key=lambda order: (order.recipe, order.node.place.line), reverse=True)
    seen = {id(last.node)}
    where: list[str] = []
    for order in others:
        if id(order.node) in seen:
            continue
        seen.add(id(order.node))
        where.append(_phrase(order, ring, f"line {order.node.place.line} of {order.node.place.file} acquires"))
    beside = "; ".join(where) if where else "another batch of this recipe does the same"
    message = f"{_phrase(last, ring, 'this acquires')}; {beside}: batches can wait for each other for ever"
    hint = "acquire units in the same order everywhere, or together in one `acquire: […]`"
    problems.error(last.node, "deadlock", message, hint)


def _phrase(order: Order, ring: list[Order], verb: str) -> str:
    wanted = {unit for other in ring for unit in other.units}
    held = ", ".join(f"`{unit}`" for unit in sorted(order.held & wanted))
    return f"{verb} {', '.join(f'`{unit}`' for unit in order.units)} while {held} may be held"
