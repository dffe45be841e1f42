"""Runs the equipment phases of one batch's `do` steps (ISA-88): started, watched, held, restarted, stopped, aborted.

What the machine says comes first: after a hold or a power loss a phase that runs is gone on with, not started again.
"""

from edge.batch import PhaseRun
from edge.engine import words
from edge.engine.acting import Fault
from edge.engine.fit import agrees
from edge.engine.handshake import ASKED, CEASING, COMMANDS, REQUESTED, Handshake
from edge.language.program import Code, Phase, Run, Step, Texts

FAILED, DONE = 1, 2
"""Bits of `PhaseRun.fresh`: this was seen untrue since the start was given, so that it is of this run once true."""


class Phases(Handshake):
    """The runs in `BatchState.phases`, each by the index of its step."""

    @property
    def settled(self) -> bool:
        """Whether no phase is still to be held, stopped or aborted."""
        return not any(run.state in CEASING for run in self.batch.phases.values())

    # --- a step's turn -----------------------------------------------------------------------------------------------

    def advance(self, step: Step) -> bool | None:
        """The turn of an active `do` step: True when its phase is done, None while something is unknown."""
        do, runs = step.do, self.batch.phases
        assert do is not None
        run = runs.get(step.index)
        if run is None:
            unit = self.acting.plan.phases[do.phase].unit
            if any(other.left and self.phase_of(other).unit == unit for other in runs.values()):
                return False
            run = runs[step.index] = PhaseRun(do.phase)
        over = self._turn(step, run, do)
        if over:
            self._drop(step.index)
        return over

    def _turn(self, step: Step, run: PhaseRun, do: Run) -> bool | None:
        match run.state:
            case "idle":
                return self._idle(step, run, do)
            case "resetting":
                if (ready := self.hand_over(run, do)) is not True:
                    return self._late(step, run, ready)
                self._anew(step.index, run)
                return False
            case "starting" | "restarting":
                return self._start(step, run, do)
            case "running":
                return self._watch(step, run, do)
            case "complete":
                ready = self.hand_over(run, do)
                return True if ready is True else self._late(step, run, ready)
            case _:
                return self._resume(step, run, do)

    def _idle(self, step: Step, run: PhaseRun, do: Run) -> bool | None:
        """Before the start: all that it drives reads back at rest, and the machine says that it can be started."""
        phase = self.phase_of(run)
        if "start" in phase.commands and (running := self.says(phase.running)) is not False:
            return None if running is None else False
        for tag in phase.outputs:
            value = self.acting.values[tag]
            if not agrees(self.tags[tag], value, self.state.levels[tag]):
                return None if value is None else False
        ready = True if phase.ready is None else self.says(phase.ready)
        if ready is not True:
            if ready is False and "reset" in phase.commands and self._ended(phase):
                self.command(step.index, run, "resetting")
            return None if ready is None else False
        run.fresh = 0
        run.started = True
        self.command(step.index, run, "starting")
        return self._start(step, run, do)

    def _ended(self, phase: Phase) -> bool:
        """Whether the machine stands at the end of an earlier run, from where it can be reset."""
        ends = (
            phase.done,
            phase.failed,
            *(one.confirmed for name in ("stop", "abort") if (one := phase.commands.get(name))),
        )
        return any(self.says(code) is True for code in ends)

    def _start(self, step: Step, run: PhaseRun, do: Run) -> bool | None:
        phase = self.phase_of(run)
        running = self.hand_over(run, do)
        if run.stage >= REQUESTED:
            self._see(run, FAILED, phase.failed)
            self._see(run, DONE, phase.done)
            if running is True or run.confirmed:
                run.confirmed = True
                if running is True:
                    self.become(step.index, run, "running")
                    return self._watch(step, run, do)
                if run.fresh & DONE and self.says(phase.done) is True:
                    return self._complete(step, run, do)
            if run.fresh & FAILED and self.says(phase.failed) is True:
                return self._fail(words.phase_failed(phase.name))
        return self._late(step, run, running)

    def _see(self, run: PhaseRun, bit: int, code: Code | None) -> None:
        if not run.fresh & bit and code is not None and self.says(code) is False:
            run.fresh |= bit

    def _watch(self, step: Step, run: PhaseRun, do: Run) -> bool | None:
        """The phase runs. One that the machine itself has ended or held holds the batch."""
        phase = self.phase_of(run)
        if self.says(phase.failed) is True:
            return self._fail(words.phase_failed(phase.name))
        done = self.says(phase.done)
        if done is True:
            return self._complete(step, run, do)
        if self.reached(phase, "hold") is True:
            self.become(step.index, run, "held")
            self.acting.faults.append(Fault("hold", "phase-held", words.phase_held(phase.name)))
        elif self.reached(phase, "stop") is True or self.reached(phase, "abort") is True:
            return self._fail(words.phase_ended(phase.name))
        return None if done is None else False

    def _fail(self, say: Texts) -> bool:
        self.acting.faults.append(Fault("hold", "phase-failed", say))
        return False

    def _complete(self, step: Step, run: PhaseRun, do: Run) -> bool | None:
        """Done; where the machine is to be reset that is part of it."""
        self.command(step.index, run, "complete")
        return True if "reset" not in self.phase_of(run).commands else self._turn(step, run, do)

    def _late(self, step: Step, run: PhaseRun, answer: bool | None) -> bool | None:
        """Not yet; beyond the command's own limit that is a fault."""
        command = self.phase_of(run).commands.get(COMMANDS[run.state])
        if command is not None and command.limit is not None and self.state.cycle - run.since >= command.limit:
            say = words.phase_late(self.phase_of(run).name, COMMANDS[run.state])
            self.acting.faults.append(Fault("hold", "phase-late", say, step=step.index))
        return answer

    def _resume(self, step: Step, run: PhaseRun, do: Run) -> bool | None:
        """After a hold or a power loss: goes on from what the machine says, and starts anew only what does not run."""
        phase = self.phase_of(run)
        running, done, failed = self.says(phase.running), self.says(phase.done), self.says(phase.failed)
        held, ready = self.reached(phase, "hold"), True if phase.ready is None else self.says(phase.ready)
        if None in (running, done, failed, held, ready):
            return None
        if failed is not True and held is True and "restart" in phase.commands:
            self.command(step.index, run, "restarting")
            return self._start(step, run, do)
        if failed is not True and running is True:
            return self._adopt(step, run, do)
        if done is True and (run.confirmed or run.fresh & DONE):
            return self._complete(step, run, do)
        if ready is True or held is True or self._ended(phase):
            self._anew(step.index, run)
        return False

    def _adopt(self, step: Step, run: PhaseRun, do: Run) -> bool | None:
        """It runs: its parameters are given again, and what is a level; no edge is."""
        phase = self.phase_of(run)
        start = phase.commands.get("start")
        outputs = start.outputs if start is not None and not phase.by_edge else ()
        levels = self.acting.levels((*do.parameters, *outputs))
        if levels is None:
            return None
        self.give(run, levels)
        run.confirmed = True
        self.become(step.index, run, "running")
        return self._watch(step, run, do)

    def _anew(self, step: int, run: PhaseRun) -> None:
        """It is started from its beginning, when its step has its turn."""
        self.give(run, {})
        if run.state != "idle":
            self.become(step, run, "idle")
        run.stage, run.fresh, run.started, run.confirmed = ASKED, 0, False, False

    def _drop(self, step: int) -> None:
        self.give(self.batch.phases[step], {})
        del self.batch.phases[step]

    # --- the batch is held, stopped or aborted -----------------------------------------------------------------------

    def hold(self) -> None:
        """Holds what runs; a phase that knows no hold loses its levels."""
        for step, run in self.batch.phases.items():
            if not run.left:
                self._hold(step, run)

    def _hold(self, step: int, run: PhaseRun) -> None:
        phase = self.phase_of(run)
        if not run.started or self.says(phase.failed) is True:
            self._anew(step, run)
        elif run.state == "complete":
            self.give(run, {})
            run.stage, run.needs = ASKED, 0
        elif "hold" not in phase.commands:
            self.give(run, {})
            if phase.by_edge:
                self.become(step, run, "resuming")
            else:
                self._anew(step, run)
        elif self.reached(phase, "hold") is True:
            self.give(run, self.without_edges(run, phase))
            self.become(step, run, "held")
        elif not phase.by_edge and not run.confirmed and self.says(phase.running) is False:
            self._anew(step, run)
        else:
            self.command(step, run, "holding")

    def leave(self, step: int) -> None:
        """A step is left, done or not: a phase of it that may still run is stopped, or aborted with its batch."""
        run = self.batch.phases.get(step)
        if run is None:
            return
        run.left = True
        order = ("aborting", "stopping") if self.batch.state == "aborting" else ("stopping", "aborting")
        known = [state for state in order if COMMANDS[state] in self.phase_of(run).commands]
        if not run.started or run.state == "complete" or not known:
            self._drop(step)
        else:
            self.command(step, run, known[0])

    def abort(self) -> None:
        """Aborts what is still stopping."""
        for step, run in self.batch.phases.items():
            if run.state == "stopping" and "abort" in self.phase_of(run).commands:
                self.command(step, run, "aborting")

    def turn(self) -> None:
        """The cycle's turn of the phases that are to be held, stopped or aborted, whatever state the batch is in."""
        steps = self.acting.steps
        for step, run in list(self.batch.phases.items()):
            do = steps[step].do
            if run.state in CEASING and do is not None:
                self._cease(step, run, do)

    def _cease(self, step: int, run: PhaseRun, do: Run) -> None:
        phase = self.phase_of(run)
        happened = self.hand_over(run, do) is True
        ended = run.confirmed and (self.says(phase.done) is True or self.says(phase.failed) is True)
        nothing = run.state != "holding" and phase.ready is not None and self.says(phase.ready) is True
        limit = phase.commands[COMMANDS[run.state]].limit
        late = limit is not None and self.state.cycle - run.since >= limit
        if not (happened or ended or nothing or late):
            return
        if late and not (happened or ended or nothing) and (run.confirmed or self.says(phase.running) is not False):
            say = words.phase_late(phase.name, COMMANDS[run.state])
            self.acting.faults.append(Fault("", "phase-late", say, step=step))
        if run.state != "holding":
            self.become(step, run, "stopped" if run.state == "stopping" else "aborted")
            self._drop(step)
        elif happened:
            self.become(step, run, "held")
        else:
            self.give(run, self.without_edges(run, phase))
            self.become(step, run, "resuming")

    # --- after a power loss ------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Nothing is given any more; what was left is to be stopped, the rest is compared when its step goes on."""
        for step, run in self.batch.phases.items():
            run.levels, run.stage, run.needs, run.since = {}, ASKED, 0, self.state.cycle
            if not run.left and run.state not in ("idle", "complete"):
                phase = self.phase_of(run)
                if run.started and (phase.by_edge or "hold" in phase.commands):
                    self.become(step, run, "resuming")
                else:
                    self._anew(step, run)
