"""The state as it goes to the pages: whole at first, then what has changed, at most ten times a second.

Server-sent events (WHATWG HTML, 9.2). `state` brings everything, `change` a part of it: a section of named things has
only the entries that are new or different, null where one is gone. `beat` comes once a second when nothing changes, so
that a page notices a connection that is dead. Nothing is queued: a client that is late gets the changes since the state
that it has, one that takes nothing for some seconds is dropped.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec

from edge.devices import Json

PERIOD_S = 0.1
BEAT_S = 1.0
NAMED = frozenset({"devices", "units", "tags", "batches", "alarms", "log", "recipes"})
"""The sections whose entries change one by one."""

_encode = msgspec.json.Encoder().encode


def changes(old: Json, new: Json) -> Json:
    """What must be sent so that `old` becomes `new`; {} when a person would see no difference.

    The cycle and the source time of an unchanged value are no change by themselves; they come along with the next one.
    """
    found: Json = {}
    for section, value in new.items():
        before = old.get(section)
        if section == "cycle" or value == before:
            continue
        if section in NAMED and before is not None:
            entries = _entries(before, value)
            if entries:
                found[section] = entries
        else:
            found[section] = value
    if found:
        found["cycle"] = new.get("cycle")
    return found


def _entries(old: Json, new: Json) -> Json:
    entries = {name: entry for name, entry in new.items() if not _same(old.get(name), entry)}
    return entries | dict.fromkeys(old.keys() - new.keys())


def _same(old: Json | None, new: Json) -> bool:
    return old == new or (old is not None and {**old, "time": None} == {**new, "time": None})


def event(name: str, data: Json) -> bytes:
    """One server-sent event. JSON has no line break in it."""
    return b"event: " + name.encode() + b"\ndata: " + _encode(data) + b"\n\n"


class Stream:
    """Compares the state with the last one while somebody listens, and wakes the listeners when it differs."""

    def __init__(self, look: Callable[[], Json]) -> None:
        self.listeners = 0
        self.closed = False
        self._look = look
        self._state: Json = {}
        self._cycle = 0
        self._changed = asyncio.Event()
        self._last: tuple[Json, Json, bytes] | None = None

    async def run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            if self.listeners:
                self._update()

    def close(self) -> None:
        """Ends every listener's stream."""
        self.closed = True
        self._changed.set()

    async def events(self) -> AsyncIterator[bytes]:
        """What one client gets, until the stream is closed."""
        self.listeners += 1
        try:
            self._update(anyway=True)
            sent = self._state
            yield event("state", sent)
            while not self.closed:
                if self._state is sent and not await self._difference():
                    yield event("beat", {"cycle": self._cycle})
                elif self._state is not sent and not self.closed:
                    before, sent = sent, self._state
                    packet = self._change(before, sent)
                    if packet:
                        yield packet
        finally:
            self.listeners -= 1

    async def _difference(self) -> bool:
        """Waits for a new state; False when none came within a beat."""
        try:
            async with asyncio.timeout(BEAT_S):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _update(self, *, anyway: bool = False) -> None:
        new = self._look()
        self._cycle = new["cycle"]
        if anyway or changes(self._state, new):
            self._state = new
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    def _change(self, old: Json, new: Json) -> bytes:
        """The change from one state to another, encoded once for all clients that stand at the same."""
        if self._last is None or self._last[0] is not old or self._last[1] is not new:
            difference = changes(old, new)
            self._last = old, new, event("change", difference) if difference else b""
        return self._last[2]
