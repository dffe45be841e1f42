"""The outputs of one device: what is desired, what was sent, what the device shows. Without a socket and a clock."""

import struct
from collections.abc import Callable, Mapping, Sequence

from drivers.value import (
    BAD_ACCESS_DENIED,
    BAD_NODE_UNKNOWN,
    BAD_NOT_WRITABLE,
    BAD_OUT_OF_RANGE,
    BAD_TYPE_MISMATCH,
    BAD_WAITING,
    GOOD,
    Value,
    is_good,
    status_name,
    to_raw,
)
from edge.language.cell import Tag

WRITE_AGAIN_S = 0.5

_WRITE_REFUSALS = {
    BAD_ACCESS_DENIED: "the device does not let edge's user set it: see the user's rights there",
    BAD_NODE_UNKNOWN: "the device has no such address",
    BAD_NOT_WRITABLE: "the device does not let it be set: see its write protection there",
    BAD_OUT_OF_RANGE: "the device does not take {raw}",
    BAD_TYPE_MISMATCH: "the device has another type there: compare the tag's `type`",
    BAD_WAITING: "the device is busy",
}


def write_refusal(status: int, raw: Value) -> str:
    """Why a device has not taken a raw value, in words."""
    return _WRITE_REFUSALS.get(status, f"the device refuses it ({status_name(status)})").format(raw=raw)


def as_read_back(tag: Tag, level: Value) -> Value:
    """A level as the raw value that the device will show: whole, or rounded to the float's size. Raises ValueError."""
    raw = to_raw(level, tag.type, tag.scale)
    if tag.type.name == "float32":
        return struct.unpack("<f", struct.pack("<f", raw))[0]
    return raw


def _at_rest(tag: Tag) -> Value | None:
    """The raw value of a tag at its failsafe."""
    return None if tag.failsafe is None else as_read_back(tag, tag.failsafe)


class Outputs:
    """The desired levels of a device, each sent until the device shows it. Only those that are `open` cost anything.

    One that is an edge (`Tag.once`) is sent once for each change away from its failsafe: a second one would command the
    machine again, which may have taken the first back, whatever became of the answer. One that is there when this
    process starts counts as sent. Back at its failsafe it is a level as the others.

    `places` are the outputs' among the device's `tags`. `refuse` is told (place, StatusCode, text) of each output that
    the device does not take, once a reason, and with text "" when that is over.
    """

    def __init__(self, tags: Sequence[Tag], places: Sequence[int], refuse: Callable[[int, int, str], None]) -> None:
        self._tags = tags
        self._places = places
        self._tell = refuse
        self._levels: Sequence[Value | None] = [None] * len(places)
        self._sent: dict[int, tuple[Value, float, int]] = {}
        self._refused: dict[int, str] = {}
        self._shown: Sequence[Value | None] | None = None
        self._edges = {place: _at_rest(tags[place]) for place in places if tags[place].once}
        self._spent: set[int] = set()
        self._silenced: dict[int, Value] = {}
        self.desired: dict[int, Value] = {}
        self.open: set[int] = set()

    def want(self, levels: Sequence[Value | None]) -> None:
        """New desired levels, in the order of `places`; None leaves one as it is."""
        for place, level, before in zip(self._places, levels, self._levels, strict=True):
            if level is None or (level == before and type(level) is type(before)):
                continue
            try:
                raw = self.desired[place] = as_read_back(self._tags[place], level)
                self.open.add(place)
                self._spent.discard(place)
                if self._is_edge(place, raw) and (before is None or self._silenced.get(place) == raw):
                    self._spent.add(place)
            except ValueError as error:
                self._refuse(place, BAD_OUT_OF_RANGE, str(error))
        self._levels = levels
        self._silenced = {}

    def silence(self, failsafe: Sequence[Value | None]) -> None:
        """Nobody says what is desired: failsafe. An edge that is still there when somebody does is no new one."""
        given = {place: raw for place, raw in self.desired.items() if self._is_edge(place, raw)}
        self.want(failsafe)
        self._silenced = given

    def _is_edge(self, place: int, raw: Value) -> bool:
        """Whether this value commands the machine by its change."""
        return place in self._edges and self._edges[place] != raw

    def forget(self) -> None:
        """The device is another one now, or the same after a loss: what it shows is not known."""
        self._shown = None
        self._sent.clear()
        self.open.update(self.desired)

    def show(self, values: Sequence[Value | None]) -> None:
        """The device's values have changed, or are known again: what it has forgotten is sent again."""
        self._shown = values
        if self.desired:
            self.open.update(place for place, raw in self.desired.items() if values[place] != raw)

    def due(self, now_s: float) -> dict[int, Value]:
        """{place: raw value} of what is to be sent now; what was just sent waits for its read-back."""
        values: dict[int, Value] = {}
        for place in sorted(self.open):
            raw = self.desired[place]
            if place in self._spent:
                self.open.discard(place)
                continue
            sent, again_s, times = self._sent.get(place, (raw, 0.0, 0))
            shown = None if self._shown is None else self._shown[place]
            if self._shown is not None and shown == raw == sent:
                self._sent.pop(place, None)
                self._refuse(place, GOOD, "")
                self.open.discard(place)
                continue
            if sent != raw:
                again_s, times = 0.0, 0
            if now_s < again_s:
                continue
            if times >= 2:
                self._refuse(place, BAD_OUT_OF_RANGE, f"the device confirmed {raw} but still shows {shown}")
            values[place] = raw
            self._sent[place] = (raw, now_s + WRITE_AGAIN_S, times + 1)
            if self._is_edge(place, raw):
                self._spent.add(place)
        return values

    def answered(self, statuses: Mapping[int, int], unreadable: Callable[[int], bool]) -> None:
        """What the device said to the values that were due: a refused one is sent again after a while.

        `unreadable` says whether an output cannot be read either: what to do then is said there.
        """
        for place, status in statuses.items():
            if is_good(status):
                continue
            raw, again_s, _ = self._sent[place]
            self._sent[place] = (raw, again_s, 0)
            if place in self._spent:
                self._spent.discard(place)
                self.open.add(place)
            text = "the device lets it be neither read nor set" if unreadable(place) else write_refusal(status, raw)
            self._refuse(place, status, text)

    def _refuse(self, place: int, status: int, text: str) -> None:
        if self._refused.get(place, "") != text:
            self._refused[place] = text
            self._tell(place, status, text)
