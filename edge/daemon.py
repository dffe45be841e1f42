"""Starts and watches the processes of a cell: loop, one fieldbus process a protocol, recorder, and who watches them.

All sockets are made before the first fork and stay open here, so that a process that died comes back to the same ones.
"""

import contextlib
import ctypes
import gc
import importlib
import logging
import mmap
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from setproctitle import setproctitle

from edge import channel, fieldbus, loop, recorder, versions
from edge.language.program import Plan
from edge.lock import CannotStart
from edge.record import NoRecord

log = logging.getLogger("edge.daemon")

FIRST_RESTART_S, LAST_RESTART_S, STEADY_S = 0.1, 10.0, 30.0
STOP_S = {"edge-loop": 0.5, "edge-recorder": 1.0, "watcher": 1.0}
FIELDBUS_STOP_S = 2.5
_PR_SET_PDEATHSIG = 1
_COUNT = struct.Struct("Q")
_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_OF_THE_TERMINAL = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
"""What stops a job in a shell: a machine's control cannot stand still while its outputs stay on."""
STOP_BATCH, ABORT_BATCH = signal.SIGUSR1, signal.SIGUSR2
"""What a last watcher is told when the daemon is to end: it brings its batch to an end, then ends itself.

Both are blocked when it starts, until it can take them.
"""
ABORT_S = 2.0
"""How long a batch may take to abort when the daemon is to end at once."""


class Child:
    """One process: what it runs, and how it has fared."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.work = work
        self.pid = 0
        self.started = 0.0
        self.restart_at = 0.0
        self.backoff = FIRST_RESTART_S

    def fork(self) -> None:
        """Starts the process. It ends with the daemon, whatever happens to that."""
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        self.started = time.monotonic()
        if self.pid:
            return
        code = 1
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends these to all; the daemon decides
                signal.signal(number, signal.SIG_IGN)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(0)
            setproctitle(self.name)
            self.work()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            log.exception("%s ended by a fault of edge itself", self.name)
        finally:
            logging.shutdown()
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(code)


class Tally(Mapping[str, int]):
    """How often each process was started again, in memory that the forked ones see too."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.memory = mmap.mmap(-1, 8 * len(self.names))

    def __getitem__(self, name: str) -> int:
        return _COUNT.unpack_from(self.memory, 8 * self.names.index(name))[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: str) -> None:
        _COUNT.pack_into(self.memory, 8 * self.names.index(name), self[name] + 1)


class Wiring(msgspec.Struct, frozen=True):
    """Every pair of sockets: first the loop's (or the fieldbus process's) end, then the other's."""

    drivers: tuple[str, ...]
    fieldbuses: tuple[tuple[socket.socket, socket.socket], ...]
    stats: tuple[tuple[socket.socket, socket.socket], ...]
    commits: tuple[socket.socket, socket.socket]
    journal: tuple[socket.socket, socket.socket]
    watcher: tuple[socket.socket, socket.socket]


def wire(plan: Plan) -> Wiring:
    drivers = tuple(dict.fromkeys(device.driver for device in plan.cell.devices))
    return Wiring(
        drivers,
        tuple(channel.pair() for _ in drivers),
        tuple(channel.pair() for _ in drivers),
        channel.pair(),
        channel.pair(),
        channel.pair(),
    )


class Watcher(msgspec.Struct, frozen=True):
    """The process that watches the loop and commands it: the API, or a terminal. When `last`, its end is the daemon's,
    and it is told to end its batch (STOP_BATCH, ABORT_BATCH) before the daemon ends by a signal.

    `work` gets the plan, the socket to the loop, those from the fieldbus processes, and how often each process was
    restarted.
    """

    name: str
    work: Callable[[Plan, socket.socket, list[socket.socket], Mapping[str, int]], None]
    last: bool = False


