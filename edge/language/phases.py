"""Equipment phases compiled: their conditions over the tags of their unit, the levels that their commands give."""

from edge.language.binding import Binding, Context
from edge.language.equipment import CONFIRMED, PhaseForm
from edge.language.expression import Compiled
from edge.language.program import Code, Level, Phase, PhaseCommand
from edge.language.source import Node, Place, Problems

LIMIT_S = 10.0
"""So long a phase may take to hold, stop or abort where its `within` says nothing; then the batch goes on without."""

_CONDITIONS = ("running", "done", "failed", "ready", "held", "stopped", "aborted", "acknowledged")
_CEASING = ("hold", "stop", "abort")


class PhaseCompiler:
    """Compiles one phase, whose tags and keys have been checked."""

    def __init__(self, name: str, form: PhaseForm, context: Context, problems: Problems) -> None:
        self.name = name
        self.unit = name.partition(".")[0]
        self.form = form
        self.cell = context.plan.cell
        self.plan = context.plan
        self.problems = problems
        self.binding = Binding(context, problems)
        self.inputs: set[int] = set()

    def phase(self) -> Phase | None:
        """The phase; None where it lacks a part because of a problem, which has been reported."""
        before, form, cell = self.problems.errors, self.form, self.cell
        found = {key: self._condition(getattr(form, key)) for key in _CONDITIONS}
        self.binding.reads.clear()
        outputs = {name: self._levels(name, nodes) for name, nodes in form.commands().items()}
        missing = any(code is None and getattr(form, key) is not None for key, code in found.items())
        running, done = found["running"], found["done"]
        if running is None or done is None or missing or self.problems.errors != before:
            return None
        commands = {
            name: PhaseCommand(levels, confirmed, self._limit(name))
            for name, levels in outputs.items()
            if (confirmed := found[CONFIRMED[name]]) is not None
        }
        parameters = {key: cell.tag(tag).index for key, tag in form.parameters.items()}
        driven = {cell.tag(name).index for name, _ in form.driven()}
        return Phase(
            name=self.name,
            unit=self.unit,
            parameters=parameters,
            running=running,
            done=done,
            failed=found["failed"],
            ready=found["ready"],
            acknowledged=found["acknowledged"],
            request=None if form.request is None else cell.tag(form.request).index,
            commands=commands,
            inputs=tuple(sorted(self.inputs)),
            outputs=tuple(sorted({*parameters.values(), *driven})),
        )

    def _own(self, compiled: Compiled) -> None:
        """Reports tags of another unit."""
        places: dict[int, Place] = compiled.places
        for tag, place in places.items():
            if self.cell.tags[tag].device not in self.cell.units[self.unit]:
                message = f"`{self.cell.tags[tag].name}` is not a tag of the unit {self.unit}"
                self.problems.error(place, "other-unit", message)
        self.inputs.update(compiled.tags)

    def _condition(self, node: Node | None) -> Code | None:
        compiled = self.binding.condition(node)
        if compiled is None or node is None:
            return None
        self._own(compiled)
        if compiled.always is not None:
            code = "always-true" if compiled.always else "never-true"
            self.binding.decided(node, compiled, code, "it says nothing of the phase")
        return compiled.code

    def _levels(self, command: str, nodes: dict[str, Node]) -> tuple[Level, ...]:
        """The levels that a command gives; those of `start` are not all what the tags have at rest."""
        levels: list[Level] = []
        for name, node in nodes.items():
            tag = self.cell.tag(name)
            level = self.binding.level(tag, node)
            if level is not None:
                levels.append(level)
        at_rest = [level.value == self.cell.tags[level.tag].failsafe for level in levels]
        if command == "start" and self.form.request is None and len(levels) == len(nodes) > 0 and all(at_rest):
            message = "this is what these outputs have at rest: nothing would change"
            self.problems.error(self.form.place(command), "never-changes", message, "give another value")
        for _, compiled in self.binding.reads:
            self._own(compiled)
        self.binding.reads.clear()
        return tuple(levels)

    def _limit(self, command: str) -> int | None:
        given = None if self.form.within is None else getattr(self.form.within, command)
        if given is None:
            given = LIMIT_S if command in _CEASING else None
        return None if given is None else self.plan.cycles(given)
