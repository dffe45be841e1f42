"""The technician's look at a cell: every tag with quality and time, once or live, and an output set (`edge tags`).

Where a daemon runs on the cell's state directory it goes through it; else it talks to the devices itself.
"""

import asyncio
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from drivers.driver import DeviceError, Driver, find
from drivers.value import BAD_OUT_OF_RANGE, BAD_WAITING, Reading, Value, from_raw, is_good, status_name
from edge.cell import Cell, Device, Tag
from edge.daemon import holder_of
from edge.fieldbus import as_read_back
from edge.sequence import Refused, fit
from edge.terminal import parse_value
from edge.view import iso

DEADLINE_S = 10.0
Rows = dict[str, dict[str, Any]]


class Look(msgspec.Struct, frozen=True):
    """What was asked for: once or live, as JSON or text, and (tag, value) to set first."""

    cell: Cell
    once: bool
    json: bool
    setting: tuple[str, str] | None


class NotDone(Exception):
    """Why something could not be done, in words."""


def run(look: Look, state_dir: Path) -> int:
    """`edge tags`. Gives the exit code."""
    holder = holder_of(state_dir)
    url = str(holder.get("url") or "") if holder is not None else ""
    try:
        if holder is not None and not url:
            raise NotDone(f"a recipe runs on {look.cell.name} now (edge run, process {holder.get('pid')})")
        if url:
            _through_daemon(look, url)
        else:
            asyncio.run(_direct(look))
    except NotDone as reason:
        print(f"edge: {reason}", file=sys.stderr)
        return 1
    return 0


def wanted(cell: Cell, setting: tuple[str, str]) -> tuple[Tag, Value]:
    """The tag to set and its value, as typed. Raises NotDone."""
    name, text = setting
    try:
        tag = cell.tag(name)
    except KeyError:
        from edge.source import suggest

        raise NotDone(
            f"there is no tag {name}: {suggest(name, [tag.name for tag in cell.tags])}".rstrip(": ")
        ) from None
    if not tag.writable:
        raise NotDone(f"{name} can only be read (access: write is not in the cell file)")
    kind = {"bool": "bool", "string": "text"}.get(tag.type.kind, "number")
    try:
        return tag, fit(tag, parse_value(text, kind, tag.unit))
    except ValueError as error:
        raise NotDone(f"{name}={text}: {error}") from None
    except Refused as refused:
        raise NotDone(refused.say["en"]) from None


def row(tag: Tag, value: Value | None, status: int, time_ns: int | None) -> dict[str, Any]:
    """One tag as it is printed: a value only where it is good."""
    good = is_good(status)
    return {"value": value if good else None, "quality": status_name(status), "time": iso(time_ns), "unit": tag.unit}


def show(rows: Rows, as_json: bool) -> None:
    """Prints the tags: one JSON object, or a table."""
    if as_json:
        print(json.dumps(rows, ensure_ascii=False), flush=True)
        return
    width = max((len(name) for name in rows), default=3)
    print(f"{'tag':{width}}  {'value':>14}  {'unit':6}  {'quality':24}  time")
    for name, one in rows.items():
        value = one["value"]
        text = "-" if value is None else f"{value:.6g}" if isinstance(value, float) else json.dumps(value)
        print(f"{name:{width}}  {text:>14}  {one['unit']:6}  {one['quality']:24}  {one['time'] or '-'}")
    sys.stdout.flush()


# --- through the daemon ----------------------------------------------------------------------------------------------


def _through_daemon(look: Look, url: str) -> None:
    if look.setting is not None:
        tag, value = wanted(look.cell, look.setting)
        _ask(f"{url}/api/tags/{urllib.parse.quote(tag.name)}", {"value": value, "by": "edge tags"})
        _await_value(url, tag, value)
    while True:
        tags = _ask(f"{url}/api/state")["tags"]
        keys = ("value", "quality", "time", "unit")
        _frame(look, {name: {key: one[key] for key in keys} for name, one in tags.items()})
        if look.once or look.setting is not None:
            return
        time.sleep(1)


