"""`edge replay`: every cycle of a journal runs again in the same engine, and gives the same, byte for byte.

The cell and its recipes are those that the journal has the texts of. Of a recipe that came into force later its text
is compiled anew: the byte code that the loop took in is code, and a file that was sent here is not trusted to be that.
"""

import gc
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge import __version__, record
from edge.batch import State
from edge.differences import Difference, difference
from edge.engine.engine import Engine, Output
from edge.engine.states import ENDED
from edge.image import MOST_SKIPPED, device_of
from edge.journal import DIRECTORY, Cycle, Gap, Header, Keyframe, RecipeText, read_journal
from edge.language import edition, parcel, source
from edge.language.cell_file import CELL
from edge.language.plan import load_plan, recompile
from edge.language.program import Plan, Recipe
from edge.language.report import report
from edge.language.source import Problems
from edge.messages import MESSAGE, Revision, StateChanged, pack, pack_events, unpack_events, unpack_inward

MOST_SHOWN = 20
"""Of the cycles that differ with another recipe."""

_encode = msgspec.msgpack.Encoder().encode
_state = msgspec.msgpack.Decoder(State)


class CannotReplay(Exception):
    """The text is for a technician."""


class Span(msgspec.Struct):
    """The part of a run that a batch was in: from the keyframe before it (0: the run's beginning) to its end."""

    keyframe: int
    last: int


class Settings(msgspec.Struct, frozen=True):
    """What is to be replayed: all or one `batch`, with the recipes as they were or with that of a file."""

    state_dir: Path
    batch: str = ""
    recipe: Path | None = None


class Site:
    """The cell of a run in a folder of its own, and the plan with its recipes; raises CannotReplay."""

    def __init__(self, header: Header, settings: Settings, folder: Path) -> None:
        self.state_dir = settings.state_dir
        self.folder = folder
        self.texts = {one.hash: one.text for one in header.recipes}
        self.plan = self._loaded(folder, header.text, (), "the journal")
        for one in header.recipes:
            recipe = self.version(one.name, one.hash)
            if one.in_force:
                self.plan.put(recipe)
            else:
                self.plan.others[one.hash] = recipe
        self.replaced = self._replace(settings.recipe) if settings.recipe is not None else ""

    def _loaded(self, folder: Path, cell: str, recipes: Sequence[str], where: str) -> Plan:
        (folder / CELL).write_text(cell, encoding="utf-8")
        problems = Problems()
        plan = load_plan(folder / CELL, problems, recipes)
        if plan is None:
            raise CannotReplay(f"this edge ({__version__}) finds\n{report(problems).replace(str(folder), where)}")
        return plan

    def _replace(self, file: Path) -> str:
        """The recipe of a file takes the place of the one of its name, which it gives; what it includes stays."""
        problems = Problems()
        node = source.load(file, problems)
        if node is None:
            raise CannotReplay(report(problems))
        name = node.entries["recipe"].value.text if "recipe" in node.entries else ""
        if name not in self.plan.recipes:
            known = ", ".join(self.plan.recipes) or "none"
            raise CannotReplay(f"{file} is none of the recipes that were in force: they were {known}")
        folder = self.folder / "other"
        folder.mkdir()
        (folder / file.name).write_text(problems.texts[str(file)], encoding="utf-8")
        for number, text in enumerate(edition.parted(self.plan.recipes[name].text)[1].values()):
            (folder / f"included-{number}.yaml").write_text(text, encoding="utf-8")
        self.plan.put(self._loaded(folder, self.plan.text, (name,), str(file.parent)).recipes[name])
        return name

    def text(self, digest: str) -> str:
        """The text of a version; of one that came into force in a part of the journal that is gone, from the record."""
        if digest not in self.texts:
            try:
                self.texts[digest] = record.recipe_text(self.state_dir / record.FILE, digest)
            except record.NoRecord:
                return ""
        return self.texts[digest]

    def version(self, name: str, digest: str) -> Recipe:
        """A version of a recipe, compiled from its text. Raises CannotReplay."""
        text = self.text(digest)
        recipe = recompile(self.plan, name, text) if text else None
        if recipe is None or recipe.hash != digest:
            why = "this edge does not take it" if text else "its text is neither in the journal nor in the record"
            raise CannotReplay(f"version {digest[:7]} of the recipe {name}: {why}")
        return recipe

    def revised(self, packet: bytes) -> bytes:
        """A packet to the loop; of a Revision with its recipe compiled anew, and without it where that was replaced."""
        try:
            message = unpack_inward(packet)
        except msgspec.MsgspecError:
            return packet
        if not isinstance(message, Revision):
            return packet
        if message.recipe == self.replaced:
            return b"\xff"  # the engine passes over what it does not know
        if not message.packed or len(message.packed) > parcel.MOST_BYTES:
            return packet
        self.texts[source.digest(message.text)] = message.text
        recipe = recompile(self.plan, message.recipe, message.text)
        return pack(msgspec.structs.replace(message, packed=parcel.pack(recipe) if recipe is not None else b"\xff"))

    def engine_at(self, keyframe: Keyframe) -> Engine:
        """The engine as a keyframe has it. Raises CannotReplay."""
        try:
            state = _state.decode(keyframe.state)
        except msgspec.MsgspecError as error:
            raise CannotReplay(f"the keyframe of cycle {keyframe.cycle} is of another edge ({error})") from None
        plan = self.plan.copy()
        wanted = [(one.recipe, one.hash) for one in state.batches.values()]
        wanted += [(name, digest) for name, digest in state.versions.items() if digest]
        for name, digest in wanted:
            if plan.version(name, digest) is None:
                plan.others[digest] = self.version(name, digest)
        for name, digest in state.versions.items():
            if name == self.replaced:
                continue
            version = plan.version(name, digest) if digest else None
            plan.withdraw(name)
            if version is not None:
                plan.put(version)
        return Engine(plan, state)


