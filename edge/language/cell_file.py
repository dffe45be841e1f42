"""How a cell's file is read: devices by their drivers, tags, units, equipment phases; endpoints in their place."""

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from drivers import driver
from drivers.driver import AddressError, Driver
from drivers.value import TYPES, Scale, Value, parse_type, to_raw
from edge.language import rules, shape, source, units
from edge.language.cell import MAX_AGE_NS, Cell, Device, Tag, beats, outside, unknown_unit, whole
from edge.language.equipment import PhaseCheck, PhaseForm, with_edges
from edge.language.shape import FAILED, Form, Name, Range, Seconds
from edge.language.source import Node, Problems, suggest, tick

MIN_SCAN_S, MAX_SCAN_S = 0.001, 1.0
_MACHINE = ("host", "port", "rack", "slot", "serial", "unit", "url")
"""The settings that say which machine a device is, whatever its driver."""


class TagForm(Form, frozen=True):
    """A tag of a device: one value that is read, and written where `access` says so."""

    at: Annotated[
        str, Meta(description="Its address at the device.", examples=["DB1.DBD0", "holding:10", "ns=2;s=State"])
    ]
    type: Annotated[str, Meta(description="Its data type.", examples=["bool", "int16", "float32", "string[16]"])]
    unit: Annotated[str, Meta(description="Unit of its value.", examples=["L", "mm/s"])] = ""
    scale: Annotated[
        tuple[float, float, float, float] | None,
        Meta(
            description="Raw low, raw high, and the values in the unit that they stand for.",
            examples=[[0, 1000, 0, 500]],
        ),
    ] = None
    range: Annotated[Range | None, Meta(description="Lowest and highest value, in the unit.", examples=[[0, 100]])] = (
        None
    )
    access: Annotated[Literal["read", "write"], Meta(description="write: also written; read if left out.")] = "read"
    failsafe: Annotated[
        shape.Expression | None, Meta(description="Where it goes when nothing drives it; every written tag needs it.")
    ] = None
    byte_order: Annotated[Literal["big", "little"], Meta(description="Order of the bytes in a register.")] = "big"
    word_order: Annotated[Literal["big", "little"], Meta(description="Order of the registers in a value.")] = "big"


class DeviceForm(Form, frozen=True):
    """A PLC or robot controller. The other keys are those of its driver."""

    driver: Annotated[str, Meta(description="The protocol that it speaks.")]
    every: Annotated[Seconds, Meta(description="How often its tags are read.")] = 0.1
    max_age: Annotated[
        Seconds | None,
        Meta(
            description="Its values are bad when it has not answered for so long; if left out 500 ms, or three times "
            "`every` or the cell's `scan` where that is more.",
            examples=["500 ms"],
        ),
    ] = None


_Members = Annotated[list[str], Meta(min_length=1)]


_PhaseName = Annotated[str, Meta(pattern=shape.PHASE)]


class CellForm(Form, frozen=True):
    """A work cell: its devices, their tags, and what its units can do."""

    cell: Annotated[str, Meta(description="Its name.", examples=["bottling"], pattern=shape.TITLE)]
    devices: Annotated[dict[Name, shape.Map], Meta(description="Its PLCs and robot controllers, by name.")]
    tags: Annotated[dict[str, dict[Name, TagForm]], Meta(description="The tags of each device, by name.")]
    scan: Annotated[Seconds, Meta(description="Period of the control loop, 1 ms to 1 s.")] = 0.01
    units: Annotated[
        dict[Name, _Members],
        Meta(description="Devices that form one unit; each other device is a unit.", examples=[{"filler": ["mixer"]}]),
    ] = field(default_factory=dict[str, list[str]])
    heartbeats: Annotated[
        dict[str, str],
        Meta(description="The tag that counts for a device's watchdog.", examples=[{"robot": "robot.alive"}]),
    ] = field(default_factory=dict[str, str])
    phases: Annotated[dict[_PhaseName, PhaseForm], Meta(description="What the units can do.")] = field(
        default_factory=dict[str, PhaseForm]
    )
    permissives: Annotated[
        dict[Name, tuple[rules.Permissive, ...]], Meta(description="What must be true before a unit is started.")
    ] = field(default_factory=dict[str, tuple[rules.Permissive, ...]])
    interlocks: Annotated[
        tuple[rules.CellInterlock, ...], Meta(description="What must not be, whatever recipe runs, or none.")
    ] = ()
    alarms: Annotated[dict[Name, rules.Alarm], Meta(description="What people are told of.")] = field(
        default_factory=dict[str, rules.Alarm]
    )
    unexpected_restart: Annotated[
        rules.UnexpectedRestart | None,
        Meta(description="Whether machines may start by themselves when power returns; not if left out."),
    ] = None


