"""The cell file: what is read, in which unit, and where what is wrong stands."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from drivers.driver import AddressError, Point
from drivers.identity import Secret
from drivers.value import Scale
from edge.language.cell import beats, outside
from edge.language.cell_file import CellFile, apply_endpoints, load_cell
from edge.language.report import report
from edge.language.source import Problem, Problems

HERE = Path(__file__).parent


def read(tmp_path: Path, text: str) -> tuple[CellFile | None, list[Problem]]:
    path = tmp_path / "cell.yaml"
    path.write_text(text)
    problems = Problems()
    return load_cell(path, problems), list(problems)


def good(tmp_path: Path, text: str) -> CellFile:
    file, problems = read(tmp_path, text)
    assert problems == []
    assert file is not None
    return file


CELL = """
cell: one
devices:
  a: {driver: modbus, host: 10.0.0.1, every: 20 ms}
  b: {driver: modbus, host: 10.0.0.2, unit: 7}
tags:
  a:
    level: {at: "input:0", type: uint16, unit: L, scale: [0, 1000, 0, 50], range: [0, 50]}
    speed: {at: "holding:1", type: int16, unit: rpm, access: write, failsafe: 5, range: [0, 100]}
    flow: {at: "holding:2", type: float32, unit: L/min, access: write, failsafe: 1.2 m3/h, word_order: little}
    name: {at: "holding:10", type: "string[8]", access: write, failsafe: "010"}
  b:
    lamp: {at: "coil:3", type: bool, access: write, failsafe: true}
