"""`edge tags`, the technician's look: what it prints, what it sets and refuses, what it says of a lost device."""

import http.server
import json
import os
import re
import signal
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.cli import main
from edge.lock import Lock
from tests.processes import BOTTLING, Plcs, Running, edge, running, until

TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
CELL = """
cell: bench
devices:
  line: {driver: modbus, host: 127.0.0.1, port: 1}
  side: {driver: modbus, host: 127.0.0.1, port: 1}
tags:
  line:
    speed: {at: holding:10, type: uint16, unit: mm/s, scale: [0, 1000, 0, 500], access: write, failsafe: 0}
    lamp: {at: coil:7, type: bool, access: write, failsafe: false}
    serial: {at: holding:100, type: int64, access: write, failsafe: 0}
    lot: {at: holding:40, type: "string[8]", access: write, failsafe: ""}
    weight: {at: input:20, type: float32, unit: kg, range: [0, 40]}
  side:
    bottle: {at: discrete:3, type: bool}
"""
READ_COILS, READ_INPUTS, READ_HOLDING, READ_INPUT = 1, 2, 3, 4
WRITE_COIL, WRITE_REGISTER, WRITE_REGISTERS = 5, 6, 16
Rows = dict[str, Any]


class Device(socketserver.ThreadingTCPServer):
    """A Modbus device by hand: 200 registers and bits, with what may be wrong with a real one.

    `deaf`: it confirms writes and does not carry them out. `dumb`: it answers nothing. `refused`: functions that it
    answers with exception 3, illegal data value.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        self.registers = [0] * 200
        self.coils = [False] * 200
        self.deaf = self.dumb = False
        self.refused: set[int] = set()
        self.open: list[socket.socket] = []
        super().__init__(("127.0.0.1", port), _Conversation)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        for one in self.open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def answer(self, pdu: bytes) -> bytes:
        function, first, count = struct.unpack_from(">BHH", pdu)
        if function in self.refused:
            return bytes((function | 0x80, 3))
        if function in (READ_COILS, READ_INPUTS):
            bits = sum(bit << place for place, bit in enumerate(self.coils[first : first + count]))
            return bytes((function, (count + 7) // 8)) + bits.to_bytes((count + 7) // 8, "little")
        if function in (READ_HOLDING, READ_INPUT):
            return struct.pack(f">BB{count}H", function, 2 * count, *self.registers[first : first + count])
        if not self.deaf:
            self._write(function, first, count, pdu)
        return pdu[:5]

    def _write(self, function: int, first: int, count: int, pdu: bytes) -> None:
        if function == WRITE_COIL:
            self.coils[first] = count == 0xFF00
        elif function == WRITE_REGISTER:
            self.registers[first] = count
        else:
            assert function == WRITE_REGISTERS
            self.registers[first : first + count] = struct.unpack_from(f">{count}H", pdu, 6)


class _Conversation(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        device: Any = self.server
        device.open.append(self.request)
        with suppress(OSError, struct.error):
            while header := self.request.recv(7, socket.MSG_WAITALL):
                transaction, _, length, unit = struct.unpack(">HHHB", header)
                answer = device.answer(self.request.recv(length - 1, socket.MSG_WAITALL))
                if not device.dumb:
                    self.request.sendall(struct.pack(">HHHB", transaction, 0, len(answer) + 1, unit) + answer)


class Bench:
    """A cell file of two Modbus devices, line and side, each a `Device`; `tags` is `edge tags` on it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.capsys = capsys
        self.cell = folder / "cell.yaml"
        self.cell.write_text(CELL)
        self.line, self.side = self.device(), self.device()
        self.endpoints = folder / "endpoints.yaml"
        settings = {"line": {"port": self.line.port}, "side": {"port": self.side.port}}
        self.endpoints.write_text(yaml.safe_dump(settings))
        self.options = ["--endpoints", str(self.endpoints), "--state", str(folder / "state")]

    def device(self, port: int = 0) -> Device:
        made = Device(port)
        self.stack.callback(made.close)
        return made

    def tags(self, *options: str) -> tuple[int, str, str]:
        """Exit code, what it printed, what it said of troubles."""
        code = main(["tags", str(self.cell), *self.options, *options])
        printed = self.capsys.readouterr()
        return code, printed.out, printed.err

    def json(self, *options: str) -> tuple[int, Rows, str]:
        code, out, err = self.tags("--once", "--format", "json", *options)
        return code, json.loads(out), err


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(tmp_path, capsys, stack)


