"""`plant.yaml` beside a cell: blocks of the plant models, wired to the cell's tags and to one another.

blocks:
  NAME:
    model: tank                     one of `plants.catalogue.MODELS`
    capacity: 100 L                 the model's parameters
    inputs: {inlet: mixer.inlet}    a written tag acts on an input of the block
    outputs: {level: mixer.level}   an output of the block is what a read tag shows
    from: {feed: OTHER.outflow}     an output of another block acts on an input of this one
constants: {conveyor.lot: L-1}      a read tag that stands still
controllers:                        how the simulated controller of a device is set up: see `controllers.CONTROLLERS`
  mixer: {put_get: false}
"""

import copy
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from drivers.value import Value
from edge.language import shape, units
from edge.language.cell import Cell, Tag, outside
from edge.language.nodes import as_choice, as_integer, as_map, as_text
from edge.language.source import Node, Problems, load, suggest, tick
from hil.controllers import CONTROLLERS, Controller
from hil.plants.catalogue import MODELS
from hil.plants.model import Block, Field, Input, Output, Parameter, fields

FILE = "plant.yaml"
_OWN_KEYS = ("model", "inputs", "outputs", "from")


_Constant = Annotated[
    Node, Meta(extra={"read": shape.read_expression}, extra_json_schema={"type": ["string", "number", "boolean"]})
]


class PlantForm(shape.Form, frozen=True):
    """The plant behind a cell, for simulation and recipe tests, and how the simulated controllers are set up."""

    blocks: Annotated[
        dict[shape.Name, shape.Map], Meta(description="Blocks of plant models, wired to tags and to one another.")
    ] = msgspec.field(default_factory=dict[str, Node])
    constants: Annotated[
        dict[str, _Constant], Meta(description="Read tags that stand still, each at a value in its unit.")
    ] = msgspec.field(default_factory=dict[str, Node])
    controllers: Annotated[
        dict[str, shape.Map], Meta(description="How the simulated controller of a device is set up.")
    ] = msgspec.field(default_factory=dict[str, Node])


class Wire(msgspec.Struct, frozen=True):
    """One end at an attribute of a block; `slope` and `zero` convert a number: out of the block, or into it."""

    block: Block
    attribute: str
    type: type
    slope: float = 1.0
    zero: float = 0.0

    def give(self, value: Value) -> None:
        """Sets the attribute."""
        setattr(self.block, self.attribute, self.type(self._converted(value)))

    def take(self) -> Value:
        """The attribute's value."""
        return self._converted(getattr(self.block, self.attribute))

    def reader(self) -> Callable[[], Value]:
        """What gives the attribute's value, with as little as can be between."""
        return functools.partial(getattr, self.block, self.attribute) if self.plain else self.take

    @property
    def plain(self) -> bool:
        """Whether a value goes through as it is."""
        return self.slope == 1 and self.zero == 0

    def _converted(self, value: Value) -> Value:
        if (self.slope == 1 and self.zero == 0) or isinstance(value, bool | str):
            return value
        return value * self.slope + self.zero


