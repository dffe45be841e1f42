"""`edge run`: real processes against a simulated press. What it says, what it leaves behind, how it is steered."""

import asyncio
import fcntl
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge import channel
from edge.language.plan import load_plan
from edge.language.source import Problems
from edge.order import order
from edge.terminal import Terminal
from tests.processes import DEADLINE_S, Running, alive, descendants, edge, process_name, running, until
from tests.simulated import Simulated, shut, simulated, write_endpoints

CELL = """
cell: press
devices: {press: {driver: modbus, host: 127.0.0.1, every: 20 ms}}
tags:
  press:
    force: {at: input:0, type: uint16, unit: kN}
    guard: {at: discrete:0, type: bool}
    note: {at: input:10, type: "string[24]"}
    ram: {at: coil:0, type: bool, access: write, failsafe: false}
    lamp: {at: coil:1, type: bool, access: write, failsafe: false}
"""
ARABIC = "هل القطعة سليمة؟"
PRESS = f"""
recipe: press
uses: [press]
parameters:
  force: {{unit: kN, default: 20, range: [5, 50]}}
  many: {{type: number, default: 1, range: [1, 9]}}
  tool: {{type: text, choices: [flat, round], default: flat}}
interlocks:
  - {{when: press.force > 90 kN, do: abort, say: {{en: The press is overloaded}}}}
  - {{when: press.guard, do: hold, say: {{fr: Le capot est ouvert}}}}
steps:
  - name: Press
    set: {{press.lamp: true}}
    during: {{press.ram: true}}
    until: press.force >= force
    within: none
  - ask: {{say: {{ar: "{ARABIC}"}}, answers: [yes, no], into: sound}}
  - record: {{force: press.force, note: press.note}}
"""
STUBBORN = """
recipe: stubborn
uses: [press]
steps:
  - {name: Wait, during: {press.ram: true}, until: press.force > 1000 kN, within: none}
on:
  stop: [{name: Ease off, until: press.force > 1000 kN, within: 60 s}]
  abort: [{name: Let go, until: press.force > 1000 kN, within: 60 s}]
"""
BOTH = """
recipe: both
uses: [press]
steps:
  - parallel:
      left: [{ask: {say: Left?, number: {unit: kN, range: [1, 9]}, into: left}}]
      right: [{ask: {say: Right?, text: true, into: right}}, {ask: {say: Ready?}}]
"""
STEPWISE = """
recipe: stepwise
uses: [press]
steps:
  - {name: Light, set: {press.lamp: true}}
  - name: Together
    parallel:
      ram: [{name: Press, during: {press.ram: true}, until: press.force >= 20 kN, within: none}]
      talk: [{name: Look, ask: {say: Straight?}}]
  - {name: Weigh, record: {force: press.force}}
  - {name: Rest, wait: 50 ms}
"""
BROKEN = "recipe: broken\nuses: [press]\nsteps: [{set: {press.rum: true}}]\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("press")
    files = {"cell": CELL, "press": PRESS, "stubborn": STUBBORN, "both": BOTH, "stepwise": STEPWISE, "broken": BROKEN}
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "sound").mkdir()
    for name in ("cell", "press"):
        (folder / "sound" / f"{name}.yaml").write_text(files[name])
    return folder


@pytest.fixture(scope="module")
def bench(folder: Path) -> Iterator[Simulated]:
    with simulated(folder / "cell.yaml") as bench:
        bench.serve("press")
        write_endpoints(folder / "endpoints", bench.settings)
        yield bench


@pytest.fixture
def press(bench: Simulated, folder: Path) -> Simulated:
    """The press at rest."""
    for tag in ("press.force", "press.guard"):
        bench[tag] = 0
    return bench


@pytest.fixture
def command(folder: Path, press: Simulated, tmp_path: Path) -> list[str | Path]:
    """`edge run` of this cell, all but the recipe."""
    return ["-m", "edge", "run", folder, "--endpoints", folder / "endpoints", "--state", tmp_path / "state"]


def record_of(state: Path) -> dict[str, Any]:
    """The record of the only batch."""
    (batch,) = json.loads(edge("batches", "--state", state, "--format", "json").stdout)
    return json.loads(edge("batch", batch["id"], "--state", state, "--format", "json").stdout)


