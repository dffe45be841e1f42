"""Third parties' clients on the simulated PLCs: mbpoll, nodes7 and node-opcua read what `edge tags` shows, and `edge
tags` shows what they write.
"""

import contextlib
import io
import json
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.cli import main
from tests.processes import BOTTLING, Plcs, running, until

pytestmark = pytest.mark.peer

PEERS = Path(__file__).parent / "peers"
MIXER = {
    "mixer.level": "DB1,REAL0",
    "mixer.temperature": "DB1,REAL12",
    "mixer.conductivity": "DB1,REAL16",
    "mixer.speed": "DB1,REAL20",
    "mixer.overflow": "DB1,X24.0",
    "mixer.inlet": "DB1,X4.0",
    "mixer.outlet": "DB1,X4.1",
    "mixer.drain": "DB1,X4.2",
    "mixer.rinse": "DB1,X4.3",
    "mixer.caustic": "DB1,X4.4",
    "mixer.heater": "DB1,X4.5",
    "mixer.agitator": "DB1,REAL8",
}
ROBOT = {"robot.program": "nsu=urn:robot;s=Program", "robot.state": "ns=2;s=State", "robot.alive": "ns=2;s=Heartbeat"}
Values = dict[str, Any]


class Rig:
    """`hil up` of the bottling cell, as edge and as other programs see it."""

    def __init__(self, plcs: Plcs, folder: Path) -> None:
        self.plcs = plcs
        self.folder = folder
        self.endpoints = yaml.safe_load(plcs.endpoints.read_text())

    def tags(self, **settings: object) -> Values:
        """What `edge tags` shows of every tag, after setting some (`mixer__inlet=True`)."""
        given = [f"--set={name}={json.dumps(value)}" for name, value in _dotted(settings).items()]
        place = ["--endpoints", str(self.plcs.endpoints), "--state", str(self.folder / "no-daemon")]
        out, complaints = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaints):
            code = main(["tags", str(BOTTLING), "--once", "--format", "json", *place, *given])
        assert code == 0, complaints.getvalue()
        shown = json.loads(out.getvalue())
        assert {one["quality"] for one in shown.values()} == {"good"}
        return {name: one["value"] for name, one in shown.items()}

    def until(self, name: str, condition: Callable[[Any], bool]) -> None:
        until(lambda: condition(self.tags()[name]), name)

    def agree(self, device: str, read: Callable[[], Values]) -> Values:
        """What edge and another client both read of a device while it stands still, the same before and after."""

        def same() -> tuple[Values, Values] | None:
            before, theirs, after = self.tags(), read(), self.tags()
            ours = {name: value for name, value in before.items() if name.startswith(f"{device}.")}
            return (ours, theirs) if ours == {name: after[name] for name in ours} else None

        ours, theirs = until(same, f"{device} stands still")
        assert theirs == ours
        return ours

    def nodes7(self, **write: object) -> Values:
        task = {"port": self.endpoints["mixer"]["port"], "rack": 0, "slot": 1, "read": MIXER}
        return _node("read_s7.js", {**task, "write": _dotted(write)})

    def node_opcua(self, **write: object) -> Values:
        robot = self.endpoints["robot"]
        task = {**robot, "password": robot["password"]["file"], "pki": str(self.folder / "pki"), "read": ROBOT}
        written = {name: ["Int32", value] for name, value in _dotted(write).items()}
        found = _node("read_opcua.js", {**task, "write": written})
        assert {(one["status"], one["type"]) for one in found.values()} == {("Good", "Int32")}
        return {name: one["value"] for name, one in found.items()}

    def mbpoll(self, kind: str, first: int, *write: object, count: int = 1) -> list[str]:
        """Values as mbpoll prints them; `first` is the protocol's address, from 0."""
        place = ["-p", str(self.endpoints["conveyor"]["port"]), "127.0.0.1"]
        options = ["-m", "tcp", "-a", "1", "-0", "-1", "-q", "-o", "5", "-t", kind, "-r", str(first)]
        said = _run(["mbpoll", *options, *([] if write else ["-c", str(count)]), *place, *map(str, write)])
        assert f"Written {len(write)} references." in said or not write, said
        return re.findall(r"^\[\d+\]: *\t(\S+)", said, re.MULTILINE)

    def conveyor(self) -> Values:
        lot = bytes.fromhex("".join(word[2:] for word in self.mbpoll("4:hex", 40, count=8)))
        ready = int(self.mbpoll("4", 12)[0])
        high, low = (word[2:] for word in reversed(self.mbpoll("3:hex", 20, count=2)))
        weight = struct.unpack(">f", bytes.fromhex(high + low))[0]
        assert self.mbpoll("3:float", 20) == [f"{weight:g}"]
        return {
            "conveyor.speed": int(self.mbpoll("4", 10)[0]) / 2,
            "conveyor.weight": weight,
            "conveyor.count": int(self.mbpoll("3", 24)[0]),
            "conveyor.bottle": self.mbpoll("1", 3) == ["1"],
            "conveyor.lamp": self.mbpoll("0", 7) == ["1"],
            "conveyor.ready": bool(ready >> 3 & 1),
            "conveyor.lot": lot.rstrip(b"\0").decode(),
        }


