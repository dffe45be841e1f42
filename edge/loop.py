"""The control process. Its cycle is visible in three lines: read, step, write. It waits for nobody.

It meets the other processes only through non-blocking SEQPACKET sockets: what does not go out is kept (commits), made
again from the state (output frames), or dropped and counted (records).
"""

import asyncio
import ctypes
import gc
import logging
import mmap
import os
import select
import signal
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge import channel
from edge.clock import Ticker, now_ns
from edge.engine.engine import Engine, Output
from edge.histogram import Histogram
from edge.image import INPUT, arrival, caused, device_of, pack_record, pack_tick
from edge.language.program import Plan
from edge.messages import Commit, Hello, LoopStats, Restore, Snapshot, pack, pack_events, unpack_inward

log = logging.getLogger("edge.loop")

PRIORITY = 80
TICK_NS = 20_000_000
STATS_NS = 1_000_000_000
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_MADV_POPULATE_READ = 22
_LATENCY = "/dev/cpu_dma_latency"
_NEVER_CALLED = ("/libcrypto", "/libssl", "/libsqlite3", "/liblzma", "/unicodedata", "/_decimal", "/locale/")
_CYCLE = struct.Struct("Q")
_HELLO = pack(Hello("loop"))
_GAP = pack(Hello("gap"))
_encode = msgspec.msgpack.Encoder().encode


class Sockets(msgspec.Struct, frozen=True):
    """The loop's ends. `fieldbuses` are in the order of `drivers`: one process for each protocol in use."""

    fieldbuses: Sequence[socket.socket]
    drivers: Sequence[str]
    commits: socket.socket
    journal: socket.socket
    watcher: socket.socket


