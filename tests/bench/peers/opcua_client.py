"""An OPC UA client for CPU and speed: `opcua_client.py edge|asyncua read|subscribe URL`.

It says that it is connected. For each number of seconds on its standard input it works so long, then prints
`VALUES_PER_SECOND CPU`: what it got of 1000 variables, and the processor time that it took, in % of one core.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import msgspec
import uvloop

FIRST, COUNT = 1000, 1000
EVERY_S = 0.02

Work = Callable[[float], Awaitable[int]]
"""Works for so many seconds, gives the number of values."""


async def edge(mode: str, url: str) -> Work:
    """edge's driver, scanned as a fieldbus process does: again and again, or every 20 ms."""
    from drivers.driver import Point
    from drivers.opcua import OpcUaDriver
    from drivers.value import TYPES

    points = [Point(f"v{n}", f"ns=1;i={FIRST + n}", TYPES["float64"]) for n in range(COUNT)]
    settings = {"url": url, "batch": COUNT}
    if mode == "subscribe":
        settings |= {"mode": "subscribe", "every": EVERY_S}
    driver = OpcUaDriver(msgspec.convert(settings, OpcUaDriver.Settings), points, {})
    await driver.connect()
    pause = EVERY_S if mode == "subscribe" else 0

    async def work(seconds: float) -> int:
        end, count = time.monotonic() + seconds, 0
        before: object = None
        while time.monotonic() < end:
            scan = await driver.scan()
            assert len(scan) == COUNT and scan[0].status == 0, scan[0]
            if scan[0].time_ns != before:
                count += COUNT
            before = scan[0].time_ns
            if pause:
                await asyncio.sleep(pause)
        return count

    return work


async def asyncua(mode: str, url: str) -> Work:
    """asyncua's client, as its documentation says."""
    from asyncua import Client, ua

    client = Client(url)
    await client.connect()
    nodes = [client.get_node(ua.NodeId(FIRST + n, 1)) for n in range(COUNT)]
    counted = 0

    class Handler:
        def datachange_notification(self, _node: object, _value: object, _data: object) -> None:
            nonlocal counted
            counted += 1

    if mode == "subscribe":
        subscription = await client.create_subscription(EVERY_S * 1000, Handler())
        await subscription.subscribe_data_change(nodes, sampling_interval=EVERY_S * 1000)

    async def work(seconds: float) -> int:
        before, end, count = counted, time.monotonic() + seconds, 0
        if mode == "subscribe":
            await asyncio.sleep(seconds)
            return counted - before
        while time.monotonic() < end:
            found = await client.read_attributes(nodes)
            assert found[0].StatusCode.is_good() and found[0].SourceTimestamp
            count += len(found)
        return count

    return work


async def main() -> None:
    work = await {"edge": edge, "asyncua": asyncua}[sys.argv[1]](*sys.argv[2:])
    print("connected", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        began, cpu = time.monotonic(), time.process_time()
        count = await work(float(line))
        took = time.monotonic() - began
        print(count / took, 100 * (time.process_time() - cpu) / took, flush=True)


if __name__ == "__main__":
    uvloop.run(main())
