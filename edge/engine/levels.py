"""The desired levels of the outputs: who owns each, what it is now, and which devices must hear of it.

Every level has an owner and a failsafe: the batch that owns the unit, else a person, else nobody.
"""

from collections.abc import Iterable

from drivers.value import Value
from edge.batch import BatchState, State
from edge.engine import states
from edge.language.cell import beats
from edge.language.program import Plan


class Levels:
    """`stale` are the devices whose levels have changed since their last frame, `beats` the tags in which edge counts,
    each with the numbers that it goes through.
    """

    def __init__(self, plan: Plan, state: State) -> None:
        cell = plan.cell
        self.state = state
        self.tags = cell.tags
        self.unit_of = {device: unit for unit, devices in cell.units.items() for device in devices}
        self.beats = {tag: beats(cell.tags[tag]) for tag in cell.heartbeats.values()}
        self.stale = set[int]()

    def owner(self, tag: int) -> BatchState | None:
        """The batch that owns the tag's unit."""
        return self.state.batches.get(self.state.owners.get(self.unit_of.get(self.tags[tag].device, ""), ""))

    def settle(self, tags: Iterable[int]) -> None:
        """Gives each of these tags the level that it has now by its owner."""
        for tag in tags:
            if tag not in self.beats:
                self.give(tag, self._level(tag))

    def give(self, tag: int, level: Value | None) -> None:
        if level != self.state.levels[tag]:
            self.state.levels[tag] = level
            self.stale.add(self.tags[tag].device)

    def _level(self, tag: int) -> Value | None:
        batch, failsafe = self.owner(tag), self.tags[tag].failsafe
        if batch is None:
            return self.state.manual.get(tag, failsafe)
        if tag in batch.manual:
            return batch.manual[tag]
        if tag in batch.commanded:
            return batch.commanded[tag]
        if tag in batch.during and batch.state in states.ACTING and not batch.needs:
            return batch.during[tag]
        rest = failsafe if batch.safe else batch.set.get(tag, failsafe)
        return rest if batch.barred else batch.pulsed.get(tag, batch.handler.get(tag, rest))
