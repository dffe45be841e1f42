"""`hil up`: real processes on real sockets; a killed PLC comes back empty, the plant goes on, nothing stays behind."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import driver
from drivers.value import TYPES, Scale, is_good
from edge import channel
from edge.language.cell import Tag
from edge.language.cell_file import apply_endpoints, load_cell
from edge.language.plant import raw
from edge.language.report import report
from edge.language.source import Problems
from hil import exchange
from hil.cli import main
from hil.exchange import Levels, Refused, Serving, Values
from hil.up import in_unit

BOTTLING = Path(__file__).parent.parent / "recipes" / "bottling" / "cell.yaml"
DEADLINE_S = 60.0

CELL = """
cell: small
devices:
  mixer: {driver: s7, host: 192.168.10.11}
  line: {driver: modbus, host: 192.168.10.12}
tags:
  mixer:
    level: {at: DB1.DBD0, type: float32, unit: L, range: [0, 100]}
    full: {at: M10.0, type: bool}
    inlet: {at: DB1.DBX4.0, type: bool, access: write, failsafe: false}
  line:
    lot: {at: holding:40, type: "string[8]"}
    speed: {at: holding:10, type: uint16, unit: mm/s, scale: [0, 1000, 0, 500], access: write, failsafe: 0}
    belt: {at: input:0, type: int16, unit: mm/s, scale: [0, 1000, 0, 500]}
    opened: {at: discrete:0, type: bool}
"""
PLANT = """
blocks:
  tank: {model: tank, capacity: 50 L, inputs: {inlet: mixer.inlet}, outputs: {level: mixer.level}}
  belt: {model: conveyor, inputs: {speed: line.speed}, outputs: {belt_speed: line.belt}}
  valve: {model: valve, inputs: {open: mixer.inlet}, outputs: {opened: line.opened}}
