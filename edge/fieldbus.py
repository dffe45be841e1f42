"""The I/O processes, one for each protocol: scans, writes until read back, failsafe when the loop falls silent."""

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial

from drivers.driver import DeviceError, Driver, find
from drivers.link import Backoff
from drivers.value import BAD_COMMUNICATION, BAD_OUT_OF_RANGE, BAD_TIMEOUT, GOOD, Scan, Value, is_good
from edge import channel
from edge.clock import GRAIN_NS, Timer, now_ns
from edge.engine.words import english, some
from edge.histogram import Histogram
from edge.image import OUTPUT, TICK, Layout, device_of, since_cause, unpack_tick
from edge.inputs import Inputs
from edge.language.cell import Cell, Device
from edge.messages import DeviceReport, DeviceStats, Hello, TagReport, pack
from edge.outputs import Outputs
from edge.phase import Lead, Phase, Turns
from edge.troubles import Troubles

log = logging.getLogger("edge.fieldbus")

PRIORITY = 70
"""Below the loop's: answers are to be there in time for its tick, but never in its way."""

FAILSAFE_DEADLINE_S = 1.5
ASLEEP_NS = 50_000_000
"""A call that comes so late means that this process itself did not run."""

PATIENCE_NS = 1_250_000_000
"""A device whose values are too old for so long is lost, though its `timeout` be longer."""

SAID_AGAIN_NS = 60_000_000_000
FIRST_RETRY_S, LAST_RETRY_S = 0.2, 10.0


