"""The line of the API's process to the loop: what is seen of it, what it is commanded, and what it answers."""

import asyncio
import itertools
import logging
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge import channel, record
from edge.api.request import RequestError
from edge.engine import refusals
from edge.language.parcel import pack as pack_recipe
from edge.language.program import Recipe
from edge.messages import Command, CommandDone, Hello, Recorded, Revision, pack
from edge.view import View

log = logging.getLogger("edge.api")

ANSWER_S = 2.0
GRACE_S = 0.5
"""An answer that the loop gave in the last moment has so long to come here."""
SILENCE_S = 2.0
HELLO_S = 0.5
DRAIN_S = 0.01
"""A socket that was drained is looked at again after this: a loop of 1 kHz does not wake this process as often."""


class Link:
    """The line to the loop: feeds the View from it, sends commands, and gives each its answer."""

    def __init__(self, view: View, loop: socket.socket, fieldbuses: Sequence[socket.socket], record_file: Path) -> None:
        self.view = view
        self.loop = loop
        self.ends = [loop, *fieldbuses]
        self.record_file = record_file
        self.waiting: dict[int, asyncio.Future[CommandDone]] = {}
        self.ids = itertools.count(time.time_ns())
        self.heard = time.monotonic()
        self.patience = SILENCE_S + 3 * view.plan.cell.scan_ns / 1e9
        self.greeted = 0.0

    async def run(self) -> None:
        """Watches the sockets and the silence."""
        for end in self.ends:
            self._listen(end)
        while True:
            now = time.monotonic()
            if self.view.alive and now - self.heard > self.patience:
                log.error("the control loop is silent")
                self.view.silence()
            if self.view.incomplete and now - self.greeted > HELLO_S:
                self.greeted = now
                channel.send(self.loop, pack(Hello("api")))
            await asyncio.sleep(0.1)

    def _listen(self, end: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(end, self._drain, end)

    def _drain(self, end: socket.socket) -> None:
        running = asyncio.get_running_loop()
        running.remove_reader(end)
        packets = channel.drain(end)
        for packet in packets:
            for event in self.view.feed(packet):
                if isinstance(event, CommandDone) and event.id in self.waiting:
                    self.waiting.pop(event.id).set_result(event)
        if end is self.loop and packets:
            self.heard = time.monotonic()
        running.call_later(DRAIN_S, self._listen, end)

    async def command(self, do: str, by: str, **fields: Any) -> CommandDone:
        """Gives a command and waits for the loop's answer. Raises RequestError where it refuses or does not answer.

        What was answered 503 is not done later, neither by this loop nor by the next one.
        """
        since, until = self.view.cycle, self._until()
        return await self._ask(Command(next(self.ids), do, by, since=since, until=until, **fields))

    async def revise(self, recipe: Recipe, by: str) -> None:
        """Brings a version of a recipe into force. Raises RequestError, as `command`."""
        self.view.plan.others[recipe.hash] = recipe
        await self._revise(recipe.name, by, packed=pack_recipe(recipe), text=recipe.text)

    async def withdraw(self, recipe: str, by: str) -> None:
        """Takes a recipe out of force. Raises RequestError, as `command`."""
        await self._revise(recipe, by)

    async def _revise(self, recipe: str, by: str, **packed: Any) -> None:
        since, until = self.view.cycle, self._until()
        await self._ask(Revision(next(self.ids), by, recipe, since=since, until=until, **packed))

    async def _ask(self, question: Command | Revision) -> CommandDone:
        answer = self.waiting[question.id] = asyncio.get_running_loop().create_future()
        try:
            if not self.view.alive or not channel.send(self.loop, pack(question)):
                raise RequestError(503, refusals.NOT_RUNNING["en"], say=refusals.NOT_RUNNING)
            async with asyncio.timeout(ANSWER_S + GRACE_S):
                done = await answer
        except TimeoutError:
            raise RequestError(503, refusals.NO_ANSWER["en"], say=refusals.NO_ANSWER) from None
        finally:
            self.waiting.pop(question.id, None)
        if not done.ok:
            raise RequestError(409, done.text, say=done.say)
        return done

    def _until(self) -> int:
        """The last of the loop's cycles in which a command that is given now is in time."""
        seconds = time.monotonic() - self.heard + ANSWER_S
        return self.view.cycle + int(seconds * 1e9) // self.view.plan.cell.scan_ns

    async def recall(self) -> None:
        """Batches that were here before this process: the record knows when they began and what they recorded."""
        asked: set[str] = set()
        while True:
            lacking = {one.batch for one in self.view.batches.values() if one.started_ns is None}
            for batch in lacking - asked:
                await self._recall(batch)
            asked = lacking
            await asyncio.sleep(0.2)

    async def _recall(self, batch: str) -> None:
        try:
            found = await asyncio.to_thread(record.batch, self.record_file, batch)
        except record.NoRecord as error:
            log.warning("%s", error)
        else:
            values = [Recorded(batch, one.step, one.name, one.value, one.unit) for one in found.values]
            since = found.states[-1].time if found.states else found.started
            self.view.recall(batch, _ns(found.started.timestamp()), _ns(since.timestamp()), values)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
