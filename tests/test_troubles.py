"""Trouble as a technician meets it: devices that cannot be used, files that are none, commands given wrongly."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from drivers import s7_codec as s7
from drivers.identity import own_identity, state_directory
from edge.cli import main
from edge.recorder import Record
from tests.processes import BOTTLING, Served, edge, running, until
from tests.recording import BATCH, RUN, batch_events, commits, plan_in
from tests.simulated import Simulated, mute, shut, simulated, write_endpoints

ROBOT = "{driver: opcua, url: 'opc.tcp://127.0.0.1', security: Basic256Sha256, user: edge, password: {credential: pw}}"
ROBOTS = ("robot", "forged", "refused", "open", "uncredited", "lost")
YARD = """
cell: yard
devices:
  good: {driver: modbus, host: 127.0.0.1, every: 20 ms}
  hanging: {driver: s7, host: 127.0.0.1, timeout: 200 ms}
  silent: {driver: modbus, host: 127.0.0.1, timeout: 200 ms}
  dumb: {driver: opcua, url: "opc.tcp://127.0.0.1", timeout: 200 ms}
  shut: {driver: s7, host: 127.0.0.1}
  locked: {driver: s7, host: 127.0.0.1, every: 20 ms}
  elsewhere: {driver: s7, host: 127.0.0.1, slot: 2}
  DEVICES
tags:
  good:
    level: {at: input:0, type: uint16, unit: L}
    far: {at: input:500, type: uint16}
    valve: {at: coil:0, type: bool, access: write, failsafe: false}
  hanging: {a: {at: DB1.DBW0, type: int16}}
  silent: {a: {at: holding:0, type: uint16}}
  dumb: {a: {at: "ns=2;s=A", type: int32}}
  shut: {a: {at: DB1.DBW0, type: int16}}
  locked:
    free: {at: DB1.DBW0, type: int16}
    guarded: {at: DB2.DBW0, type: int16}
    missing: {at: DB3.DBW0, type: int16}
    lamp: {at: DB2.DBX4.0, type: bool, access: write, failsafe: false}
  elsewhere: {a: {at: DB1.DBW0, type: int16}}
  TAGS
"""
YARD = YARD.replace("DEVICES", "\n  ".join(f"{name}: {ROBOT}" for name in ROBOTS))
YARD = YARD.replace("TAGS", "\n  ".join(f'{name}: {{a: {{at: "ns=2;s=A", type: int32}}}}' for name in ROBOTS))
FILL = """
recipe: fill
uses: [good]
steps: [{name: Fill, during: {good.valve: true}, until: good.level >= 5 L, within: 60 s}]
"""

MUTE = r"127.0.0.1:\d+ (does|did) not answer.* \(is (the device|it switched|an OPC UA server)"
AWAY = {
    "hanging": MUTE,
    "silent": MUTE,
    "dumb": MUTE,
    "shut": r"127.0.0.1:\d+ refuses the connection \(is the port right",
    "elsewhere": r"the CPU in rack 0, slot 2 of 127.0.0.1:\d+ is not there, .*\(an S7-1200 or 1500 is in slot 1",
    "forged": r"127.0.0.1:\d+ shows another certificate than the trusted one: .* certificate in /\S+/client.der",
    "refused": r"127.0.0.1:\d+ refuses the user `edge`: BadUserAccessDenied \(compare `user` and `password`",
    "open": r"/\S+/open may be read by other users of this machine \(run: chmod 600 /\S+/open\)",
    "uncredited": r"there is no credential `pw`: systemd gave none to edge \(add LoadCredential=pw:PATH",
    "lost": r"the password in /\S+/nowhere cannot be read: No such file or directory \(does the file exist",
}
"""Device -> what is said of it."""

REFUSED = {
    "good.far": r"cannot be read: the device has no input register 500; addresses count from 0: 30013 is input:12",
    "locked.guarded": r"and 1 more cannot be read: DB2: the PLC does not permit access: in TIA Portal permit",
    "locked.missing": r"cannot be read: DB3: the PLC does not know DB3: is the number right",
    "locked.lamp": r"could not be set: the device lets it be neither read nor set",
}
"""Tag -> what is said of it, and of others with the same reason."""


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a cell where most devices are in trouble, with the endpoints that reach them."""
    folder = tmp_path_factory.mktemp("yard")
    (folder / "cell.yaml").write_text(YARD)
    (folder / "fill.yaml").write_text(FILL)
    with (
        pytest.MonkeyPatch.context() as patch,
        simulated(folder / "cell.yaml") as bench,
        contextlib.ExitStack() as stack,
    ):
        patch.setenv("EDGE_STATE", str(folder / "state"))
        patch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        write_endpoints(folder / "endpoints", _endpoints(bench, stack, folder))
        yield folder