# --- what it prints --------------------------------------------------------------------------------------------------


def test_one_json_object_of_all_tags_with_value_quality_time_and_unit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EDGE_STATE", str(tmp_path / "identity"))
    with running(Plcs(tmp_path)) as plcs:
        options = ("--endpoints", plcs.endpoints, "--state", tmp_path / "none")
        look = edge("tags", BOTTLING, *options, "--once", "--format", "json")
        table = edge("tags", BOTTLING, *options, "--set", "mixer.agitator=2 1/s", "--set", "conveyor.lamp=true")
    assert (look.returncode, look.stderr) == (0, "")
    (line,) = look.stdout.splitlines()
    tags = json.loads(line)
    written = yaml.safe_load(BOTTLING.read_text())["tags"]
    assert list(tags) == [f"{device}.{name}" for device, of_device in written.items() for name in of_device]
    for name, one in tags.items():
        device, _, tag = name.partition(".")
        assert list(one) == ["value", "quality", "time", "unit"]
        assert one["quality"] == "good" and TIME.fullmatch(one["time"])
        assert one["unit"] == written[device][tag].get("unit", "")
    assert tags["conveyor.lot"]["value"] == "LOT-2026-041"
    assert tags["mixer.overflow"]["value"] is False
    assert tags["robot.state"]["value"] == 1
    assert isinstance(tags["mixer.level"]["value"], float)
    assert (table.returncode, table.stderr) == (0, "")
    assert re.search(r"^mixer\.agitator +120 +rpm +good +20", table.stdout, re.MULTILINE)
    assert re.search(r"^conveyor\.lamp +true +good +20", table.stdout, re.MULTILINE)


def test_a_table_for_people(bench: Bench) -> None:
    bench.line.registers[10] = 401
    bench.line.registers[40:42] = struct.unpack(">2H", "خط".encode())
    code, out, err = bench.tags("--once")
    assert (code, err) == (0, "")
    header, *lines = out.splitlines()
    assert header.split() == ["tag", "value", "unit", "quality", "time"]
    assert [line.split()[0] for line in lines] == [
        "line.speed",
        "line.lamp",
        "line.serial",
        "line.lot",
        "line.weight",
        "side.bottle",
    ]
    assert lines[0].split()[1:4] == ["200.5", "mm/s", "good"]
    assert lines[1].split()[1:3] == ["false", "good"]
    assert '"خط"' in lines[3]


def test_a_value_that_is_no_number_is_bad(bench: Bench) -> None:
    bench.line.registers[20:22] = 0x7FC0, 0
    code, tags, _ = bench.json()
    assert code == 1
    assert (tags["line.weight"]["value"], tags["line.weight"]["quality"]) == (None, "bad: out of range")
    assert tags["line.speed"]["quality"] == "good"


def test_it_needs_no_recipe_that_is_right(bench: Bench) -> None:
    (bench.folder / "half.yaml").write_text("recipe: half\nsteps:\n  - until: line.sp\n")
    assert bench.json()[0] == 0


def test_a_cell_with_mistakes_is_reported_and_nothing_is_read(bench: Bench) -> None:
    bench.cell.write_text(CELL.replace("holding:10,", "holdin:10,"))
    code, out, err = bench.tags("--once")
    assert (code, out) == (1, "") and "cell.yaml:8:17: error" in err and "^" in err


