"""The I/O processes, one for each protocol: scans, writes until read back, failsafe when the loop falls silent."""

import asyncio
import contextlib
import logging
import random
import signal
import socket
import struct
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence

from drivers.driver import DeviceError, Driver, find
from drivers.link import Backoff
from drivers.value import (
    BAD_ACCESS_DENIED,
    BAD_COMMUNICATION,
    BAD_NODE_UNKNOWN,
    BAD_NOT_WRITABLE,
    BAD_OUT_OF_RANGE,
    BAD_TYPE_MISMATCH,
    BAD_WAITING,
    GOOD,
    Scan,
    Value,
    from_raw,
    is_good,
    status_name,
    to_raw,
)
from edge import channel
from edge.cell import Cell, Device, Tag
from edge.image import OUTPUT, TICK, Layout, device_of
from edge.messages import BOUNDS_S, DeviceReport, DeviceStats, Hello, TagReport, pack

log = logging.getLogger("edge.fieldbus")

FULL_FRAME_S = 1.0
"""A full frame goes out at least this often, so that a reader who has missed one has the values again."""

WRITE_AGAIN_S = 0.5
FAILSAFE_DEADLINE_S = 1.5
FIRST_RETRY_S, LAST_RETRY_S = 0.2, 10.0


_WRITE_REFUSALS = {
    BAD_ACCESS_DENIED: "the device does not let edge's user set it: see the user's rights there",
    BAD_NODE_UNKNOWN: "the device has no such address",
    BAD_NOT_WRITABLE: "the device does not let it be set: see its write protection there",
    BAD_OUT_OF_RANGE: "the device does not take {raw}",
    BAD_TYPE_MISMATCH: "the device has another type there: compare the tag's `type`",
    BAD_WAITING: "the device is busy",
}


_NEITHER = "the device lets it be neither read nor set"
"""What to do is said where it cannot be read."""


def write_refusal(status: int, raw: Value) -> str:
    """Why a device has not taken a raw value, in words."""
    return _WRITE_REFUSALS.get(status, f"the device refuses it ({status_name(status)})").format(raw=raw)


def as_read_back(tag: Tag, level: Value) -> Value:
    """A level as the raw value that the device will show: whole, or rounded to the float's size. Raises ValueError."""
    raw = to_raw(level, tag.type, tag.scale)
    if tag.type.name == "float32":
        return struct.unpack("<f", struct.pack("<f", raw))[0]
    return raw


