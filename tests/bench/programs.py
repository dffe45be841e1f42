"""The programs that edge is measured against: made where they are C, started on loopback, ended by their end of a pipe.

Each is told how long to work, by a number of seconds on its standard input, and answers with one line. All end when
their standard input does, so that none is left however the benchmark ends.
"""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from tests.bench.case import Unavailable

ROOM = Path("build") / "bench"
LOG = ROOM / "peers.log"
"""What they say to their standard error."""
PEERS = Path(__file__).parent / "peers"
MODULES = Path(__file__).parent.parent / "peers" / "node_modules"
PATIENCE_S = 30.0
SNAP7 = "python-snap7==1.4.1"
"""The last wheel of python-snap7 with the C library in it: newer ones are Python throughout."""


class Program:
    """A program that was started, and its lines."""

    def __init__(self, *command: str | Path | int) -> None:
        self.name = Path(str(command[1] if str(command[0]) in ("node", sys.executable) else command[0])).name
        pipe = subprocess.PIPE
        words = [str(word) for word in command]
        ROOM.mkdir(parents=True, exist_ok=True)
        with LOG.open("ab") as log:  # Ctrl-C is not for it: hence a session of its own
            self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=log, start_new_session=True)
        self.pid = self.process.pid
        self.rest = b""

    def line(self, patience_s: float = PATIENCE_S) -> str:
        """The next line that it says. Raises RuntimeError where there is none in time."""
        assert self.process.stdout is not None
        while b"\n" not in self.rest:
            if not select.select([self.process.stdout], [], [], patience_s)[0]:
                raise RuntimeError(f"{self.name} says nothing for {patience_s:g} s")
            more = os.read(self.process.stdout.fileno(), 1 << 16)
            if not more:
                raise RuntimeError(f"{self.name} has ended: see {LOG}")
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        return line.decode()

    def lines(self) -> list[str]:
        """All lines that it has said and nobody has read."""
        assert self.process.stdout is not None
        while select.select([self.process.stdout], [], [], 0)[0] and (
            more := os.read(self.process.stdout.fileno(), 1 << 16)
        ):
            self.rest += more
        whole, newline, self.rest = self.rest.rpartition(b"\n")
        return (whole + newline).decode().splitlines()

    def work(self, seconds: float) -> str:
        """Has it work for so long; gives what it says then."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n".encode())
        self.process.stdin.flush()
        return self.line(seconds + PATIENCE_S)

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def compiled(name: str, *options: str) -> Path:
    """A C program of `peers`, compiled once and again when its source is newer. Raises Unavailable."""
    source, program = PEERS / f"{name}.c", ROOM / name
    newest = max(one.stat().st_mtime for one in (source, PEERS / "plc.h"))
    if program.exists() and program.stat().st_mtime > newest:
        return program
    if shutil.which("gcc") is None:
        raise Unavailable("no C compiler: apt-get install gcc libc6-dev")
    ROOM.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["gcc", "-std=gnu11", "-O2", "-Wall", "-o", program, source, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(f"gcc says: {done.stderr.strip()}")
    return program


def libmodbus(name: str) -> Path:
    """A C program on libmodbus. Raises Unavailable."""
    if not Path("/usr/include/modbus/modbus.h").exists():
        raise Unavailable("not installed: apt-get install libmodbus-dev")
    return compiled(name, "-I/usr/include/modbus", "-lmodbus")


def modbus_server(how: str, ports: int = 1) -> tuple[Program, list[int]]:
    """Modbus devices on libmodbus, and their ports."""
    server = Program(libmodbus("modbus_server"), ports, how)
    return server, [int(port) for port in server.line().split()]


def snap7() -> Path:
    """The C library of snap7, out of an old wheel of python-snap7 that pip fetches once. Raises Unavailable."""
    library = ROOM / "libsnap7.so"
    if library.exists():
        return library
    ROOM.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d", folder]
        done = subprocess.run([*command, SNAP7], capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise Unavailable(f"pip cannot fetch {SNAP7}: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            library.write_bytes(wheel.read("snap7/lib/libsnap7.so"))
    return library


def s7_server(how: str, ports: int = 1) -> tuple[Program, list[int]]:
    """S7 PLCs on snap7's C server, and their ports."""
    server = Program(compiled("s7_server", "-ldl"), snap7().resolve(), ports, how)
    return server, [int(port) for port in server.line().split()]


def opcua_server(how: str) -> tuple[Program, str]:
    """The OPC UA server of `peers`, and its address."""
    server = Program(sys.executable, PEERS / "opcua_server.py", how)
    return server, f"opc.tcp://127.0.0.1:{server.line()}"


def node(script: str, task: dict[str, Any]) -> Program:
    """A client on Node.js, connected. Raises Unavailable."""
    if shutil.which("node") is None or not MODULES.exists():
        raise Unavailable("not installed: apt-get install nodejs npm, then tests/services")
    client = Program("node", PEERS / script, json.dumps({**task, "modules": str(MODULES)}))
    client.line()
    return client


def python(script: str, *arguments: str | int) -> Program:
    """A client in Python, connected."""
    client = Program(sys.executable, PEERS / script, *arguments)
    client.line()
    return client
