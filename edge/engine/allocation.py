"""Units among batches (ISA-88: allocation and arbitration): who has one, who waits for it, and whose turn it is.

The order is that of asking: of those that wait for a unit the lowest turn has it first, except where that one itself
waits for the other, which has to end first. A batch that stands (held, paused) keeps its turn and bars nobody.
"""

from edge.batch import BatchState, BranchState, State
from edge.language.program import Plan, Step
from edge.messages import UnitsAsked, UnitsReleased, UnitsTaken

WAITING = frozenset({"running", "pausing"})
"""The states of a batch in which its waiting steps have their turn."""


class Allocation:
    """The units of a cell, as the state has them."""

    def __init__(self, plan: Plan, state: State) -> None:
        self.plan = plan
        self.state = state

    def ask(self, batch: BatchState, step: Step) -> UnitsAsked:
        """A step begins to wait: it has the last turn."""
        turn = batch.asked[step.index] = self.state.next_turn
        self.state.next_turn += 1
        return UnitsAsked(batch.batch, step.index, step.acquire, turn)

    def take(self, batch: BatchState, step: Step) -> UnitsTaken:
        """The step's units are the batch's now; what a person has set on them counts no more."""
        del batch.asked[step.index]
        for unit in step.acquire:
            self.state.owners[unit] = batch.batch
            if unit not in batch.units:
                batch.units.append(unit)
            for tag in self.outputs(unit):
                self.state.manual.pop(tag, None)
        return UnitsTaken(batch.batch, step.index, step.acquire)

    def release(self, batch: BatchState, step: Step) -> UnitsReleased:
        """The step's units are free; nothing of the batch counts on their outputs any more."""
        for unit in step.release:
            del self.state.owners[unit]
            batch.units.remove(unit)
            for tag in self.outputs(unit):
                for levels in (batch.set, batch.handler, batch.during):
                    levels.pop(tag, None)
        return UnitsReleased(batch.batch, step.index, step.release)

    def outputs(self, unit: str) -> list[int]:
        """The outputs of a unit."""
        devices = self.plan.cell.units[unit]
        return [tag.index for tag in self.plan.cell.tags if tag.writable and tag.device in devices]

    def is_there(self, unit: str) -> bool:
        """Whether no device of it is lost."""
        return all(self.state.up[device] for device in self.plan.cell.units[unit])

    def may_take(self, batch: BatchState, step: Step) -> bool:
        """Whether a waiting step can have all its units now."""
        if not all(self.state.owners.get(unit, batch.batch) == batch.batch for unit in step.acquire):
            return False
        if not all(self.is_there(unit) for unit in step.acquire):
            return False
        turn = batch.asked[step.index]
        return all(batch.batch in self._reaches(name) for name in self._before(batch, step, turn))

    def ahead(self, unit: str) -> str:
        """The first batch that waits for this unit; "" for none."""
        found = [(turn, name) for turn, name, units in self._queue() if unit in units]
        return min(found)[1] if found else ""

    def ring(self, batch: BatchState) -> list[str]:
        """The batches that wait for each other, this one first, when all of them stand still for it; else none."""
        path = self._path(batch.batch, batch.batch, [])
        if not path or not all(self._blocked(self.state.batches[name]) for name in path):
            return []
        last = max(path, key=lambda name: max(self.state.batches[name].asked.values()))
        return path if last == batch.batch else []

    def _steps(self, batch: BatchState) -> tuple[Step, ...]:
        recipe = self.plan.version(batch.recipe, batch.hash)
        return () if recipe is None else recipe.steps

    def _queue(self) -> list[tuple[int, str, tuple[str, ...]]]:
        """(turn, batch, units) of every step that waits."""
        return [
            (turn, name, self._steps(batch)[step].acquire)
            for name, batch in self.state.batches.items()
            if batch.asked and batch.state in WAITING
            for step, turn in batch.asked.items()
        ]

    def _before(self, batch: BatchState, step: Step, turn: int) -> list[str]:
        wanted = set(step.acquire)
        return [
            name
            for other, name, units in self._queue()
            if other < turn and name != batch.batch and not wanted.isdisjoint(units)
        ]

    def _waits_for(self, name: str) -> list[str]:
        """The batches that have what a batch waits for."""
        owners = [self.state.owners.get(unit) for _, one, units in self._queue() if one == name for unit in units]
        return list(dict.fromkeys([owner for owner in owners if owner is not None and owner != name]))

    def _reaches(self, name: str) -> list[str]:
        """All whom a batch waits for, those that these wait for too."""
        found: list[str] = []
        waiting = [name]
        while waiting:
            more = [other for other in self._waits_for(waiting.pop()) if other not in found]
            found += more
            waiting += more
        return found

    def _path(self, name: str, goal: str, seen: list[str]) -> list[str]:
        """A way along which each waits for the next, from one batch back to the goal; empty where there is none."""
        for other in self._waits_for(name):
            if other == goal:
                return [*seen, name]
            if other not in seen and other != name and (path := self._path(other, goal, [*seen, name])):
                return path
        return []

    def _blocked(self, batch: BatchState) -> bool:
        """Whether nothing goes on in a batch but steps that wait for units."""
        return batch.body is not None and _stands(batch, batch.body)


def _stands(batch: BatchState, branch: BranchState) -> bool:
    if branch.children:
        return all(_stands(batch, child) for child in branch.children)
    if branch.at == len(branch.block):
        return True  # it has ended, and waits for the branches beside it
    return branch.begun and branch.block[branch.at] in batch.asked
