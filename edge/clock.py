"""Ticks: a timerfd at absolute deadlines, which wakes uvloop without its timers' millisecond grain."""

import ctypes
import errno
import os
import struct
import time

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_ABSTIME = 1
_COUNT = struct.Struct("=Q")


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def _timespec(time_ns: int) -> _Timespec:
    return _Timespec(*divmod(time_ns, 1_000_000_000))


class Ticker:
    """A periodic timer (timerfd_create(2)): readable at `start_ns + n * period_ns` of CLOCK_MONOTONIC, n = 1, 2, …

    `fd` is to be watched; `take` then gives how many periods have passed since the last take. Python has no
    timerfd before 3.13, hence ctypes.
    """

    def __init__(self, start_ns: int, period_ns: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        spec = _Itimerspec(_timespec(period_ns), _timespec(start_ns + period_ns))
        if libc.timerfd_settime(self.fd, _ABSTIME, ctypes.byref(spec), None) != 0:
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


def now_ns() -> int:
    """CLOCK_MONOTONIC."""
    return time.monotonic_ns()
