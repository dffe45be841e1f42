"""A serial line as what a link runs over: a terminal of the operating system, 8 data bits, no flow control."""

import asyncio
import contextlib
import errno
import fcntl
import os
import termios
from collections.abc import Callable
from typing import Literal, TypeVar, cast

from drivers.driver import DeviceError
from drivers.value import BAD_CONFIGURATION, BAD_CONNECTION_CLOSED, BAD_NO_COMMUNICATION, BAD_TIMEOUT

Parity = Literal["even", "odd", "none"]
RATES = tuple(
    rate
    for rate in (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 500000, 921600, 1000000)
    if hasattr(termios, f"B{rate}")
)
"""Bits a second that a line of this machine can have."""

P = TypeVar("P", bound=asyncio.Protocol)


class SerialLine:
    """A serial line (drivers.transport.Transport), for edge alone."""

    def __init__(self, path: str, *, baud: int, parity: Parity, stop_bits: int) -> None:
        self.place = path
        self._baud, self._parity, self._stop_bits = baud, parity, stop_bits

    async def open(self, wire: Callable[[], P]) -> P:
        """Opens the line; what it has received before is dropped."""
        line = os.open(self.place, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(line, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._set_up(line)
        except termios.error as error:
            os.close(line)
            raise OSError(*error.args) from error
        except BaseException:
            os.close(line)
            raise
        protocol = wire()
        _Terminal(line, protocol)
        return protocol

    def _set_up(self, line: int) -> None:
        """Raw: bytes as they are, none of them a signal or a line end."""
        control = termios.CS8 | termios.CREAD | termios.CLOCAL
        control |= {"none": 0, "even": termios.PARENB, "odd": termios.PARENB | termios.PARODD}[self._parity]
        control |= termios.CSTOPB if self._stop_bits == 2 else 0
        rate = getattr(termios, f"B{self._baud}")
        check = termios.INPCK if self._parity != "none" else 0  # a wrong byte comes as 0: its frame's check fails
        special = termios.tcgetattr(line)[6]
        special[termios.VMIN], special[termios.VTIME] = 1, 0
        termios.tcflush(line, termios.TCIOFLUSH)
        try:
            termios.tcsetattr(line, termios.TCSANOW, [check, 0, control, 0, rate, rate, special])
        except termios.error:  # also where only the parity is not as wanted: a line without a wire has none
            now = termios.tcgetattr(line)
            if now[2] & termios.CSIZE != termios.CS8 or now[4:6] != [rate, rate]:
                raise

    def refused(self, error: OSError) -> DeviceError:
        """Which of the usual reasons it is."""
        text, hint = f"the serial line {self.place} cannot be opened: {error.strerror or error}", "check `port`"
        status = BAD_NO_COMMUNICATION
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            text = f"there is no serial line {self.place}"
            hint = "is the adapter plugged in? its name does not change under /dev/serial/by-id/"
        elif error.errno in (errno.EACCES, errno.EPERM):
            text = f"edge's user may not open the serial line {self.place}"
            hint, status = (
                "add the user to the group of the line, usually `dialout`, and start edge again",
                BAD_CONFIGURATION,
            )
        elif error.errno in (errno.EWOULDBLOCK, errno.EBUSY):
            text, hint = f"another program uses the serial line {self.place}", "end it: a line has one master"
        elif error.errno in (errno.ENOTTY, errno.EINVAL):
            text, hint = f"{self.place} is no serial line that can be set up so", "check `port`, `baud` and `parity`"
            status = BAD_CONFIGURATION
        return DeviceError(text, hint, status=status)

    def silent(self, timeout_s: float) -> DeviceError:
        """Opening waits for nobody, so the handshake has not come to its end."""
        return DeviceError(
            f"nothing answers on the serial line {self.place} within {timeout_s:g} s", status=BAD_TIMEOUT
        )

    def lost(self, error: Exception | None) -> DeviceError:
        """Only the machine itself can end a line."""
        why = f" ({error})" if error is not None else ""
        return DeviceError(
            f"the serial line {self.place} is gone{why}",
            "was the adapter unplugged? it is opened again by itself",
            status=BAD_CONNECTION_CLOSED,
        )


class _Terminal:
    """What a protocol writes to, and what feeds it: a terminal that is open (as asyncio.Transport)."""

    def __init__(self, line: int, protocol: asyncio.Protocol) -> None:
        self._loop = asyncio.get_running_loop()
        self._line, self._protocol = line, protocol
        self._unsent = b""
        self._ended = False
        protocol.connection_made(cast(asyncio.Transport, self))
        self._loop.add_reader(line, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._line, 4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._end(None)

    def write(self, data: bytes) -> None:
        """Sends when the line takes it."""
        if self._ended:
            return
        if not self._unsent:
            self._loop.add_writer(self._line, self._flush)
        self._unsent += data
        self._flush()

    def _flush(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._line, self._unsent) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        if not self._unsent:
            self._loop.remove_writer(self._line)

    def abort(self) -> None:
        """Closes the line; what was not sent is not."""
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._loop.remove_reader(self._line)
        self._loop.remove_writer(self._line)
        with contextlib.suppress(OSError, termios.error):
            termios.tcflush(self._line, termios.TCIOFLUSH)  # closing would wait for what was not sent
        os.close(self._line)
        self._loop.call_soon(self._protocol.connection_lost, error)