def states_of(record: dict[str, Any]) -> list[str]:
    return [one["state"] for one in record["states"]]


def at_rest(press: Simulated) -> bool:
    return press["press.ram"] is False and press["press.lamp"] is False


def moving(press: Simulated, run: Any) -> None:
    """Waits until the ram moves."""
    until(lambda: press["press.ram"] or run.process.poll() is not None, "the ram")
    assert press["press.ram"], run.said


def ended(run: Running) -> int:
    """The exit code of a process that ends by itself."""
    until(lambda: run.process.poll() is not None, f"its end: {run.said}")
    return run.process.returncode


# --- orders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pres"], "no recipe `pres` beside this cell|did you mean `press`"),
        (["broken"], "no tag `press.rum`|did you mean `press.ram`"),
        (["press", "--set", "forse=9"], "press has no parameter `forse`: did you mean `force`?"),
        (["press", "--set", "force=60"], "--set force=60: force goes from 5 to 50 kN"),
        (["press", "--set", "force=9 bar"], "--set force=9 bar: bar is no unit for it: it is in kN"),
        (["press", "--set", "force=9 foo"], "--set force=9 foo: no unit `foo`"),
        (["press", "--set", "force=much"], "--set force=much: a number was expected, in kN"),
        (["press", "--set", "many=2 L"], "--set many=2 L: L is no unit for it: it has none"),
        (["press", "--set", "tool=square"], "--set tool=square: tool is one of flat, round"),
        (["press", "--answer", "sond=yes"], "press asks nothing into `sond`: did you mean `sound`?"),
        (["press", "--answer", "sound=maybe"], "--answer sound=maybe: one of yes, no was expected"),
        (["both", "--answer", "left=12"], "--answer left=12: the answer goes from 1 to 9 kN"),
    ],
)
def test_an_order_that_cannot_be(arguments: list[str], said: str, folder: Path, tmp_path: Path, capfd) -> None:
    from edge.cli import main

    assert main(["run", str(folder), *arguments, "--state", str(tmp_path / "state")]) == 1
    out, err = capfd.readouterr()
    assert all(part in err for part in said.split("|")) and out == ""
    assert not (tmp_path / "state").exists()


def test_options_that_cannot_be_read(folder: Path, capfd) -> None:
    from edge.cli import main

    assert main(["run", str(folder), "press", "--set", "force"]) == 2
    assert main(["run", str(folder), "press", "--answer", "sound=yes", "--answer", "sound=no"]) == 2
    assert "NAME=VALUE" in (err := capfd.readouterr().err) and "given twice" in err


# --- without a terminal ----------------------------------------------------------------------------------------------


def test_a_run_to_its_end(command, press: Simulated, tmp_path: Path) -> None:
    press["press.force"] = 30
    press["press.note"] = "\x1b[31mred\rline"
    with running(Running([*command, "press", "--answer", "sound=yes"], tmp_path / "log")) as run:
        assert ended(run) == 0, run.said
    assert ARABIC in run.said and "answered yes by" in run.said
    assert "\x1b" not in run.said and "\r" not in run.said
    assert "kept in" in run.said and f"--state {tmp_path / 'state'}" in run.said
    assert at_rest(press)


def test_a_question_that_nobody_can_answer_stops_it(command, press: Simulated, tmp_path: Path) -> None:
    press["press.force"] = 30
    with running(Running([*command, "press"], tmp_path / "log")) as run:
        assert ended(run) == 3, run.said
    assert "! nobody can answer here: give --answer sound=VALUE, or run it at a terminal" in run.said
    record = record_of(tmp_path / "state")
    assert record["state"] == "stopped" and record["states"][-1]["cause"] == f"nobody could answer: {ARABIC}"
    assert at_rest(press)


def test_a_hold_without_a_terminal_stops_it(command, press: Simulated, tmp_path: Path) -> None:
    with running(Running([*command, "press"], tmp_path / "log")) as run:
        moving(press, run)
        press["press.guard"] = True
        assert ended(run) == 3, run.said
    assert "! Le capot est ouvert" in run.said and "there is no terminal to restart it from: stopping" in run.said
    record = record_of(tmp_path / "state")
    assert states_of(record) == ["running", "holding", "held", "stopping", "stopped"]
    assert "no terminal to restart it from: Le capot est ouvert" in record["states"][-1]["cause"]
    assert at_rest(press)


