"""How fast a driver reads, next to the best client of its protocol: reads/s, one after the other.

The server's values change from read to read, so that every answer is decoded; the `_still` figures are those of a
server whose values stand still.
"""

import asyncio
import contextlib
import gc
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import msgspec
import uvloop

from drivers.driver import Driver, Point, find
from drivers.value import GOOD, TYPES
from tests.bench import programs
from tests.bench.case import Case, undisturbed
from tests.bench.programs import Program

REGISTERS, DEPTH = 125, 16
NODES = [f"ns=1;i={1000 + number}" for number in range(1000)]
Servers = Callable[[str], tuple[Program, Any]]


class Reader:
    """One of edge's drivers, connected, on the event loop that it has in a fieldbus process."""

    def __init__(self, stack: contextlib.ExitStack, driver: str, settings: dict[str, Any], points: list[Point]) -> None:
        kind = find(driver)
        self.runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        self.driver: Driver = kind(msgspec.convert(settings, kind.Settings), points, {})
        self.runner.run(self.driver.connect())
        stack.callback(lambda: self.runner.run(self.driver.close()))

    def times(self, seconds: float) -> list[float]:
        """Scans for so long; gives how long each took, in s."""
        return self.runner.run(self._scan(seconds))

    async def _scan(self, seconds: float) -> list[float]:
        took: list[float] = []
        scan, clock = self.driver.scan, time.monotonic
        began = clock()
        end = began + seconds
        while began < end:
            last = await scan()
            ended = clock()
            took.append(ended - began)
            began = ended
        assert all(one.status == GOOD for one in last), self.driver.troubles
        return took

    def rate(self, seconds: float) -> float:
        """Scans a second."""
        took = self.times(seconds)
        return len(took) / sum(took)


class Read(Case):
    """What the read cases have in common: a server whose values change and one whose values do not."""

    unit = "1/s"
    share = 20
    """A round takes this part of the seconds that were asked for: short, as it has the processor for itself."""
    requests = 1

    @abstractmethod
    def servers(self) -> Servers:
        """Raises Unavailable."""

    @abstractmethod
    def reader(self, stack: contextlib.ExitStack, where: Any) -> Reader: ...

    @abstractmethod
    def client(self, where: Any) -> Program:
        """Raises Unavailable."""

    def begin(self, stack: contextlib.ExitStack) -> None:
        self.readers: list[Reader] = []
        self.wheres: list[Any] = []
        self.others: list[Program] = []
        for how in ("changing", "still"):
            server, where = self.servers()(how)
            stack.enter_context(server)
            self.wheres.append(where)
            self.readers.append(self.reader(stack, where))
        gc.collect()
        gc.freeze()  # as edge's daemon does before its fieldbus processes begin
        stack.callback(gc.unfreeze)

    def edge(self) -> tuple[float, ...]:
        with undisturbed():
            return tuple(reader.rate(self.seconds / self.share) * self.requests for reader in self.readers)

    def peer(self) -> tuple[float, ...]:
        if not self.others:
            self.others = [self.open.enter_context(self.client(where)) for where in self.wheres]
        return tuple(self._works(other) for other in self.others)

    def _works(self, other: Program) -> float:
        with undisturbed(other.pid):
            return self.reads(other.work(self.seconds / self.share))

    def reads(self, said: str) -> float:
        return float(said)


class ModbusRead(Read):
    """125 holding registers as uint16, against a server on libmodbus."""

    names = ("modbus.read125_depth1", "modbus.read125_depth1_still")
    peer_name = "libmodbus client"

    def servers(self) -> Servers:
        return programs.modbus_server

    def reader(self, stack: contextlib.ExitStack, where: Any) -> Reader:
        points = [Point(f"r{n}", f"holding:{n}", TYPES["uint16"]) for n in range(REGISTERS * self.requests)]
        settings = {"host": "127.0.0.1", "port": where[0], "depth": self.requests}
        return Reader(stack, "modbus", settings, points)

    def client(self, where: Any) -> Program:
        return Program(programs.libmodbus("modbus_client"), where[0], "read")


