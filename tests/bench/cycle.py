"""What a cycle costs, in µs: steps that wait, input frames whose every value has changed, or none."""

import contextlib
import gc
import statistics
import time
from collections.abc import Callable

from tests.bench.case import Case, undisturbed
from tests.bench.rig import Frames, Rig, plan_of

CYCLES = 2000
SMALL, LARGE = 1_000, 10_000


def median_us(cycle: Callable[[int], int]) -> float:
    """Of so many cycles; `cycle` gets their number and gives the ns that each took."""
    gc.collect()
    gc.disable()
    try:
        with undisturbed():
            return statistics.median([cycle(number) for number in range(CYCLES)]) / 1000
    finally:
        gc.enable()


class Cell:
    """A rig whose recipes run, and its frames: every value of `changing[0]` differs from that of `changing[1]`."""

    def __init__(self, tags: int) -> None:
        self.rig = Rig(plan_of(tags))
        self.rig.start()
        self.changing = [self.rig.frames(number) for number in range(2)]
        self.unchanged = [self.rig.unchanged()]

    def step(self, frames: list[Frames]) -> float:
        """The engine's part: packets in, frames and events out."""
        rig = self.rig

        def cycle(number: int) -> int:
            packets = frames[number % len(frames)]
            rig.last += 1
            began = time.perf_counter_ns()
            rig.engine.step(rig.last, packets)
            return time.perf_counter_ns() - began

        return median_us(cycle)

    def whole(self, frames: list[Frames]) -> float:
        """All of it: the sockets drained, the engine's part, frames and the cycle's record sent."""
        rig = self.rig

        def cycle(number: int) -> int:
            rig.give(frames[number % len(frames)])
            return rig.cycle()

        return median_us(cycle)

    def bare(self, frames: list[Frames]) -> float:
        """The least that Python can do: each frame unpacked by its struct, each condition called once."""
        rig, cell = self.rig, self.rig.plan.cell
        layouts = rig.engine.layouts
        structs = [(one.inputs.struct, one.first, one.end) for one in layouts]
        header = len(frames[0][0]) - layouts[0].inputs.struct.size
        values: list[object] = [None] * len(cell.tags)
        conditions = [
            code
            for recipe in rig.plan.recipes.values()
            for code in (*(step.until for step in recipe.steps), *(lock.when for lock in recipe.interlocks))
            if code is not None
        ]

        def cycle(number: int) -> int:
            packets = frames[number % len(frames)]
            began = time.perf_counter_ns()
            for (fields, first, end), frame in zip(structs, packets, strict=True):
                values[first:end] = fields.unpack_from(frame, header)
            for code in conditions:
                code(values, ())
            return time.perf_counter_ns() - began

        return median_us(cycle)


class Cycle1000(Case):
    """1,000 tags of eight devices, 50 active steps, every value changes in each cycle."""

    names = ("loop.cycle_1000_tags",)
    unit = "µs"
    peer_name = "the frames' structs and the conditions, bare"

    def begin(self, stack: contextlib.ExitStack) -> None:
        self.cell = Cell(SMALL)
        stack.callback(self.cell.rig.close)

    def edge(self) -> tuple[float, ...]:
        return (self.cell.step(self.cell.changing),)

    def peer(self) -> tuple[float, ...]:
        return (self.cell.bare(self.cell.changing),)


class Variants(Cycle1000):
    """The same where nothing changes, and with the sockets around it."""

    names = ("loop.cycle_1000_tags_unchanged", "loop.cycle_1000_tags_silent", "loop.cycle_1000_tags_sockets")
    peer_name = "every value changes, without sockets"

    def edge(self) -> tuple[float, ...]:
        cell = self.cell
        return cell.step(cell.unchanged), cell.step([cell.changing[0], *[[]] * 300]), cell.whole(cell.changing)

    def peer(self) -> tuple[float, ...]:
        return (self.cell.step(self.cell.changing),) * 3


class Cycle10000(Case):
    """10,000 tags of eighty devices, 500 active steps in ten recipes, every value changes in each cycle."""

    names = ("loop.cycle_10000_tags",)
    unit = "µs"
    peer_name = "ten times the cycle with 1,000 tags"

    def begin(self, stack: contextlib.ExitStack) -> None:
        self.small, self.large = Cell(SMALL), Cell(LARGE)
        for cell in (self.small, self.large):
            stack.callback(cell.rig.close)

    def edge(self) -> tuple[float, ...]:
        return (self.large.step(self.large.changing),)

    def peer(self) -> tuple[float, ...]:
        return (10 * self.small.step(self.small.changing),)


CASES: tuple[type[Case], ...] = (Cycle1000, Variants, Cycle10000)