"""


def test_devices(tmp_path: Path) -> None:
    cell = good(tmp_path, CELL).cell
    assert (cell.name, cell.scan_ns) == ("one", 10_000_000)
    assert [(device.name, device.driver, device.every_ns, device.tags) for device in cell.devices] == [
        ("a", "modbus", 20_000_000, (0, 1, 2, 3)),
        ("b", "modbus", 100_000_000, (4,)),
    ]
    assert [getattr(device.settings, "unit", None) for device in cell.devices] == [1, 7]
    assert cell.units == {"a": (0,), "b": (1,)}


def test_tags(tmp_path: Path) -> None:
    cell = good(tmp_path, CELL).cell
    level, speed, flow, name, lamp = cell.tags
    assert [tag.index for tag in cell.tags] == [0, 1, 2, 3, 4]
    assert (level.name, level.address, level.type.name, level.unit) == ("a.level", "input:0", "uint16", "L")
    assert (level.scale, level.low, level.high) == (Scale(0, 1000, 0, 50), 0, 50)
    assert (level.writable, level.failsafe) == (False, None)
    assert (speed.writable, speed.failsafe, type(speed.failsafe)) == (True, 5, int)
    assert flow.failsafe == pytest.approx(20)
    assert (flow.word_order, flow.byte_order) == ("little", "big")
    assert name.failsafe == "010"
    assert lamp.failsafe is True
    assert lamp.point == Point("b.lamp", "coil:3", lamp.type, writable=True)
    assert cell.tag("b.lamp") is lamp


def test_units_and_heartbeats(tmp_path: Path) -> None:
    text = CELL + "units: {line: [b, a]}\nheartbeats: {a: a.speed}\n"
    cell = good(tmp_path, text).cell
    assert cell.units == {"line": (1, 0)}
    assert cell.heartbeats == {0: 1}


@pytest.mark.parametrize(
    ("tag", "first", "last"),
    [
        ("type: int8", 0, 127),
        ("type: uint8", 0, 255),
        ("type: int16", 0, 32767),
        ("type: uint32", 0, 32767),
        ("type: uint8, range: [0, 100]", 0, 100),
        ("type: int16, range: [-5, 10.5]", 0, 10),
        ("type: int16, range: [10, 20]", 10, 20),
    ],
)
def test_a_heartbeat_counts_as_far_as_its_tag_goes(tag: str, first: int, last: int, tmp_path: Path) -> None:
    beat = f'    beat: {{at: "holding:20", {tag}, access: write, failsafe: 10}}\n'
    cell = good(tmp_path, f"{CELL}{beat}heartbeats: {{b: b.beat}}\n").cell
    assert beats(cell.tag("b.beat")) == range(first, last + 1)


@pytest.mark.parametrize(
    "tag",
    [
        "type: int16, range: [-9, 0], failsafe: 0",
        "type: int16, scale: [0, 10, 0, 1], failsafe: 0",
        "type: float32, failsafe: 0",
    ],
)
def test_what_cannot_count_is_no_heartbeat(tag: str, tmp_path: Path) -> None:
    beat = f'    beat: {{at: "holding:20", access: write, {tag}}}\n'
    _, (problem,) = read(tmp_path, f"{CELL}{beat}heartbeats: {{b: b.beat}}\n")
    assert (problem.code, problem.line, problem.column) == ("bad-heartbeat", 15, 17)


def test_a_device_is_read_no_more_often_than_the_loop_looks(tmp_path: Path) -> None:
    file, (problem,) = read(tmp_path, CELL + "scan: 200 ms\n")
    assert (problem.severity, problem.code, problem.line, problem.column) == ("warning", "short-every", 4, 46)
    assert "every 200 ms" in problem.message and "`every: 200 ms`" in problem.hint
    assert file is not None and [device.max_age_ns for device in file.cell.devices] == [600_000_000] * 2


def test_a_device_that_no_unit_names_is_one(tmp_path: Path) -> None:
    cell = good(tmp_path, CELL + "units: {line: [b]}\n").cell
    assert cell.units == {"line": (1,), "a": (0,)}


def test_phases_are_left_to_be_compiled(tmp_path: Path) -> None:
    text = "phases:\n  a.go: {parameters: {speed: a.speed}, running: a.level > 3 L, done: a.level < 1 L}\n"
    file = good(tmp_path, CELL + text)
    form = file.phases["a.go"]
    assert form.parameters == {"speed": "a.speed"}
    assert (form.running.text, form.done.text, form.failed) == ("a.level > 3 L", "a.level < 1 L", None)


def test_what_is_broken_has_a_name_all_the_same(tmp_path: Path) -> None:
    file, problems = read(tmp_path, CELL.replace("type: float32", "type: float").replace("host: 10.0.0.2", "host: []"))
    assert [problem.code for problem in problems] == ["not-text", "unknown-type"]
    assert file is not None
    assert file.broken == {"a.flow", "b", "b.lamp"}
    assert [tag.name for tag in file.cell.tags] == ["a.level", "a.speed", "a.name"]


@pytest.mark.parametrize("scan", ["1 ms", "1 s", "0.1 s"])
def test_scans_that_may_be(scan: str, tmp_path: Path) -> None:
    assert good(tmp_path, f"{CELL.replace(', every: 20 ms', '')}scan: {scan}\n").cell.scan_ns in (
        1_000_000,
        100_000_000,
        1_000_000_000,
    )


@pytest.mark.parametrize(
    ("scan", "code"), [("0.9 ms", "out-of-range"), ("2 s", "out-of-range"), ("10", "bad-duration")]
)
def test_scans_that_may_not_be(scan: str, code: str, tmp_path: Path) -> None:
    _, (problem,) = read(tmp_path, f"{CELL}scan: {scan}\n")
    assert (problem.code, problem.line, problem.column) == (code, 14, 7)


@pytest.mark.parametrize(
    "text", ["", "[]\n", "cell\n", "cell: [x]\ndevices: {}\ntags: {}\n", "devices: {}\ntags: {}\n"]
)
def test_what_is_no_cell(text: str, tmp_path: Path) -> None:
    file, problems = read(tmp_path, text)
    assert file is None
    assert len(problems) >= 1


def test_passwords_are_kept_elsewhere(tmp_path: Path) -> None:
    text = 'cell: c\ndevices:\n  r: {driver: opcua, url: "opc.tcp://h:4840", user: u, password: PASSWORD}\ntags: {}\n'
    for written, kept in (
        ("{credential: robot}", Secret(credential="robot")),
        ("{file: /etc/robot}", Secret(file="/etc/robot")),
    ):
        settings = good(tmp_path, text.replace("PASSWORD", written)).cell.devices[0].settings
        assert getattr(settings, "password", None) == kept
    for written, column in (("secret", 6), ("{}", 66), ("{credental: robot}", 67)):
        _, (problem,) = read(tmp_path, text.replace("PASSWORD", written))
        assert (problem.line, problem.column) == (3, column)


def test_files_are_found_beside_the_file_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = good(
        tmp_path,
        'cell: c\ndevices:\n  r: {driver: opcua, url: "opc.tcp://h:4840", user: u, password: {file: secrets/pass}, '
        "trust: ../robot.der, certificate: ~/edge.der, key: /etc/edge.pem}\ntags: {}\n",
    ).cell
    settings: Any = cell.devices[0].settings
    assert settings.password == Secret(file=f"{tmp_path}/secrets/pass")
    assert Path(settings.trust) == tmp_path / ".." / "robot.der"
    assert (settings.certificate, settings.key) == ("~/edge.der", "/etc/edge.pem")
    rig = tmp_path / "rig"
    rig.mkdir()
    (rig / "endpoints.yaml").write_text("r: {trust: bench.der, password: {file: bench}}\n")
    monkeypatch.chdir(rig)
    changed: Any = apply_endpoints(cell, "endpoints.yaml", Problems()).devices[0].settings
    assert (changed.trust, changed.password) == (f"{rig}/bench.der", Secret(file=f"{rig}/bench"))
    assert (changed.certificate, changed.key) == (settings.certificate, settings.key)


@pytest.mark.parametrize("driver", ["modbus", "s7", "opcua"])
def test_a_timeout_may_have_a_unit(driver: str, tmp_path: Path) -> None:
    where = "url: 'opc.tcp://h:4840'" if driver == "opcua" else "host: h"
    text = f"cell: c\ndevices:\n  d: {{driver: {driver}, {where}, timeout: TIME}}\ntags: {{}}\n"
    for written, seconds in (("0.5", 0.5), ("500 ms", 0.5), ("2", 2), ("2 s", 2), ("1 s 500 ms", 1.5), ("1 min", 60)):
        settings = good(tmp_path, text.replace("TIME", written)).cell.devices[0].settings
        assert getattr(settings, "timeout", None) == seconds
    for written, code in (
        ("3 L", "bad-duration"),
        ("-1 s", "bad-duration"),
        ("-1", "out-of-range"),
        ("1 min 1 s", "out-of-range"),
        ("soon", "bad-duration"),
    ):
        assert [problem.code for problem in read(tmp_path, text.replace("TIME", written))[1]] == [code]


class Pump:
    """A driver as another package may bring it."""

    class Settings(msgspec.Struct):
        line: str
        speed: float = 9600.0

        def __post_init__(self) -> None:
            if not self.line.startswith("/dev/"):
                raise ValueError("a line is a device such as /dev/ttyUSB0")

    @staticmethod
    def check(point: Point) -> None:
        if not point.address.isdigit():
            raise AddressError(f"`{point.address}` is no register of a pump", "write its number")


def test_any_driver_has_settings_and_addresses_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return Pump

    monkeypatch.setattr("drivers.driver.find", find)
    text = "cell: c\ndevices:\n  p: {driver: pump, line: LINE}\ntags:\n  p: {r: {at: AT, type: int16}}\n"
    cell = good(tmp_path, text.replace("LINE", "/dev/ttyS1").replace("AT", "17")).cell
    assert cell.devices[0].settings == Pump.Settings("/dev/ttyS1")
    _, (problem,) = read(tmp_path, text.replace("LINE", "ttyS1"))
    assert (problem.code, problem.line, problem.column) == ("bad-value", 3, 6)
    _, (problem,) = read(tmp_path, text.replace("LINE", "/dev/ttyS1"))
    assert (problem.code, problem.line, problem.column) == ("bad-address", 5, 15)
    assert (problem.message, problem.hint) == ("`AT` is no register of a pump", "write its number")


# Values that a tag may have.


@pytest.mark.parametrize(
    ("tag", "value", "fragment"),
    [
        ("a.level", 50, ""),
        ("a.level", 50.1, "outside the range of `a.level`, 0 to 50 L"),
        ("a.speed", 7, ""),
        ("a.speed", 7.5, "is int16: it cannot be 7.5"),
        ("a.speed", -1, "outside the range"),
        ("a.flow", 1e39, "does not fit float32"),
        ("a.name", "12345678", ""),
        ("a.name", "123456789", "longer than string[8]"),
        ("a.name", 5, "is not text"),
        ("b.lamp", True, ""),
        ("b.lamp", 1, "is not true or false"),
    ],
)
def test_values_outside(tag: str, value: Any, fragment: str, tmp_path: Path) -> None:
    reason = outside(value, good(tmp_path, CELL).cell.tag(tag))
    assert fragment in reason
    assert bool(fragment) == bool(reason)


# Endpoints.


def test_endpoints_take_the_place_of_settings(tmp_path: Path) -> None:
    cell = good(tmp_path, CELL).cell
    path = tmp_path / "endpoints.yaml"
    path.write_text("b: {host: 127.0.0.1, port: 10502}\n")
    problems = Problems()
    changed = apply_endpoints(cell, path, problems)
    assert not problems.errors
    assert changed.devices[0] == cell.devices[0]
    b = changed.devices[1].settings
    assert [getattr(b, name, None) for name in ("host", "port", "unit")] == ["127.0.0.1", 10502, 7]
    assert changed == apply_endpoints(cell, {"b": {"host": "127.0.0.1", "port": 10502}}, problems)


def test_endpoints_of_an_opc_ua_server(tmp_path: Path) -> None:
    cell = good(
        tmp_path, 'cell: c\ndevices: {r: {driver: opcua, url: "opc.tcp://h:4840", trust: a.der}}\ntags: {}\n'
    ).cell
    problems = Problems()
    endpoint = {
        "url": "opc.tcp://127.0.0.1:10000",
        "security": "Basic256Sha256/SignAndEncrypt",
        "user": "edge",
        "password": {"file": "/run/password"},
        "trust": None,
    }
    settings = apply_endpoints(cell, {"r": endpoint}, problems).devices[0].settings
    assert not problems.errors
    assert [getattr(settings, name, None) for name in endpoint] == [
        "opc.tcp://127.0.0.1:10000",
        "Basic256Sha256/SignAndEncrypt",
        "edge",
        Secret(file="/run/password"),
        None,
    ]


@pytest.mark.parametrize(
    ("text", "code", "column"),
    [
        ("bb: {host: h}", "unknown-device", 1),
        ("b: {hots: h}", "unknown-key", 5),
        ("b: {port: x}", "not-integer", 11),
        ("b: 127.0.0.1", "not-a-map", 4),
        ("[]", "not-a-map", 1),
        ("", "empty-file", 1),
    ],
)
def test_wrong_endpoints(text: str, code: str, column: int, tmp_path: Path) -> None:
    cell = good(tmp_path, CELL).cell
    path = tmp_path / "endpoints.yaml"
    path.write_text(text + "\n")
    problems = Problems()
    assert apply_endpoints(cell, path, problems) == cell
    (problem,) = problems
    assert (problem.code, problem.line, problem.column) == (code, 1, column), report(problems)


def test_the_shipped_cells_are_good() -> None:
    for path in sorted((HERE.parent / "recipes").glob("*/cell.yaml")):
        problems = Problems()
        assert load_cell(path, problems) is not None
        assert list(problems) == []