class Station:
    """One device: its connection, its scans, its desired outputs."""

    def __init__(self, bus: "Fieldbus", device: Device, driver: Driver) -> None:
        self.bus = bus
        self.device = device
        self.driver = driver
        self.layout = Layout(bus.cell, device)
        self.tags = [bus.cell.tags[index] for index in device.tags]
        self.places = [index - self.layout.first for index in self.layout.outputs]
        self.desired: dict[int, Value] = {}
        self.tried: dict[int, tuple[Value, float, int]] = {}
        self.refused: dict[int, str] = {}
        self.troubles: dict[str, str] = {}
        self.scan: Scan | None = None
        self.up: bool | None = None
        self.said: set[str] = set()
        self.wake = asyncio.Event()
        self.full_at = 0.0
        self.scans = self.errors = self.writes = 0
        self.scan_counts = [0] * (len(BOUNDS_S) + 1)
        self.scan_sum_s = 0.0

    # --- its life ----------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Connects, scans, reports, and begins again after every loss, until cancelled."""
        backoff = Backoff(FIRST_RETRY_S, LAST_RETRY_S, random.Random())
        while True:
            try:
                await self.driver.connect()
                await self._scan_on(backoff)
            except DeviceError as error:
                self._report_lost(error)
            except Exception:  # one device's trouble, even a fault in its driver, never is another's
                log.exception("%s: a fault in its driver", self.device.name)
                self._report_lost(DeviceError("its driver has failed, see the log", status=BAD_COMMUNICATION))
            self.errors += 1
            await self.driver.close()
            await asyncio.sleep(backoff.next())

    async def _scan_on(self, backoff: Backoff) -> None:
        """Scans at the device's period and writes what differs, until the device is lost (DeviceError)."""
        every = self.device.every_ns / 1e9
        clock = asyncio.get_running_loop()
        due = clock.time()
        self.tried.clear()
        while True:
            await self._scan()
            backoff.reset()
            await self._write()
            due = max(due + every, clock.time())
            while (left := due - clock.time()) > 0.0005:
                self.wake.clear()
                timer = clock.call_later(left, self.wake.set)
                await self.wake.wait()
                timer.cancel()
                await self._write()

    async def _scan(self) -> None:
        began = time.monotonic()
        scan = await self.driver.scan()
        took = time.monotonic() - began
        self.scans += 1
        self.scan_counts[bisect_left(BOUNDS_S, took)] += 1
        self.scan_sum_s += took
        if not self.up:
            self.up = True
            self.said.clear()
            log.info("%s: connected", self.device.name)
            self.bus.tell(DeviceReport(self.device.index, True, GOOD))
            self.full_at = 0.0
        self._report_troubles()
        changed = scan.changed or self.scan is None
        self.scan = scan
        self.send_frame(scan, full=changed or time.monotonic() >= self.full_at)
        self.bus.scanned.set()

    def send_frame(self, scan: Scan, *, full: bool) -> None:
        """A scan to the loop: all values, or that none has changed."""
        received = time.monotonic_ns()
        if not full:
            self.bus.send(self.layout.pack_unchanged(self.scans, received, scan.time_ns))
            return
        values = [from_raw(raw, tag.scale) for raw, tag in zip(scan.values, self.tags, strict=True)]
        pairs = zip(values, scan.statuses, strict=True)
        statuses = [BAD_OUT_OF_RANGE if value is None and is_good(status) else status for value, status in pairs]
        given = statuses if any(statuses) else None
        frame = self.layout.pack_input(self.scans, received, scan.time_ns, values, given, scan.times)
        self.full_at = time.monotonic() + FULL_FRAME_S if self.bus.send(frame) else 0.0

    # --- reports -----------------------------------------------------------------------------------------------------

    def _report_lost(self, error: DeviceError) -> None:
        if error.text not in self.said:  # each reason once while it is away
            self.said.add(error.text)
            hint = f" ({error.hint})" if error.hint else ""
            log.warning("%s: %s%s", self.device.name, error.text, hint)
        self.up = False
        self.scan = None
        self.bus.scanned.set()
        self.bus.tell(DeviceReport(self.device.index, False, error.status, error.text, error.hint))

    def report(self) -> None:
        """All that the loop must know of this device, for a loop that has just started."""
        if self.up and self.scan is not None:
            self.bus.tell(DeviceReport(self.device.index, True, GOOD))
            self.send_frame(self.scan, full=True)

    def _report_troubles(self) -> None:
        """Tags that the device refuses to give: each is said once, and once when it is over."""
        if self.driver.troubles == self.troubles:
            return
        for tag in self.tags:
            text = self.driver.troubles.get(tag.name)
            if text == self.troubles.get(tag.name):
                continue
            status = GOOD if text is None else BAD_OUT_OF_RANGE
            log.warning("%s %s", tag.name, f"cannot be read: {text}" if text else "can be read again")
            self.bus.tell(TagReport(tag.index, status, text or ""))
        self.troubles = dict(self.driver.troubles)

    def _refuse(self, place: int, status: int, text: str) -> None:
        """An output that the device does not take: each is said once, and once when it is over (text "")."""
        if self.refused.get(place, "") == text:
            return
        tag = self.tags[place]
        log.warning("%s %s", tag.name, f"could not be set: {text}" if text else "is set again")
        self.refused[place] = text
        self.bus.tell(TagReport(tag.index, status, text, write=True))

    # --- outputs -----------------------------------------------------------------------------------------------------

    def want(self, levels: Sequence[Value]) -> None:
        """New desired levels of the outputs, in the layout's order."""
        for place, level in zip(self.places, levels, strict=True):
            try:
                self.desired[place] = as_read_back(self.tags[place], level)
            except ValueError as error:
                self._refuse(place, BAD_OUT_OF_RANGE, str(error))
        self.wake.set()

    def want_failsafe(self) -> None:
        self.want([tag.failsafe for tag in (self.tags[place] for place in self.places) if tag.failsafe is not None])

    @property
    def settled(self) -> bool:
        """Every output was read back as desired (or the device is not there)."""
        return not self.up or all(self._confirmed(place, raw) for place, raw in self.desired.items())

    def _confirmed(self, place: int, raw: Value) -> bool:
        """Whether the device shows this value, and nothing else was sent to it since."""
        sent = self.tried.get(place)
        return self.scan is not None and self.scan.values[place] == raw and (sent is None or sent[0] == raw)

    async def _write(self) -> None:
        """Sends the levels that differ from what was read back; what was just sent waits for its read-back."""
        now = time.monotonic()
        values: dict[int, Value] = {}
        for place, raw in self.desired.items():
            if self._confirmed(place, raw):
                self.tried.pop(place, None)
                self._refuse(place, GOOD, "")
                continue
            sent, again_at, count = self.tried.get(place, (None, 0.0, 0))
            if sent == raw and now < again_at:
                continue
            if sent == raw and count >= 2:
                shown = None if self.scan is None else self.scan.values[place]
                self._refuse(place, BAD_OUT_OF_RANGE, f"the device confirmed {raw} but still shows {shown}")
            values[place] = raw
            self.tried[place] = (raw, now + WRITE_AGAIN_S, count + 1 if sent == raw else 1)
        if not values:
            return
        self.writes += len(values)
        for place, status in (await self.driver.write(values)).items():
            if not is_good(status):
                self.tried[place] = (values[place], now + WRITE_AGAIN_S, 0)
                unread = self.tags[place].name in self.driver.troubles
                self._refuse(place, status, _NEITHER if unread else write_refusal(status, values[place]))

    def stats(self) -> DeviceStats:
        counts = tuple(self.scan_counts)
        index, up = self.device.index, bool(self.up)
        return DeviceStats(index, up, self.scans, self.errors, self.writes, counts, self.scan_sum_s)


