"""The function blocks of a batch's expressions (IEC 61131-3, 2.5.2): called once a cycle, before they are asked.

Their clocks are those of what they belong to: the batch's for its steps, the cell's for handlers and interlocks.
"""

from collections.abc import Iterable

from drivers.value import Value
from edge.batch import BatchState, Instance
from edge.language.arithmetic import MOST
from edge.language.program import LONGEST_S, BlockScope, Code, FunctionBlock, Plan, Values

PARTS = 50
"""An average keeps its time in so many parts at most, whatever it is: a cycle each, where they are enough."""

Instances = dict[int, Instance]
"""What is remembered, by the variable that has the result."""

_ROUNDING = 1e-6
"""Of a value: two that are a band apart may differ by so much more as single-precision numbers."""


class FunctionBlocks:
    """The function blocks of one batch; each puts its result among the batch's variables."""

    def __init__(self, plan: Plan, blocks: Iterable[FunctionBlock], values: Values, batch: BatchState) -> None:
        self.plan = plan
        self.scan_s = plan.cell.scan_ns / 1e9
        self.values = values
        self.batch = batch
        self.variables = batch.variables
        self.blocks = {block.result: block for block in blocks}

    def of(self, scope: BlockScope) -> list[FunctionBlock]:
        """Those that belong to the whole batch, or to its interlocks."""
        return [block for block in self.blocks.values() if block.scope == scope]

    def begin(self, blocks: Iterable[FunctionBlock], instances: Instances, clock: int) -> None:
        """What they belong to begins: they remember nothing, and are called for the first time."""
        for block in blocks:
            instances[block.result] = self._instance(block, clock)
            self.variables[block.result] = self._call(block, instances[block.result], clock)

    def end(self, blocks: Iterable[FunctionBlock], instances: Instances) -> None:
        for block in blocks:
            instances.pop(block.result, None)

    def call(self, instances: Instances, clock: int) -> None:
        """The cycle's call of each."""
        for result, instance in instances.items():
            self.variables[result] = self._call(self.blocks[result], instance, clock)

    def filling(self, instances: Instances) -> bool:
        """Whether an average has good values, but not yet for its whole time."""
        averages = [one for result, one in instances.items() if self.blocks[result].kind == "average"]
        return any(one.since >= 0 and one.clock - one.since < one.cycles for one in averages)

    def look_away(self, instances: Instances) -> None:
        """The batch stood, and nobody looked meanwhile: what changed then is no edge. The other clocks stood too."""
        for instance in instances.values():
            instance.last = None

    def restore(self, instances: Instances) -> None:
        """After a power loss: nobody knows what was meanwhile. Only the clock of a step goes on."""
        for result, instance in instances.items():
            block = self.blocks[result]
            if block.kind != "elapsed":
                instances[result] = self._instance(block, instance.clock)

    def _instance(self, block: FunctionBlock, clock: int) -> Instance:
        seconds = self._number(block.seconds) or 0.0
        cycles = max(1, self.plan.cycles(min(seconds, LONGEST_S)))
        instance = Instance(clock, cycles=cycles, band=self._number(block.band) or 0.0)
        if block.kind == "elapsed":
            instance.since = clock
        return instance

    def _number(self, of: float | Code | None) -> float | None:
        value = of(self.values, self.variables) if callable(of) else of
        return None if value is None or isinstance(value, str) else float(value)

    def _call(self, block: FunctionBlock, instance: Instance, clock: int) -> Value | None:
        passed, instance.clock = clock - instance.clock, clock
        if block.input is None:
            return (self.batch.clock if block.scope == "interlock" else clock - instance.since) * self.scan_s
        value = block.input(self.values, self.variables)
        match block.kind:
            case "rising" | "falling":
                last, instance.last = instance.last, value
                edge = block.kind == "rising"
                return None if value is None else value is edge and last is not edge and last is not None
            case "average":
                return _average(instance, value, passed, partial=block.scope == "interlock")
            case _:
                return _stable(instance, value, number=block.band is not None)


def _stable(instance: Instance, value: Value | None, *, number: bool) -> bool | None:
    """Whether a condition has been true, or a number within its band, for the time."""
    clock = instance.clock
    if value is None or value is False:
        instance.since = -1
        return None if value is None else False
    if number:
        now = float(value)
        low, high = min(instance.low, now), max(instance.high, now)
        if instance.since < 0 or high - low > instance.band + _ROUNDING * max(abs(low), abs(high)):
            instance.since, low, high = clock, now, now
        instance.low, instance.high = low, high
    elif instance.since < 0:
        instance.since = clock
    return clock - instance.since >= instance.cycles


def _average(instance: Instance, value: Value | None, passed: int, *, partial: bool) -> float | None:
    """The mean over the time, each value weighed by the cycles that it stands for; of what there is where `partial`."""
    if value is None:
        instance.since = -1
        return None
    now = float(value)
    if instance.since < 0:
        instance.since, instance.parts, instance.total, passed = instance.clock, [], (0.0, 0), 1
        instance.low = instance.high = now
    instance.low, instance.high = min(instance.low, now), max(instance.high, now)
    lasted = instance.clock - instance.since
    width = -(-instance.cycles // PARTS)
    number = -(-lasted // width)
    total, weight = now * passed, passed
    if instance.parts and instance.parts[-1][0] == number:
        _, before, weighed = instance.parts.pop()
        total, weight = before + total, weighed + weight
    else:
        oldest = number - -(-instance.cycles // width)
        instance.parts = [part for part in instance.parts if part[0] > oldest]
        instance.total = sum(part[1] for part in instance.parts), sum(part[2] for part in instance.parts)
    instance.parts.append((number, total, weight))
    if lasted < instance.cycles and not partial:
        return None
    mean = (instance.total[0] + total) / (instance.total[1] + weight)
    return max(instance.low, min(mean, instance.high)) if -MOST <= mean <= MOST else None
