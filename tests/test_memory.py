"""The loop's memory: what a cycle has allocated is free again after it, whatever has happened in it."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.value import GOOD
from edge.messages import DeviceReport, pack
from tests.bench.rig import Rig
from tests.virtual import plan_of

RECIPE = """
recipe: fill
uses: [plc]
interlocks:
  - {when: plc.count > 600, do: hold, say: {en: Too many}}
  - {when: "stable(plc.count > 500, 1 s) or average(plc.level, 2 s) > 90 L", do: hold, say: {en: Too much}}
steps:
  - {name: Fill, during: {plc.valve: true}, wait: 40 ms}
  - set: {plc.speed: 120 rpm}
  - parallel:
      stir: [{wait: 100 ms}, {set: {plc.drain: true}}]
      look: [{repeat: {times: 3}, steps: [{wait: 20 ms}, {record: {level: plc.level}}, {let: {n: plc.count + 1}}]}]
  - {name: Rest, until: "rising(plc.ready) or average(plc.level, 50 ms) > 99 L", within: none}
on:
  hold: [{set: {plc.speed: 0 rpm}}]
"""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(plan_of(tmp_path, RECIPE))
    yield made
    made.close()


def run(rig: Rig, cycles: int) -> None:
    for number in range(cycles):
        rig.give(rig.frames(number % 2))
        rig.cycle()


def batch(rig: Rig, name: str) -> None:
    """One batch through everything that leaves something behind: steps, records, alarms, hold, restart, abort."""
    rig.command("start", name, "fill")
    run(rig, 20)
    rig.bus_of[0].send(pack(DeviceReport(0, False, 0x80310000, "no answer")))
    rig.cycle()
    rig.bus_of[0].send(pack(DeviceReport(0, True, GOOD)))
    run(rig, 2)
    assert rig.engine.state.batches[name].state == "held"
    rig.command("restart", name)
    run(rig, 15)
    rig.command("abort", name)
    run(rig, 2)
    for alarm in list(rig.engine.state.alarms):
        rig.command("acknowledge", "", alarm=alarm)
    rig.command("reset", name)
    run(rig, 2)
    assert not rig.engine.state.batches


def test_no_allocation_survives_a_cycle(rig: Rig) -> None:
    """The collector is off, as in the process: what a batch leaves behind would stay for ever."""
    rig.cycle()
    gc.collect()
    gc.disable()
    try:
        for _ in range(250):  # Python's own pools are full then
            batch(rig, "B")
        before = sys.getallocatedblocks()
        for _ in range(150):
            batch(rig, "B")
        assert sys.getallocatedblocks() - before <= 10
        assert gc.collect() == 0
    finally:
        gc.enable()
