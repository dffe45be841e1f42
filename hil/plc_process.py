"""A simulated PLC as its parent has it: the port, held between restarts; the process; the exchange of values."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from drivers.value import Value
from edge import channel
from edge.language.cell import Device, Tag
from hil import exchange
from hil.controllers import Controller
from hil.exchange import Assignment, Levels, Refused, Serving, Values

_STOP_DEADLINE_S = 2.0


class Failure(Exception):
    """The simulation cannot start; the text is for a person."""


class PlcProcess:
    """One device. `settings` are those that reach it, None while it does not serve."""

    def __init__(self, device: Device, tags: Sequence[Tag], controller: Controller | None = None) -> None:
        self.device = device
        self.controller = controller
        self.tags = tags
        self.host = ""
        self.port = 0
        self.holder: socket.socket | None = None
        self.settings: dict[str, Any] | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._refusal = ""

    @property
    def place(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def hold(self, host: str, port: int) -> None:
        """Takes the port, 0: any free one. It is bound and not listened to, so that nobody else is given it, not even
        while the process is away. Raises Failure where it is in use.
        """
        self.holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self.holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.holder.bind((host, port))
        except OverflowError:
            raise Failure(
                f"{self.device.name}: there is no port {port}; the last is 65535: choose lower --ports"
            ) from None
        except OSError as error:
            where = f"{host}:{port}" if port else host
            hints = {
                errno.EADDRINUSE: "end what uses it, or choose others with --ports",
                errno.EACCES: "choose --ports above 1023",
            }
            reason = (error.strerror or str(error)).lower()
            hint = hints.get(error.errno or 0, "is it an address of this machine? see --host")
            raise Failure(f"{self.device.name}: cannot listen on {where}: {reason}; {hint}") from error
        self.host, self.port = host, self.holder.getsockname()[1]

    def start(self, sensors: dict[int, Value]) -> None:
        """Starts the process; its memory is empty but for the raw values of `sensors`, by point."""
        self._end, other = channel.pair()
        self._levels = Levels()
        self._refusal = ""
        self.bring(sensors)
        with other, os.fdopen(os.memfd_create("assignment"), "w+b") as file:
            file.write(exchange.pack_assignment(self._assignment()))
            file.flush()
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hil.serve", str(other.fileno())],
                stdin=file,
                pass_fds=[other.fileno()],
                process_group=0,
            )

    def _assignment(self) -> Assignment:
        settings = msgspec.to_builtins(self.device.settings)
        controller = msgspec.to_builtins(self.controller)
        points = [tag.point for tag in self.tags]
        name, driver = self.device.name, self.device.driver
        return Assignment(os.getpid(), name, driver, self.host, self.port, settings, controller, points)

    def bring(self, sensors: dict[int, Value]) -> None:
        """Gives the PLC's memory the raw values of the plant's sensors, by point."""
        self._levels.bring(self._end, sensors)

    def receive(self) -> dict[int, Value]:
        """What clients have written since the last call, raw by point."""
        written: dict[int, Value] = {}
        for packet in exchange.receive(self._end):
            match packet:
                case Serving(settings):
                    self.settings = settings
                case Refused(text):
                    self._refusal = text
                case Values(values):
                    written |= values
        return written

    def ended(self) -> str:
        """How the process ended, in words, once; "" while it runs or is away."""
        if self.process is None or (code := self.process.poll()) is None:
            return ""
        pid = self.process.pid
        self.receive()
        self._end.close()
        self.process, self.settings = None, None
        if self._refusal:
            return f"cannot serve {self.device.driver} on {self.place}: {self._refusal}"
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended by itself (exit code {code})"
        return f"its PLC process {pid} {how}"

    def terminate(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def close(self) -> None:
        """Waits for the end of a process that was told to terminate, and gives up the port."""
        if self.process is not None:
            try:
                self.process.wait(_STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
            self._end.close()
        if self.holder is not None:
            self.holder.close()
            self.holder = None
