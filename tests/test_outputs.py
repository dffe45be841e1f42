"""A device's outputs without the device: what is sent when, and what is said of those that it does not take."""

from pathlib import Path

import pytest

from drivers.value import BAD_NOT_WRITABLE, BAD_OUT_OF_RANGE, GOOD, Value
from edge.outputs import WRITE_AGAIN_S, Outputs, as_read_back
from tests.virtual import CELL, plan_of

WAIT = "recipe: wait\nuses: [plc]\nsteps:\n  - wait: 10 s\n"


class Bench:
    """The outputs of the cell's PLC, in their order: valve, drain, speed, program."""

    def __init__(self, folder: Path, recipe: str = WAIT, cell_text: str = CELL) -> None:
        cell = plan_of(folder, recipe, cell=cell_text).cell
        tags = [cell.tags[index] for index in cell.devices[0].tags]
        self.places = [place for place, tag in enumerate(tags) if tag.writable]
        self.said: list[tuple[int, str]] = []
        self.outputs = Outputs(tags, self.places, lambda place, status, text: self.said.append((status, text)))
        self.values: list[Value | None] = [None] * len(tags)
        self.now_s = 0.0

    def want(self, *levels: Value | None) -> None:
        self.outputs.want(levels)

    def show(self, *shown: Value) -> None:
        for place, value in zip(self.places, shown, strict=True):
            self.values[place] = value
        self.outputs.show(list(self.values))

    def due(self) -> list[Value | None]:
        found = self.outputs.due(self.now_s)
        return [found.get(place) for place in self.places]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_only_what_differs_is_sent_and_nothing_twice_before_its_time(bench: Bench) -> None:
    bench.want(True, False, 120.0, 3)
    bench.show(False, False, 0.0, 3)
    assert bench.due() == [True, None, 120.0, None]
    assert bench.due() == [None] * 4
    bench.show(True, False, 120.0, 3)
    assert bench.due() == [None] * 4
    assert not bench.outputs.open, "nothing is looked at again until something changes"


def test_the_same_levels_again_open_nothing(bench: Bench) -> None:
    bench.want(True, False, 0.0, 0)
    bench.show(True, False, 0.0, 0)
    bench.due()
    bench.want(True, False, 0.0, 0)
    assert not bench.outputs.open


def test_what_the_device_forgets_is_sent_again(bench: Bench) -> None:
    bench.want(True, False, 0.0, 0)
    bench.show(True, False, 0.0, 0)
    bench.due()
    bench.show(False, False, 0.0, 0)
    assert bench.due() == [True, None, None, None]


def test_a_device_that_was_lost_is_compared_anew(bench: Bench) -> None:
    bench.want(True, False, 0.0, 0)
    bench.show(True, False, 0.0, 0)
    bench.due()
    bench.outputs.forget()
    bench.show(False, False, 0.0, 0)
    assert bench.due() == [True, None, None, None]


def test_a_level_that_overtakes_another_waits_for_nothing(bench: Bench) -> None:
    bench.show(False, False, 0.0, 0)
    bench.want(True, False, 0.0, 0)
    assert bench.due() == [True, None, None, None]
    bench.want(False, False, 0.0, 0)
    assert bench.due() == [False, None, None, None], "it shows the old level, but another was sent since"
    bench.now_s += WRITE_AGAIN_S
    bench.show(False, False, 0.0, 0)
    assert bench.due() == [None] * 4


def test_what_is_confirmed_and_not_shown_is_said_once_and_when_it_is_over(bench: Bench) -> None:
    bench.show(False, False, 0.0, 0)
    bench.want(True, False, 0.0, 0)
    for _ in range(5):
        bench.due()
        bench.outputs.answered({bench.places[0]: GOOD}, lambda _: False)
        bench.now_s += WRITE_AGAIN_S
    bench.show(True, False, 0.0, 0)
    bench.due()
    assert bench.said == [(BAD_OUT_OF_RANGE, "the device confirmed True but still shows False"), (GOOD, "")]


