"""What a driver is: connect, scan, write, browse, close; its errors; how it is found."""

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Annotated, Any, ClassVar, Literal, Protocol

import msgspec

from drivers.value import DataType, Scan, Value

File = Annotated[str, msgspec.Meta(extra={"path": True})]
"""A path among a driver's settings: relative to the file that names it, and made absolute when that is read."""


MAX_AGE_S = 0.5
"""How old a value may be where the cell says nothing: a packet lost on the way is sent again within (Linux: 200 ms)."""


class Point(msgspec.Struct, frozen=True):
    """A tag as a driver sees it: where it is at the device and how its bytes lie. Values here are raw (unscaled)."""

    name: str
    address: str
    type: DataType
    writable: bool = False
    byte_order: Literal["big", "little"] = "big"
    word_order: Literal["big", "little"] = "big"


class AddressError(ValueError):
    """An address that this driver cannot read, with what was expected; raised while a cell is checked."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SettingError(ValueError):
    """Settings that cannot be so, each of them right by itself: the key to blame, what is wrong, what to do.

    Raised by `__post_init__` of a driver's Settings, or of a part of them.
    """

    def __init__(self, key: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.hint = hint


class DeviceError(Exception):
    """A device that cannot be used now. `text` says what happened, `hint` what a technician does about it."""

    def __init__(self, text: str, hint: str = "", *, status: int) -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint
        self.status = status


class Node(msgspec.Struct, frozen=True):
    """One thing that a device offers, found by `browse`: its address in the cell file's form, its type, a name."""

    address: str
    type: str
    name: str
    writable: bool


class Driver(Protocol):
    """One device. Made for its settings and points; used by one task at a time.

    Modules of drivers import their library only where they connect, so that checking a cell stays quick.
    """

    Settings: ClassVar[type[msgspec.Struct]]
    """The device's keys in the cell file, without `driver` and `every`; host, port, timeout… with defaults."""

    troubles: dict[str, str]
    """Point name -> what is wrong with it alone and what to do (a block that may not be read…); kept by `scan`."""

    def __init__(self, settings: Any, points: Sequence[Point], connections: dict[str, Any]) -> None:
        """`connections` is shared by all devices of a process: one host and port, one connection."""
        ...

    @staticmethod
    def check(point: Point) -> None:
        """Raises AddressError where the point's address, type or orders are not of this protocol."""
        ...

    async def connect(self) -> None:
        """Connects within the device's own deadline, or raises DeviceError. Harmless when connected."""
        ...

    async def scan(self) -> Scan:
        """Reads every point, in as few requests as the device stands; what has not changed is not decoded again.

        Raises DeviceError when the device is lost; a point that it refuses has a bad status and an entry in `troubles`.
        """
        ...

    async def write(self, values: Mapping[int, Value]) -> Mapping[int, int]:
        """Writes raw values {index of the point: value}; gives {index: StatusCode}, good where the device confirmed.

        Raises DeviceError when the device is lost: then nothing is known of any of them.
        """
        ...

    async def browse(self) -> Sequence[Node]:
        """What the device offers; empty where its protocol cannot tell."""
        ...

    async def identify(self) -> Mapping[str, str]:
        """What the device says of itself, by name (`vendor`, `product`, `version`…); empty where it does not tell.

        Raises DeviceError when the device is lost.
        """
        ...

    async def close(self) -> None:
        """Ends session and connection within the deadline; never raises."""
        ...


def names() -> list[str]:
    """The drivers that are installed (entry points of group `edge.drivers`)."""
    return sorted({found.name for found in entry_points(group="edge.drivers")})


def find(name: str) -> type[Driver]:
    """The driver class of this name. Raises KeyError where none is installed."""
    for found in entry_points(group="edge.drivers"):
        if found.name == name:
            return found.load()
    raise KeyError(name)
