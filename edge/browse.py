"""`edge browse`: what a device says of itself and offers, as lines that a cell file can take."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Mapping, Sequence

from drivers.driver import DeviceError, Node, find
from edge.language.cell import Cell, Device
from edge.language.source import suggest


def run(cell: Cell, name: str, *, simulate: bool) -> int:
    """Gives the exit code: 0 where the device has answered; 1 where not, or the cell has none of this name."""
    device = next((one for one in cell.devices if one.name == name), None)
    if device is None:
        hint = suggest(name, [one.name for one in cell.devices]) or ", ".join(one.name for one in cell.devices)
        return _fail(f"the cell {cell.name} has no device `{name}`: {hint}")
    try:
        identity, nodes = _simulated(cell, device) if simulate else asyncio.run(_ask(device))
    except DeviceError as error:
        return _fail(f"{name}: {error.text}{f' ({error.hint})' if error.hint else ''}")
    print("\n".join(lines(device, identity, nodes)))
    return 0


def lines(device: Device, identity: Mapping[str, str], nodes: Sequence[Node]) -> list[str]:
    """What is printed: comments of YAML, and an entry of the cell's `tags` for each node."""
    says = ", ".join(f"{name} {text}" for name, text in identity.items()) or "it does not say what it is"
    offers = [_entry(node) for node in nodes]
    return [f"# {device.name} ({device.driver}): {says}", *(offers or ["# it does not tell what addresses it has"])]


def _entry(node: Node) -> str:
    name = "".join(char if char.isalnum() and char.isascii() else "_" for char in node.name).strip("_").lower()
    access = ", access: write, failsafe: …" if node.writable else ""
    return f'{name}: {{at: "{node.address}", type: "{node.type}"{access}}} # {node.name}'


async def _ask(device: Device) -> tuple[Mapping[str, str], Sequence[Node]]:
    driver = find(device.driver)(device.settings, (), {})
    try:
        await driver.connect()
        identity: Mapping[str, str] = {}
        with contextlib.suppress(DeviceError):  # some end the connection where they do not know the question
            identity = await driver.identify()
        await driver.connect()
        return identity, await driver.browse()
    finally:
        await driver.close()


def _simulated(cell: Cell, device: Device) -> tuple[Mapping[str, str], Sequence[Node]]:
    from edge.lock import CannotStart
    from edge.simulation import simulated

    try:
        with simulated(cell, subprocess.DEVNULL) as reached:
            return asyncio.run(_ask(reached.devices[device.index]))
    except CannotStart as reason:
        raise DeviceError(str(reason), status=0) from None


def _fail(text: str) -> int:
    print(f"edge: {text}", file=sys.stderr)
    return 1
