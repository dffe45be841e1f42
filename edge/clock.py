"""Ticks: a timerfd at absolute deadlines, which wakes uvloop without its timers' millisecond grain."""

import ctypes
import errno
import os
import struct
import time
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_ABSTIME = 1
_COUNT = struct.Struct("=Q")
_SPEC = struct.Struct("@4l")  # struct itimerspec: interval and first time, each in seconds and ns
GRAIN_NS = 100_000

now_ns = time.monotonic_ns
"""CLOCK_MONOTONIC."""


class _TimerFd:
    """timerfd_create(2) on CLOCK_MONOTONIC, non-blocking. Python has none before 3.13, hence ctypes."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self._spec = ctypes.create_string_buffer(_SPEC.size)
        self.fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, first_ns: int, period_ns: int) -> None:
        """Readable at `first_ns` and, where `period_ns` is not 0, once each period after it."""
        _SPEC.pack_into(self._spec, 0, *divmod(period_ns, 1_000_000_000), *divmod(first_ns, 1_000_000_000))
        if self._settime(self.fd, _ABSTIME, self._spec, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def take(self) -> int:
        """Periods passed since the last take; 0 when none has."""
        try:
            return _COUNT.unpack(os.read(self.fd, _COUNT.size))[0]
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return 0
            raise

    def close(self) -> None:
        os.close(self.fd)


class Ticker(_TimerFd):
    """Readable at `start_ns + n * period_ns` of CLOCK_MONOTONIC, n = 1, 2, …

    `fd` is to be watched; `take` then gives how many periods have passed since the last take.
    """

    def __init__(self, start_ns: int, period_ns: int) -> None:
        super().__init__()
        self.set(start_ns + period_ns, period_ns)


class Timer(_TimerFd):
    """Calls at times of CLOCK_MONOTONIC, all through one timerfd. `fd` is to be watched; `run` then calls what is due.

    Calls that are due within GRAIN_NS share a wake-up: some are early by that. None of them may raise.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[int, int, Callable[[], None]]] = []
        self._number = count()
        self._running = False

    def at(self, time_ns: int, call: Callable[[], None]) -> None:
        """Calls once, at the time or, where that is past, at once; not from here."""
        entry = (time_ns, next(self._number), call)
        heappush(self._calls, entry)
        if self._calls[0] is entry and not self._running:
            self._arm()

    def run(self) -> None:
        """Calls what is due, in the order of its times. Setting the timer anew takes what has passed, too."""
        due: list[Callable[[], None]] = []
        calls, until_ns = self._calls, now_ns() + GRAIN_NS
        while calls and calls[0][0] <= until_ns:
            due.append(heappop(calls)[2])
        self._running = True
        for call in due:
            call()
        self._running = False
        if calls:
            self._arm()
        else:
            self.take()

    def _arm(self) -> None:
        self.set(max(1, self._calls[0][0]), 0)  # 0 would mean never