class Station:
    """One device: its connection, its scans, its outputs. `share` (0 to 1) is its place among the bus's scans."""

    def __init__(self, bus: "Fieldbus", device: Device, driver: Driver, share: float) -> None:
        self.bus = bus
        self.device = device
        self.driver = driver
        self.layout = Layout(bus.cell, device)
        self.tags = [bus.cell.tags[index] for index in device.tags]
        places = [index - self.layout.first for index in self.layout.outputs]
        self.inputs = Inputs(self.layout, self.tags, bus.send)
        self.outputs = Outputs(self.tags, places, self._refuse)
        self.failsafe = [self.tags[place].failsafe for place in places]
        self.unread = Troubles(partial(self._tell_trouble, write=False), partial(self._say_trouble, write=False))
        self.unset = Troubles(partial(self._tell_trouble, write=True), partial(self._say_trouble, write=True))
        self.not_taken: dict[int, tuple[int, str]] = {}
        self.up: bool | None = None
        self.stale = self.stale_said = False
        self.said: set[str] = set()
        self.turns = Turns(device.every_ns, now_ns() + int(share * device.every_ns))
        self.lead = Lead()
        self.start_ns = self.heard_ns = self.look_ns = self.stale_again_ns = 0
        self.begins = self.wanted = self.watched = False
        self.arrived_ns: int | None = None
        self.sleeper: asyncio.Future[None] | None = None
        self.scans = self.errors = self.writes = 0
        self.took, self.reaction = Histogram(), Histogram()

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
        """Scans in its turns and writes what differs, until the device is lost (DeviceError)."""
        running = asyncio.get_running_loop()
        self.outputs.forget()
        await self._scan()
        backoff.reset()
        while True:
            self.begins, self.wanted = False, True
            self.start_ns = self.turns.next(self.bus.phase, now_ns(), self.lead.lead_ns)
            self.bus.timer.at(self.start_ns, self._on_time)
            while not self.begins:
                if self.wanted:
                    self.wanted = False
                    await self._write()
                else:
                    self.sleeper = running.create_future()
                    await self.sleeper
            changed = await self._scan()
            self.lead.add(now_ns() - self.start_ns, changed=changed)

    def _on_time(self) -> None:
        if now_ns() + GRAIN_NS >= self.start_ns:  # a turn from before the device was lost does not count
            self.begins = True
            self._wake()

    def _wake(self) -> None:
        if self.sleeper is not None and not self.sleeper.done():
            self.sleeper.set_result(None)

    async def _scan(self) -> bool:
        began_ns = now_ns()
        scan = await self.driver.scan()
        ended_ns = now_ns()
        self.took.add(ended_ns - began_ns)
        self.heard_ns = ended_ns if scan.heard_ns is None else scan.heard_ns
        self.scans += 1
        if ended_ns < self.heard_ns + self.device.max_age_ns:
            self._take(scan)
        else:
            self.inputs.forget()
        if not self.watched:
            self._watch_age()
        self.bus.scanned.set()
        return scan.changed

    def _take(self, scan: Scan) -> None:
        """Values that may be used, from a device that is there."""
        if not self.up:
            self._report_found()
        if self.stale:
            self.stale = False
            self._report_fresh()
        self._look_at_troubles(scan.statuses)
        if self.inputs.take(scan):
            self.outputs.show(scan.values)
        self.inputs.send(self.scans, self.heard_ns)

    # --- no value is used that is older than its limit ---------------------------------------------------------------

    def _watch_age(self) -> None:
        self.watched = True
        self._look_at(self.heard_ns + self.device.max_age_ns)

    def _look_at(self, time_ns: int) -> None:
        self.look_ns = time_ns
        self.bus.timer.at(time_ns, self._look_at_age)

    def _look_at_age(self) -> None:
        """A device that has not answered for `max_age` has no good values, though its connection may still be there."""
        self.watched, now = False, now_ns()
        if not self.up or self.stale:
            return
        if now + GRAIN_NS < self.heard_ns + self.device.max_age_ns:
            self._watch_age()
            return
        if now > self.look_ns + ASLEEP_NS:  # this process has not run meanwhile: its devices get their turn first
            self.watched = True
            self._look_at(now + self.device.every_ns)
            return
        self.stale = True
        self._report_stale(now)
        self.inputs.send_bad(self.scans, now, BAD_TIMEOUT)
        self.bus.timer.at(now + PATIENCE_NS, self._look_whether_lost)
        self.bus.scanned.set()

    def _look_whether_lost(self) -> None:
        """Its connection may be given more time yet, but for the recipe the device is lost."""
        silent_ns = now_ns() + GRAIN_NS - self.heard_ns
        if self.up and self.stale and silent_ns >= self.device.max_age_ns + PATIENCE_NS:
            text = f"no answer for {silent_ns / 1e9:.1f} s"
            hint = "is the device running? where it is only slow, give it a longer `max_age`"
            self._report_lost(DeviceError(text, hint, status=BAD_TIMEOUT))

    def _report_stale(self, now: int) -> None:
        """Once a minute at most: a device that is always too slow does not fill the log."""
        if now >= self.stale_again_ns:
            self.stale_again_ns, self.stale_said = now + SAID_AGAIN_NS, True
            name, age_s = self.device.name, self.device.max_age_ns / 1e9
            hint = "where it is only slow, give it a longer `max_age`"
            log.warning("%s: no answer for %g s: its values are too old to be used (%s)", name, age_s, hint)

    def _report_fresh(self) -> None:
        if self.stale_said:
            log.info("%s: answers again", self.device.name)
        self.stale_said = False

    # --- reports -----------------------------------------------------------------------------------------------------

    def _report_found(self) -> None:
        self.up = True
        self.said.clear()
        log.info("%s: connected", self.device.name)
        self.bus.tell(DeviceReport(self.device.index, True, GOOD))

    def _report_lost(self, error: DeviceError) -> None:
        if error.text not in self.said:  # each reason once while it is away
            self.said.add(error.text)
            hint = f" ({error.hint})" if error.hint else ""
            log.warning("%s: %s%s", self.device.name, error.text, hint)
        self.up = self.stale = self.stale_said = False
        self.inputs.forget()
        self.bus.scanned.set()
        self.bus.tell(DeviceReport(self.device.index, False, error.status, error.text, error.hint))

    def report(self) -> None:
        """All that the loop must know of this device, for a loop that has just started."""
        if not self.up:
            return
        self.bus.tell(DeviceReport(self.device.index, True, GOOD))
        if self.stale:
            self.inputs.send_bad(self.scans, now_ns(), BAD_TIMEOUT)
        else:
            self.inputs.send(self.scans, self.heard_ns, full=True)
        self.unread.again()
        self.unset.again()

    def _look_at_troubles(self, statuses: Sequence[int]) -> None:
        """Tags that the device refuses to give."""
        if not self.driver.troubles:
            self.unread.take({})
            return
        texts = [self.driver.troubles.get(tag.name) for tag in self.tags]
        self.unread.take(
            {
                place: (BAD_OUT_OF_RANGE if is_good(status) else status, text)
                for place, (status, text) in enumerate(zip(statuses, texts, strict=True))
                if text is not None
            }
        )

    def _refuse(self, place: int, status: int, text: str) -> None:
        """An output that the device does not take, or (text "") takes again."""
        if text:
            self.not_taken[place] = status, text
        else:
            self.not_taken.pop(place, None)

    def _tell_trouble(self, places: Sequence[int], status: int, text: str, *, write: bool) -> None:
        first, *others = (self.tags[place].index for place in places)
        self.bus.tell(TagReport(first, status, text, write, tuple(others)))

    def _say_trouble(self, places: Sequence[int], text: str, *, write: bool) -> None:
        what = "could not be set" if write else "cannot be read"
        what = f"{what}: {text}" if text else "can be set again" if write else "can be read again"
        log.warning("%s %s", english(some([self.tags[place].name for place in places])), what)

    # --- outputs -----------------------------------------------------------------------------------------------------

    def want(self, levels: Sequence[Value | None], arrived_ns: int | None = None) -> None:
        """New desired levels of the outputs, in the layout's order, and when the inputs came that changed with them."""
        self.outputs.want(levels)
        if arrived_ns is not None:
            self.arrived_ns = arrived_ns
        self._changed()

    def want_failsafe(self) -> None:
        self.outputs.silence(self.failsafe)
        self._changed()

    def _changed(self) -> None:
        """Other levels are desired."""
        self.unset.take(self.not_taken)
        self.wanted = True
        self._wake()

    @property
    def settled(self) -> bool:
        """Every output was read back as desired (or the device is not there)."""
        return not self.up or not self.outputs.open

    async def _write(self) -> None:
        """Sends the levels that differ from what was read back."""
        arrived_ns, self.arrived_ns = (
            self.arrived_ns,
            None,
        )  # also where nothing is to be sent: a later write has another
        values = self.outputs.due(time.monotonic()) if self.outputs.open else None
        self.unset.take(self.not_taken)
        if not values:
            return
        self.writes += len(values)
        statuses = await self.driver.write(values)
        if arrived_ns is not None and not any(statuses.values()):
            self.reaction.add(now_ns() - arrived_ns)
        self.outputs.answered(statuses, lambda place: self.tags[place].name in self.driver.troubles)
        self.unset.take(self.not_taken)

    def stats(self) -> DeviceStats:
        up, took, reaction = bool(self.up), self.took.times(), self.reaction.times()
        return DeviceStats(self.device.index, up, self.scans, self.errors, self.writes, took, reaction)


