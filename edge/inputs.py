"""The input frames of one device: its raw values in the tags' units, packed anew only where a scan has changed them."""

from array import array
from collections.abc import Callable, Sequence
from math import isfinite
from operator import itemgetter
from typing import Any

from drivers.blocks import runs
from drivers.value import BAD_OUT_OF_RANGE, Scan, Value, from_raw, is_good
from edge.image import Layout
from edge.language.cell import Tag

FULL_FRAME_NS = 1_000_000_000
"""A full frame goes out at least this often, so that a reader who has missed one has the values again."""


class Inputs:
    """What a device's scans gave, as frames for the loop. `send` gives a frame to it, and whether it has gone out."""

    def __init__(self, layout: Layout, tags: Sequence[Tag], send: Callable[[bytes], bool]) -> None:
        self._layout = layout
        self._tags = tags
        self._send = send
        self._scaled = [(place, tag.scale.from_raw) for place, tag in enumerate(tags) if tag.scale is not None]
        floats = [place for place, tag in enumerate(tags) if tag.type.kind == "float"]
        self._floats: Callable[[Sequence[Any]], tuple[Any, ...]]
        self._floats = itemgetter(*floats, *floats[:1]) if floats else lambda raw: ()
        self._packed: tuple[int, bytes] | None = None
        self._time_ns = 0
        self._full_at_ns = 0

    def take(self, scan: Scan) -> bool:
        """A scan's values, converted only where there is something new; gives whether there was."""
        self._time_ns = scan.time_ns
        if not scan.changed and self._packed is not None:
            return False
        self._packed = self._layout.pack_body(*self._converted(scan), scan.times)
        self._full_at_ns = 0
        return True

    def forget(self) -> None:
        """The device is lost: its next scan is new, whatever it brings."""
        self._packed = None

    def send(self, number: int, now_ns: int, *, full: bool = False) -> None:
        """The frame of scan `number`, which came at `now_ns`: its values, or that none has changed since the last."""
        if self._packed is None:
            return
        if not full and now_ns < self._full_at_ns:
            self._send(self._layout.pack_unchanged(number, now_ns, self._time_ns))
            return
        gone = self._send(self._layout.with_body(number, now_ns, self._time_ns, self._packed))
        self._full_at_ns = now_ns + FULL_FRAME_NS if gone else 0

    def send_bad(self, number: int, now_ns: int, status: int) -> None:
        """The device has not answered for too long: all its values have this status, until its next scan."""
        count = len(self._tags)
        self._send(self._layout.pack_input(number, now_ns, self._time_ns, [None] * count, [status] * count))
        self._packed = None

    def _converted(self, scan: Scan) -> tuple[Sequence[Value | None], Sequence[int] | None]:
        """Values in the tags' units, and their StatusCodes, None where all are good."""
        raw = scan.values
        if not any(scan.statuses) and self._finite(raw):
            if not self._scaled:
                return raw, None
            values = list(raw)
            for place, scaled in self._scaled:
                values[place] = scaled(raw[place])  # type: ignore[arg-type]
            return values, None
        found = [from_raw(one, tag.scale) for one, tag in zip(raw, self._tags, strict=True)]
        statuses = [
            BAD_OUT_OF_RANGE if value is None and is_good(status) else status
            for value, status in zip(found, scan.statuses, strict=True)
        ]
        return found, statuses if any(statuses) else None

    def _finite(self, raw: Sequence[Any]) -> bool:
        """Whether every float is a number (an infinity in the sum may be none of them: they are then looked at)."""
        try:
            for part in runs(raw):
                if part is raw and not isinstance(part, array):
                    return isfinite(sum(self._floats(raw)))
                whole = isinstance(part, array) and part.typecode not in "fd"
                if not whole and not isfinite(sum(part)):
                    return False
        except TypeError:  # a text or a None among them
            return False
        return True