class Plant:
    """The plant of a cell (edge.language.plant.Plant). Values are in the tags' units; a tag is meant by its index."""

    def __init__(self, cell: Cell, title: str = "no plant behind it: what is read stands still") -> None:
        """A plant without blocks: every read tag stands at zero, or at the nearest end of its range."""
        self.title = title
        self.blocks: dict[str, Block] = {}
        self.links: dict[str, list[tuple[Wire, Wire]]] = {}
        self.actuators: dict[int, list[Wire]] = {}
        self.sensors: dict[int, Wire] = {}
        self._readers: dict[int, Callable[[], Value]] = {}
        self.controllers: dict[str, Controller] = {}
        self.constants: dict[int, Value] = {tag.index: _at_rest(tag) for tag in cell.tags if not tag.writable}

    def step(self, dt_s: float) -> None:
        """The plant `dt_s` seconds later."""
        links = self.links
        for name, block in self.blocks.items():
            if name in links:
                for source, target in links[name]:
                    target.give(source.take())
            block.step(dt_s)

    def write(self, tag: int, value: Value | None) -> None:
        """The controller's output `tag` has this value now; None (it is no number) changes nothing."""
        if value is not None:
            for wire in self.actuators.get(tag, ()):
                wire.give(value)

    def read(self, tag: int) -> Value:
        """What the controller's input `tag` shows now."""
        reader = self._readers.get(tag)
        if reader is None:
            wire = self.sensors.get(tag)
            if wire is None:
                return self.constants[tag]
            reader = self._readers[tag] = wire.reader()
        return reader()

    def copy(self) -> "Plant":
        """A plant of its own in the same state; the wiring is the same, with the copy's blocks at its ends."""
        made = copy.copy(self)
        made.blocks = {name: _copied(block) for name, block in self.blocks.items()}
        of = {id(block): made.blocks[name] for name, block in self.blocks.items()}

        def moved(wire: Wire) -> Wire:
            return Wire(of[id(wire.block)], wire.attribute, wire.type, wire.slope, wire.zero)

        made.links = {name: [(moved(out), moved(into)) for out, into in ends] for name, ends in self.links.items()}
        made.actuators = {tag: [moved(wire) for wire in wires] for tag, wires in self.actuators.items()}
        made.sensors = {tag: moved(wire) for tag, wire in self.sensors.items()}
        made._readers = {}
        return made

    def state(self) -> bytes:
        """All that can differ between copies of a plant: equal for those that go on alike."""
        return _encode(list(self.blocks.values()))


_encode = msgspec.msgpack.Encoder(enc_hook=lambda chance: chance.getstate()).encode
_PLAIN = frozenset({bool, int, float, str})


@functools.cache
def _names(model: type[Block]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(model))  # pyright: ignore[reportArgumentType]


def _copied(block: Block) -> Block:
    """The block in its state: `deepcopy` would make a new one, at its start."""
    made = copy.copy(block)
    for name in _names(type(block)):
        if type(value := getattr(block, name)) not in _PLAIN:
            setattr(made, name, copy.deepcopy(value))
    return made


def _at_rest(tag: Tag) -> Value:
    if tag.type.kind == "string":
        return ""
    if tag.type.kind == "bool":
        return False
    low = tag.low if tag.low is not None else 0.0
    high = tag.high if tag.high is not None else max(low, 0.0)
    return min(max(0.0, low), high)


def load_plant(cell: Cell, problems: Problems, path: Path | None = None) -> Plant | None:
    """The plant of a file; None: it has problems.

    Without a path it is that of the file beside the cell, or one that stands still where there is none.
    """
    if path is None:
        path = Path(cell.path).with_name(FILE)
        if not path.exists():
            return Plant(cell)
    before = problems.errors
    plant = Plant(cell, f"plant {path}")
    node = load(path, problems)
    if node is not None:
        _Wiring(cell, plant, problems).file(node)
    return plant if problems.errors == before else None