class Replay:
    """A journal runs again; `differences` counts what differs, `cycles` the cycles that were run, `real_ns` how long
    they had taken, `refused` the runs that cannot be replayed.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cycles = 0
        self.real_ns = 0
        self.refused = 0
        self.differences = 0
        self.header: Header | None = None
        self.site: Site | None = None
        self.sites: dict[tuple[str, tuple[RecipeText, ...]], Site] = {}
        self.engine: Engine | None = None
        self.shown: dict[int, bytes] = {}
        self.first = 0
        self.last = 0
        self.missed = 0
        self.before = 0

    def run(self) -> Iterator[str]:
        """Replays all that there is; gives what is to be said of it, line by line."""
        spans = self._spans() if self.settings.batch else None
        span: Span | None = None
        with tempfile.TemporaryDirectory(prefix="edge-replay-") as folder:
            for item in read_journal(self.settings.state_dir):
                if isinstance(item, Header):
                    yield from self._end()
                    span = spans.get(item.run) if spans is not None else Span(0, sys.maxsize)
                    self.site, self.header = None, item
                    if span is not None:
                        place = Path(tempfile.mkdtemp(dir=folder))
                        yield from self._begin(item, place, from_start=not span.keyframe)
                elif span is None or self.site is None:
                    if isinstance(item, Gap) and spans is None and self.site is None:
                        yield f"  gap: {item.text}"
                elif isinstance(item, Gap):
                    yield from self._gap(item.text)
                elif isinstance(item, Keyframe):
                    if item.cycle >= span.keyframe:
                        yield from self._keyframe(item)
                elif span.keyframe < item.cycle <= span.last:
                    yield from self._cycle(item)
            yield from self._end()

    def _spans(self) -> dict[int, Span]:
        """Where the batch was, by the runs that it was in. Raises CannotReplay."""
        batch, mark = self.settings.batch, self.settings.batch.encode()
        spans: dict[int, Span] = {}
        run = keyframe = 0
        for item in read_journal(self.settings.state_dir):
            if isinstance(item, Header):
                run, keyframe = item.run, 0
            elif isinstance(item, Keyframe) and run not in spans:
                keyframe = item.cycle
                if mark in item.state and batch in _state.decode(item.state).batches:
                    spans[run] = Span(keyframe, sys.maxsize)
            elif isinstance(item, Cycle) and mark in item.events:
                events = [event for event in unpack_events(item.events) if getattr(event, "batch", "") == batch]
                if events:
                    ended = any(isinstance(event, StateChanged) and event.state in ENDED for event in events)
                    spans.setdefault(run, Span(keyframe, 0)).last = item.cycle if ended else sys.maxsize
        if not spans:
            raise CannotReplay(f"the journal has nothing of a batch {batch}: `edge batches` lists those of the record")
        return spans

    def _begin(self, header: Header, folder: Path, *, from_start: bool) -> Iterator[str]:
        began = datetime.fromtimestamp(header.run / 1e9, UTC)
        yield f"{header.cell}, run of {began:%Y-%m-%d %H:%M:%S} UTC, scan {header.scan_ns / 1e6:g} ms"
        try:
            known = self.sites.get((header.text, header.recipes))
            self.site = known or Site(header, self.settings, folder)
        except CannotReplay as reason:
            self.refused += 1
            yield f"  cannot be replayed: {reason}"
            return
        self.sites[header.text, header.recipes] = self.site
        self.engine = Engine(self.site.plan) if from_start and header.after == "start" else None
        self.shown = {}
        self.first, self.last, self.missed, self.before = 1, 0, 0, self.differences

    def _end(self) -> Iterator[str]:
        """The end of a stretch that was replayed without a gap."""
        if self.engine is not None and self.last >= self.first:
            differ = self.differences - self.before
            how = f"{differ:,} of them differ" if differ else "identical"
            yield f"  cycles {self.first:,} to {self.last:,} ({self._seconds(self.last - self.first + 1)}): {how}"
        if self.missed:
            yield f"  {self.missed:,} recorded cycles before the next keyframe are not replayed"
        self.engine, self.missed = None, 0

    def _gap(self, text: str) -> Iterator[str]:
        yield from self._end()
        yield f"  gap: {text}"

    def _keyframe(self, keyframe: Keyframe) -> Iterator[str]:
        """Goes on from a keyframe; where the replay has come to it, its state must be the same."""
        assert self.site is not None
        if self.engine is not None and keyframe.cycle >= self.engine.state.cycle:
            found = self._idle_until(keyframe.cycle + 1)
            if found is None and not self.site.replaced and _encode(self.engine.state) != keyframe.state:
                found = Difference(keyframe.cycle, (f"the engine's state: {_unlike(self.engine.state, keyframe)}",))
            if found is not None:
                yield from self._differs(found)
            if found is None or self.site.replaced:
                return
        yield from self._end()
        try:
            self.engine = self.site.engine_at(keyframe)
        except CannotReplay as reason:
            yield f"  gap: {reason}"
            return
        self.shown = {device.index: self.engine.output_frame(device.index) for device in self.site.plan.cell.devices}
        self.first, self.last, self.before = keyframe.cycle + 1, keyframe.cycle, self.differences

    def _cycle(self, cycle: Cycle) -> Iterator[str]:
        engine, site = self.engine, self.site
        if engine is None or site is None:
            self.missed += 1
            return
        if cycle.skipped == MOST_SKIPPED:
            yield from self._gap(f"before cycle {cycle.cycle} the loop stood still for an unknown time")
            return
        found = self._idle_until(cycle.cycle - cycle.skipped)
        if found is None:
            packets = [site.revised(packet) if packet[0] == MESSAGE else packet for packet in cycle.inputs]
            found = self._compare(cycle, engine.step(cycle.cycle, packets))
        if found is not None:
            yield from self._differs(found)

    def _idle_until(self, cycle: int) -> Difference | None:
        """Runs the cycles before this one in which nothing came and nothing was given."""
        assert self.engine is not None
        for idle in range(self.engine.state.cycle + 1, cycle):
            found = self._compare(Cycle(idle, [], [], b""), self.engine.step(idle, []))
            if found is not None:
                return found
        return None

    def _compare(self, cycle: Cycle, now: Output) -> Difference | None:
        assert self.engine is not None and self.site is not None and self.header is not None
        self.cycles += 1
        self.real_ns += self.header.scan_ns
        self.last = cycle.cycle
        found = None
        if now.frames != cycle.outputs or pack_events(now.events) != cycle.events:
            found = difference(self.engine, cycle, now, self.shown, other_recipe=bool(self.site.replaced))
        for frame in cycle.outputs:
            self.shown[device_of(frame)] = frame
        return found

    def _differs(self, found: Difference) -> Iterator[str]:
        """Tells it. The same recipe goes on at the next keyframe; another one goes on: it is to show what differs."""
        assert self.header is not None and self.site is not None
        if not self.site.replaced:
            self.last = found.cycle - 1
            yield from self._end()
        self.differences += 1
        if not self.site.replaced or self.differences <= MOST_SHOWN:
            at = datetime.fromtimestamp((self.header.run + found.cycle * self.header.scan_ns) / 1e9, UTC)
            yield f"  cycle {found.cycle:,} ({self._seconds(found.cycle)} after the start, {at:%H:%M:%S} UTC) differs:"
            yield from (f"    {line}" for line in found.lines)
        if not self.site.replaced and self.header.edge != __version__:
            yield f"    the journal is of edge {self.header.edge}, this is {__version__}: its engine may differ"

    def _seconds(self, cycles: int) -> str:
        return f"{cycles * (self.header.scan_ns if self.header else 0) / 1e9:.2f} s"


def _unlike(state: State, keyframe: Keyframe) -> str:
    """The parts of the state that are other than a keyframe's."""
    other = _state.decode(keyframe.state)
    return ", ".join(name for name in State.__struct_fields__ if getattr(state, name) != getattr(other, name))


def run(settings: Settings) -> int:
    """Gives the exit code: 0 where every cycle that was replayed is identical, 1 where one differs or none is there."""
    gc.disable()  # as in the loop: a cycle leaves nothing behind
    replay, began = Replay(settings), time.monotonic()
    try:
        for line in replay.run():
            print(line)
    except CannotReplay as reason:
        print(f"edge: {reason}", file=sys.stderr)
        return 1
    took_s = time.monotonic() - began
    if not replay.cycles:
        none = "" if replay.header else f": there is no journal in {settings.state_dir / DIRECTORY}"
        print(f"edge: nothing could be replayed{none}", file=sys.stderr)
        return 1
    real_s = replay.real_ns / 1e9
    print(
        f"replayed {replay.cycles:,} cycles, {real_s:.1f} s, in {took_s:.2f} s ({real_s / took_s:,.0f} times real time)"
    )
    print(f"differences: {replay.differences:,}" if replay.differences else "every output and event is as it was")
    return 1 if replay.differences or replay.refused else 0
