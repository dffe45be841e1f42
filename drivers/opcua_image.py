"""What is known of a device's points: values as declared, StatusCodes, source times, and what is wrong with each."""

import time
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import compress

from drivers.driver import Point
from drivers.opcua_codec import EPOCH_TICKS, Request
from drivers.opcua_node import BUILT_IN, convert, fits_always
from drivers.opcua_session import library
from drivers.opcua_values import ARRAY, Columns, Layout, read_results
from drivers.value import BAD_NODE_UNKNOWN, BAD_NOT_READABLE, BAD_WAITING, DataType, Scan, Value

_LAST_TICKS = (2**63 - 1) // 100 + EPOCH_TICKS  # what ns since 1970 can say in 64 bits
_DENIED = 0x801F_0000  # BadUserAccessDenied
_NO_ATTRIBUTE = 0x8035_0000  # BadAttributeIdInvalid
_TOO_MANY_ITEMS = 0x80DB_0000  # BadTooManyMonitoredItems


class Image:
    """The points of one device, as it last told them."""

    def __init__(self, points: Sequence[Point]) -> None:
        now_ns = time.time_ns()
        self.troubles: dict[str, str] = {}
        self.points = points
        self.values: list[Value | None] = [None] * len(points)
        self.statuses = [BAD_WAITING] * len(points)
        self.times = [now_ns] * len(points)
        self.changed = self.timed = True
        self._plain = [_plain(point.type) for point in points]
        self._scan: Scan | None = None

    def wait(self, indexes: Iterable[int]) -> None:
        """These points have no value until the device tells it."""
        for index in indexes:
            self._put(index, None, BAD_WAITING, time.time_ns())
            self.troubles.pop(self.points[index].name, None)

    def refuse(self, index: int, status: int, text: str) -> None:
        """A point that cannot be asked for."""
        self._put(index, None, status, time.time_ns())
        self.troubles[self.points[index].name] = f"`{self.points[index].address}`: {text}"

    def take(self, index: int, value: Value | None, kind: int, status: int, ticks: int) -> None:
        """One DataValue (`opcua_values.Columns`)."""
        if status >> 31 or kind not in self._plain[index]:
            value, status, trouble = self._settle(index, value, kind, status)
        else:
            trouble = ""
        if trouble:
            self.troubles[self.points[index].name] = trouble
        elif self.troubles:
            self.troubles.pop(self.points[index].name, None)
        usable = EPOCH_TICKS < ticks <= _LAST_TICKS
        self._put(index, value, status, (ticks - EPOCH_TICKS) * 100 if usable else time.time_ns())

    def take_all(self, first: int, columns: Columns, doubtful: Sequence[int]) -> None:
        """The DataValues of the points from `first` on; those at the places `doubtful` may not be as declared."""
        values, statuses = list(columns.values), list(columns.statuses)
        if max(statuses, default=0) >> 31:
            bad = list(compress(range(len(statuses)), (status >> 31 for status in statuses)))
            doubtful = sorted({*doubtful, *bad})
        troubles: dict[str, str] = {}
        for place in doubtful:
            index = first + place
            settled = self._settle(index, values[place], columns.kinds[place], statuses[place])
            values[place], statuses[place], trouble = settled
            if trouble:
                troubles[self.points[index].name] = trouble
        last = first + len(values)
        if self.troubles:
            for point in self.points[first:last]:
                self.troubles.pop(point.name, None)
        self.troubles.update(troubles)
        if values != self.values[first:last] or statuses != self.statuses[first:last]:
            self.values[first:last], self.statuses[first:last] = values, statuses
            self.changed = True
        self.timed, now_ns = True, time.time_ns()
        self.times[first:last] = [
            (ticks - EPOCH_TICKS) * 100 if EPOCH_TICKS < ticks <= _LAST_TICKS else now_ns for ticks in columns.ticks
        ]

    def doubtful(self, first: int, kinds: Sequence[int]) -> list[int]:
        """The places of an answer whose values are looked at one by one."""
        return [place for place, kind in enumerate(kinds) if kind not in self._plain[first + place]]

    def scan(self, heard_ns: int | None = None) -> Scan:
        """All as it was when the device was last heard; the lists of the scan before where nothing has changed."""
        known = self._scan
        if known is None or self.changed:
            values, statuses, times = self.values.copy(), self.statuses.copy(), self.times.copy()
            known = Scan(values, statuses, _newest(times), True, times, heard_ns)
        elif self.timed:
            times = self.times.copy()
            known = Scan(known.values, known.statuses, _newest(times), False, times, heard_ns)
        elif known.changed or known.heard_ns != heard_ns:
            known = Scan(known.values, known.statuses, known.time_ns, False, known.times, heard_ns)
        self.changed = self.timed = False
        self._scan = known
        return known

    def _put(self, index: int, value: Value | None, status: int, time_ns: int) -> None:
        self.values[index], self.statuses[index], self.times[index] = value, status, time_ns
        self.changed = True

    def _settle(self, index: int, value: Value | None, kind: int, status: int) -> tuple[Value | None, int, str]:
        """(value, StatusCode, what is wrong and what to do) of a point."""
        point = self.points[index]
        if status >> 31:
            return None, status, f"`{point.address}`: {bad(status)}"
        value, wrong, trouble = convert(value, kind & 0x3F, bool(kind & ARRAY), point.type)
        return (None, wrong, f"`{point.address}`: {trouble}") if trouble else (value, status, "")