def _await_value(url: str, tag: Tag, value: Value) -> None:
    until = time.monotonic() + 3
    while time.monotonic() < until:
        shown = _ask(f"{url}/api/state")["tags"][tag.name]["value"]
        if shown == value or (isinstance(shown, float) and abs(shown - float(value)) < 1e-6 * abs(float(value))):
            return
        time.sleep(0.05)


def _ask(url: str, body: Mapping[str, Any] | None = None) -> Any:
    """One call of the daemon's API. Raises NotDone with what it says."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            text = json.load(error)["error"]
        except (ValueError, KeyError, TypeError):
            text = f"the daemon answers {error.code}"
        raise NotDone(str(text)) from None
    except OSError as error:
        raise NotDone(f"the daemon at {url} does not answer: {error}") from None


# --- directly to the devices -----------------------------------------------------------------------------------------


async def _direct(look: Look) -> None:
    connections: dict[str, Any] = {}
    drivers = {device.index: _driver(look.cell, device, connections) for device in look.cell.devices}
    try:
        if look.setting is not None:
            await _set(look.cell, drivers, *wanted(look.cell, look.setting))
        while True:
            _frame(look, await _read(look.cell, drivers))
            if look.once or look.setting is not None:
                return
            await asyncio.sleep(1)
    finally:
        await asyncio.gather(*(driver.close() for driver in drivers.values()))


def _driver(cell: Cell, device: Device, connections: dict[str, Any]) -> Driver:
    points = [cell.tags[index].point for index in device.tags]
    return find(device.driver)(device.settings, points, connections)


async def _read(cell: Cell, drivers: Mapping[int, Driver]) -> Rows:
    """Every device at the same time: one that does not answer delays none."""
    readings = await asyncio.gather(*(_scan(cell, device, drivers[device.index]) for device in cell.devices))
    rows: Rows = {}
    for device, found in zip(cell.devices, readings, strict=True):
        for index, reading in zip(device.tags, found, strict=True):
            tag = cell.tags[index]
            value = from_raw(reading.value, tag.scale)
            status = BAD_OUT_OF_RANGE if value is None and is_good(reading.status) else reading.status
            rows[tag.name] = row(tag, value, status, reading.time_ns or None)
    return rows


async def _scan(cell: Cell, device: Device, driver: Driver) -> list[Reading]:
    try:
        async with asyncio.timeout(DEADLINE_S):
            await driver.connect()
            found = list(await driver.scan())
        for name, text in driver.troubles.items():
            print(f"edge: {name}: {text}", file=sys.stderr)
        return found
    except (DeviceError, TimeoutError) as error:
        await driver.close()
        status = error.status if isinstance(error, DeviceError) else BAD_WAITING
        text = error.text if isinstance(error, DeviceError) else "no answer in time"
        hint = f" ({error.hint})" if isinstance(error, DeviceError) and error.hint else ""
        print(f"edge: {device.name}: {text}{hint}", file=sys.stderr)
        return [Reading(None, status, 0) for _ in device.tags]


async def _set(cell: Cell, drivers: Mapping[int, Driver], tag: Tag, value: Value) -> None:
    """Writes one output and reads it back. Raises NotDone."""
    driver, device = drivers[tag.device], cell.devices[tag.device]
    place = tag.index - device.tags[0]
    raw = as_read_back(tag, value)
    try:
        await driver.connect()
        await driver.scan()
        status = (await driver.write({place: raw}))[place]
        shown = (await driver.scan())[place]
    except DeviceError as error:
        raise NotDone(f"{device.name}: {error.text}{f' ({error.hint})' if error.hint else ''}") from None
    if not is_good(status):
        raise NotDone(f"{tag.name} was refused: {driver.troubles.get(tag.name) or status_name(status)}")
    if shown.value != raw:
        print(f"edge: {tag.name} was confirmed, but the device shows {shown.value} now", file=sys.stderr)


def _frame(look: Look, rows: Rows) -> None:
    if not look.once and not look.json and look.setting is None and sys.stdout.isatty():
        print("\x1b[H\x1b[2J", end="")
    show(rows, look.json)
