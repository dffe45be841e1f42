"""Points -> the fewest read and write jobs that fit the messages of an S7 PLC, their answers included."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from drivers import s7_codec as s7
from drivers.blocks import Field, coalesce, unpacker
from drivers.link import FramingError
from drivers.s7_address import Place
from drivers.s7_codec import Area
from drivers.value import TYPES


class Item(msgspec.Struct, frozen=True):
    """One item of a read job: points that lie side by side, none of them cut.

    `values` takes the values of the `plain` points out of the item's bytes; `strings` are (point, its part of them).
    """

    area: Area
    points: tuple[int, ...]
    plain: tuple[int, ...]
    values: Callable[[bytes], Sequence[Any]]
    strings: tuple[tuple[int, slice], ...]


class ReadJob(msgspec.Struct, frozen=True):
    """A read job, encoded once.

    `values` takes the values of all `plain` points out of the message that answers it, `strings` are (point, its part
    of that message): None where an item was refused or is laid out in another way, then `parse` tells. `run`: where
    the `plain` points are one run of all points, in order.
    """

    request: bytes
    items: tuple[Item, ...]
    plain: tuple[int, ...]
    strings: tuple[tuple[int, slice], ...]
    values: Callable[[bytes], Sequence[Any] | None]
    run: slice | None

    def parse(self, message: bytes) -> list[tuple[int, bytes]]:
        """(return code, data) of each item. Raises JobRefused, FramingError."""
        answers = s7.parse_read(message, len(self.items))
        for item, (code, data) in zip(self.items, answers, strict=True):
            if code == s7.OK and len(data) != item.area.count:
                raise FramingError(f"{len(data)} bytes instead of {item.area.count}")
        return answers


class WriteJob(msgspec.Struct, frozen=True):
    """A write job, and the point of each of its items."""

    request: bytes
    points: tuple[int, ...]

    def parse(self, message: bytes) -> list[int]:
        """The return code of each point. Raises JobRefused, FramingError."""
        return s7.parse_write(message, len(self.points))


def largest_read(pdu: int) -> int:
    """The bytes of the largest item that can be read with messages of `pdu` bytes."""
    return pdu - s7.READ_ANSWER - s7.READ_ITEM


def largest_write(pdu: int) -> int:
    """The bytes of the largest item that can be written with messages of `pdu` bytes."""
    return pdu - s7.WRITE_REQUEST - s7.ADDRESS - s7.READ_ITEM


def side_by_side(
    places: Sequence[Place], wanted: Collection[int], *, gap: int, largest: int, alone: Collection[int] = ()
) -> list[tuple[int, ...]]:
    """Groups the `wanted` places: each group in one area, no hole in it over `gap` bytes, `largest` bytes at most.

    A place of `alone` has a group of its own, and so has one that is larger than `largest`.
    """
    areas: defaultdict[tuple[int, int], dict[int, tuple[int, int]]] = defaultdict(dict)
    for index in wanted:
        if index not in alone:
            at = places[index]
            areas[at.area, at.db][index] = at.byte, at.size
    together = [block.members for spans in areas.values() for block in coalesce(spans, largest, gap)]
    return together + [(index,) for index in wanted if index in alone]


def read_jobs(places: Sequence[Place], groups: Sequence[tuple[int, ...]], pdu: int) -> list[ReadJob]:
    """Read jobs with an item for each group of places, for messages of `pdu` bytes."""
    items = sorted((_item(places, group) for group in groups), key=lambda item: -item.area.count)
    costs = [(s7.ADDRESS, s7.READ_ITEM + _even(item.area.count)) for item in items]
    jobs = [
        tuple(items[index] for index in members) for members in pack(costs, pdu - s7.READ_REQUEST, pdu - s7.READ_ANSWER)
    ]
    return [_job(places, items) for items in jobs]


def write_jobs(items: Sequence[tuple[int, Area, bytes]], pdu: int) -> list[WriteJob]:
    """Write jobs for (point, where, bytes), for messages of `pdu` bytes."""
    costs = [(s7.ADDRESS + s7.READ_ITEM + _even(len(data)), 1) for _, _, data in items]
    jobs = [
        [items[index] for index in members] for members in pack(costs, pdu - s7.WRITE_REQUEST, pdu - s7.READ_ANSWER)
    ]
    return [
        WriteJob(s7.write_request([(area, data) for _, area, data in job]), tuple(index for index, _, _ in job))
        for job in jobs
    ]


def pack(costs: Sequence[tuple[int, int]], request_room: int, answer_room: int) -> list[list[int]]:
    """Items that cost (bytes in the request, bytes in the answer) -> the places in `costs` of those that share a job.

    First fit, at most `MAX_ITEMS` in a job. An item that fits no job has one of its own.
    """
    jobs: list[list[int]] = []
    unfilled: list[tuple[list[int], list[int]]] = []  # with the bytes that are left in request and answer
    smallest_request, smallest_answer = map(min, zip(*costs, strict=True)) if costs else (0, 0)
    for index, (asked, answered) in enumerate(costs):
        found = next((entry for entry in unfilled if asked <= entry[1][0] and answered <= entry[1][1]), None)
        if found is None:
            job: list[int] = []
            found = job, [request_room, answer_room]
            jobs.append(job)
            unfilled.append(found)
        job, room = found
        job.append(index)
        room[0] -= asked
        room[1] -= answered
        if len(job) == s7.MAX_ITEMS or room[0] < smallest_request or room[1] < smallest_answer:
            unfilled.remove(found)
    return jobs


def _job(places: Sequence[Place], items: tuple[Item, ...]) -> ReadJob:
    """The job of these items, with what unpacks its answer in one go."""
    fields: list[Field] = []
    heads: list[int] = []
    plain: list[int] = []
    strings: list[tuple[int, slice]] = []
    at = s7.READ_ANSWER
    for item in items:
        at += at & 1
        heads.append(len(fields))
        fields.append(Field(TYPES["uint32"], tuple(range(at, at + s7.READ_ITEM))))
        at += s7.READ_ITEM
        fields += [_field(places[index], item.area, at) for index in item.plain]
        plain += item.plain
        strings += [(index, slice(part.start + at, part.stop + at)) for index, part in item.strings]
        at += item.area.count
    start = s7.read_answer_start(len(items), at) + s7.good_item(items[0].area.count)
    del fields[0]  # the first item's head is a part of the start
    expected = [int.from_bytes(s7.good_item(item.area.count), "big") for item in items]
    more = {head - 1: number for head, number in zip(heads[1:], expected[1:], strict=True)}
    values = _values(unpacker(fields), at, start, more, len(fields))
    first = plain[0] if plain else 0
    run = slice(first, first + len(plain)) if plain == list(range(first, first + len(plain))) else None
    request = s7.read_request([item.area for item in items])
    return ReadJob(request, items, tuple(plain), tuple(strings), values, run)


def _values(
    unpack: Callable[[bytes], Sequence[Any]], size: int, start: bytes, heads: Mapping[int, int], count: int
) -> Callable[[bytes], Sequence[Any] | None]:
    """`ReadJob.values` for answers of `size` bytes with this start; of `count` fields the `heads` are no values."""
    end = 6 + len(start)

    def one(message: bytes) -> Sequence[Any] | None:
        good = message[6:end] == start and len(message) == size and message[1] == s7.ACK_DATA
        return unpack(message) if good else None

    if not heads:
        return one
    expected = tuple(heads.values())
    heads_of, values_of = _picked(list(heads)), _picked([place for place in range(count) if place not in heads])

    def many(message: bytes) -> Sequence[Any] | None:
        found = one(message)
        return values_of(found) if found is not None and heads_of(found) == expected else None

    return many


def _picked(places: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """What takes these places out of a sequence."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda found: tuple(found[place] for place in places)


def _field(at: Place, area: Area, start: int) -> Field:
    """A place in bytes of which the area's begin at `start`."""
    first = start + at.byte - area.bit // 8
    return Field(at.type, tuple(range(first, first + at.size)), at.bit)


def _item(places: Sequence[Place], group: tuple[int, ...]) -> Item:
    start = min(places[index].byte for index in group)
    end = max(places[index].byte + places[index].size for index in group)
    area = Area(places[group[0]].area, places[group[0]].db, 8 * start, end - start)
    plain = tuple(index for index in group if places[index].type.kind != "string")
    strings = [(index, places[index].byte - start) for index in group if places[index].type.kind == "string"]
    parts = tuple((index, slice(first, first + places[index].size)) for index, first in strings)
    return Item(area, group, plain, unpacker([_field(places[index], area, 0) for index in plain]), parts)


def _even(size: int) -> int:
    return size + (size & 1)
