"""What edge and the simulated PLCs say to one another, as tshark's dissectors read it: nothing is malformed."""

import asyncio
import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.processes import Plcs, edge, running

pytestmark = pytest.mark.peer

CELL = """
cell: wire
devices:
  plc: {driver: s7, host: 192.168.10.11}
  line: {driver: modbus, host: 192.168.10.12}
  arm: {driver: opcua, url: "opc.tcp://192.168.10.13:4840"}
tags:
  plc:
    level: {at: DB1.DBD0, type: float32}
    serial: {at: DB7.DBB0, type: "string[20]"}
    total: {at: MD12, type: uint32}
    guard: {at: I0.3, type: bool}
    valve: {at: DB1.DBX4.1, type: bool, access: write, failsafe: false}
    speed: {at: QW4, type: int16, access: write, failsafe: 0}
    text: {at: DB7.DBB40, type: "string[9]", access: write, failsafe: ""}
  line:
    count: {at: input:0, type: uint16}
    weight: {at: input:20, type: float64, word_order: little}
    bottle: {at: discrete:3, type: bool}
    ready: {at: holding:12.3, type: bool}
    lamp: {at: coil:7, type: bool, access: write, failsafe: false}
    speed: {at: holding:10, type: uint16, access: write, failsafe: 0}
    lot: {at: holding:40, type: "string[16]", access: write, failsafe: ""}
  arm:
    force: {at: "ns=2;s=Force", type: float64}
    tool: {at: "ns=2;i=7", type: "string[20]"}
    program: {at: "nsu=urn:arm;s=Program", type: int32, access: write, failsafe: 0}
    grip: {at: "ns=2;s=Grip", type: bool, access: write, failsafe: false}
"""
WRITTEN = {
    "plc.valve": True,
    "plc.speed": -1200,
    "plc.text": "Grüße",
    "line.lamp": True,
    "line.speed": 4000,
    "line.lot": "LOT-7",
    "arm.program": -5,
    "arm.grip": True,
}


class Tap:
    """A relay in front of a server. `passed` is what went through it: (I or O for into or out of the server, bytes)."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.passed: list[tuple[str, bytes]] = []

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._relay, "127.0.0.1", 0)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.gather(self._pass("I", reader, back), self._pass("O", there, writer))

    async def _pass(self, way: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1400):
                self.passed.append((way, data))
                sink.write(data)
        sink.close()

    def dissected(self, folder: Path, port: int, field: str) -> list[list[str]]:
        """tshark's reading of it as a conversation with `port`: for each packet its protocols (up to tcp where it ends
        in a later one), whether it is malformed, remarks, and the values of a field.
        """
        lines, capture = folder / f"{port}.txt", folder / f"{port}.pcap"
        lines.write_text("".join(f"{way}\n000000 {data.hex(' ')}\n" for way, data in self.passed))
        _run("text2pcap", "-q", "-D", "-T", f"40000,{port}", lines, capture)
        fields = [part for name in ("frame.protocols", "_ws.malformed", "_ws.expert", field) for part in ("-e", name)]
        return [line.split("\t") for line in _run("tshark", "-r", capture, "-T", "fields", *fields).splitlines()]


def _run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _read(taps: dict[str, Tap], folder: Path, device: str, port: int, protocol: str, field: str) -> set[str]:
    """The values of a field, after a look at each packet."""
    packets = taps[device].dissected(folder, port, field)
    assert packets
    for protocols, malformed, remarks, _ in packets:
        assert protocols.endswith(":tcp") or protocol in protocols, packets
        assert not malformed and not remarks, packets
    return {value for packet in packets for value in packet[3].split(",") if value}


@pytest.fixture
async def taps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What passed between edge and three simulated PLCs while it set outputs and read every tag."""
    monkeypatch.setenv("EDGE_STATE", str(tmp_path / "identity"))
    cell, tapped = tmp_path / "cell.yaml", tmp_path / "tapped.yaml"
    cell.write_text(CELL)
    with running(Plcs(tmp_path, cell)) as plcs:
        endpoints: dict[str, Any] = yaml.safe_load(plcs.endpoints.read_text())
        taps: dict[str, Tap] = {}
        async with contextlib.AsyncExitStack() as stack:
            for device, settings in endpoints.items():
                url, _, port = settings.get("url", "").rpartition(":")
                taps[device] = Tap(int(port or settings["port"]))
                server = await stack.enter_async_context(await taps[device].listen())
                port = server.sockets[0].getsockname()[1]
                settings |= {"url": f"{url}:{port}"} if url else {"port": port}
            tapped.write_text(yaml.safe_dump(endpoints))
            given = [f"--set={name}={_typed(value)}" for name, value in WRITTEN.items()]
            options = ("--endpoints", tapped, "--format", "json", "--state", tmp_path / "no-daemon")
            done = await asyncio.to_thread(edge, "tags", cell, *options, *given)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert {name: shown[name]["value"] for name in WRITTEN} == WRITTEN
    return taps


def _typed(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


async def test_tshark_understands_every_frame(taps: dict[str, Tap], tmp_path: Path) -> None:
    s7 = _read(taps, tmp_path, "plc", 102, ":tpkt:cotp", "s7comm.param.func")
    assert s7 == {"0xf0", "0x04", "0x05"}  # setup communication, read, write
    modbus = _read(taps, tmp_path, "line", 502, ":mbtcp:modbus", "modbus.func_code")
    assert modbus == {"1", "2", "3", "4", "5", "6", "16"}
    opcua = _read(taps, tmp_path, "arm", 4840, ":opcua", "opcua.servicenodeid.numeric")
    assert opcua >= {"631", "634", "673", "676"}  # ReadRequest, ReadResponse, WriteRequest, WriteResponse