def _endpoints(bench: Simulated, stack: contextlib.ExitStack, folder: Path) -> dict[str, dict[str, Any]]:
    for device in ("good", "locked", "robot"):
        bench.serve(device)
    bench.serve("elsewhere", msgspec.structs.replace(bench.plcs["locked"]._settings, slot=1))
    bench["good.level"] = 7
    bench.do(lambda: bench.plcs["good"].memory.areas["input"].pop(500))
    memory = bench.plcs["locked"].memory
    bench.do(lambda: (memory.no_access.add((s7.DATA_BLOCK, 2)), memory.areas.pop((s7.DATA_BLOCK, 3))))
    robot = bench.settings["robot"]
    for name, mode in (("wrong", 0o600), ("open", 0o644)):
        (folder / name).write_text("guess\n")
        (folder / name).chmod(mode)
    other = own_identity(state_directory("pki"), "client", "urn:edge:test")
    return {
        **bench.settings,
        "hanging": {"port": stack.enter_context(mute())},
        "silent": {"port": stack.enter_context(mute())},
        "dumb": {"url": f"opc.tcp://127.0.0.1:{stack.enter_context(mute())}"},
        "shut": {"port": stack.enter_context(shut())},
        "forged": {**robot, "trust": str(other.path)},
        "refused": {**robot, "password": {"file": "wrong"}},
        "open": {**robot, "password": {"file": "open"}},
        "uncredited": {key: robot[key] for key in ("url", "trust")},
        "lost": {**robot, "password": {"file": "nowhere"}},
    }


def test_each_trouble_is_said_once_and_the_rest_runs(yard: Path, tmp_path: Path) -> None:
    with running(Served(tmp_path, yard, "--endpoints", yard / "endpoints")) as daemon:
        state = until(
            lambda: (state := daemon.state()) and _all_tried(state) and state, "three attempts at each device"
        )
        batch = until(lambda: daemon.post("/api/batches", {"recipe": "fill"})[1].get("batch"), "the start")
        daemon.await_state(batch, "complete")
        assert {name for name, one in state["devices"].items() if one["up"]} == {"good", "locked", "robot"}
        assert state["tags"]["locked.free"]["quality"] == state["tags"]["good.level"]["quality"] == "good"
        assert state["tags"]["locked.guarded"]["value"] is None
        alarms = state["alarms"].values()
        assert {one["device"] for one in alarms if one["kind"] == "device-lost"} == AWAY.keys()
        assert {one["tag"] for one in alarms if one["kind"] == "refused"} == REFUSED.keys()
        said = daemon.said
    for name, text in {**AWAY, **REFUSED}.items():
        separator = " " if name in REFUSED else ": "
        lines = re.findall(f"^.* edge.fieldbus: {name}{separator}(.*)$", said, re.MULTILINE)
        assert any(re.match(text, line) for line in lines), (name, lines)
        assert len(lines) == len(set(lines)) <= 2, lines
        if name in AWAY:
            assert state["devices"][name]["hint"] and any(state["devices"][name]["reason"] in line for line in lines)
    assert "Traceback" not in said


def _all_tried(state: dict[str, Any]) -> bool:
    troubled = {one["tag"] for one in state["alarms"].values()}
    return REFUSED.keys() <= troubled and all(state["devices"][name]["errors"] >= 3 for name in AWAY)


def test_edge_tags_shows_what_is_good_and_says_what_is_not(yard: Path, tmp_path: Path) -> None:
    look = edge("tags", yard, "--endpoints", yard / "endpoints", "--once", "--format", "json", "--state", tmp_path)
    rows = json.loads(look.stdout)
    assert look.returncode == 1
    assert rows["good.level"]["value"] == 7 and rows["locked.free"]["value"] == 0 and rows["robot.a"]["value"] == 0
    notes = look.stderr.splitlines()
    told = {**AWAY, **REFUSED}
    del told["locked.lamp"]  # told with the first tag of its block
    for name, text in told.items():
        (note,) = [note for note in notes if re.match(f"edge: {name}[ :]", note)]
        assert re.search(text.replace("more cannot be read:", "more:").removeprefix("cannot be read: "), note), note
    assert len(notes) == len(told)