class Daemon:
    """The parent. It does no work of its own but to start, watch, restart and end."""

    def __init__(self, plan: Plan, state_dir: Path, watcher: Watcher, core: int | None = None) -> None:
        self.plan = plan
        self.state_dir = state_dir
        self.watcher = watcher
        self.core = core
        self.wiring = wire(plan)
        self.cycles = mmap.mmap(-1, 8)
        self.life = self.run_id = time.time_ns()
        buses = zip(self.wiring.drivers, self.wiring.fieldbuses, self.wiring.stats, strict=True)
        self.loop = Child("edge-loop", self._loop)
        self.recorder = Child("edge-recorder", self._recorder)
        self.buses = [Child(f"edge-{name}", self._fieldbus(name, ends[1], stats[0])) for name, ends, stats in buses]
        self.seat = Child(watcher.name, self._watch)
        self.children = [self.recorder, *self.buses, self.loop, self.seat]
        self.restarts = Tally([child.name for child in self.children])
        self.notify = Notify()
        self.interrupts = 0
        self.end_by = float("inf")

    def _loop(self) -> None:
        wiring = self.wiring
        sockets = loop.Sockets(
            [ends[0] for ends in wiring.fieldbuses],
            wiring.drivers,
            wiring.commits[0],
            wiring.journal[0],
            wiring.watcher[0],
        )
        try:
            plan, restored = self._recalled(), recorder.unfinished(self.state_dir)
        except NoRecord as reason:
            log.error("the loop cannot start: %s", reason)
            raise SystemExit(1) from None
        loop.run(plan, sockets, restored, self.core, self.cycles)

    def _recalled(self) -> Plan:
        """The plan as a process that starts now needs it. Raises NoRecord."""
        return versions.recalled(self.plan, self.state_dir, self.life)

    def _recorder(self) -> None:
        plan = self.plan
        with contextlib.suppress(NoRecord):  # the recorder itself says what is wrong, and tries again
            plan = self._recalled()
        recorder.run(plan, self.state_dir, self.wiring.commits[1], self.wiring.journal[1], self.run_id, self.life)

    def _fieldbus(self, name: str, end: socket.socket, stats: socket.socket) -> Callable[[], None]:
        return lambda: fieldbus.run(self.plan.cell, name, end, stats)

    def _watch(self) -> None:
        plan = self.plan
        with contextlib.suppress(NoRecord):
            plan = self._recalled()
        self.watcher.work(plan, self.wiring.watcher[1], [ends[1] for ends in self.wiring.stats], self.restarts)

    # --- life --------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Runs the cell until it is told to end (SIGTERM, SIGINT, SIGHUP) or a last watcher ends; gives the exit code.

        Raises CannotStart where the batch record cannot be read: what was unfinished would be lost.
        """
        try:
            recorder.unfinished(self.state_dir)
        except NoRecord as reason:
            raise CannotStart(str(reason)) from None
        heeded = _SIGNALS - {number for number in _SIGNALS if signal.getsignal(number) == signal.SIG_IGN}  # nohup
        signal.pthread_sigmask(signal.SIG_BLOCK, heeded | {STOP_BATCH, ABORT_BATCH})
        for number in _OF_THE_TERMINAL:
            signal.signal(number, signal.SIG_IGN)
        setproctitle("edge-daemon")
        importlib.import_module("uvloop")  # most processes need it: they share its memory
        gc.collect()
        gc.freeze()
        for child in self.children:
            child.fork()
        code = self._supervise()
        self._end()
        return code

    def _supervise(self) -> int:
        seen, moved = -1, time.monotonic()
        while True:
            got = signal.sigtimedwait(_SIGNALS, self._pause())
            if got is not None and got.si_signo != signal.SIGCHLD and self._told(got.si_signo):
                return 3 if self.watcher.last else 0
            if time.monotonic() > self.end_by:
                return 3
            for child, status in self._reap():
                if child is self.seat and self.watcher.last:
                    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1
                self._died(child, status)
            now = time.monotonic()
            for child in self.children:
                if not child.pid and now >= child.restart_at:
                    self._restart(child)
            cycle = _COUNT.unpack_from(self.cycles)[0]
            if cycle != seen:
                seen, moved = cycle, now
                self.notify.alive()
            elif now - max(moved, self.loop.started) > 10 and self.loop.pid:
                log.error("the loop has not run a cycle for 10 s: it is ended and started anew")
                os.kill(self.loop.pid, signal.SIGKILL)
                moved = now

    def _told(self, number: int) -> bool:
        """A signal that ends the daemon: whether it ends now. A last watcher ends its batch first.

        Ctrl-C stops the batch, again aborts it, again ends all at once. SIGTERM and SIGHUP leave it ABORT_S.
        """
        if not self.watcher.last or not self.seat.pid:
            return True
        if number != signal.SIGINT:
            self.end_by = min(self.end_by, time.monotonic() + ABORT_S)
        else:
            self.interrupts += 1
        if self.interrupts <= 2:
            os.kill(self.seat.pid, STOP_BATCH if self.interrupts == 1 and number == signal.SIGINT else ABORT_BATCH)
        return self.interrupts > 2

    def _pause(self) -> float:
        now = time.monotonic()
        due = [child.restart_at - now for child in self.children if not child.pid]
        return max(0.01, min([0.5, *due]))

    def _reap(self) -> list[tuple[Child, int]]:
        """Every child that has ended since the last look."""
        ended: list[tuple[Child, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if not pid:
                return ended
            for child in self.children:
                if child.pid == pid:
                    child.pid = 0
                    ended.append((child, status))

    def _died(self, child: Child, status: int) -> None:
        now = time.monotonic()
        if now - child.started > STEADY_S:
            child.backoff = FIRST_RESTART_S
        child.restart_at = now + child.backoff
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        log.error("%s %s; it starts again in %.1f s", child.name, how, child.backoff)
        child.backoff = min(LAST_RESTART_S, child.backoff * 2)

    def _restart(self, child: Child) -> None:
        if child is self.loop:
            self._turn_page()
        self.restarts.add(child.name)
        child.fork()
        log.info("%s is started again", child.name)

    def _turn_page(self) -> None:
        """Before a new life of the loop: all that the last one committed is in the record, and a new run begins there.

        Commands and frames that the last one left behind are void.
        """
        self._stop([self.recorder], STOP_S["edge-recorder"])
        ours = [end for end, _ in (*self.wiring.fieldbuses, self.wiring.watcher)]
        # The recorder's ends are empty unless it was down too: the numbers of one run must not be taken for the next's.
        for end in (*ours, *self.wiring.commits, self.wiring.journal[1]):
            while channel.drain(end):
                pass
        self.run_id = time.time_ns()
        self.recorder.fork()

    def _end(self) -> None:
        """Ends everything in order: the loop, then the outputs at failsafe, then the record, then who watches."""
        self.notify.stopping()
        log.info("ending: outputs go to failsafe")
        self._stop([self.loop], STOP_S["edge-loop"])
        self._stop(self.buses, FIELDBUS_STOP_S)
        self._stop([self.recorder, self.seat], STOP_S["watcher"])

    def _stop(self, children: list[Child], patience_s: float) -> None:
        for child in children:
            if child.pid:
                os.kill(child.pid, signal.SIGTERM)
        until = time.monotonic() + patience_s
        while any(child.pid for child in children) and (left := until - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, left)
            self._reap()
        for child in children:
            if child.pid:
                log.warning("%s did not end in time and is killed", child.name)
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
                child.pid = 0


class Notify:
    """systemd's notifications (sd_notify(3)): ready with the first cycle, the watchdog fed while cycles advance."""

    def __init__(self) -> None:
        self.path = os.environ.get("NOTIFY_SOCKET", "")
        self.ready = False

    def alive(self) -> None:
        self._send("WATCHDOG=1" if self.ready else "READY=1\nWATCHDOG=1")
        self.ready = True

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self.path:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.connect("\0" + self.path[1:] if self.path.startswith("@") else self.path)
            end.send(text.encode())
