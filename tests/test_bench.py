"""The benchmarks' own arithmetic: rounds, medians, ratios, a peer that is not there, cyclictest's histogram."""

import msgspec
import pytest

from tests.bench.__main__ import CASES, line
from tests.bench.case import Case, Unavailable, run
from tests.bench.cycle import Cell
from tests.bench.lateness import LONGEST_US, latencies, quantiles
from tests.bench.traced import ROOM, Trace


class Counted(Case):
    names = ("a", "b")
    unit = "µs"
    peer_name = "other"
    rounds = 3

    def __init__(self, *, there: bool = True) -> None:
        super().__init__(1)
        self.there = there
        self.turns: list[str] = []

    def edge(self) -> tuple[float, ...]:
        self.turns.append("edge")
        return len(self.turns), 10

    def peer(self) -> tuple[float, ...]:
        self.turns.append("peer")
        if not self.there:
            raise Unavailable("not installed")
        return 2, 4


def test_edge_and_its_peer_take_turns_and_medians_count() -> None:
    case = Counted()
    first, second = run(case)
    assert case.turns == ["edge", "peer"] * 3
    assert (first.edge, first.peer, first.ratio) == (3, 2, 1.5)
    assert msgspec.to_builtins(second) == {
        "name": "b",
        "edge": 10,
        "peer": 4,
        "peer_name": "other",
        "unit": "µs",
        "ratio": 2.5,
    }


def test_a_peer_that_cannot_be_had_is_a_line_that_says_so() -> None:
    case = Counted(there=False)
    results = run(case)
    assert case.turns.count("peer") == 1
    assert all(one.peer is None and one.ratio is None for one in results)
    assert "other: not installed" in line(results[0])


def test_the_histogram_of_cyclictest_is_read_with_its_overflows() -> None:
    said = "# /dev/cpu_dma_latency set to 0us\n# Histogram\n000000 000000\n000012 000003\n000013 000006\n"
    late = latencies(f"{said}# Total: 000000009\n# Max Latencies: 00013\n# Histogram Overflows: 00001\n")
    assert late == [12] * 3 + [13] * 6 + [LONGEST_US]
    assert quantiles(late) == (13.0, float(LONGEST_US))


def test_a_trace_keeps_the_last_cycles(tmp_path) -> None:
    written = Trace.create(tmp_path / "trace")
    for number in range(ROOM + 5):
        written.add(number, number * 2, 1)
    read = Trace(tmp_path / "trace")
    assert [cycle.number for cycle in read.since(ROOM)] == [ROOM + n for n in range(5)]
    assert read.since(ROOM)[-1].late_ns == 2 * (ROOM + 4)


def test_names_are_one_case_s_each() -> None:
    names = [name for case in CASES for name in case.names]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("tags", [1000, 2000])
def test_a_generated_cell_keeps_its_steps_active(tags: int) -> None:
    cell = Cell(tags)
    active = sum(child.begun for batch in cell.rig.engine.state.batches.values() for child in batch.body.children)
    assert active == tags // 20
    assert len(cell.rig.plan.cell.tags) == tags
    first, second = cell.changing
    assert all(one != other for one, other in zip(first, second, strict=True))
    cell.rig.close()