# --- what it sets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("line.lamp=true", True),
        ("line.lamp=TRUE", True),
        ("line.speed=200", 200),
        ("line.speed=200.5", 200.5),
        ("line.speed=200.5 mm/s", 200.5),
        ("line.speed=0.2 m/s", 200),
        ("line.speed=12 m/min", 200),
        ("line.speed= 2e2 mm/s ", 200),
        ("line.speed=0.3", 0.5),
        ("line.serial=-9007199254740993", -(2**53) - 1),
        ("line.serial=9223372036854775807", 2**63 - 1),
        ("line.lot=LOT=1", "LOT=1"),
        ("line.lot=", ""),
        ("line.lot=سبعة", "سبعة"),
    ],
)
def test_an_output_is_set_and_read_back(bench: Bench, setting: str, shown: object) -> None:
    bench.line.registers[40:44] = struct.unpack(">4H", b"previous")
    code, tags, err = bench.json("--set", setting)
    assert (code, err) == (0, "")
    assert tags[setting.partition("=")[0]]["value"] == shown


def test_several_outputs_at_once(bench: Bench) -> None:
    code, tags, _ = bench.json("--set", "line.lamp=true", "--set", "line.speed=5")
    assert (code, tags["line.lamp"]["value"], tags["line.speed"]["value"]) == (0, True, 5)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("line.sped=1", "the cell bench has no tag `line.sped`: did you mean `line.speed`?"),
        ("speed=1", "the cell bench has no tag `speed`: did you mean `line.speed`?"),
        ("x=1", "the cell bench has no tag `x`: without --set, `edge tags` lists them all"),
        ("line.weight=1", "`line.weight` can only be read: the cell file does not say `access: write`"),
        ("line.speed=true", "--set line.speed=true: a number was expected, in mm/s"),
        ("line.speed=", "--set line.speed=: a number was expected, in mm/s"),
        ("line.speed=nan", "--set line.speed=nan: a number was expected, in mm/s"),
        ("line.speed=1,5", "--set line.speed=1,5: write a point before the decimals: 1.5"),
        ("line.speed=2 kg", "--set line.speed=2 kg: kg is no unit for it: it is in mm/s"),
        ("line.speed=2 mm/x", "--set line.speed=2 mm/x: no unit `x`"),
        ("line.speed=-1", "`line.speed` cannot be written: -1 does not fit uint16"),
        ("line.speed=1e999", "--set line.speed=1e999: this number is too large"),
        ("line.serial=2.5", "`line.serial` is int64: it cannot be 2.5"),
        ("line.serial=9223372036854775808", "`line.serial` cannot be written: 9223372036854775808 does not fit int64"),
        ("line.lamp=1", "--set line.lamp=1: true or false was expected"),
        ("line.lot=ninebytes", "`line.lot` cannot be written: 'ninebytes' is longer than string[8]"),
        ("line.lot=خمسةة", "`line.lot` cannot be written: 'خمسةة' is longer than string[8]"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_words(bench: Bench, setting: str, said: str) -> None:
    good = () if setting.startswith("line.lamp") else ("--set", "line.lamp=true")
    assert bench.tags(*good, "--set", setting) == (1, "", f"edge: {said}\n")
    assert not bench.line.open, "nothing is written, not even what could be"


def test_a_setting_of_a_ranged_tag_says_the_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tags", str(BOTTLING), "--set", "mixer.agitator=400"]) == 1
    assert capsys.readouterr().err == "edge: 400 rpm is outside the range of `mixer.agitator`, 0 to 300 rpm\n"


@pytest.mark.parametrize("setting", ["line.lamp", "=true", ""])
def test_a_setting_without_its_sign_is_a_mistake_on_the_command_line(bench: Bench, setting: str) -> None:
    assert bench.tags("--set", setting) == (2, "", f"edge: --set {setting}: NAME=VALUE was expected\n")


def test_a_device_that_refuses_a_value(bench: Bench) -> None:
    bench.line.refused = {WRITE_REGISTER}
    said = "line.speed could not be set: the device does not take 5 mm/s"
    assert bench.tags("--set", "line.speed=5") == (1, "", f"edge: {said}\n")


def test_a_write_that_is_confirmed_and_not_carried_out(bench: Bench) -> None:
    bench.line.deaf = True
    said = "line.speed was written, but the device shows 0 mm/s: does its own program or another client drive it?"
    assert bench.tags("--set", "line.speed=5") == (1, "", f"edge: {said}\n")


# --- a device that is lost -------------------------------------------------------------------------------------------


def test_a_dead_device_is_named_and_the_others_are_shown(bench: Bench) -> None:
    bench.side.close()
    code, tags, err = bench.json()
    assert code == 1
    assert tags["side.bottle"] == {"value": None, "quality": "bad: connection refused", "time": None, "unit": ""}
    assert {one["quality"] for name, one in tags.items() if name.startswith("line.")} == {"good"}
    (line,) = err.splitlines()
    assert line.startswith("edge: side: ") and f"127.0.0.1:{bench.side.port}" in line and line.endswith(")")


def test_a_device_that_answers_nothing_is_named_too(bench: Bench) -> None:
    bench.side.dumb = True
    code, tags, err = bench.json()
    assert (code, tags["side.bottle"]["value"], tags["line.lamp"]["quality"]) == (1, None, "good")
    assert err.startswith("edge: side: ")


def test_a_tag_that_its_device_refuses_is_named(bench: Bench) -> None:
    bench.line.refused = {READ_COILS}
    code, tags, err = bench.json()
    assert (code, tags["line.lamp"]["value"], tags["line.speed"]["quality"]) == (1, None, "good")
    assert err.startswith("edge: line.lamp: ") and len(err.splitlines()) == 1


def test_a_setting_is_done_whatever_other_devices_do(bench: Bench) -> None:
    bench.side.close()
    code, tags, err = bench.json("--set", "line.lamp=true")
    assert (code, tags["line.lamp"]["value"], tags["side.bottle"]["value"]) == (0, True, None)
    assert err.startswith("edge: side: ")


def test_a_setting_of_a_dead_device_is_refused(bench: Bench) -> None:
    bench.line.close()
    code, out, err = bench.tags("--set", "line.lamp=true")
    assert (code, out) == (1, "") and err.startswith("edge: line: ") and len(err.splitlines()) == 1


class Watch(Running):
    """`edge tags` live, one JSON object after the other."""

    def __init__(self, bench: Bench) -> None:
        command = ["-m", "edge", "tags", bench.cell, *bench.options, "--format", "json"]
        super().__init__(command, bench.folder / "live.log")

    def sees(self, condition: Callable[[Rows], bool]) -> None:
        def seen() -> bool:
            looks = [
                line for line in self.said.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")
            ]
            return bool(looks) and condition(json.loads(looks[-1]))

        until(seen, self.said)


def test_live_a_lost_device_turns_bad_keeps_nobody_waiting_and_comes_back(bench: Bench) -> None:
    with running(Watch(bench)) as watch:
        watch.sees(lambda tags: tags["side.bottle"]["value"] is False and tags["line.lamp"]["value"] is False)
        bench.side.dumb = True
        watch.sees(lambda tags: tags["side.bottle"]["value"] is None)
        bench.line.coils[7] = True
        watch.sees(lambda tags: tags["side.bottle"]["value"] is None and tags["line.lamp"]["value"] is True)
        bench.side.dumb = False
        watch.sees(lambda tags: tags["side.bottle"]["value"] is False)
        assert watch.end(signal.SIGINT) == 130
    assert "edge: side: " in watch.said and "line: " not in watch.said and "Traceback" not in watch.said


# --- where a daemon runs ---------------------------------------------------------------------------------------------


class Daemon(http.server.ThreadingHTTPServer):
    """What `edge tags` asks of a daemon's API, answered by hand: its state, and what was set (tag -> body)."""

    def __init__(self, state: Rows) -> None:
        self.state = state
        self.set: Rows = {}
        self.refusal = ""
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Daemon

    def do_GET(self) -> None:
        self._answer(200, self.server.state)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.refusal:
            self._answer(409, {"error": self.server.refusal})
            return
        tag = self.path.removeprefix("/api/tags/")
        self.server.set[tag] = body
        self._answer(200, {"tag": tag, "value": body["value"]})

    def _answer(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def daemon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon that holds the bench's state directory, on a machine that reaches the web through a proxy."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    tags: Rows = {
        "line.speed": {**_row(5.0, "mm/s"), "level": 5.0, "owner": None},
        "line.lamp": {**_row(True), "level": True, "owner": None},
        "side.bottle": _row(False),
    }
    up = {"up": True, "reason": "", "hint": ""}
    served = Daemon({"tags": tags, "devices": {"line": up, "side": up}})
    with held(bench, served.url):
        yield served
    served.shutdown()
    served.server_close()


@contextmanager
def held(bench: Bench, url: str) -> Iterator[None]:
    """The bench's state directory in the hands of a daemon with its API at this address, or of `edge run` ("")."""
    lock = Lock(bench.folder / "state", {"url": url})
    try:
        yield
    finally:
        lock.release()


def _row(value: object, unit: str = "") -> Rows:
    return {"value": value, "quality": "good", "time": "2026-01-01T00:00:00.000Z", "unit": unit}


def test_through_the_daemon_it_shows_the_same(bench: Bench, daemon: Daemon) -> None:
    code, tags, err = bench.json()
    assert (code, err) == (0, "")
    assert tags == {"line.speed": _row(5.0, "mm/s"), "line.lamp": _row(True), "side.bottle": _row(False)}
    assert not bench.line.open, "no second client at the device"


def test_through_the_daemon_a_lost_device_and_a_refused_tag_are_named(bench: Bench, daemon: Daemon) -> None:
    daemon.state["devices"]["side"] = {"up": False, "reason": "no answer", "hint": "see its cable"}
    daemon.state["tags"]["side.bottle"] |= {"value": None, "quality": "bad: device lost"}
    daemon.state["tags"]["line.lamp"]["trouble"] = "the device has no coil:7"
    code, tags, err = bench.json()
    assert (code, tags["side.bottle"]["value"]) == (1, None)
    assert err == "edge: side: no answer (see its cable)\nedge: line.lamp: the device has no coil:7\n"


def test_through_the_daemon_an_output_is_set(bench: Bench, daemon: Daemon) -> None:
    code, _, err = bench.json("--set", "line.speed=0.005 m/s", "--set", "line.lamp=true")
    assert (code, err) == (0, "")
    assert {tag: body["value"] for tag, body in daemon.set.items()} == {"line.speed": 5, "line.lamp": True}


def test_through_the_daemon_an_output_that_does_not_come_true(bench: Bench, daemon: Daemon) -> None:
    code, out, err = bench.tags("--set", "line.speed=7")
    assert (code, out) == (1, "") and err.startswith("edge: line.speed was written, but the device shows 5 mm/s: ")


def test_through_the_daemon_a_refusal_is_passed_on(bench: Bench, daemon: Daemon) -> None:
    daemon.refusal = "line.lamp belongs to batch 7"
    assert bench.tags("--set", "line.lamp=true") == (1, "", "edge: line.lamp belongs to batch 7\n")


def test_a_daemon_that_does_not_answer(bench: Bench) -> None:
    said = "the daemon at http://127.0.0.1:1 does not answer (connection refused): see its log"
    with held(bench, "http://127.0.0.1:1"):
        assert bench.tags("--once") == (1, "", f"edge: {said}\n")


def test_a_running_recipe_is_not_disturbed(bench: Bench) -> None:
    with held(bench, ""):
        code, out, err = bench.tags("--once")
    assert (code, out) == (1, "") and "a recipe runs on bench now" in err and f"process {os.getpid()}" in err
