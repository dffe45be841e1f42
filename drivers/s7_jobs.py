"""Points -> the fewest read and write jobs that fit the messages of an S7 PLC, their answers included."""

from collections.abc import Collection, Sequence

import msgspec

from drivers import s7_codec as s7
from drivers.link import FramingError
from drivers.s7_address import Place
from drivers.s7_codec import Area


class Block(msgspec.Struct, frozen=True):
    """One item of a read job: points that lie side by side, none of them cut."""

    area: Area
    points: tuple[int, ...]


class ReadJob(msgspec.Struct, frozen=True):
    """A read job, encoded once."""

    request: bytes
    blocks: tuple[Block, ...]

    def parse(self, message: bytes) -> list[tuple[int, bytes]]:
        """(return code, data) of each block. Raises JobRefused, FramingError."""
        items = s7.parse_read(message, len(self.blocks))
        for block, (code, data) in zip(self.blocks, items, strict=True):
            if code == s7.OK and len(data) != block.area.count:
                raise FramingError(f"{len(data)} bytes instead of {block.area.count}")
        return items


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
    groups: list[list[int]] = []
    end = 0
    for index in sorted(wanted, key=lambda index: (places[index].area, places[index].db, places[index].byte)):
        at = places[index]
        if groups and index not in alone and groups[-1][0] not in alone:
            first = places[groups[-1][0]]
            joined = max(end, at.byte + at.size)
            near = (first.area, first.db) == (at.area, at.db) and at.byte - end <= gap
            if near and joined - first.byte <= largest:
                groups[-1].append(index)
                end = joined
                continue
        groups.append([index])
        end = at.byte + at.size
    return [tuple(group) for group in groups]


def read_jobs(places: Sequence[Place], groups: Sequence[tuple[int, ...]], pdu: int) -> list[ReadJob]:
    """Read jobs with an item for each group of places, for messages of `pdu` bytes."""
    blocks = sorted((_block(places, group) for group in groups), key=lambda block: -block.area.count)
    costs = [(s7.ADDRESS, s7.READ_ITEM + _even(block.area.count)) for block in blocks]
    jobs = [
        tuple(blocks[index] for index in members)
        for members in pack(costs, pdu - s7.READ_REQUEST, pdu - s7.READ_ANSWER)
    ]
    return [ReadJob(s7.read_request([block.area for block in job]), job) for job in jobs]


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


def _block(places: Sequence[Place], group: tuple[int, ...]) -> Block:
    first = places[group[0]]
    start = min(places[index].byte for index in group)
    end = max(places[index].byte + places[index].size for index in group)
    return Block(Area(first.area, first.db, 8 * start, end - start), group)


def _even(size: int) -> int:
    return size + (size & 1)
