"""How an equipment phase is commanded: parameters, outputs, the edge of a request, each once the one before is there.

A command that begins something (reset, start, restart) leaves once it is durable that it will; one that ends something
(hold, stop, abort) waits for nothing.
"""

from weakref import proxy

from drivers.value import Value
from edge.batch import PhaseRun
from edge.engine.acting import Acting
from edge.engine.fit import agrees
from edge.language.program import Code, Phase, PhaseCommand, Run
from edge.messages import PhaseChanged

ASKED, PREPARED, GIVEN, REQUESTED, TAKEN = range(5)
"""How far a command has come: nothing is given yet; the parameters are; its outputs are; it is handed over, as an edge;
it was acknowledged, or stands as a level: what it leads to is waited for."""

ACKNOWLEDGED = 4
"""The bit of `PhaseRun.fresh` that an acknowledgement has: it was seen untrue since the command was given."""

COMMANDS = {
    "resetting": "reset",
    "complete": "reset",
    "starting": "start",
    "holding": "hold",
    "restarting": "restart",
    "stopping": "stop",
    "aborting": "abort",
}
"""The states of a run that a command leads out of."""

CEASING = frozenset({"holding", "stopping", "aborting"})


class Handshake:
    """Gives the commands of one batch's phases; `acting` is the batch."""

    def __init__(self, acting: Acting) -> None:
        self.acting: Acting = proxy(acting)  # not acting itself, which has this: a ring would outlive the batch
        self.batch = acting.batch
        self.state = acting.state
        self.tags = acting.plan.cell.tags

    def phase_of(self, run: PhaseRun) -> Phase:
        return self.acting.plan.phases[run.phase]

    def says(self, code: Code | None) -> Value | None:
        """A condition of the phase now; False where it has none."""
        return False if code is None else code(self.acting.values, self.acting.variables)

    def reached(self, phase: Phase, command: str) -> Value | None:
        """Whether what this command leads to is so."""
        found = phase.commands.get(command)
        return False if found is None else self.says(found.confirmed)

    def command(self, step: int, run: PhaseRun, state: str) -> None:
        """The run is in this state now, out of which a command leads."""
        self.become(step, run, state)
        run.stage, run.since = ASKED, self.state.cycle
        waits = state not in CEASING and COMMANDS[state] in self.phase_of(run).commands
        run.needs = self.state.next_commit if waits else 0

    def become(self, step: int, run: PhaseRun, state: str) -> None:
        run.state = state
        self.acting.emit(PhaseChanged(self.batch.batch, step, self.phase_of(run).name, state))

    def hand_over(self, run: PhaseRun, do: Run) -> bool | None:
        """Hands the command of the run's state over; True when what it leads to is so, None while that is unknown."""
        phase = self.phase_of(run)
        command = phase.commands.get(COMMANDS[run.state])
        if run.stage < REQUESTED:
            given = self._prepare(run, phase, command, do)
            if given is not True:
                return given
        confirmed = self.says(phase.running if command is None else command.confirmed)
        if run.stage == REQUESTED and (confirmed is True or self._acknowledged(run, phase)):
            if run.state in ("starting", "restarting"):
                run.confirmed = True
            self.give(run, self.without_edges(run, phase))
            run.stage = TAKEN
        return None if confirmed is None else confirmed is True

    def _prepare(self, run: PhaseRun, phase: Phase, command: PhaseCommand | None, do: Run) -> bool | None:
        """Parameters first, then the outputs, then the request, each once the one before reads back."""
        begins = run.state in ("starting", "restarting")
        if run.stage == ASKED:
            if run.needs > self.state.acked:
                return False
            parameters = self.acting.levels(do.parameters) if begins else {}
            if parameters is None:
                return None
            self.give(run, {**self.without_edges(run, phase), **parameters})
            run.stage = TAKEN if command is None else PREPARED
        if command is None:
            return True
        if run.stage == PREPARED:
            if not self._reads_back(run.levels if begins else {}) or not self._at_rest(phase):
                return False
            outputs = self.acting.levels(command.outputs)
            if outputs is None:
                return None
            kept = {} if run.state == "aborting" else {tag: run.levels[tag] for tag in self._parameters(run, phase)}
            self.give(run, {**kept, **outputs})
            run.fresh &= ~ACKNOWLEDGED
            run.stage = GIVEN if phase.request is not None else REQUESTED if phase.by_edge else TAKEN
        if run.stage == GIVEN and phase.request is not None:
            if not self._reads_back(run.levels):
                return False
            self.give(run, {**run.levels, phase.request: True})
            run.stage = REQUESTED
        return True

    def _acknowledged(self, run: PhaseRun, phase: Phase) -> bool:
        """Whether the command was taken: acknowledged now, and not from before it was given."""
        if phase.acknowledged is None:
            return False
        if self.says(phase.acknowledged) is False or self._reads_back(run.levels):
            run.fresh |= ACKNOWLEDGED
        return bool(run.fresh & ACKNOWLEDGED) and self.says(phase.acknowledged) is True

    def _parameters(self, run: PhaseRun, phase: Phase) -> list[int]:
        return [tag for tag in phase.parameters.values() if tag in run.levels]

    def _edges(self, phase: Phase) -> frozenset[int]:
        if phase.request is not None:
            return frozenset({phase.request})
        return phase.commanded if phase.by_edge else frozenset()

    def without_edges(self, run: PhaseRun, phase: Phase) -> dict[int, Value]:
        edges = self._edges(phase)
        return {tag: level for tag, level in run.levels.items() if tag not in edges}

    def _reads_back(self, levels: dict[int, Value]) -> bool:
        return all(agrees(self.tags[tag], self.acting.values[tag], level) for tag, level in levels.items())

    def _at_rest(self, phase: Phase) -> bool:
        """Whether no edge of an earlier command is still there: without that the next one does not rise."""
        values = self.acting.values
        return all(
            values[tag] is None or agrees(self.tags[tag], values[tag], self.tags[tag].failsafe)
            for tag in self._edges(phase)
        )

    def give(self, run: PhaseRun, levels: dict[int, Value]) -> None:
        """These are the levels of the run now, in place of what it gave."""
        commanded = self.batch.commanded
        for tag in run.levels:
            commanded.pop(tag, None)
        self.acting.touched.update(run.levels)
        self.acting.touched.update(levels)
        commanded.update(levels)
        run.levels = levels