class Fieldbus:
    """The process of one protocol: its stations, and its sockets to the loop and to whoever watches."""

    def __init__(self, cell: Cell, protocol: str, loop: socket.socket, watcher: socket.socket) -> None:
        self.cell = cell
        self.loop = loop
        self.watcher = watcher
        driver, connections = find(protocol), dict[str, object]()
        self.stations: dict[int, Station] = {}
        for device in cell.devices:
            if device.driver == protocol:
                points = [cell.tags[index].point for index in device.tags]
                station = Station(self, device, driver(device.settings, points, connections))
                self.stations[device.index] = station
        self.heard_ns = time.monotonic_ns()
        self.silent = False
        self.scanned = asyncio.Event()

    def send(self, packet: bytes) -> bool:
        return channel.send(self.loop, packet)

    def tell(self, message: DeviceReport | TagReport | Hello) -> None:
        self.send(pack(message))

    def take(self) -> None:
        """What the loop has sent: only the newest levels of a device count."""
        newest: dict[int, bytes] = {}
        for packet in channel.drain(self.loop):
            if packet[0] == OUTPUT:
                newest[device_of(packet)] = packet
            elif packet[0] == TICK:
                self._heard()
            else:
                for station in self.stations.values():
                    station.report()
        if self.silent:
            return
        for device, packet in newest.items():
            station = self.stations[device]
            station.want(station.layout.unpack_output(packet)[1])

    def _heard(self) -> None:
        self.heard_ns = time.monotonic_ns()
        if self.silent:
            log.warning("the loop is back")
            self.silent = False
            self.tell(Hello("fieldbus"))

    def watch(self) -> None:
        """Drives every output to failsafe when the loop has missed its cycles."""
        if not self.silent and time.monotonic_ns() - self.heard_ns > self.cell.silence_ns:
            self.silent = True
            log.warning("the loop is silent: outputs go to failsafe")
            self.failsafe()

    def failsafe(self) -> None:
        for station in self.stations.values():
            station.want_failsafe()

    async def settled(self) -> None:
        """Until every output of every device that is there reads back as desired."""
        while not all(station.settled for station in self.stations.values()):
            self.scanned.clear()
            await self.scanned.wait()

    def report_stats(self) -> None:
        for station in self.stations.values():
            channel.send(self.watcher, pack(station.stats()))


def run(cell: Cell, protocol: str, loop: socket.socket, watcher: socket.socket) -> None:
    """The process of one protocol until SIGTERM: it leaves its outputs at failsafe."""
    import uvloop  # the parent, which forks this process, has no use for it

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(Fieldbus(cell, protocol, loop, watcher)))


async def _serve(bus: Fieldbus) -> None:
    running, stopped = asyncio.get_running_loop(), asyncio.Event()
    running.add_signal_handler(signal.SIGTERM, stopped.set)
    running.add_reader(bus.loop, bus.take)
    bus.tell(Hello("fieldbus"))
    lives = [asyncio.create_task(station.live()) for station in bus.stations.values()]
    watches = [asyncio.create_task(_every(0.05, bus.watch)), asyncio.create_task(_every(1.0, bus.report_stats))]
    ended = asyncio.create_task(stopped.wait())
    await asyncio.wait([ended, *lives, *watches], return_when=asyncio.FIRST_COMPLETED)
    broken = next((task for task in (*lives, *watches) if task.done()), None)
    if broken is not None:
        broken.result()
    running.remove_reader(bus.loop)
    bus.failsafe()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FAILSAFE_DEADLINE_S):
            await bus.settled()
    for task in (*lives, *watches):
        task.cancel()
    await asyncio.gather(*lives, *watches, return_exceptions=True)
    await asyncio.gather(*(station.driver.close() for station in bus.stations.values()))


async def _every(period_s: float, call: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(period_s)
        call()