class Loop:
    """The cycle and what it keeps from one to the next. Cycle n is due at `origin_ns` + n scans (CLOCK_MONOTONIC)."""

    def __init__(self, plan: Plan, sockets: Sockets, restored: Sequence[bytes]) -> None:
        self.plan = plan
        self.sockets = sockets
        self.engine = Engine(plan)
        self.cycle = 0
        self.first = [pack(Restore(batch)) for batch in restored]
        self.incoming = select.epoll()
        for end in (*sockets.fieldbuses, sockets.commits, sockets.journal, sockets.watcher):
            self.incoming.register(end, select.EPOLLIN)
        self.bus_of = [sockets.fieldbuses[sockets.drivers.index(device.driver)] for device in plan.cell.devices]
        self.unsent: set[int] = set()
        self.unacked: OrderedDict[int, bytes] = OrderedDict()
        self.waiting: list[bytes] = []
        self.gap = False
        self.ask_snapshot = True
        self.ask_keyframe = False
        self.skipped = 0
        self.overruns = 0
        self.dropped = 0
        self.lateness = Histogram()
        self.duration = Histogram()
        self.ages = [Histogram() for _ in plan.cell.devices]
        self.cpu_max_ns = 0
        self.origin_ns = 0
        self.arrived_ns = 0
        self.next_tick = self.next_snapshot = self.next_stats = 0
        self.tick_every = max(1, TICK_NS // plan.cell.scan_ns)
        self.stats_every = max(1, STATS_NS // plan.cell.scan_ns)

    def run_cycle(self, cycle: int) -> None:
        """One scan cycle."""
        inputs = self.read(cycle)
        output = self.engine.step(cycle, inputs)
        self.write(inputs, output)

    def read(self, cycle: int) -> list[bytes]:
        """Drains every socket. What only concerns the sending itself (Hello) is dealt with here and goes no further."""
        inputs, self.first = self.first, []
        self.skipped = cycle - self.engine.state.cycle - 1
        self.arrived_ns = 0
        came = {number for number, _ in self.incoming.poll(0)}
        if not came:
            return inputs
        due_ns = self.due_ns(cycle)
        for place, bus in enumerate(self.sockets.fieldbuses):
            for packet in channel.drain(bus) if bus.fileno() in came else ():
                if packet[0] == INPUT:
                    self._arrived(packet, due_ns)
                elif packet[0] == 0 and self._hello(packet, place):
                    continue
                inputs.append(packet)
        for end in (self.sockets.commits, self.sockets.journal, self.sockets.watcher):
            for packet in channel.drain(end) if end.fileno() in came else ():
                if not self._hello(packet, None):
                    inputs.append(packet)
        return inputs

    def _arrived(self, frame: bytes, due_ns: int) -> None:
        """Notes how old a device's values are now that they are used, and when the first came that are new."""
        try:
            device, brings_values, arrived_ns = arrival(frame)
            self.ages[device].add(max(0, due_ns - arrived_ns))
        except (struct.error, IndexError):
            return  # the engine does not take it either
        if brings_values and not 0 < self.arrived_ns < arrived_ns:
            self.arrived_ns = arrived_ns

    def _hello(self, packet: bytes, bus: int | None) -> bool:
        """A process has started anew: it gets what it has missed."""
        try:
            message = unpack_inward(packet)
        except msgspec.MsgspecError:
            return True
        if not isinstance(message, Hello):
            return False
        if bus is not None:
            ours = self.sockets.fieldbuses[bus]
            self.unsent.update(device for device, other in enumerate(self.bus_of) if other is ours)
        elif message.name == "recorder":
            self.waiting = list(self.unacked.values())
        elif message.name == "journal":
            self.ask_keyframe = True
        else:
            self.ask_snapshot = True
        return True

    def write(self, inputs: list[bytes], output: Output) -> None:
        """Sends what the cycle gave: levels first, then what must be durable, then the record of the cycle."""
        cycle, frames = self.engine.state.cycle, output.frames
        for frame in frames:
            device = device_of(frame)
            self.unsent.discard(device)
            sent = caused(frame, self.arrived_ns) if self.arrived_ns else frame
            if not channel.send(self.bus_of[device], sent):
                self.unsent.add(device)
        if self.unsent and not frames:
            for device in tuple(self.unsent):
                if channel.send(self.bus_of[device], self.engine.output_frame(device)):
                    self.unsent.discard(device)
        if cycle >= self.next_tick:
            self.next_tick = cycle + self.tick_every
            tick = pack_tick(cycle, self.due_ns(cycle))
            for bus in self.sockets.fieldbuses:
                channel.send(bus, tick)
        self._commit(output.commit)
        if inputs or frames or output.events or self.skipped:
            self._record(pack_record(cycle, inputs, frames, pack_events(output.events), self.skipped))
        if (self.ask_snapshot or (self.ask_keyframe and not self.gap)) and cycle >= self.next_snapshot:
            self.next_snapshot = cycle + self.tick_every
            self._show_state()
        if cycle >= self.next_stats:
            self.next_stats = cycle + self.stats_every
            channel.send(self.sockets.watcher, pack(self.stats()))

    def _show_state(self) -> None:
        """The engine's whole state: to a watcher who is new, and to the journal, whose replay can start from it."""
        packet = pack(Snapshot(self.engine.state.cycle, _encode(self.engine.state)))
        if self.ask_snapshot:
            self.ask_snapshot = not channel.send(self.sockets.watcher, packet)
        if self.ask_keyframe and not self.gap:
            self.ask_keyframe = not channel.send(self.sockets.journal, packet)

    def _commit(self, commit: Commit | None) -> None:
        acked = self.engine.state.acked
        while self.unacked and next(iter(self.unacked)) <= acked:
            self.unacked.popitem(last=False)
        if commit is not None:
            packet = pack(commit)
            self.unacked[commit.commit] = packet
            self.waiting.append(packet)
        while self.waiting and channel.send(self.sockets.commits, self.waiting[0]):
            self.waiting.pop(0)

    def _record(self, record: bytes) -> None:
        """To the journal and to whoever watches. A reader who has missed one is told: gap, or a new snapshot."""
        if self.gap:
            self.gap = not channel.send(self.sockets.journal, pack_record(self.cycle, [_GAP], [], b""))
        if self.gap or not channel.send(self.sockets.journal, record):
            self.gap = self.ask_keyframe = True
            self.dropped += 1
        if not channel.send(self.sockets.watcher, record):
            self.ask_snapshot = True

    def due_ns(self, cycle: int) -> int:
        return self.origin_ns + cycle * self.plan.cell.scan_ns

    def stats(self) -> LoopStats:
        return LoopStats(
            self.cycle,
            self.overruns,
            self.lateness.times(),
            self.duration.times(),
            self.dropped,
            tuple([one.times() for one in self.ages]),
            self.cpu_max_ns / 1e9,
        )


def make_realtime(core: int | None) -> list[str]:
    """Real-time priority, locked memory, an awake core, a frozen heap; gives what was not permitted, in words."""
    refused: list[str] = []
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError:
        refused.append("real-time priority (CAP_SYS_NICE or LimitRTPRIO)")
    if not _lock_memory():
        refused.append("locked memory (CAP_IPC_LOCK or LimitMEMLOCK)")
    if core is not None:
        try:
            os.sched_setaffinity(0, {core})
        except OSError:
            refused.append(f"core {core}")
    if not _stay_awake():
        refused.append(f"a processor that stays awake ({_LATENCY})")
    gc.collect()
    gc.disable()
    gc.freeze()
    return refused


def _stay_awake() -> bool:
    """Wants no sleep from which the processor needs time to wake (Linux: PM QoS), until the process ends."""
    try:
        os.write(os.open(_LATENCY, os.O_WRONLY | os.O_CLOEXEC), struct.pack("i", 0))
    except OSError:
        return False
    return True


def _lock_memory() -> bool:
    """Reads every page in and keeps it (mlockall(2), madvise(2)), so that no cycle waits for a disk.

    A page that is shared with the parent stays so until it is written, which costs a microsecond then; to copy them all
    beforehand would cost every loop the memory of a whole interpreter. Libraries that no cycle calls are left alone.
    """
    libc = ctypes.CDLL(None)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        return False
    for line in Path("/proc/self/maps").read_text().splitlines():
        area, access = line.split()[:2]
        start, end = (int(number, 16) for number in area.split("-"))
        if access.startswith("r") and not any(name in line for name in _NEVER_CALLED):
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_POPULATE_READ)
    return True


def run(
    plan: Plan,
    sockets: Sockets,
    restored: Sequence[bytes] = (),
    core: int | None = None,
    cycles: mmap.mmap | None = None,
) -> None:
    """The loop process until SIGTERM. It leaves its cycle's number in `cycles`, for the daemon to see it advance."""
    import uvloop  # when there is something to run, not when a cell is checked

    loop = Loop(plan, sockets, restored)
    refused = make_realtime(core)
    if refused:
        log.warning("the loop runs without %s: cycles may come late", ", ".join(refused))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_cycles(loop, cycles))