class Batch:
    """The points of one ReadRequest, from `first` on, and its last answer: what is the same is not decoded again."""

    def __init__(self, first: int, nodes: Sequence[bytes], request: Request) -> None:
        """`nodes` are the points' NodeIds, encoded."""
        self.first, self.nodes, self.request = first, nodes, request
        self._body = b""
        self._kinds: Sequence[int] = ()
        self._layout: Layout | None = None
        self._doubtful: list[int] = []

    def take(self, body: bytes, image: Image) -> None:
        """The parameters of a ReadResponse. Raises FramingError."""
        if body != self._body:
            columns = self._layout.read(body) if self._layout is not None else None
            image.take_all(self.first, columns or self._learn(body, image), self._doubtful)
            self._body = body

    def forget(self) -> None:
        """The next answer is decoded, even if it is the same: others have changed the image meanwhile."""
        self._body = b""

    def _learn(self, body: bytes, image: Image) -> Columns:
        """An answer of a new shape; what has the shape of the answer before is worth a layout."""
        columns = read_results(body, len(self.nodes))
        if len(body) == len(self._body) and columns.kinds == self._kinds:
            self._layout = Layout(body, columns)
        if columns.kinds != self._kinds:
            self._kinds, self._doubtful = columns.kinds, image.doubtful(self.first, columns.kinds)
        return columns


def bad(status: int) -> str:
    """What a bad status of one node means, and what to do."""
    if status == BAD_NODE_UNKNOWN:
        return "the server has no such node; compare it with the server's address space, mind capitals"
    if status in (_DENIED, BAD_NOT_READABLE):
        return "the server does not let this user read it; allow it there"
    if status == _NO_ATTRIBUTE:
        return "this node is no variable; give the NodeId of a variable"
    if status == _TOO_MANY_ITEMS:
        return "the server watches no more nodes for edge; set `mode: poll` for this device"
    name, doc = library().status_codes.get_name_and_doc(status)
    return f"the server says {name}: {doc}"


@cache
def _plain(kind: DataType) -> frozenset[int]:
    """The built-in types of which every value is one of the declared type."""
    return frozenset(built_in for built_in in BUILT_IN if fits_always(built_in, kind))


def _newest(times: Sequence[int]) -> int:
    return max(times, default=0) or time.time_ns()
