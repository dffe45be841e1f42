"""The plant behind a cell, as edge knows it: a model in plain Python that steps in time, without a clock or a socket.

A distribution that has plant models names, in the entry point group `edge.plants`, the file beside a cell that it reads
and its Loader. `edge test` runs recipes against the plant in virtual time, the simulated PLCs in real time.
"""

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

from drivers.value import Value, to_raw
from edge.language.cell import Cell, Tag
from edge.language.source import Problems

GROUP = "edge.plants"


class Plant(Protocol):
    """The plant of a cell. Tags are meant by their index in `Cell.tags`, values are in the tag's unit.

    What is written stays until it is written again; before, an output has its rest: false, 0. Equal writes and steps
    give equal plants.
    """

    title: str
    """What it is, for a person: `plant recipes/bottling/plant.yaml`."""

    def step(self, dt_s: float) -> None:
        """The plant `dt_s` seconds later, what was written having stood."""
        ...

    def write(self, tag: int, value: Value | None) -> None:
        """The output `tag` of the controller has this value now; None (it is no number) changes nothing."""
        ...

    def read(self, tag: int) -> Value:
        """What the tag shows now, one that the cell only reads. Raises KeyError for another."""
        ...

    def copy(self) -> "Plant":
        """A plant of its own in the same state, from which another course can be taken."""
        ...

    def state(self) -> bytes:
        """What can differ between copies of the plant: equal for two that go on alike."""
        ...


class Loader(Protocol):
    """What an entry point of the group is."""

    def __call__(self, cell: Cell, problems: Problems, path: Path | None = None) -> Plant | None:
        """The plant of a file, or of the one beside the cell, its problems reported; None where it has errors.

        Where there is none beside the cell: a plant in which every tag stands still.
        """
        ...


def load_plant(cell: Cell, problems: Problems, path: Path | None = None) -> Plant | None:
    """The plant of a file, or of the one beside the cell; None where it has errors.

    Raises LookupError where nothing makes plants here.
    """
    installed = sorted(entry_points(group=GROUP), key=lambda found: (not _beside(cell, found).exists(), found.name))
    if not installed:
        raise LookupError(f"no plant models are installed (entry points of group {GROUP})")
    loader: Loader = installed[0].load()
    return loader(cell, problems, path)


def _beside(cell: Cell, found: EntryPoint) -> Path:
    return Path(cell.path).with_name(found.name)


def raw(tag: Tag, value: Value) -> Value:
    """A value in the tag's unit as the raw value of its type, which it does not leave: a sensor saturates."""
    kind = tag.type
    if isinstance(value, str):
        return value.encode()[: kind.size].decode(errors="ignore")
    if isinstance(value, bool):
        return value
    plain = tag.scale.to_raw(value) if tag.scale is not None else value
    return to_raw(min(max(plain, kind.low), kind.high), kind, None)