async def _cycles(loop: Loop, cycles: mmap.mmap | None) -> None:
    """Ticks at multiples of the scan since the start; an overrun skips whole cycles and counts them.

    Lateness is that of the first tick that is due, as cyclictest counts it: an overrun hides nothing.
    """
    loop.origin_ns = now_ns()
    ticker = Ticker(loop.origin_ns, loop.plan.cell.scan_ns)
    running = asyncio.get_running_loop()
    stopped = running.create_future()

    def tick() -> None:
        passed = ticker.take()
        if not passed or stopped.done():
            return
        began, cpu = now_ns(), time.thread_time_ns()
        loop.lateness.add(began - loop.due_ns(loop.cycle + 1))
        loop.cycle += passed
        loop.overruns += passed - 1
        try:
            loop.run_cycle(loop.cycle)
        except Exception as fault:  # a half-run cycle is no state to go on from: the process ends and starts anew
            stopped.set_exception(fault)
            return
        if cycles is not None:
            _CYCLE.pack_into(cycles, 0, loop.cycle)
        loop.duration.add(now_ns() - began)
        loop.cpu_max_ns = max(loop.cpu_max_ns, time.thread_time_ns() - cpu)

    for bus in loop.sockets.fieldbuses:
        channel.send(bus, _HELLO)
    running.add_signal_handler(signal.SIGTERM, lambda: stopped.done() or stopped.set_result(None))
    running.add_reader(ticker.fd, tick)
    await stopped
    running.remove_reader(ticker.fd)
    ticker.close()
