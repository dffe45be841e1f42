"""Points -> the fewest read and write jobs that fit the messages of an S7 PLC, their answers included."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from drivers import s7_codec as s7
from drivers.blocks import Field, coalesce, unpacker
from drivers.link import FramingError
from drivers.s7_address import Place
from drivers.s7_codec import Area


class Item(msgspec.Struct, frozen=True):
    """One item of a read job: points that lie side by side, none of them cut.

    `values` takes the values of the `plain` points out of the item's bytes; `strings` are (point, its part of them).
    """

    area: Area
    points: tuple[int, ...]
    plain: tuple[int, ...]
    values: Callable[[bytes], list[Any]]
    strings: tuple[tuple[int, slice], ...]


class ReadJob(msgspec.Struct, frozen=True):
    """A read job, encoded once."""

    request: bytes
    items: tuple[Item, ...]

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
    return [ReadJob(s7.read_request([item.area for item in job]), job) for job in jobs]


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


def _item(places: Sequence[Place], group: tuple[int, ...]) -> Item:
    first = places[group[0]]
    start = min(places[index].byte for index in group)
    end = max(places[index].byte + places[index].size for index in group)
    plain, strings = list[int](), list[tuple[int, slice]]()
    fields: list[Field] = []
    for index in group:
        at = places[index]
        part = range(at.byte - start, at.byte - start + at.size)
        if at.type.kind == "string":
            strings.append((index, slice(part.start, part.stop)))
        else:
            plain.append(index)
            fields.append(Field(at.type, tuple(part), at.bit))
    area = Area(first.area, first.db, 8 * start, end - start)
    return Item(area, group, tuple(plain), unpacker(fields), tuple(strings))


def _even(size: int) -> int:
    return size + (size & 1)