class ModbusPipelined(ModbusRead):
    """The same 16 times a scan, 16 requests on their way at a time. libmodbus's client has one."""

    names = ("modbus.read125_depth16", "modbus.read125_depth16_still")
    requests = DEPTH


class S7Read(Read):
    """200 bytes of a DB as 50 REAL, against snap7's C server."""

    names = ("s7.read200", "s7.read200_still")
    peer_name = "nodes7"
    places = tuple(range(0, 200, 4))
    items = ("DB1,REAL0.50",)

    def servers(self) -> Servers:
        return programs.s7_server

    def reader(self, stack: contextlib.ExitStack, where: Any) -> Reader:
        points = [Point(f"r{byte}", f"DB1.DBD{byte}", TYPES["float32"]) for byte in self.places]
        return Reader(stack, "s7", {"host": "127.0.0.1", "port": where[0]}, points)

    def client(self, where: Any) -> Program:
        return programs.node("s7_client.js", {"port": where[0], "items": self.items})


class S7Scattered(S7Read):
    """20 REAL with 36 bytes between each two."""

    names = ("s7.scattered20", "s7.scattered20_still")
    places = tuple(range(0, 800, 40))
    items = tuple(f"DB1,REAL{byte}" for byte in places)


class OpcUaRead(Read):
    """1000 Double with status and times in one request, against our own server, whose answers are made beforehand."""

    names = ("opcua.read1000_node", "opcua.read1000_node_still")
    peer_name = "node-opcua"

    def servers(self) -> Servers:
        return programs.opcua_server

    def reader(self, stack: contextlib.ExitStack, where: Any) -> Reader:
        points = [Point(node, node, TYPES["float64"]) for node in NODES]
        return Reader(stack, "opcua", {"url": where, "batch": len(points)}, points)

    def client(self, where: Any) -> Program:
        return programs.node("opcua_client.js", {"url": where, "nodes": NODES})


class OpcUaReadAsyncua(OpcUaRead):
    """The same next to asyncua."""

    names = ("opcua.read1000_asyncua", "opcua.read1000_asyncua_still")
    peer_name = "asyncua"

    def client(self, where: Any) -> Program:
        return programs.python("opcua_client.py", "asyncua", "read", where)

    def reads(self, said: str) -> float:
        return float(said.split()[0]) / len(NODES)


class Notifications(Case):
    """1000 variables that change 50 times a second, subscribed to: processor time of the client's process.

    A client that does not keep up with 50,000 notifications a second is charged for as many.
    """

    names = ("opcua.notifications_cpu",)
    unit = "%"
    peer_name = "asyncua"
    wanted = 50_000

    def begin(self, stack: contextlib.ExitStack) -> None:
        self.clients: dict[str, tuple[Program, Program]] = {}
        for who in ("edge", "asyncua"):
            server, url = programs.opcua_server("changing")
            stack.enter_context(server)
            client = stack.enter_context(programs.python("opcua_client.py", who, "subscribe", url))
            self.clients[who] = server, client

    def edge(self) -> tuple[float, ...]:
        return self._cpu("edge")

    def peer(self) -> tuple[float, ...]:
        return self._cpu("asyncua")

    def _cpu(self, who: str) -> tuple[float, ...]:
        server, client = self.clients[who]
        before = int(server.work(0))
        cpu = float(client.work(self.seconds).split()[1])
        rate = (int(server.work(0)) - before) / self.seconds
        self.notes.append(f"{who}: {rate:.0f} notifications/s, {cpu:.1f} % of a core")
        return (cpu * self.wanted / rate,)


CASES: tuple[type[Case], ...] = (
    ModbusRead,
    ModbusPipelined,
    S7Read,
    S7Scattered,
    OpcUaRead,
    OpcUaReadAsyncua,
    Notifications,
)
