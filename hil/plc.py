"""What a simulated PLC is: a server of one real protocol over the memory that a cell's points need."""

from collections.abc import Sequence
from typing import Any, Protocol

from drivers.driver import Point
from drivers.value import Value


class SimulatedPlc(Protocol):
    """A simulated device. Its memory covers every point; values here are raw, as the device's program sees them."""

    def __init__(self, name: str, points: Sequence[Point], settings: Any, controller: Any = None) -> None:
        """`settings` is the device's Settings of the cell file: unit, rack and slot, security, user…

        `controller` is how it is set up (hil.controllers); left out, it allows everything.
        """
        ...

    async def start(self, host: str, port: int) -> dict[str, Any]:
        """Serves on host and port (0: any free one) and gives the connection settings that reach it.

        These are keys of the device in a cell file: `{host, port}`, or `{url, security, user, password, trust}`.
        Raises OSError where the port is in use.
        """
        ...

    def read(self, index: int) -> Value:
        """The raw value of point `index` as it lies in memory now (a client may have written it)."""
        ...

    def write(self, index: int, value: Value) -> None:
        """The device's own program puts a raw value into memory."""
        ...

    async def stop(self) -> None:
        """Closes every connection and the port."""
        ...
