"""The benchmarks' own arithmetic: rounds, medians, ratios, a peer that is not there, cyclictest's histogram."""

import contextlib
import itertools
import sys
from pathlib import Path

import msgspec
import pytest

from drivers.driver import Point
from drivers.value import TYPES
from edge.language.cell_file import load_cell
from edge.language.plan import load_plan
from edge.language.report import report
from edge.language.source import Problems
from tests.bench import programs, reaction, scale, wire
from tests.bench.__main__ import CASES, line
from tests.bench.case import Case, Unavailable, run
from tests.bench.cycle import Cell
from tests.bench.drivers import NODES, Reader
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


def test_a_case_that_cannot_begin_is_a_line_that_says_so() -> None:
    class Broken(Counted):
        def begin(self, stack: contextlib.ExitStack) -> None:
            raise Unavailable("no compiler")

    first, second = run(Broken())
    assert (first.edge, first.peer, first.ratio, second.edge) == (None, None, None, None)
    assert "no compiler" in line(first)


def test_a_case_that_fails_is_a_line_too_and_no_half_measured_figure(capsys) -> None:
    class Failing(Counted):
        def peer(self) -> tuple[float, ...]:
            raise RuntimeError("the server has ended")

    results = run(Failing())
    assert all((one.edge, one.peer) == (None, None) for one in results)
    assert "failed: the server has ended" in line(results[0])
    assert "Traceback" in capsys.readouterr().err


def test_the_number_of_rounds_can_be_chosen() -> None:
    case = Counted(there=True)
    case.rounds = 2
    run(case)
    assert case.turns == ["edge", "peer"] * 2


def test_what_a_case_has_begun_ends_with_it_however_it_ends() -> None:
    ended: list[str] = []

    class Cut(Counted):
        def begin(self, stack: contextlib.ExitStack) -> None:
            stack.callback(ended.append, "server")

        def peer(self) -> tuple[float, ...]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Cut())
    assert ended == ["server"]


def test_a_program_works_when_told_and_ends_with_its_standard_input() -> None:
    code = "import sys; print('there', flush=True); [print(2 * float(line), flush=True) for line in sys.stdin]"
    with programs.Program(sys.executable, "-c", code) as program:
        assert program.line() == "there"
        assert program.work(1.5) == "3.0"
    assert program.process.returncode == 0


def test_a_program_that_ends_too_early_is_named() -> None:
    with programs.Program(sys.executable, "-c", "pass") as program, pytest.raises(RuntimeError, match="has ended"):
        program.line()


def test_the_opc_ua_server_gives_values_that_change_from_read_to_read() -> None:
    points = [Point(node, node, TYPES["float64"]) for node in NODES]
    with contextlib.ExitStack() as stack:
        server, url = programs.opcua_server("changing")
        stack.enter_context(server)
        reader = Reader(stack, "opcua", {"url": url, "batch": len(points), "timeout": 30}, points)
        scans = [reader.runner.run(reader.driver.scan()) for _ in range(3)]
    for earlier, later in itertools.pairwise(scans):
        assert len(later) == len(NODES) and all(one.status == 0 for one in later)
        assert [one.value for one in later] != [one.value for one in earlier]
        assert later[0].time_ns != earlier[0].time_ns


def test_the_opc_ua_server_times_how_long_its_output_follows_its_input() -> None:
    points = [Point(at, at, TYPES["bool"], writable=True) for at in reaction.OpcUaReaction.addresses]
    with contextlib.ExitStack() as stack:
        server, url = programs.opcua_server("reaction")
        stack.enter_context(server)
        reader = Reader(stack, "opcua", {"url": url, "timeout": 30}, points)

        async def react() -> None:
            driver = reader.driver
            await driver.write({1: True})
            while not (await driver.scan())[0].value:
                pass
            await driver.write({1: False})

        reader.runner.run(react())
        assert int(server.line()) > 0


def test_the_cells_of_the_cases_are_sound(tmp_path) -> None:
    problems = Problems()
    (tmp_path / "scale.yaml").write_text(scale.cell([1] * 32, [2] * 32))
    loaded = load_cell(tmp_path / "scale.yaml", problems)
    assert loaded is not None, report(problems)
    assert (len(loaded.cell.devices), len(loaded.cell.tags)) == (scale.DEVICES, scale.TAGS)
    wire.write(tmp_path, 502)
    plan = load_plan(tmp_path / "cell.yaml", problems)
    assert plan is not None and not problems.errors, report(problems)
    assert len(plan.cell.tags) == 110


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
    documented = (Path(__file__).parent.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in documented] == []


@pytest.mark.parametrize("tags", [1000, 2000])
def test_a_generated_cell_keeps_its_steps_active(tags: int) -> None:
    cell = Cell(tags)
    active = sum(child.begun for batch in cell.rig.engine.state.batches.values() for child in batch.body.children)
    assert active == tags // 20
    assert len(cell.rig.plan.cell.tags) == tags
    first, second = cell.changing
    assert all(one != other for one, other in zip(first, second, strict=True))
    cell.rig.close()