class CellFile(msgspec.Struct, frozen=True):
    """A cell as it was read; `form` has what `plan.py` compiles: phases (those that are sound), and what is watched.

    `broken` are names of tags, phases and devices that have problems of their own: what uses them is not to be blamed.
    """

    cell: Cell
    phases: dict[str, PhaseForm]
    broken: frozenset[str]
    form: CellForm

    @property
    def node(self) -> Node:
        return self.form.node


CELL = "cell.yaml"


def cell_file(given: str | Path) -> Path:
    """The file that is meant: a folder stands for the cell.yaml in it."""
    path = Path(given)
    try:
        return path / CELL if path.is_dir() else path
    except OSError:
        return path  # who opens it says why nobody may look


def load_cell(path: str | Path, problems: Problems) -> CellFile | None:
    """The cell of this file, or None where it is no cell at all; every problem in it is reported."""
    node = source.load(path, problems)
    form = FAILED if node is None else shape.read(node, CellForm, problems)
    if form is FAILED:
        return None
    return _Loading(form, problems).cell(str(path))


class _Loading:
    """Makes a cell of its form, part by part, and gathers what is broken."""

    def __init__(self, form: CellForm, problems: Problems) -> None:
        self.form = form
        self.problems = problems
        self.broken: set[str] = set()
        self.devices: list[Device] = []
        self.tags: dict[str, Tag] = {}
        self.written: dict[tuple[Hashable, str], str] = {}

    def cell(self, path: str) -> CellFile:
        form = self.form
        if not MIN_SCAN_S <= form.scan <= MAX_SCAN_S:
            self.problems.error(form.place("scan"), "out-of-range", "the scan period is 1 ms to 1 s", "10 ms is usual")
        for name, node in form.devices.items():
            self._device(name, node)
        for name, entry in form.place("tags").entries.items() if form.has("tags") else ():
            if name not in form.devices:
                self._unknown(entry.key, "device", name, form.devices)
        cell = Cell(
            name=form.cell,
            path=path,
            scan_ns=round(form.scan * 1e9),
            devices=tuple(self.devices),
            tags=tuple(self.tags.values()),
            units=self._units(),
            heartbeats=self._heartbeats(),
            unexpected_restart=form.unexpected_restart.allowed if form.unexpected_restart is not None else "",
        )
        phases = {name: phase for name, phase in form.phases.items() if self._phase(name, phase, cell)}
        self.broken |= set(form.place("phases").entries) - set(phases) if form.has("phases") else set()
        return CellFile(with_edges(cell, phases), phases, frozenset(self.broken), form)

    def _unknown(self, node: Node, kind: str, name: str, known: Mapping[str, Any]) -> None:
        hint = suggest(name, list(known)) or (f"there are {', '.join(known)}" if known else f"the cell has no {kind}")
        self.problems.error(node, f"unknown-{kind}", f"no {kind} {tick(name)}", hint)

    def _device(self, name: str, node: Node) -> None:
        """Adds the device and its tags, as far as they are sound."""
        self.broken.add(name)
        protocol = _driver(node, self.problems)
        own = _read_device(node, protocol.Settings, self.problems) if protocol is not None else None
        forms = self.form.tags.get(name, {})
        written = self.form.place("tags").entries.get(name) if self.form.has("tags") else None
        self.broken |= {f"{name}.{tag}" for tag in (written.value.entries if written else ())}
        if own is None or protocol is None:
            return
        form, values = own
        if form.has("every") and 0 < form.every < self.form.scan <= MAX_SCAN_S:
            scan = f"{self.form.scan * 1000:g} ms"
            message = f"the loop looks every {scan}: a device is read no more often than that"
            hint = f"write `every: {scan}`, or a shorter `scan` of the cell"
            self.problems.warning(form.place("every"), "short-every", message, hint)
        first = len(self.tags)
        machine = form.driver, *(getattr(values, key, None) for key in _MACHINE)
        for key, tag_form in forms.items():
            tag = _tag(f"{name}.{key}", len(self.tags), len(self.devices), tag_form, protocol, self.problems)
            if tag is None:
                continue
            other = self.written.setdefault((machine, tag.address), tag.name) if tag.writable else tag.name
            if other != tag.name:
                message, hint = f"`{other}` also writes {tag.address}", "give each written tag an address of its own"
                if not other.startswith(f"{name}."):
                    message += f": `{name}` is the same machine as `{other.partition('.')[0]}`"
                    hint = "else two recipes could drive it at once: " + hint
                self.problems.error(tag_form.place("at"), "address-twice", message, hint)
            self.tags[tag.name] = tag
            self.broken.discard(tag.name)
        indices = tuple(range(first, len(self.tags)))
        every = round(form.every * 1e9)
        period = max(every, round(self.form.scan * 1e9))
        max_age = max(MAX_AGE_NS, 3 * period) if form.max_age is None else round(form.max_age * 1e9)
        self.devices.append(Device(len(self.devices), name, form.driver, values, every, indices, max_age))
        self.broken.discard(name)

    def _units(self) -> dict[str, tuple[int, ...]]:
        """The devices of each unit: those that `units` names, and each other device by itself."""
        numbers = {device.name: device.index for device in self.devices}
        owner: dict[str, str] = {}
        found: dict[str, tuple[int, ...]] = {}
        for unit, members in self.form.units.items():
            for name, node in zip(members, self.form.place("units").entries[unit].value.items, strict=False):
                if name not in self.form.devices:
                    self._unknown(node, "device", name, self.form.devices)
                elif name in owner:
                    self.problems.error(node, "device-twice", f"`{name}` is already in the unit {owner[name]}")
                owner[name] = unit
            if unit in self.form.devices and unit not in members:
                place = self.form.place("units").entries[unit].key
                self.problems.error(place, "name-twice", f"`{unit}` is a device too, and not in this unit")
            found[unit] = tuple(numbers[name] for name in members if name in numbers)
        return found | {name: (number,) for name, number in numbers.items() if name not in owner}

    def _heartbeats(self) -> dict[int, int]:
        """The counting tag of each device."""
        numbers = {device.name: device.index for device in self.devices}
        found: dict[int, int] = {}
        for device, name in self.form.heartbeats.items():
            entry = self.form.place("heartbeats").entries[device]
            if device not in self.form.devices:
                self._unknown(entry.key, "device", device, self.form.devices)
            elif name not in self.tags:
                if name not in self.broken:
                    self._unknown(entry.value, "tag", name, self.tags)
            elif not (tag := self.tags[name]).writable or tag.type.kind != "int" or tag.scale is not None:
                hint = "a heartbeat counts: its tag has an integer type, `access: write` and no `scale`"
                self.problems.error(entry.value, "bad-heartbeat", f"`{name}` cannot be the heartbeat", hint)
            elif len(beats(tag)) < 2:
                message = f"`{name}` cannot be the heartbeat: its range has no two numbers from 0 on to count through"
                self.problems.error(entry.value, "bad-heartbeat", message, "widen its `range`, or leave it out")
            elif device in numbers:
                found[numbers[device]] = tag.index
        return found

    def _phase(self, name: str, form: PhaseForm, cell: Cell) -> bool:
        """Whether the phase is of a unit of the cell, and sound."""
        unit = name.partition(".")[0]
        if unit in cell.units:
            return PhaseCheck(name, form, cell, self.tags, self.broken, self.problems).sound()
        if unit not in self.broken:
            unknown_unit(cell, unit, self.form.place("phases").entries[name].key, self.problems)
        return False