def test_edge_run_needs_only_what_its_recipe_uses(yard: Path, tmp_path: Path) -> None:
    run = edge("run", yard, "fill", "--endpoints", yard / "endpoints", "--state", tmp_path)
    assert run.returncode == 0, run.stdout
    assert "Traceback" not in run.stdout + run.stderr


# --- simulated controllers that are set up as real ones often are ----------------------------------------------------

SIMULATED = """
cell: simulated
devices:
  good: {driver: modbus, host: 192.168.0.1, every: 20 ms}
  closed: {driver: s7, host: 192.168.0.2}
  blocks: {driver: s7, host: 192.168.0.3, every: 20 ms}
  slave: {driver: modbus, host: 192.168.0.4, every: 20 ms}
  slow: {driver: modbus, host: 192.168.0.5, timeout: 100 ms}
  stranger: {driver: opcua, url: "opc.tcp://192.168.0.6", security: None, user: edge, password: {credential: pw}}
  robot: {driver: opcua, url: "opc.tcp://192.168.0.7", every: 20 ms}
tags:
  good:
    level: {at: input:0, type: uint16, unit: L}
    valve: {at: coil:0, type: bool, access: write, failsafe: false}
  closed: {a: {at: DB1.DBW0, type: int16}}
  blocks:
    free: {at: DB1.DBW0, type: int16}
    hidden: {at: DB2.DBW0, type: int16}
    lamp: {at: DB2.DBX4.0, type: bool, access: write, failsafe: false}
  slave:
    speed: {at: holding:0, type: uint16}
    far: {at: holding:41, type: uint16}
    weight: {at: input:0, type: uint16}
  slow: {a: {at: holding:0, type: uint16}}
  stranger: {a: {at: "ns=2;s=A", type: int32}}
  robot:
    state: {at: "ns=2;s=State", type: int32}
    secret: {at: "ns=2;s=Secret", type: int32}
    program: {at: "ns=2;s=Program", type: int32, access: write, failsafe: 0}
"""
SIMULATED_PLANT = """
constants: {good.level: 7 L}
controllers:
  closed: {put_get: false}
  blocks: {optimized: [DB2]}
  slave: {functions: [3], unmapped: [holding:40-47]}
  slow: {answer_time: 5 s}
  stranger: {user: maria}
  robot: {not_readable: ["ns=2;s=Secret"], not_writable: ["ns=2;s=Program"]}
"""
SIMULATED_AWAY = {
    "closed": r"does not let edge read or write \(in TIA Portal permit access with PUT/GET communication",
    "slow": r"127.0.0.1:\d+ (does|did) not answer",
    "stranger": r"refuses the user `edge`: .*\(compare `user` and `password`",
}
SIMULATED_REFUSED = {
    "blocks.hidden": r"and 1 more(?: cannot be read)?: DB2: .*in TIA Portal switch off `Optimized block access` of DB2",
    "slave.far": r"the device has no holding register 41; addresses count from 0",
    "slave.weight": r"the device has no input registers at all; is it another area",
    "robot.secret": r"`ns=2;s=Secret`: the server does not let this user read it; allow it there",
}
SIMULATED_GOOD = {
    "good.level": 7,
    "good.valve": False,
    "blocks.free": 0,
    "slave.speed": 0,
    "robot.state": 0,
    "robot.program": 0,
}


@pytest.fixture
def unhelpful(tmp_path: Path) -> Path:
    """The folder of a cell most of whose simulated controllers refuse something."""
    (tmp_path / "cell.yaml").write_text(SIMULATED)
    (tmp_path / "plant.yaml").write_text(SIMULATED_PLANT)
    (tmp_path / "fill.yaml").write_text(FILL)
    return tmp_path


