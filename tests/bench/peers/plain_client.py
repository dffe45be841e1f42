"""One asyncio task a device on the plain libraries: `plain_client.py EVERY_MS PORT…`, the first half Modbus, then S7.

It says that it is connected. For each number of seconds on its standard input it reads every device's tags every so
often (100 int16, then float32, in as few blocks as the protocol allows), takes each tag's value out with the library's
own function for its type, then prints `SCANS_PER_SECOND CPU`: scans of all devices together, and the processor time
that it took, in % of one core.
"""

import asyncio
import gc
import logging
import sys
import time
from collections.abc import Awaitable, Callable

from pymodbus.client import AsyncModbusTcpClient
from s7 import AsyncClient
from snap7.util import get_int, get_real

INTEGERS, FLOATS = 100, 56
REGISTERS = INTEGERS + 2 * FLOATS
MOST = 125
Scan = Callable[[], Awaitable[list[float]]]


async def modbus(port: int) -> Scan:
    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    assert await client.connect()
    blocks = [(first, min(MOST, REGISTERS - first)) for first in range(0, REGISTERS, MOST)]
    convert, int16, float32 = client.convert_from_registers, client.DATATYPE.INT16, client.DATATYPE.FLOAT32
    tags = [(place, 1, int16) for place in range(INTEGERS)]
    tags += [(place, 2, float32) for place in range(INTEGERS, REGISTERS, 2)]

    async def scan() -> list[float]:
        registers: list[int] = []
        for first, count in blocks:
            answer = await client.read_holding_registers(first, count=count)
            assert not answer.isError(), answer
            registers += answer.registers
        return [convert(registers[place : place + size], kind) for place, size, kind in tags]

    return scan


async def s7(port: int) -> Scan:
    client = AsyncClient()
    await client.connect("127.0.0.1", 0, 1, port)
    tags = [(get_int, 2 * place) for place in range(INTEGERS)]
    tags += [(get_real, 2 * place) for place in range(INTEGERS, REGISTERS, 2)]

    async def scan() -> list[float]:
        data = await client.db_read(1, 0, 2 * REGISTERS)
        return [get(data, place) for get, place in tags]

    return scan


async def poll(scan: Scan, every_s: float, end: float) -> int:
    """A device's task: scans each period until the end; gives how many."""
    count, due = 0, time.monotonic()
    while due < end:
        assert len(await scan()) == INTEGERS + FLOATS
        count += 1
        due = max(due + every_s, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
    return count


async def main() -> None:
    logging.disable(logging.CRITICAL)
    every_s, ports = float(sys.argv[1]) / 1000, [int(port) for port in sys.argv[2:]]
    half = len(ports) // 2
    scans = [await modbus(port) for port in ports[:half]] + [await s7(port) for port in ports[half:]]
    gc.collect()
    gc.freeze()  # edge does so, too
    print("connected", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        began, cpu = time.monotonic(), time.process_time()
        counts = await asyncio.gather(*(poll(scan, every_s, began + float(line)) for scan in scans))
        took = time.monotonic() - began
        print(sum(counts) / took, 100 * (time.process_time() - cpu) / took, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
