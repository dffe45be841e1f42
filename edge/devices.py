"""A device as a watcher sees it: whether it is there, and its last frames, taken apart only when somebody looks."""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from drivers.value import BAD_NO_COMMUNICATION, BAD_WAITING, GOOD, Value, is_good, status_name
from edge.batch import State
from edge.engine import words
from edge.image import Layout
from edge.language.cell import Device, Tag
from edge.messages import DeviceReport, DeviceStats, TagReport

Json = dict[str, Any]


def iso(time_ns: int | None) -> str | None:
    """ns since 1970 as RFC 3339 in UTC, to the millisecond."""
    if time_ns is None:
        return None
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _key(trouble: TagReport) -> str:
    """The engine's name of the alarm of a tag that is in trouble."""
    return f"tag:{trouble.tag}:{'write' if trouble.write else 'read'}"


class DeviceView:
    """One device: whether it is there, its last frames (taken apart when somebody looks), its figures.

    `report` is the last that was said of it: why it is down; `troubles` what is wrong with single tags.
    """

    def __init__(self, device: Device, layout: Layout, tags: Sequence[Tag]) -> None:
        self.device = device
        self.tags = tags
        self.report = DeviceReport(device.index, False, BAD_WAITING, "not connected yet")
        self.seen = 0
        self.time_ns: int | None = None
        self.stats: DeviceStats | None = None
        self.troubles: dict[int, TagReport] = {}
        self.levels: dict[int, Value | None] = dict.fromkeys(layout.outputs)
        self._layout = layout
        self._unchanged = len(layout.pack_unchanged(0, 0, 0))
        self._statuses: Sequence[int] = ()
        self._values: Sequence[Value | None] = ()
        self._times: Sequence[int] | None = None
        self._frame: bytes | None = None
        self._latest: bytes | None = None
        self._output: bytes | None = None
        self.turn_bad(BAD_WAITING)

    def turn_bad(self, status: int) -> None:
        """Forgets every value: none is good until a frame brings new ones."""
        self._frame = self._latest = self._times = None
        self._values = [None] * len(self.tags)
        self._statuses = [status] * len(self.tags)

    @property
    def up(self) -> bool:
        return self.report.up

    def lose(self, status: int, text: str, hint: str = "") -> None:
        self.take_report(DeviceReport(self.device.index, False, status, text, hint))

    def take_report(self, report: DeviceReport) -> None:
        self.report = report
        if not report.up:
            self.turn_bad(report.status)

    def take_trouble(self, trouble: TagReport) -> None:
        for tag in (trouble.tag, *trouble.others):
            if not is_good(trouble.status):
                self.troubles[tag] = trouble
            elif tag in self.troubles and self.troubles[tag].write == trouble.write:
                del self.troubles[tag]

    def take(self, frame: bytes, cycle: int) -> None:
        """An input frame. One that says `unchanged` counts only while the device is up, as in the engine."""
        if self.tags and len(frame) == self._unchanged:
            if self.up:
                self._latest, self.seen = frame, cycle
            return
        self._frame = self._latest = frame
        self.seen = cycle
        if not self.up:
            self._find()

    def _find(self) -> None:
        self.report = DeviceReport(self.device.index, True, GOOD)

    def take_levels(self, frame: bytes) -> None:
        self._output = frame

    def restore(self, state: State) -> None:
        """The device as the engine has it."""
        layout, index = self._layout, self.device.index
        self.turn_bad(BAD_WAITING)
        self._values = state.values[layout.first : layout.end]
        self._statuses = state.statuses[layout.first : layout.end]
        self._output = None
        self.levels = {tag: state.levels[tag] for tag in layout.outputs}
        self.seen = state.seen[index]
        self.troubles = {tag: one for tag, one in self.troubles.items() if _key(one) in state.alarm_keys}
        self.report = state.reports[index]

    def readings(self) -> Iterable[tuple[Tag, Value | None, int, int | None]]:
        """(tag, value, StatusCode, source time) of each tag; the value is None unless its status is good."""
        self._decode()
        for place, tag in enumerate(self.tags):
            status = self._statuses[place]
            trouble = self.troubles.get(tag.index)
            if trouble is not None and not trouble.write and is_good(status):
                status = trouble.status
            time_ns = self._times[place] if self._times is not None else self.time_ns
            yield tag, self._values[place] if is_good(status) else None, status, time_ns

    def _decode(self) -> None:
        """Takes the frames apart that have come since the last look. One of another shape makes its values bad."""
        try:
            if self._latest is not None:
                taken = self._layout.unpack_input(self._latest)
                self.time_ns, self._latest = taken.time_ns, None
            if self._frame is not None:
                taken = self._layout.unpack_input(self._frame)
                self._frame = None
                self._values = taken.values or ()
                self._statuses = taken.statuses or [GOOD] * len(self.tags)
                self._times = taken.times
            if self._output is not None:
                _, levels = self._layout.unpack_output(self._output)
                self.levels = dict(zip(self._layout.outputs, levels, strict=True))
                self._output = None
        except struct.error:
            self._output = None
            self.turn_bad(BAD_NO_COMMUNICATION)

    def tag_states(self, owner: str | None) -> Json:
        """Each tag, ready for JSON. `owner` is the batch that owns the device."""
        found: Json = {}
        last: tuple[int | None, str | None] = (None, None)
        for tag, value, status, time_ns in self.readings():
            if time_ns != last[0]:
                last = (time_ns, iso(time_ns))
            entry: Json = {"value": value, "quality": status_name(status), "time": last[1], "unit": tag.unit}
            entry["kind"] = "float" if tag.scale is not None else tag.type.kind
            if tag.writable:
                entry |= {"level": self.levels[tag.index], "owner": owner}
            if tag.index in self.troubles:
                trouble = self.troubles[tag.index]
                entry["trouble"] = trouble.text
                entry["trouble_say"] = words.reason(trouble.status)
            found[tag.name] = entry
        return found

    def state(self) -> Json:
        """The device itself, ready for JSON: why it is down for an operator (`say`) and for a technician."""
        stats, report = self.stats, self.report
        return {
            "driver": self.device.driver,
            "up": report.up,
            "say": {} if report.up else words.why_lost(report.status),
            "reason": report.text,
            "hint": report.hint,
            "every_s": self.device.every_ns / 1e9,
            "scans": stats.scans if stats else 0,
            "errors": stats.errors if stats else 0,
        }