class Fieldbus:
    """The process of one protocol: its stations, and its sockets to the loop and to whoever watches."""

    def __init__(self, cell: Cell, protocol: str, loop: socket.socket, watcher: socket.socket) -> None:
        self.cell = cell
        self.loop = loop
        self.watcher = watcher
        self.phase = Phase(cell.scan_ns)
        self.timer = Timer()
        self.scanned = asyncio.Event()
        self.heard_ns = now_ns()
        self.silent = False
        self.protocol = protocol
        driver, connections = find(protocol), dict[str, object]()
        devices = [device for device in cell.devices if device.driver == protocol]
        self.stations: dict[int, Station] = {}
        for number, device in enumerate(devices):
            points = [cell.tags[index].point for index in device.tags]
            made = driver(device.settings, points, connections)
            self.stations[device.index] = Station(self, device, made, number / len(devices))

    def open(self) -> None:
        """Listens from now on, and tells the loop that it does."""
        running = asyncio.get_running_loop()
        running.add_reader(self.loop, self.take)
        running.add_reader(self.timer.fd, self.timer.run)
        self.tell(Hello("fieldbus"))

    def close(self) -> None:
        running = asyncio.get_running_loop()
        running.remove_reader(self.loop)
        running.remove_reader(self.timer.fd)
        self.timer.close()

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
                self._hear(packet)
            else:
                for station in self.stations.values():
                    station.report()
        if self.silent:
            return
        for device, packet in newest.items():
            station, now = self.stations[device], now_ns()
            since = since_cause(packet, now)
            station.want(station.layout.unpack_output(packet)[1], None if since is None else now - since)

    def _hear(self, tick: bytes) -> None:
        self.heard_ns = now_ns()
        self.phase.hear(*unpack_tick(tick))
        if self.silent:
            log.warning("%s: the loop is back", self.protocol)
            self.silent = False
            self.tell(Hello("fieldbus"))

    def watch(self) -> None:
        """Drives every output to failsafe when the loop has missed its cycles."""
        if not self.silent and now_ns() - self.heard_ns > self.cell.silence_ns:
            self.silent = True
            log.warning("%s: the loop is silent: outputs go to failsafe", self.protocol)
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
    import uvloop  # when there is something to run, not when a cell is checked

    with contextlib.suppress(OSError):  # where it may not, the loop says so for both; threads (keys, names) have none
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(Fieldbus(cell, protocol, loop, watcher)))


async def _serve(bus: Fieldbus) -> None:
    running, stopped = asyncio.get_running_loop(), asyncio.Event()
    running.add_signal_handler(signal.SIGTERM, stopped.set)
    bus.open()
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
    bus.close()


async def _every(period_s: float, call: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(period_s)
        call()
