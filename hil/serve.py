"""The process of one simulated PLC, `python -m hil.serve`: serves its protocol, exchanges values with the plant."""

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from importlib import import_module

import msgspec
from setproctitle import setproctitle

from drivers import driver
from hil import exchange
from hil.controllers import CONTROLLERS
from hil.exchange import Assignment, Levels, Refused, Serving, Values
from hil.plc import SimulatedPlc

SERVERS = {
    "modbus": "hil.modbus_plc:ModbusPlc",
    "s7": "hil.s7_plc:S7Plc",
    "opcua": "hil.opcua_plc:OpcUaPlc",
}
"""The simulated PLC of each driver."""

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serves what the assignment on standard input says, over the socket whose descriptor is the only argument."""
    assignment = exchange.unpack_assignment(sys.stdin.buffer.read())
    end = socket.socket(fileno=int(sys.argv[1]))
    _end_with(assignment.parent)
    setproctitle(f"hil-{assignment.device}")
    logging.basicConfig(level=logging.CRITICAL)
    gc.disable()  # what a server loads stays: looking for garbage among it takes 0.1 s
    return asyncio.run(_serve(assignment, end))


def _end_with(parent: int) -> None:
    """Makes the kernel end this process when its parent ends, however that ends (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


async def _serve(assignment: Assignment, end: socket.socket) -> int:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    try:
        plc = _plc(assignment)
        _take(plc, end)
        settings = await plc.start(assignment.host, assignment.port)
    except Exception as error:
        exchange.send(end, Refused(_reason(error)))
        return 1
    gc.freeze()
    gc.enable()
    exchange.send(end, Serving(settings))
    written = [index for index, point in enumerate(assignment.points) if point.writable]
    levels = Levels()
    while not stopped.is_set():
        _take(plc, end)
        levels.bring(end, {index: plc.read(index) for index in written})
        await asyncio.sleep(exchange.PERIOD_S)
    await plc.stop()
    return 0


def _plc(assignment: Assignment) -> SimulatedPlc:
    module, _, name = SERVERS[assignment.driver].partition(":")
    server: type[SimulatedPlc] = getattr(import_module(module), name)
    settings = msgspec.convert(assignment.settings, driver.find(assignment.driver).Settings)
    controller = msgspec.convert(assignment.controller or {}, CONTROLLERS[assignment.driver])
    return server(assignment.device, assignment.points, settings, controller)


def _take(plc: SimulatedPlc, end: socket.socket) -> None:
    for packet in exchange.receive(end):
        if isinstance(packet, Values):
            for index, value in packet.values.items():
                plc.write(index, value)


def _reason(error: Exception) -> str:
    if isinstance(error, driver.DeviceError):
        return f"{error.text}; {error.hint}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main())