def _dotted(values: Values) -> Values:
    return {name.replace("__", "."): value for name, value in values.items()}


def _run(command: list[str], **more: Any) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _node(script: str, task: Values) -> Values:
    said = _run(["node", str(PEERS / script), json.dumps(task)])
    return json.loads(said)


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_STATE", str(folder / "identity"))
        with running(Plcs(folder)) as plcs:
            yield Rig(plcs, folder)


def test_nodes7_reads_what_edge_shows(rig: Rig) -> None:
    rig.tags(mixer__inlet=True, mixer__agitator=120, mixer__heater=False)
    rig.until("mixer.level", lambda level: level > 1)
    rig.tags(mixer__inlet=False, mixer__rinse=False)
    seen = rig.agree("mixer", rig.nodes7)
    assert seen["mixer.agitator"] == 120 and seen["mixer.level"] > 1


def test_edge_shows_what_nodes7_writes(rig: Rig) -> None:
    rig.nodes7(mixer__drain=True, mixer__agitator=33.25)
    seen = rig.tags()
    assert (seen["mixer.drain"], seen["mixer.agitator"]) == (True, 33.25)
    assert not any(seen[f"mixer.{valve}"] for valve in ("inlet", "outlet", "rinse", "caustic", "heater"))
    rig.nodes7(mixer__drain=False)
    assert rig.tags()["mixer.drain"] is False


def test_node_opcua_reads_what_edge_shows(rig: Rig) -> None:
    rig.tags(robot__program=0, robot__alive=-7)
    seen = rig.agree("robot", rig.node_opcua)
    assert (seen["robot.program"], seen["robot.alive"]) == (0, -7)


def test_edge_shows_what_node_opcua_writes(rig: Rig) -> None:
    assert rig.node_opcua(robot__alive=-(2**31))["robot.alive"] == -(2**31)
    assert rig.tags()["robot.alive"] == -(2**31)
    rig.node_opcua(robot__alive=41, robot__program=4)
    seen = rig.tags()
    assert (seen["robot.alive"], seen["robot.program"]) == (41, 4)
    rig.tags(robot__program=0)


def test_mbpoll_reads_what_edge_shows(rig: Rig) -> None:
    rig.tags(conveyor__lamp=True)
    until(lambda: rig.tags(conveyor__speed=100) and rig.tags(conveyor__speed=0)["conveyor.bottle"], "a bottle")
    rig.until("conveyor.ready", bool)
    seen = rig.agree("conveyor", rig.conveyor)
    assert (seen["conveyor.lamp"], seen["conveyor.bottle"], seen["conveyor.lot"]) == (True, True, "LOT-2026-041")
    assert seen["conveyor.weight"] == pytest.approx(0.3)


def test_edge_shows_what_mbpoll_writes(rig: Rig) -> None:
    rig.mbpoll("0", 7, 0)
    assert rig.tags()["conveyor.lamp"] is False
    rig.mbpoll("0", 7, 1)
    rig.mbpoll("4", 10, 75)
    seen = rig.tags()
    assert (seen["conveyor.lamp"], seen["conveyor.speed"]) == (True, 37.5)
    rig.tags(conveyor__speed=123.5)
    assert rig.mbpoll("4", 10) == ["247"]