def _driver(node: Node, problems: Problems) -> type[Driver] | None:
    """The driver of a device, or None where there is no such."""
    entry = node.entries.get("driver")
    if entry is None:
        known = ", ".join(driver.names())
        problems.error(node, "missing-key", "`driver` is missing here", f"the drivers are {known}")
        return None
    name = entry.value.text
    try:
        return driver.find(name)
    except KeyError:
        hint = suggest(name, driver.names()) or f"the drivers are {', '.join(driver.names())}"
        problems.error(entry.value, "unknown-driver", f"no driver {tick(name)}", hint)
        return None


def _read_device(
    node: Node, settings: type[msgspec.Struct], problems: Problems
) -> tuple[DeviceForm, msgspec.Struct] | None:
    form = shape.read(node, DeviceForm, problems, beside=node.entries)
    values = shape.read(node, settings, problems, beside=shape.keys(DeviceForm))
    if form is FAILED or values is FAILED:
        return None
    if form.every <= 0:
        problems.error(form.place("every"), "out-of-range", "the time between two reads is more than 0 s")
    elif form.max_age is not None and form.max_age <= form.every:
        hint = "a few times `every`: one late answer is no reason to stop"
        problems.error(form.place("max_age"), "out-of-range", "`max_age` is more than `every`", hint)
    return form, values


_IEC = {
    "sint": "int8", "byte": "uint8", "usint": "uint8", "int": "int16", "word": "uint16", "uint": "uint16",
    "dint": "int32", "dword": "uint32", "udint": "uint32", "lint": "int64", "lword": "uint64", "ulint": "uint64",
    "real": "float32", "float": "float32", "lreal": "float64", "double": "float64",
    "boolean": "bool", "bit": "bool", "string": "string[80]",
}  # fmt: skip
"""What a PLC's program and other tools call the types."""