def test_edge_tags_of_simulated_controllers(unhelpful: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    look = edge("tags", unhelpful, "--simulate", "--once", "--format", "json", "--state", tmp_path / "state", env=env)
    assert look.returncode == 1 and not list((tmp_path / "tmp").iterdir())
    rows = json.loads(look.stdout)
    assert {name: row["value"] for name, row in rows.items() if row["value"] is not None} == SIMULATED_GOOD
    notes = look.stderr.splitlines()
    for name, text in {**SIMULATED_AWAY, **SIMULATED_REFUSED}.items():
        (note,) = [note for note in notes if re.match(f"edge: {name}[ :]", note)]
        assert re.search(text, note), note
    assert len(notes) == len(SIMULATED_AWAY) + len(SIMULATED_REFUSED)


def test_edge_tags_sets_nothing_that_a_simulated_controller_refuses(unhelpful: Path, tmp_path: Path) -> None:
    done = edge("tags", unhelpful, "--simulate", "--set", "robot.program=1", "--state", tmp_path / "state")
    assert done.returncode == 1 and done.stdout == ""
    assert "robot.program could not be set: the device does not let edge's user set it" in done.stderr


def test_edge_run_against_simulated_controllers(unhelpful: Path, tmp_path: Path) -> None:
    run = edge("run", unhelpful, "fill", "--simulate", "--state", tmp_path / "state")
    assert run.returncode == 0, run.stdout
    assert re.search(r" +\d+\.\d s  cell simulated: 7 simulated PLCs, plant .*\n +good +modbus +pid", run.stdout)
    assert "! closed: the PLC at 127.0.0.1" in run.stdout and "PUT/GET" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr


def test_edge_serve_against_simulated_controllers(unhelpful: Path, tmp_path: Path) -> None:
    with running(Served(tmp_path, unhelpful, "--simulate")) as daemon:
        troubled = SIMULATED_AWAY.keys() | SIMULATED_REFUSED.keys()
        state = until(
            lambda: (state := daemon.state()) and _told(state) >= troubled and state, "an alarm for each trouble"
        )
        batch = until(lambda: daemon.post("/api/batches", {"recipe": "fill"})[1].get("batch"), "the start")
        daemon.await_state(batch, "complete")
        good = {name: one["value"] for name, one in daemon.state()["tags"].items() if one["quality"] == "good"}
        assert good == SIMULATED_GOOD
        assert {name for name, one in state["devices"].items() if not one["up"]} == SIMULATED_AWAY.keys()
        said = daemon.said
    for name, text in {**SIMULATED_AWAY, **SIMULATED_REFUSED}.items():
        lines = re.findall(rf"^.* edge.fieldbus: {name}\b(.*)$", said, re.MULTILINE)
        assert any(re.search(text, line) for line in lines), (name, lines)
        assert len(lines) == len(set(lines)) <= 2, lines
    assert "Traceback" not in said


def _told(state: dict[str, Any]) -> set[str]:
    """The devices and tags that have an alarm."""
    return {one["tag"] or one["device"] for one in state["alarms"].values()}


# --- files -----------------------------------------------------------------------------------------------------------

GOOD = BOTTLING.read_bytes()
FILES = {
    "empty": (b"", "the file is empty"),
    "tab": (GOOD.replace(b"  mixer:", b"\tmixer:", 1), "a tab cannot indent a line"),
    "latin": (GOOD.replace(b"The work cell", "Café".encode("latin-1")), "the file is not UTF-8: byte 0xE9"),
    "utf-16": (GOOD.decode().encode("utf-16"), "it looks like UTF-16: save it as UTF-8"),
    "large": (GOOD + b"# filled\n" * 1_100_000, "the file has more than 1,000,000 bytes"),
    "deep": (b"cell: " + b"[" * 1000 + b"]" * 1000, "nested more than 64 levels deep"),
    "indented": (b"".join(b" " * level + b"a:\n" for level in range(1000)), "nested more than 64 levels deep"),
    "bomb": (
        b"a: &a [x,x,x]\nb: &b [*a,*a,*a]\ncell: [*b,*b,*b]\n",
        "YAML anchors and aliases (`&a`) are not allowed; 7 more follow",
    ),
    "twice": (GOOD + b"scan: 20 ms\n", "`scan` stands here twice: the first is on line 5"),
    "null": (GOOD + b"\0", "the character U+0000 is not allowed"),
    "pipe": (None, "this is not a file"),
    "missing": (None, "there is no such file"),
    "locked": (GOOD, "the file cannot be read: Permission denied"),
}
UNPRIVILEGED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""Rights of files count for root too."""


@pytest.fixture(params=FILES)
def bad(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A cell file with which nothing can be done, and what is said of it."""
    data, said = FILES[request.param]
    path = tmp_path / "cell" / "cell.yaml"
    path.parent.mkdir()
    if request.param == "pipe":
        os.mkfifo(path)
    elif data is not None:
        path.write_bytes(data)
    if request.param == "locked":
        path.chmod(0)
    return path, said


def test_a_file_that_is_no_cell(bad: tuple[Path, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, said = bad
    command = [*UNPRIVILEGED, sys.executable, "-m", "edge", "check", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert checked.returncode == 1 and said in checked.stdout and checked.stderr == ""
    assert len(checked.stdout) < 10_000
    if said.endswith("denied"):
        return  # what follows runs in this process, which may read all
    assert main(["check", str(path), "--format", "json"]) == 1
    problems = json.loads(capfd.readouterr().out)
    assert any(said in (one["message"], one["hint"]) or said in one["message"] for one in problems)
    state = tmp_path / "state"
    for started in (["run", str(path), "fill"], ["serve", str(path), "--listen", "127.0.0.1:0"], ["tags", str(path)]):
        assert main([*started, "--state", str(state)]) == 1
        out, err = capfd.readouterr()
        assert said in err and out == ""
    assert not state.exists()


def test_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "dark").mkdir(mode=0)
    command = [*UNPRIVILEGED, sys.executable, "-m", "edge", "check", "nothing", "none.yaml", "dark/cell.yaml", "dark"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and done.stderr == ""
    for said in (
        "nothing:1:1: error: no cell.yaml in this folder",
        "none.yaml:1:1: error: there is no such file",
        "dark/cell.yaml:1:1: error: the file cannot be read: Permission denied",
        "dark:1:1: error: ",
    ):
        assert said in done.stdout


# --- commands --------------------------------------------------------------------------------------------------------


def said(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """What a command says that fails with 1."""
    assert main(arguments) == 1
    out, err = capfd.readouterr()
    assert out == ""
    return err


def test_records_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert f"no batch has been recorded below {tmp_path}/edge" in said(["batches"], capfd)
    assert f"there is no batch record at {tmp_path}/x/edge.db" in said(
        ["batch", "B1", "--state", str(tmp_path / "x")], capfd
    )
    cell = BOTTLING.parent
    assert f"there is no batch record at {tmp_path}/edge/bottling/edge.db" in said(
        ["batches", "--cell", str(cell)], capfd
    )
    assert "none.yaml: there is no such file" in said(["batches", "--cell", "none.yaml"], capfd)
    (tmp_path / "latin.yaml").write_bytes(b"cell: caf\xe9\n")
    assert "latin.yaml: the file is not UTF-8" in said(["batches", "--cell", str(tmp_path / "latin.yaml")], capfd)


def test_records_of_several_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    plan = plan_in(tmp_path / "cell")
    for cell in ("bottling", "other"):
        record = Record(tmp_path / "edge" / cell, plan, RUN)
        record.open()
        assert record.keep(commits(batch_events(plan)))
        record.close()
        if cell == "bottling":
            assert main(["batches"]) == main(["batch", BATCH]) == 0
            capfd.readouterr()
    assert "there are records of several cells (bottling, other): name one with --cell CELL" in said(["batches"], capfd)
    assert main(["batches", "--cell", str(BOTTLING.parent)]) == 0
    assert BATCH in capfd.readouterr().out
    assert "there is no batch `B77`" in said(["batch", "B77", "--cell", str(BOTTLING)], capfd)


@pytest.mark.parametrize("command", ["", "check", "run", "serve", "tags", "batches", "batch", "schema"])
def test_help(command: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    text = capfd.readouterr().out
    assert ended.value.code == 0
    assert "None" not in text and "==SUPPRESS==" not in text
    assert all(len(line) <= 120 for line in text.splitlines())
    if command in ("", "check", "run", "serve", "tags"):
        assert "examples:\n  edge " in text
    if command in ("check", "run", "serve", "tags"):
        assert "Exit code: 0 " in text