constants: {line.lot: L-17}
"""


@pytest.fixture
def cell(tmp_path):
    (tmp_path / "cell.yaml").write_text(CELL)
    (tmp_path / "plant.yaml").write_text(PLANT)
    return tmp_path / "cell.yaml"


def wait_for(condition, what):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come true")


class Up:
    """A running `hil up`; what it says is in `said`."""

    def __init__(self, cell, folder, *options):
        self.cell = cell
        self.endpoints = folder / "endpoints.yaml"
        self.output = folder / "output"
        command = [sys.executable, "-m", "hil", "up", str(cell), "--endpoints", str(self.endpoints), *options]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, "EDGE_STATE": str(folder / "state")}
            )

    @property
    def said(self):
        return self.output.read_text()

    def ready(self):
        wait_for(lambda: self.endpoints.exists() or self.process.poll() is not None, "the start")
        assert self.process.poll() is None, self.said
        wait_for(lambda: " simulated PLC" in self.said, "the list")
        return self

    def pids(self):
        """The last pid said of each device."""
        found = re.findall(r"^\s*(\w+)(?:\s+\w+\s+pid (\d+)|: serves again on \S+ \(pid (\d+)\))", self.said, re.M)
        return {name: int(first or again) for name, first, again in found}

    def says(self, words):
        wait_for(lambda: words in self.said, words)

    @contextlib.asynccontextmanager
    async def device(self, name):
        """A connected driver for the device as the endpoints say, and its tags."""
        problems = Problems()
        cell = apply_endpoints(load_cell(self.cell, problems).cell, self.endpoints, problems)
        assert not problems.errors, report(problems)
        device = next(one for one in cell.devices if one.name == name)
        tags = [cell.tags[index] for index in device.tags]
        connected = driver.find(device.driver)(device.settings, [tag.point for tag in tags], {})
        try:
            await connected.connect()
            yield Reached(connected, tags)
        finally:
            await connected.close()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


class Reached:
    def __init__(self, connected, tags):
        self.driver = connected
        self.tags = tags
        self.names = [tag.name.partition(".")[2] for tag in tags]

    async def read(self):
        readings = await self.driver.scan()
        assert all(is_good(reading.status) for reading in readings)
        pairs = zip(self.names, self.tags, readings, strict=True)
        return {name: in_unit(tag, reading.value) for name, tag, reading in pairs}

    async def write(self, **values):
        indices = {name: self.names.index(name) for name in values}
        written = {indices[name]: raw(self.tags[indices[name]], value) for name, value in values.items()}
        assert all(is_good(status) for status in (await self.driver.write(written)).values())

    async def until(self, condition):
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            values = await self.read()
            if condition(values):
                return values
        raise AssertionError(f"it did not come true: {values}")


@pytest.fixture
def up(tmp_path):
    started = []

    def start(cell, *options):
        started.append(Up(cell, tmp_path, *options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def title(pid):
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")


async def test_the_bottling_cell_answers_on_its_three_protocols_and_its_plant_moves(up):
    rig = up(BOTTLING).ready()
    pids = rig.pids()
    assert {name: title(pid) for name, pid in pids.items()} == {name: f"hil-{name}" for name in pids}
    assert set(pids) == {"mixer", "conveyor", "robot"}
    assert title(rig.process.pid) == "hil-up"
    async with rig.device("mixer") as mixer, rig.device("conveyor") as conveyor, rig.device("robot") as robot:
        await mixer.write(inlet=True, agitator=120.0)
        await conveyor.write(speed=200.0, lamp=True)
        await robot.write(program=3)
        before = await mixer.read()
        after = await mixer.until(lambda now: now["level"] > before["level"] + 1 and now["speed"] > 60)
        assert (after["inlet"], after["outlet"], after["overflow"]) == (True, False, False)
        assert after["temperature"] == pytest.approx(20, abs=0.1)
        seen = await conveyor.until(lambda now: now["bottle"])
        assert (seen["lamp"], seen["lot"], seen["speed"]) == (True, "LOT-2026-041", 200)
        await conveyor.write(speed=0.0)
        await conveyor.until(lambda now: now["ready"] and now["weight"] == pytest.approx(0.3, abs=0.01))
        await robot.until(lambda now: now["state"] == 3)
        await robot.write(program=0)
        await robot.until(lambda now: now["state"] == 1)
    assert rig.stop() == 0
    assert not any(alive(pid) for pid in pids.values())
    assert not rig.endpoints.exists()
    assert "Traceback" not in rig.said


async def test_a_killed_plc_comes_back_empty_on_its_port_and_the_plant_has_gone_on(up, cell):
    rig = up(cell, "--restart-after", "0.5").ready()
    first = yaml.safe_load(rig.endpoints.read_text())
    pids = rig.pids()
    async with rig.device("mixer") as mixer:
        await mixer.write(inlet=True)
        level = (await mixer.until(lambda now: now["level"] > 1))["level"]
    os.kill(pids["mixer"], signal.SIGKILL)
    rig.says(f"mixer: its PLC process {pids['mixer']} was killed (SIGKILL); it starts again on 127.0.0.1:")
    rig.says("mixer: serves again on")
    assert rig.pids()["mixer"] != pids["mixer"]
    assert rig.pids()["line"] == pids["line"]
    assert yaml.safe_load(rig.endpoints.read_text()) == first
    async with rig.device("mixer") as mixer:
        values = await mixer.read()
        assert values["inlet"] is False
        assert values["level"] >= level
        await mixer.write(inlet=True)
        await mixer.until(lambda now: now["level"] > values["level"] + 0.5)
    assert rig.stop() == 0


async def test_without_power_a_plc_lets_go_of_its_outputs(up, cell):
    rig = up(cell, "--restart-after", "never").ready()
    async with rig.device("line") as line, rig.device("mixer") as mixer:
        await line.write(speed=250.0)
        await mixer.write(inlet=True)
        await line.until(lambda now: now["belt"] == pytest.approx(250, abs=1) and now["opened"])
        os.kill(rig.pids()["mixer"], signal.SIGKILL)
        rig.says("it stays away")
        with pytest.raises(driver.DeviceError):
            await mixer.until(lambda now: False)
        seen = await line.until(lambda now: not now["opened"])
        assert (seen["lot"], seen["speed"]) == ("L-17", 250)
    assert rig.stop(signal.SIGINT) == 0


async def test_a_cell_without_a_plant_is_simulated_with_what_it_reads_standing_still(up, cell):
    (cell.parent / "plant.yaml").unlink()
    rig = up(cell).ready()
    assert "no plant" in rig.said
    async with rig.device("line") as line, rig.device("mixer") as mixer:
        assert await line.read() == {"lot": "", "speed": 0, "belt": 0, "opened": False}
        await mixer.write(inlet=True)
        assert await mixer.read() == {"level": 0, "full": False, "inlet": True}
    assert rig.stop() == 0


def free_ports(count):
    """The first of some consecutive ports that are free."""
    for first in range(21000, 60000, 97):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                taken = stack.enter_context(socket.socket())
                taken.bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports")


def test_ports_follow_one_another_and_one_in_use_is_named(up, cell):
    first = free_ports(2)
    rig = up(cell, "--ports", str(first)).ready()
    found = yaml.safe_load(rig.endpoints.read_text())
    assert [one["port"] for one in found.values()] == [first, first + 1]
    assert rig.stop() == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 1))
        taken.listen()
        second = up(cell, "--ports", str(first))
        assert second.process.wait(DEADLINE_S) == 1
        assert f"hil up: line: cannot listen on 127.0.0.1:{first + 1}: address already in use" in second.said
        assert not second.endpoints.exists()


def test_nothing_outlives_a_killed_parent(up, cell):
    rig = up(cell).ready()
    pids = rig.pids().values()
    rig.process.kill()
    rig.process.wait()
    wait_for(lambda: not any(alive(pid) for pid in pids), "the end of the PLC processes")


def test_a_frozen_plc_does_not_keep_the_others_or_the_end_waiting(up, cell):
    rig = up(cell).ready()
    pids = rig.pids()
    os.kill(pids["mixer"], signal.SIGSTOP)
    assert rig.stop() == 0
    assert not any(alive(pid) for pid in pids.values())


async def test_a_controller_serves_as_many_clients_as_it_is_set_up_for(up, cell):
    cell.with_name("plant.yaml").write_text("controllers: {line: {connections: 1, answer_time: 10 ms}}")
    rig = up(cell).ready()
    assert re.search(r"line .*; set up by the plant file\n", rig.said)
    async with rig.device("line") as first:
        await first.read()
        with pytest.raises(driver.DeviceError):
            async with rig.device("line") as second:
                await second.read()
        await first.read()

    async def connects():
        with contextlib.suppress(driver.DeviceError):
            async with rig.device("line") as third:
                return await third.read()

    assert await retried(connects)
    assert rig.stop() == 0


async def retried(work):
    """What the work gives, once it gives anything."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if found := await work():
            return found
    raise AssertionError("not in time")