def _type_hint(text: str) -> str:
    meant = _IEC.get(text.casefold())
    return f"did you mean `{meant}`?" if meant is not None else suggest(text, list(TYPES))


def _tag(name: str, index: int, device: int, form: TagForm, protocol: type[Driver], problems: Problems) -> Tag | None:
    """The tag of its form, or None where its type or unit is unknown; all that is wrong in it is reported."""
    try:
        kind = parse_type(form.type)
    except ValueError as error:
        problems.error(form.place("type"), "unknown-type", str(error), _type_hint(form.type))
        return None
    try:
        units.parse(form.unit)
    except ValueError as error:
        problems.error(form.place("unit"), "unknown-unit", str(error))
        return None
    numeric = kind.kind in ("int", "float")
    for key in ("unit", "scale", "range"):
        if form.has(key) and not numeric:
            problems.error(form.place(key), "not-number", f"a {kind.kind} has no {key}")
    low, high = form.range or (None, None)
    tag = Tag(
        index=index,
        name=name,
        device=device,
        address=form.at,
        type=kind,
        unit=form.unit,
        scale=_scale(form, problems),
        low=low,
        high=high,
        writable=form.access == "write",
        byte_order=form.byte_order,
        word_order=form.word_order,
    )
    if numeric:
        _check_range(tag, form, problems)
    try:
        protocol.check(tag.point)
    except AddressError as error:
        problems.error(form.place("at"), "bad-address", error.message, error.hint)
    return msgspec.structs.replace(tag, failsafe=_failsafe(tag, form, problems))


def _scale(form: TagForm, problems: Problems) -> Scale | None:
    if form.scale is None:
        return None
    scale = Scale(*form.scale)
    if scale.raw_low == scale.raw_high or scale.low == scale.high:
        hint = "raw low, raw high, low, high, such as [0, 1000, 0, 500]"
        problems.error(form.place("scale"), "bad-scale", "the two ends of the scale are the same", hint)
        return None
    return scale


def _check_range(tag: Tag, form: TagForm, problems: Problems) -> None:
    """The range goes up, and a written one can be written whole."""
    if tag.low is None or tag.high is None:
        return
    if tag.low >= tag.high:
        problems.error(
            form.place("range"), "bad-range", f"the range goes from {tag.low:g} to {tag.high:g}", "lowest first"
        )
    for end in (tag.low, tag.high):
        try:
            to_raw(end, tag.type, tag.scale)
        except ValueError:
            text = f"{end:g} {tag.unit}".rstrip()
            problems.error(form.place("range"), "bad-range", f"{tag.type.name} cannot hold {text}, an end of the range")


def _failsafe(tag: Tag, form: TagForm, problems: Problems) -> Value | None:
    """The value that a written tag goes to when nothing drives it."""
    if form.failsafe is None:
        if tag.writable and not form.has("failsafe"):
            hint = "say where it goes when nothing drives it, such as `failsafe: 0` or `failsafe: false`"
            problems.error(form.node, "no-failsafe", f"`{tag.name}` is written and has no `failsafe`", hint)
        return None
    if not tag.writable:
        problems.error(
            form.place("failsafe"), "not-writable", f"`{tag.name}` is only read", "did you mean `access: write`?"
        )
    value = shape.constant(form.failsafe, tag.type.kind, tag.unit, problems)
    if value is None:
        return None
    if reason := outside(value, tag):
        problems.error(form.failsafe, "out-of-range", reason)
        return None
    return whole(value, tag)


def apply_endpoints(cell: Cell, endpoints: str | Path | Mapping[str, Mapping[str, Any]], problems: Problems) -> Cell:
    """The cell with the connection settings of an endpoints file (device -> settings) in place of its own.

    Settings that the file leaves out stay. A device or key that the cell does not know is reported.
    """
    if isinstance(endpoints, Mapping):
        node = source.parse(json.dumps(endpoints), "endpoints", problems)
    else:
        node = source.load(endpoints, problems)
    if node is None or shape.read_map(node, problems) is FAILED:
        return cell
    devices = {device.name: device for device in cell.devices}
    for name, entry in node.entries.items():
        if name not in devices:
            hint = suggest(name, devices) or f"the devices are {', '.join(devices)}"
            problems.error(entry.key, "unknown-device", f"the cell {cell.name} has no device `{name}`", hint)
            continue
        settings = devices[name].settings
        changed = shape.read_part(entry.value, type(settings), problems)
        try:
            settings = msgspec.structs.replace(settings, **changed)
        except ValueError as error:
            problems.error(entry.value, "bad-value", str(error))
        devices[name] = msgspec.structs.replace(devices[name], settings=settings)
    return msgspec.structs.replace(cell, devices=tuple(devices.values()))