def test_an_interlock_that_stands_is_said_at_once(command, press: Simulated, tmp_path: Path) -> None:
    press["press.guard"] = True
    with running(Running([*command, "press"], tmp_path / "log")) as run:
        assert ended(run) == 1, run.said
    assert "! cannot start press: an interlock stands: Le capot est ouvert (press.guard)" in run.said
    assert "waiting for" not in run.said


def test_an_abort(command, press: Simulated, tmp_path: Path) -> None:
    with running(Running([*command, "press"], tmp_path / "log")) as run:
        moving(press, run)
        press["press.force"] = 99
        assert ended(run) == 4, run.said
    assert "press is aborted" in run.said and "State    aborted: The press is overloaded" in run.said
    assert at_rest(press)


def test_a_device_that_is_not_there(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with shut() as port:
        endpoints = write_endpoints(tmp_path / "endpoints", {"press": {"port": port}})
        options = ["--endpoints", endpoints, "--state", tmp_path / "state"]
        with running(Running(["-m", "edge", "run", folder, "press", *options], tmp_path / "log")) as run:
            assert ended(run) == 1, run.said
    assert run.said.count(f"! press: 127.0.0.1:{port} refuses the connection (is the port right") == 1
    assert "waiting for press" in run.said
    assert f"! cannot start press: press is not there: 127.0.0.1:{port} refuses the connection" in run.said


# --- signals ---------------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_it_in_order(command, press: Simulated, tmp_path: Path) -> None:
    with running(Running([*command, "press", "--by", "Mia"], tmp_path / "log")) as run:
        moving(press, run)
        below = descendants(run.pid)
        for pid in (run.pid, *below.values()):  # as a terminal does
            os.kill(pid, signal.SIGINT)
        assert ended(run) == 3, run.said
        assert [name for name, pid in below.items() if alive(pid)] == []
    assert "interrupted: the batch is stopped" in run.said and "Batch record" in run.said
    record = record_of(tmp_path / "state")
    assert states_of(record) == ["running", "stopping", "stopped"]
    assert record["states"][-1]["cause"] == "stop by Mia: edge run was interrupted"
    assert at_rest(press)
    assert "Traceback" not in (tmp_path / "state" / "edge.log").read_text()


def test_again_ctrl_c_aborts_and_again_ends(command, press: Simulated, tmp_path: Path) -> None:
    with running(Running([*command, "stubborn"], tmp_path / "log")) as run:
        moving(press, run)
        below = descendants(run.pid)
        os.kill(run.pid, signal.SIGINT)
        until(lambda: "> Ease off" in run.said, "the handler of stop")
        os.kill(run.pid, signal.SIGINT)
        until(lambda: "> Let go" in run.said, "the handler of abort")
        os.kill(run.pid, signal.SIGINT)
        assert ended(run) == 3, run.said
        assert [name for name, pid in below.items() if alive(pid)] == []
    assert at_rest(press)
    press["press.force"] = 9
    free = edge(*command[2:], "press", "--set", "force=5", "--answer", "sound=no", timeout=30)
    assert free.returncode == 0, free.stdout  # the next batch finds nothing in its way


async def test_ctrl_c_after_the_end_does_not_say_that_the_batch_is_aborted(folder: Path) -> None:
    plan = load_plan(folder / "sound/cell.yaml", Problems())
    assert plan is not None
    said: list[str] = []
    loop, engine = channel.pair()
    with loop, engine:
        terminal = Terminal(plan, order(plan, "press", {}, {}, "Mia"), SimpleNamespace(say=said.append), loop, loop)
        terminal.loop, terminal.started = loop, True
        terminal.ended = asyncio.get_running_loop().create_future()
        terminal.ended.set_result(0)
        terminal.interrupted("abort")
        assert channel.drain(engine) == [] and said == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_aborts_it(number: signal.Signals, command, press: Simulated, tmp_path: Path) -> None:
    with running(Running([*command, "press"], tmp_path / "log")) as run:
        moving(press, run)
        below = descendants(run.pid)
        for pid in (run.pid, *(below.values() if number == signal.SIGHUP else ())):
            os.kill(pid, number)
        assert ended(run) == 4, run.said
        assert [name for name, pid in below.items() if alive(pid)] == []
    assert record_of(tmp_path / "state")["state"] == "aborted"
    assert at_rest(press)


def test_an_interrupt_before_the_start(folder: Path, tmp_path: Path) -> None:
    with shut() as port:
        endpoints = write_endpoints(tmp_path / "endpoints", {"press": {"port": port}})
        options = ["--endpoints", endpoints, "--state", tmp_path / "state"]
        with running(Running(["-m", "edge", "run", folder, "press", *options], tmp_path / "log")) as run:
            until(lambda: "refuses the connection" in run.said, "the press is missed")
            os.kill(run.pid, signal.SIGINT)
            assert ended(run) == 3, run.said
    assert "interrupted before the start" in run.said and "Batch record" not in run.said


def test_a_batch_that_was_cut_off_is_for_a_person_to_end(command, press: Simulated, tmp_path: Path) -> None:
    with running(Running([*command, "press"], tmp_path / "log")) as run:
        moving(press, run)
        below = descendants(run.pid)
        run.process.kill()
        until(lambda: not [pid for pid in below.values() if alive(pid)], "the end of every process")
    assert at_rest(press)
    again = edge(*command[2:], "press")
    assert again.returncode == 1 and re.search(r"batch \S+ \(press\) was interrupted and has not ended", again.stderr)
    assert "edge serve" in again.stderr


# --- the state directory ---------------------------------------------------------------------------------------------

UNPRIVILEGED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""Rights of files count for root too."""


def test_a_state_directory_that_cannot_be_written(command, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    for command_line in (
        [*command[2:-1], tmp_path / "locked", "press"],
        ["serve", folder / "sound", "--listen", "127.0.0.1:0", "--state", tmp_path / "locked" / "state"],
    ):
        whole = [*UNPRIVILEGED, sys.executable, "-m", "edge", *command_line]
        done = subprocess.run(list(map(str, whole)), capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1 and done.stdout == ""
        assert re.fullmatch(r"edge: the state directory \S+ cannot be used: Permission denied: .*\n", done.stderr)


def test_a_record_of_a_newer_edge(command, folder: Path, press: Simulated, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with sqlite3.connect(tmp_path / "state" / "edge.db") as db:
        db.execute("CREATE TABLE batch (number)")
        db.execute("PRAGMA user_version = 99")
    db.close()
    serve = ["serve", folder / "sound", "--listen", "127.0.0.1:0", "--state", tmp_path / "state"]
    for one in ([*command[2:], "press"], serve, ["batches", *command[-2:]], ["batch", "x", *command[-2:]]):
        done = edge(*one)
        assert done.returncode == 1 and "was written by a newer edge (version 99" in done.stderr
        assert "Traceback" not in done.stderr


class Disk:
    """A place that can be filled: a file system of its own where we may mount one, else a limit on the recorder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        mounting = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
        self.mounted = os.geteuid() == 0 and subprocess.run(mounting, check=False).returncode == 0
        self.recorder = 0

    def fill(self, recorder: int) -> None:
        self.recorder = recorder
        if self.mounted:
            with (self.path / "filler").open("wb") as file:
                file.write(bytes(shutil.disk_usage(self.path).free))
        else:
            resource.prlimit(recorder, resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))

    def empty(self) -> None:
        if self.mounted:
            (self.path / "filler").unlink()
        else:
            resource.prlimit(self.recorder, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def remove(self) -> None:
        if self.mounted:
            subprocess.run(["umount", str(self.path)], check=True)


def test_a_full_disk_makes_the_step_wait_and_is_said(command, press: Simulated, tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    try:
        state = disk.path / "state"
        with running(Running([*command[:-1], state, "press", "--answer", "sound=yes"], tmp_path / "log")) as run:
            moving(press, run)
            disk.fill(descendants(run.pid)["edge-recorder"])
            press["press.force"] = 30
            until(lambda: "Batches cannot be recorded" in run.said, f"a line about the disk: {run.said}")
            assert press["press.ram"] is False  # what ends waits for no disk
            assert "is complete" not in run.said
            disk.empty()
            assert ended(run) == 0, run.said
        assert "! Batches are recorded again, and go on." in run.said
        assert record_of(state)["state"] == "complete"
    finally:
        disk.remove()


def test_what_a_disk_never_took_is_said_last_and_in_sentences(command, press: Simulated, tmp_path: Path) -> None:
    with running(Running([*command, "press"], tmp_path / "log")) as run:
        moving(press, run)
        resource.prlimit(descendants(run.pid)["edge-recorder"], resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
        press["press.force"] = 30
        until(lambda: "Batches cannot be recorded" in run.said, f"a line about the disk: {run.said}")
        os.kill(run.pid, signal.SIGINT)
        assert ended(run) == 3, run.said
    lost, log = run.said.splitlines()[-2:]
    assert re.fullmatch(
        r"edge: What happened last is not in the batch record \(\d+ left out\): the disk of .*[^.]", lost
    )
    assert log == f"edge: the log has more: {tmp_path / 'state' / 'edge.log'}"


# --- at a terminal ---------------------------------------------------------------------------------------------------


TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class AtTerminal:
    """A process at a terminal of its own, which has 80 columns. `said` is all that it wrote there."""

    def __init__(self, command: list[str | Path]) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self.cooked = termios.tcgetattr(slave)
        take = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        )
        whole = [sys.executable, "-c", take, sys.executable, *map(str, command)]
        self.process = subprocess.Popen(whole, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        self.pid = self.process.pid
        self.slave = slave
        self.text = b""

    @property
    def said(self) -> str:
        while select.select([self.master], [], [], 0)[0]:
            self.text += os.read(self.master, 65536)
        return self.text.decode()

    def await_text(self, text: str) -> None:
        until(lambda: text in self.said or self.process.poll() is not None, f"{text} at the terminal")
        assert text in self.said

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def lines(self) -> list[str]:
        """What stands in the terminal's history: each line as it was last drawn."""
        return [line.rsplit("\x1b[2K", 1)[-1].rstrip() for line in self.said.replace("\r\n", "\n").split("\n")]

    def ended(self) -> int:
        until(lambda: (self.said, self.process.poll())[1] is not None, "its end")
        return self.process.returncode

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def at_terminal(command) -> Iterator[Any]:
    sessions: list[AtTerminal] = []

    def start(*arguments: str) -> AtTerminal:
        sessions.append(AtTerminal([*command, *arguments]))
        return sessions[-1]

    yield start
    for session in sessions:
        below = descendants(session.pid)
        session.end()
        for pid in below.values():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_session_at_the_terminal(at_terminal, press: Simulated, tmp_path: Path) -> None:
    session = at_terminal("press", "--by", "Mia")
    moving(press, session)
    session.await_text("running  |  Press ")
    session.type("hodl\rhe\x7fold\x1b[A\r")
    session.await_text("press is holding (hold by Mia)")
    session.await_text("type restart, stop or abort")
    assert "type hold, restart, pause, resume, stop or abort" in session.said
    assert press["press.ram"] is False
    session.type("restart\r")
    moving(press, session)
    press["press.force"] = 30
    session.await_text("type one of: yes, no")
    session.type("mayb")
    session.await_text("> mayb")
    session.type("e\r")
    session.await_text("! one of yes, no was expected")
    session.type("Yes\r")
    assert session.ended() == 0
    lines = session.lines()
    assert any(ARABIC in line for line in lines) and any(line.endswith("answered yes by Mia") for line in lines)
    assert [line for line in lines if "running  |" in line] == []  # the live line never stays among the others
    assert all(re.match(r" *\d+\.\d s  |$|\D", line) for line in lines[: lines.index("") or None])
    drawn = re.findall(r"\r\x1b\[2K([^\r\n]*)", session.said)
    assert max(len(line) for line in drawn if "  |  " in line) <= 79
    assert termios.tcgetattr(session.slave)[3] == session.cooked[3]  # keys are echoed again
    assert record_of(tmp_path / "state")["questions"][0]["by"] == "Mia"


def test_stop_and_ctrl_c_at_the_terminal(at_terminal, press: Simulated) -> None:
    session = at_terminal("stubborn")
    moving(press, session)
    session.type("\x1a")  # Ctrl-Z: a job in a shell would stand still now, with its outputs on
    session.type("stop\r")
    session.await_text("> Ease off")
    session.type("stop\r")
    session.await_text("stop is not possible now")
    session.type("\x03")
    session.await_text("interrupted")
    session.type("\x03")
    session.await_text("> Let go")
    session.type("\x03")
    assert session.ended() == 3
    assert termios.tcgetattr(session.slave)[3] == session.cooked[3]
    assert at_rest(press)


def test_several_questions(at_terminal, press: Simulated) -> None:
    session = at_terminal("both")
    session.await_text("type a number that goes from 1 to 9 kN")
    session.type("12\r")
    session.await_text("! the answer goes from 1 to 9 kN")
    session.type("4\r")
    session.await_text("type the answer")
    session.type("هنا\r")
    session.await_text("press Enter to confirm")
    session.type("\r")
    assert session.ended() == 0
    assert "answered هنا by" in session.said


def test_enter_begins_each_step_in_semi_automatic_mode(at_terminal, press: Simulated, tmp_path: Path) -> None:
    session = at_terminal("stepwise", "--mode", "semi-automatic", "--by", "Mia")
    session.await_text("? Light: press Enter to begin it")
    assert press["press.lamp"] is False and "> Light" not in session.said
    session.type("\r")
    session.await_text("> Light")
    session.await_text("? ram: Press: press Enter to begin it")
    session.await_text("? talk: Look: press Enter to begin it")
    assert press["press.lamp"] is True and press["press.ram"] is False
    session.type("\r")  # of two steps that wait, the first in the file begins
    session.await_text("> ram: Press")
    moving(press, session)
    assert "> talk: Look" not in session.said
    session.type("\r")
    session.await_text("press Enter to confirm")
    press["press.force"] = 30
    until(lambda: press["press.ram"] is False, "the end of the step")
    session.type("\r")  # a question that is open is answered first
    session.await_text("? Weigh: press Enter to begin it")
    session.type("hold\r")
    session.await_text("type restart, stop or abort")
    session.type("\r")  # a held batch begins no step
    session.await_text("! refused: ")
    session.type("restart\r")
    session.await_text("stepwise is running (")
    until(lambda: session.said.count("? Weigh: press Enter to begin it") == 2, "the offer after the restart")
    session.type("automatic\r")  # the other steps follow by themselves
    assert session.ended() == 0
    actions = [(one["what"], one["name"], one["by"]) for one in record_of(tmp_path / "state")["actions"]]
    confirmed = [("confirm", name, "Mia") for name in ("Light", "ram: Press", "talk: Look")]
    assert actions == [("mode", "semi-automatic", "Mia"), *confirmed, ("mode", "automatic", "Mia")]


def test_a_step_that_nobody_can_confirm_stops_it(command, press: Simulated, tmp_path: Path) -> None:
    with running(Running([*command, "stepwise", "--mode", "semi-automatic"], tmp_path / "log")) as run:
        assert ended(run) == 3, run.said
    assert "! nobody can confirm Light here: run it at a terminal" in run.said
    assert record_of(tmp_path / "state")["states"][-1]["cause"] == "nobody could confirm Light"
    assert at_rest(press)


def test_a_terminal_that_goes_away_aborts_it(at_terminal, press: Simulated, tmp_path: Path) -> None:
    session = at_terminal("press")
    moving(press, session)
    below = descendants(session.pid)
    os.close(session.master)
    session.master = os.open(os.devnull, os.O_RDONLY)
    assert session.process.wait(DEADLINE_S) == 4
    assert [name for name, pid in below.items() if alive(pid)] == []
    assert record_of(tmp_path / "state")["state"] == "aborted"
    assert at_rest(press)


def test_edge_tags_while_it_runs(command, press: Simulated, tmp_path: Path) -> None:
    with running(Running([*command, "press"], tmp_path / "log")) as run:
        moving(press, run)
        look = edge("tags", *command[3:], "--once")
        assert look.returncode == 1 and f"process {run.pid}): wait for its end" in look.stderr and look.stdout == ""
        second = edge(*command[2:], "press")
        assert second.returncode == 1 and f"already (process {run.pid}, edge run)" in second.stderr
        assert process_name(run.pid) == "edge-daemon"
        assert press["press.ram"] is True