class _Wiring:
    """Makes the blocks and wires of a file, and reports what is wrong in it."""

    def __init__(self, cell: Cell, plant: Plant, problems: Problems) -> None:
        self.tags = {tag.name: tag for tag in cell.tags}
        self.drivers = {device.name: device.driver for device in cell.devices}
        self.plant = plant
        self.problems = problems

    def file(self, node: Node) -> None:
        form = shape.read(node, PlantForm, self.problems)
        if form is shape.FAILED:
            return
        blocks: dict[str, Node] = form.blocks
        known = {name: made for name, block in blocks.items() if (made := self._block(name, block)) is not None}
        for name, declared in known.items():
            entries = blocks[name].entries
            self._inputs(name, declared, entries["inputs"].value if "inputs" in entries else None)
            self._outputs(name, declared, entries["outputs"].value if "outputs" in entries else None)
            self._links(name, known, blocks, entries["from"].value if "from" in entries else None)
        self._constants(form.place("constants"), form.constants)
        self._controllers(form.place("controllers"), form.controllers)

    def _block(self, name: str, node: Node) -> dict[str, Field] | None:
        """Makes the block; its declared fields."""
        if as_map(node, None, {"model": "tank"}, self.problems) is None or "model" not in node.entries:
            return None
        model_name = as_choice(node.entries["model"].value, list(MODELS), self.problems)
        if model_name is None:
            return None
        model = MODELS[model_name]
        declared = fields(model)
        parameters = {key: field for key, field in declared.items() if isinstance(field.role, Parameter)}
        keys = as_map(node, (*_OWN_KEYS, *parameters), {}, self.problems) or {}
        values: dict[str, Any] = {}
        for key, field in parameters.items():
            if key in keys and (value := self._parameter(field, keys[key])) is not None:
                values[field.attribute] = value
        self.plant.blocks[name] = model(**values)
        return declared

    def _parameter(self, field: Field, node: Node) -> Any:
        if field.type is int:
            return as_integer(node, self.problems)
        if field.type is float:
            return self._amount(field, node)
        durations: dict[int, float] = {}
        for key, entry in (as_map(node, None, {}, self.problems) or {}).items():
            number = as_integer(node.entries[key].key, self.problems, low=1)
            amount = self._amount(field, entry)
            if number is not None and amount is not None:
                durations[number] = amount
        return durations

    def _amount(self, field: Field, node: Node) -> float | None:
        assert isinstance(field.role, Parameter)
        value = shape.constant(node, "float", field.role.unit, self.problems)
        if not isinstance(value, int | float):
            return None
        if value < field.role.least:
            least = f"{field.role.least:g} {field.role.unit}".rstrip()
            self.problems.error(
                node, "out-of-range", f"{tick(node.text)} is too small", f"{field.name}: {least} or more"
            )
            return None
        return float(value)

    def _ports(self, declared: dict[str, Field], kind: type, node: Node | None) -> Iterable[tuple[Field, Node]]:
        """The entries of `inputs`, `outputs` or `from` that name a field of this kind, with their values."""
        ports = {key: field for key, field in declared.items() if isinstance(field.role, kind)}
        other = {Input: "an output", Output: "an input"}[kind]
        if node is None:
            return
        for key, value in (as_map(node, None, {}, self.problems) or {}).items():
            place = node.entries[key].key
            if key in ports:
                yield ports[key], value
            elif key in declared and not isinstance(declared[key].role, Parameter):
                own = "inputs" if kind is Output else "outputs"
                self.problems.error(
                    place, "wrong-direction", f"{tick(key)} is {other} of the block", f"wire it under `{own}`"
                )
            else:
                what = "input" if kind is Input else "output"
                listed = ", ".join(f"`{name}`" for name in ports)
                hint = suggest(key, ports) or f"there are {listed}"
                self.problems.error(place, f"unknown-{what}", f"the block has no {what} {tick(key)}", hint)

    def _inputs(self, name: str, declared: dict[str, Field], node: Node | None) -> None:
        for field, value in self._ports(declared, Input, node):
            tag = self._tag(value)
            if tag is None:
                continue
            if not tag.writable:
                hint = "an input is wired to a tag with `access: write`"
                self.problems.error(
                    value, "wrong-direction", f"nothing writes {tick(tag.name)}, so it cannot act", hint
                )
            elif (wire := self._wire(name, field, tag, value, into=True)) is not None:
                self.plant.actuators.setdefault(tag.index, []).append(wire)

    def _outputs(self, name: str, declared: dict[str, Field], node: Node | None) -> None:
        for field, value in self._ports(declared, Output, node):
            tag = self._tag(value)
            if tag is None:
                continue
            if tag.writable:
                hint = "an output is wired to a tag that is only read"
                self.problems.error(
                    value, "wrong-direction", f"recipes write {tick(tag.name)}, so it is no sensor", hint
                )
            elif tag.index in self.plant.sensors:
                self.problems.error(
                    value, "wired-twice", f"{tick(tag.name)} already shows another output", "remove one"
                )
            elif (wire := self._wire(name, field, tag, value, into=False)) is not None:
                self.plant.sensors[tag.index] = wire

    def _tag(self, node: Node) -> Tag | None:
        name = as_text(node, self.problems)
        if name is None or name in self.tags:
            return self.tags[name] if name is not None else None
        hint = suggest(name, self.tags) or "the tags are those of cell.yaml beside this file"
        self.problems.error(node, "unknown-tag", f"no tag {tick(name)}", hint)
        return None

    def _wire(self, name: str, field: Field, tag: Tag, node: Node, *, into: bool) -> Wire | None:
        """A wire between a field and a tag. A tag that has no unit is taken to be in the field's."""
        kind = {bool: "bool", str: "string"}.get(field.type, "number")
        tag_kind = tag.type.kind if tag.type.kind in ("bool", "string") else "number"
        if kind != tag_kind:
            text = f"{tick(tag.name)} is a {tag.type.name}, {tick(field.name)} a {kind}"
            self.problems.error(node, "wrong-type", text, "wire it to a tag of that type")
            return None
        inner, outer = field.role.unit, tag.unit or field.role.unit
        return self._converting(name, field, node, (outer, inner) if into else (inner, outer))

    def _converting(self, name: str, field: Field, node: Node, way: tuple[str, str]) -> Wire | None:
        try:
            slope, zero = units.ratio(units.parse(way[0]), units.parse(way[1]))
        except ValueError as error:
            hint = f"{tick(field.name)} is in {field.role.unit or 'no unit'}"
            self.problems.error(node, "wrong-unit", str(error), hint)
            return None
        return Wire(self.plant.blocks[name], field.attribute, field.type, float(slope), float(zero))

    def _links(self, name: str, known: dict[str, dict[str, Field]], blocks: dict[str, Node], node: Node | None) -> None:
        inputs = blocks[name].entries.get("inputs")
        for field, value in self._ports(known[name], Input, node):
            source, other = self._source(value, known, blocks)
            if other is None:
                continue
            if inputs is not None and field.name in inputs.value.entries:
                self.problems.error(value, "wired-twice", f"{tick(field.name)} is under `inputs` too", "remove one")
            else:
                self._link(name, field, source, other, value)

    def _source(
        self, node: Node, known: dict[str, dict[str, Field]], blocks: dict[str, Node]
    ) -> tuple[str, Field | None]:
        """The block and output that `BLOCK.OUTPUT` names."""
        name, _, output = (as_text(node, self.problems) or "").partition(".")
        outputs = {key: field for key, field in known.get(name, {}).items() if isinstance(field.role, Output)}
        if name and name not in blocks:
            hint = suggest(name, blocks) or f"the blocks are {', '.join(blocks)}; write BLOCK.OUTPUT"
            self.problems.error(node, "unknown-block", f"no block {tick(name)}", hint)
        elif name in known and output not in outputs:
            hint = suggest(output, outputs) or f"its outputs are {', '.join(outputs)}"
            self.problems.error(node, "unknown-output", f"{name} has no output {tick(output)}", hint)
        return name, outputs.get(output)

    def _link(self, name: str, field: Field, source: str, other: Field, node: Node) -> None:
        if (field.type in (bool, str) or other.type in (bool, str)) and field.type is not other.type:
            text = f"{tick(field.name)} is a {field.type.__name__}, {tick(other.name)} a {other.type.__name__}"
            self.problems.error(node, "wrong-type", text)
        elif (into := self._converting(name, field, node, (other.role.unit, field.role.unit))) is not None:
            out = Wire(self.plant.blocks[source], other.attribute, other.type)
            self.plant.links.setdefault(name, []).append((out, into))

    def _constants(self, node: Node, constants: dict[str, Node]) -> None:
        for name, value in constants.items():
            tag = self._tag(node.entries[name].key)
            if tag is None:
                continue
            if tag.writable or tag.index in self.plant.sensors:
                text = (
                    f"{tick(name)} does not stand still: it is {'written' if tag.writable else 'an output of a block'}"
                )
                self.problems.error(node.entries[name].key, "wrong-direction", text)
                continue
            constant = shape.constant(value, tag.type.kind, tag.unit, self.problems)
            if constant is not None and (reason := outside(constant, tag)):
                self.problems.error(value, "out-of-range", reason)
            elif constant is not None:
                self.plant.constants[tag.index] = constant

    def _controllers(self, node: Node, controllers: dict[str, Node]) -> None:
        for name, value in controllers.items():
            if name not in self.drivers:
                hint = suggest(name, self.drivers) or f"the devices are {', '.join(self.drivers)}"
                self.problems.error(node.entries[name].key, "unknown-device", f"no device {tick(name)}", hint)
            elif (found := shape.read(value, CONTROLLERS[self.drivers[name]], self.problems)) is not shape.FAILED:
                self.plant.controllers[name] = found