def test_a_refusal_is_said_with_its_reason_and_tried_again(bench: Bench) -> None:
    bench.show(False, False, 0.0, 0)
    bench.want(True, False, 0.0, 0)
    for _ in range(3):
        assert bench.due()[0] is True
        bench.outputs.answered({bench.places[0]: BAD_NOT_WRITABLE}, lambda _: False)
        bench.now_s += WRITE_AGAIN_S
    ((status, text),) = bench.said
    assert status == BAD_NOT_WRITABLE and "write protection" in text


def test_a_level_that_its_type_cannot_hold_leaves_the_last_one(bench: Bench) -> None:
    bench.want(True, False, 0.0, 3)
    bench.want(True, False, 0.0, 1e9)
    bench.show(True, False, 0.0, 3)
    assert bench.due() == [None] * 4
    assert bench.said[0][0] == BAD_OUT_OF_RANGE


@pytest.mark.parametrize(("tag", "level", "raw"), [("plc.speed", 0.1, 0.10000000149011612), ("plc.program", 3.0, 3)])
def test_a_level_is_compared_as_the_device_will_show_it(tmp_path: Path, tag: str, level: float, raw: Value) -> None:
    found = as_read_back(plan_of(tmp_path, WAIT).cell.tag(tag), level)
    assert found == raw and type(found) is type(raw)


# --- edges -----------------------------------------------------------------------------------------------------------

PRESS = """
cell: press
devices: {plc: {driver: modbus, host: 127.0.0.1}}
tags:
  plc:
    request: {at: coil:0, type: bool, access: write, failsafe: false}
    command: {at: holding:0, type: int16, access: write, failsafe: 0}
    status: {at: input:0, type: int16}
phases:
  plc.press: {request: plc.request, start: {plc.command: 1}, running: plc.status == 2, done: plc.status == 3}
"""


@pytest.fixture
def press(tmp_path: Path) -> Bench:
    """A request, which is an edge, and a command word, which is a level."""
    return Bench(tmp_path, "recipe: press\nuses: [plc]\nsteps:\n  - {do: plc.press, within: 9 s}\n", PRESS)


def test_an_edge_that_the_machine_takes_back_is_not_given_again(press: Bench) -> None:
    press.want(False, 0)
    press.show(False, 0)
    assert press.due() == [None, None]
    press.want(True, 1)
    assert press.due() == [True, 1]
    press.show(False, 0)
    press.now_s += 2 * WRITE_AGAIN_S
    assert press.due() == [None, 1], "the level is, the edge is not"


def test_an_edge_whose_answer_was_lost_is_not_given_again(press: Bench) -> None:
    press.want(False, 0)
    press.show(False, 0)
    press.due()
    press.want(True, 1)
    assert press.due() == [True, 1]
    press.outputs.forget()
    press.now_s += 2 * WRITE_AGAIN_S
    press.show(False, 0)
    assert press.due() == [None, 1]
    press.want(False, 1)
    press.want(True, 1)
    assert press.due()[0] is True, "a new one is"


def test_an_edge_that_was_refused_is_given_again(press: Bench) -> None:
    press.want(False, 0)
    press.show(False, 0)
    press.due()
    press.want(True, 0)
    assert press.due() == [True, None]
    press.outputs.answered({press.places[0]: BAD_NOT_WRITABLE}, lambda _: False)
    press.now_s += 2 * WRITE_AGAIN_S
    assert press.due() == [True, None]


def test_an_edge_that_stands_when_the_process_starts_counts_as_given(press: Bench) -> None:
    press.want(True, 1)
    press.show(False, 0)
    assert press.due() == [None, 1]


def test_an_edge_that_stands_after_a_silence_is_no_new_one(press: Bench) -> None:
    press.want(False, 0)
    press.want(True, 1)
    press.show(True, 1)
    press.due()
    press.outputs.silence([False, 0])
    assert press.due() == [False, 0], "taken back as any level"
    press.show(False, 0)
    press.want(True, 1)
    assert press.due() == [None, 1]
    press.want(False, 1)
    press.want(True, 1)
    assert press.due()[0] is True


def test_another_edge_after_a_silence_is_given(press: Bench) -> None:
    press.want(True, 1)
    press.outputs.silence([False, 0])
    press.show(False, 0)
    press.due()
    press.want(False, 1)
    press.want(True, 2)
    assert press.due() == [True, 2]