def test_an_old_endpoints_file_is_not_taken_for_a_new_one(up, cell, tmp_path):
    (tmp_path / "endpoints.yaml").write_text("mixer: {host: 10.0.0.1}\n")
    rig = up(cell)
    wait_for(lambda: " simulated PLC" in rig.said, "the list")
    assert set(yaml.safe_load(rig.endpoints.read_text())) == {"mixer", "line"}
    assert rig.stop() == 0


@pytest.mark.parametrize(
    ("file", "before", "after", "words"),
    [
        ("cell.yaml", "driver: s7", "driver: s8", "no driver `s8`"),
        ("cell.yaml", "DB1.DBD0", "DBX.1", "mixer.level"),
        ("plant.yaml", "model: tank", "model: tonk", "did you mean `tank`?"),
        ("plant.yaml", "mixer.inlet", "mixer.inlat", "did you mean `mixer.inlet`?"),
    ],
)
def test_a_wrong_file_is_reported_and_nothing_starts(cell, capsys, file, before, after, words):
    path = cell.parent / file
    path.write_text(path.read_text().replace(before, after))
    assert main(["up", str(cell)]) == 1
    assert words in capsys.readouterr().err.replace("DBX.1", "mixer.level")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--endpoints", "/nowhere/at/all.yaml"], "no directory /nowhere/at"),
        (["--ports", "65535"], "line: there is no port 65536"),
        (["--host", "192.0.2.1"], "mixer: cannot listen on 192.0.2.1: cannot assign requested address"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(cell, options, words):
    command = [sys.executable, "-m", "hil", "up", str(cell), *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("hil up: ")
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("options", [["--ports", "0"], ["--ports", "x"], ["--restart-after", "soon"], []])
def test_wrong_options_are_said_with_the_usage(options, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["up", *options, *(["cell.yaml"] if options else [])])
    assert ended.value.code == 2
    assert "usage: hil up" in capsys.readouterr().err


def test_without_a_command_it_says_which_there_are(capsys):
    assert main([]) == 2
    assert "simulated PLCs for a cell" in capsys.readouterr().out


def test_help_names_what_a_person_needs(capsys):
    for arguments, words in ((["--help"], "simulated PLCs"), (["up", "--help"], "plant.yaml"), (["models"], None)):
        if words is None:
            assert main(arguments) == 0
            out = capsys.readouterr().out
            assert all(f"{name}:" in out for name in ("tank", "valve", "scale", "conveyor", "robot"))
        else:
            with pytest.raises(SystemExit) as ended:
                main(arguments)
            assert ended.value.code == 0
            assert words in capsys.readouterr().out


# --- the exchange with a PLC process ---------------------------------------------------------------------------------


def test_packets_arrive_as_they_were_sent():
    one, other = channel.pair()
    with one, other:
        packets = [
            Serving({"host": "127.0.0.1", "port": 5}),
            Refused("no"),
            Values({0: True, 7: -1.5, 2: "a", 3: 2**63}),
        ]
        assert all(exchange.send(one, packet) for packet in packets)
        assert exchange.receive(other) == packets
        assert exchange.receive(other) == []


def test_only_what_changed_is_sent_and_what_did_not_go_through_stays_due():
    one, other = channel.pair()
    with one, other:
        levels = Levels()
        levels.bring(one, {0: 1, 1: False})
        levels.bring(one, {0: 1, 1: True})
        assert exchange.receive(other) == [Values({0: 1, 1: False}), Values({1: True})]
        while channel.send(one, b"\xc0" * 50_000):
            pass
        levels.bring(one, {0: 2, 1: True})
        channel.drain(other)
        levels.bring(one, {0: 2, 1: True})
        assert exchange.receive(other) == [Values({0: 2})]


def test_a_large_memory_passes_in_several_packets():
    one, other = channel.pair()
    with one, other:
        Levels().bring(one, {index: float(index) for index in range(5000)})
        received = {}
        for packet in exchange.receive(other):
            received |= packet.values
        assert received == {index: float(index) for index in range(5000)}


numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False))


@given(numbers, st.sampled_from([kind for kind in TYPES.values() if kind.kind in ("int", "float")]), st.booleans())
@settings(deadline=None)
def test_a_sensor_saturates_at_the_ends_of_its_type(value, kind, scaled):
    tag = Tag(0, "a.b", 0, "", kind, scale=Scale(0, 100, 0, 1000) if scaled else None)
    shown = raw(tag, value)
    assert kind.low <= shown <= kind.high
    assert isinstance(shown, int if kind.kind == "int" else float)
    if abs(value) < 100:
        back = in_unit(tag, shown)
        low = 0 if kind.low == 0 else -100
        assert back == pytest.approx(max(value, low), abs=5.1 if scaled else 0.51)


def test_a_text_is_cut_to_what_its_type_holds():
    tag = Tag(0, "a.b", 0, "", driver.DataType("string[3]", "string", "", 3))
    assert raw(tag, "aéé") == "aé"
