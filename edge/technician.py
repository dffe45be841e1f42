"""The technician's look at a cell: every tag with quality and time, once or live, and outputs set (`edge tags`).

Where a daemon runs on the cell's state directory it goes through it; else it talks to the devices itself.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from drivers.driver import DeviceError, find
from drivers.value import (
    BAD_COMMUNICATION,
    BAD_OUT_OF_RANGE,
    BAD_TIMEOUT,
    BAD_WAITING,
    Reading,
    Value,
    display,
    from_raw,
    is_good,
    status_name,
)
from edge.ask import NotDone, ask, daemon
from edge.devices import iso
from edge.engine.words import english, some
from edge.language.cell import Cell, Device, Tag, outside, whole
from edge.language.source import suggest
from edge.order import parse_value

PERIOD_S = 1.0
READ_BACK_S = 3.0
"""How long a device may take to show what was set."""

Rows = dict[str, dict[str, Any]]
Settings = list[tuple[Tag, Value]]


class Look(msgspec.Struct, frozen=True):
    """What was asked for: once or live, as JSON or text, and (tag, value) pairs to set first, as they were typed.

    `simulate`: at simulated PLCs, where no daemon runs.
    """

    cell: Cell
    once: bool
    json: bool
    settings: tuple[tuple[str, str], ...] = ()
    simulate: bool = False


class Seen(msgspec.Struct, frozen=True):
    """What a look found: each tag as it is printed, and what is wrong with devices and tags, in lines."""

    rows: Rows
    notes: list[str]

    @property
    def good(self) -> bool:
        return all(row["value"] is not None for row in self.rows.values())


def run(look: Look, state_dir: Path) -> int:
    """`edge tags`. Gives the exit code: 0 where all was set, or else every tag was read; 1 where not."""
    try:
        settings = [wanted(look.cell, *setting) for setting in look.settings]
        url = daemon(look.cell, state_dir)
        if url:
            seen = _through_daemon(look, settings, url)
        elif look.simulate:
            seen = _simulated(look, settings)
        else:
            seen = asyncio.run(_direct(look, settings))
    except NotDone as reason:
        print(f"edge: {reason}", file=sys.stderr)
        return 1
    return 0 if settings or seen.good else 1


def wanted(cell: Cell, name: str, text: str) -> tuple[Tag, Value]:
    """The tag to set and its value, as typed. Raises NotDone."""
    try:
        tag = cell.tag(name)
    except KeyError:
        hint = suggest(name, [tag.name for tag in cell.tags]) or "without --set, `edge tags` lists them all"
        raise NotDone(f"the cell {cell.name} has no tag `{name}`: {hint}") from None
    if not tag.writable:
        raise NotDone(f"`{name}` can only be read: the cell file does not say `access: write`")
    kind = {"bool": "bool", "string": "text"}.get(tag.type.kind, "number")
    try:
        value = parse_value(text, kind, tag.unit)
    except ValueError as error:
        raise NotDone(f"--set {name}={text}: {error}") from None
    if reason := outside(value, tag):
        raise NotDone(reason)
    return tag, whole(value, tag)


def row(tag: Tag, value: Value | None, status: int, time_ns: int | None) -> dict[str, Any]:
    """One tag as it is printed: a value only where it is good."""
    good = is_good(status)
    return {"value": value if good else None, "quality": status_name(status), "time": iso(time_ns), "unit": tag.unit}


class _Screen:
    """Prints one look after the other: the tags to standard output, what is wrong to standard error when it changes.

    A live look at a terminal is printed over the one before.
    """

    def __init__(self, look: Look) -> None:
        self._json = look.json
        self._over = not (look.json or look.once or look.settings) and sys.stdout.isatty()
        self._said: list[str] = []

    def show(self, seen: Seen) -> None:
        if self._over:
            print("\x1b[H\x1b[2J", end="")
        if self._json:
            print(json.dumps(seen.rows, ensure_ascii=False), flush=True)
        else:
            print("\n".join(_table(seen.rows)), flush=True)
        if seen.notes != self._said or self._over:
            for note in seen.notes:
                print(f"edge: {note}", file=sys.stderr, flush=True)
        self._said = seen.notes


def _table(rows: Rows) -> list[str]:
    width = max((len(name) for name in rows), default=3)
    lines = [f"{'tag':{width}}  {'value':>14}  {'unit':6}  {'quality':24}  time"]
    for name, one in rows.items():
        value = _quoted(one["value"])
        lines.append(f"{name:{width}}  {value:>14}  {one['unit']:6}  {one['quality']:24}  {one['time'] or '-'}")
    return lines


def _quoted(value: Value | None) -> str:
    """A text in quotes: its end is seen."""
    if value is None:
        return "-"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else display(value)


# --- through the daemon ----------------------------------------------------------------------------------------------


def _through_daemon(look: Look, settings: Settings, url: str) -> Seen:
    screen = _Screen(look)
    for tag, value in settings:
        ask(f"{url}/api/tags/{tag.name}", {"value": value, "by": "edge tags"})
    if settings:
        _await_levels(url, settings)
    while True:
        seen = _seen_by_daemon(ask(f"{url}/api/state"))
        screen.show(seen)
        if look.once or settings:
            return seen
        time.sleep(PERIOD_S)


def _seen_by_daemon(state: dict[str, Any]) -> Seen:
    keys = ("value", "quality", "time", "unit")
    rows = {name: {key: one[key] for key in keys} for name, one in state["tags"].items()}
    notes = [
        _explained(f"{name}: {device['reason'] or 'not connected'}", device["hint"])
        for name, device in state["devices"].items()
        if not device["up"]
    ]
    return Seen(rows, notes + [f"{name}: {one['trouble']}" for name, one in state["tags"].items() if "trouble" in one])


def _await_levels(url: str, settings: Settings) -> None:
    """Waits until the devices show what was set. Raises NotDone where they do not."""
    from edge.engine.fit import agrees

    until = time.monotonic() + READ_BACK_S
    while True:
        tags = ask(f"{url}/api/state")["tags"]
        missing = [tag for tag, value in settings if not agrees(tag, tags[tag.name]["value"], value)]
        if not missing:
            return
        if time.monotonic() > until:
            raise NotDone(_not_shown(missing[0], tags[missing[0].name]["value"]))
        time.sleep(0.05)


def _simulated(look: Look, settings: Settings) -> Seen:
    from edge.lock import CannotStart
    from edge.simulation import simulated

    try:
        with simulated(look.cell, subprocess.DEVNULL) as cell:
            return asyncio.run(_direct(msgspec.structs.replace(look, cell=cell), settings))
    except CannotStart as reason:
        raise NotDone(str(reason)) from None


# --- directly to the devices -----------------------------------------------------------------------------------------


class _Probe:
    """One device: its driver, what was read last, what is wrong with it."""

    def __init__(self, cell: Cell, device: Device, connections: dict[str, Any]) -> None:
        self.name = device.name
        self.tags = [cell.tags[index] for index in device.tags]
        self.driver = find(device.driver)(device.settings, [tag.point for tag in self.tags], connections)
        self.notes: list[str] = []
        self._lose(BAD_WAITING)

    def _lose(self, status: int, *notes: str) -> None:
        self.readings: Sequence[Reading] = [Reading(None, status, 0)] * len(self.tags)
        self.notes = list(notes)

    async def read(self) -> None:
        """Reads every tag; where the device is lost they turn bad, and `notes` says why."""
        try:
            await self.driver.connect()
            self.readings = tuple(await self.driver.scan())
            names: dict[str, list[str]] = {}
            for name, text in self.driver.troubles.items():
                names.setdefault(text, []).append(name)
            self.notes = [f"{english(some(those))}: {text}" for text, those in names.items()]
        except DeviceError as error:
            await self.driver.close()
            self._lose(error.status, _explained(f"{self.name}: {error.text}", error.hint))
        except Exception as error:  # one device's trouble, even a fault in its driver, never is another's
            await self.driver.close()
            self._lose(BAD_COMMUNICATION, f"{self.name}: its driver has failed ({type(error).__name__}: {error})")

    def overdue(self) -> None:
        """A read that takes longer than a look: what was read before it is not shown as good."""
        if any(is_good(reading.status) for reading in self.readings):
            self._lose(BAD_TIMEOUT, f"{self.name}: no answer yet")

    def rows(self) -> Rows:
        return {tag.name: self._row(tag, reading) for tag, reading in zip(self.tags, self.readings, strict=True)}

    def _row(self, tag: Tag, reading: Reading) -> dict[str, Any]:
        value = from_raw(reading.value, tag.scale)
        status = BAD_OUT_OF_RANGE if value is None and is_good(reading.status) else reading.status
        return row(tag, value, status, reading.time_ns or None)

    async def set(self, settings: Settings) -> None:
        """Writes outputs and waits until the device shows them. Raises NotDone."""
        from edge.outputs import as_read_back, write_refusal

        raws = {self.tags.index(tag): as_read_back(tag, value) for tag, value in settings}
        given = {tag.name: display(value, tag.unit) for tag, value in settings}
        try:
            await self.driver.connect()
            for place, status in (await self.driver.write(raws)).items():
                if not is_good(status):
                    name = self.tags[place].name
                    why = self.driver.troubles.get(name) or write_refusal(status, given[name])
                    raise NotDone(f"{name} could not be set: {why}")
            await self._await_levels(raws)
        except DeviceError as error:
            raise NotDone(_explained(f"{self.name}: {error.text}", error.hint)) from None

    async def _await_levels(self, raws: Mapping[int, Value]) -> None:
        until = time.monotonic() + READ_BACK_S
        while True:
            shown = await self.driver.scan()
            missing = [place for place, raw in raws.items() if shown[place].value != raw]
            if not missing:
                return
            if time.monotonic() > until:
                tag = self.tags[missing[0]]
                raise NotDone(_not_shown(tag, from_raw(shown[missing[0]].value, tag.scale)))
            await asyncio.sleep(0.05)


async def _direct(look: Look, settings: Settings) -> Seen:
    connections: dict[str, Any] = {}
    probes = [_Probe(look.cell, device, connections) for device in look.cell.devices]
    reads: dict[_Probe, asyncio.Task[None]] = {}
    screen = _Screen(look)
    clock = asyncio.get_running_loop()
    try:
        for device, probe in zip(look.cell.devices, probes, strict=True):
            if mine := [(tag, value) for tag, value in settings if tag.device == device.index]:
                await probe.set(mine)
        while True:
            due_s = clock.time() + PERIOD_S
            await _read(probes, reads, None if look.once or settings else PERIOD_S)
            rows = {name: row for probe in probes for name, row in probe.rows().items()}
            seen = Seen(rows, [note for probe in probes for note in probe.notes])
            screen.show(seen)
            if look.once or settings:
                return seen
            await asyncio.sleep(max(due_s - clock.time(), 0))
    finally:
        for task in reads.values():
            task.cancel()
        await asyncio.gather(*reads.values(), return_exceptions=True)
        await asyncio.gather(*(probe.driver.close() for probe in probes))


async def _read(probes: list[_Probe], reads: dict[_Probe, asyncio.Task[None]], patience_s: float | None) -> None:
    """Every device at the same time, as long as it takes (None) or until patience ends: a slow one delays no other."""
    for probe in probes:
        if probe not in reads or reads[probe].done():
            reads[probe] = asyncio.create_task(probe.read())
    await asyncio.wait(reads.values(), timeout=patience_s)
    for probe, task in reads.items():
        if not task.done():
            probe.overdue()


# --- words -----------------------------------------------------------------------------------------------------------


def _explained(text: str, hint: str) -> str:
    return f"{text} ({hint})" if hint else text


def _not_shown(tag: Tag, shown: Value | None) -> str:
    what = display(shown, tag.unit) if shown is not None else "no value"
    return f"{tag.name} was written, but the device shows {what}: does its own program or another client drive it?"
