"""The engine under a random operator in a random plant: what must hold, holds after every cycle, whatever happens."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.batch import BatchState, BranchState, State
from edge.engine import states
from edge.engine.engine import Engine
from edge.language.program import Plan
from edge.messages import StateChanged, StepEnded, StepStarted, TagReport
from tests.virtual import Virtual, plan_of

RICH = """
recipe: rich
uses: [plc]
parameters:
  volume: {unit: L, default: 20, range: [5, 50]}
interlocks:
  - {when: plc.count > 40, do: hold, grace: 50 ms, say: {en: Too many}}
  - {when: plc.count > 60, do: stop, say: {en: Far too many}}
  - {when: plc.count > 80, do: abort, say: {en: All too many}}
steps:
  - {name: Stir, set: {plc.speed: 120 rpm}}
  - name: Fill
    during: {plc.valve: true}
    until: plc.level >= volume
    within: 2 s
    expects: plc.level >= 1 L
  - name: Side by side
    parallel:
      work: [{name: Work, do: plc.work, with: {program: 3}, within: 500 ms, on_timeout: hold}]
      drain:
        - name: Drain
          during: {plc.drain: true}
          until: stable(plc.level < 10 L, 50 ms)
          within: 500 ms
          on_timeout: continue
      turn:
        - repeat: {times: 2}
          steps: [{name: Turn, during: {plc.speed: 60 rpm}, wait: 40 ms}]
  - {name: Ask, ask: {say: {en: Good?}, answers: ["yes", "no"], into: good_one}, within: 1 s, on_timeout: stop}
  - {name: Half, let: {half: volume / 2}}
  - name: Which
    choose:
      - {when: good_one == "yes", steps: [{name: Keep, record: {level: plc.level, half: half}}]}
      - else: [{name: Empty, during: {plc.drain: true}, wait: 60 ms}]
on:
  hold: {within: 300 ms, steps: [{set: {plc.speed: 10 rpm}}, {until: plc.ready, within: 200 ms}]}
  restart: [{set: {plc.speed: 30 rpm}}, {wait: 30 ms}]
  stop: [{set: {plc.drain: true}}, {wait: 50 ms}]
  abort: [{set: {plc.drain: true}}, {wait: 50 ms}]
after_power_loss: %s
"""
LAMP = (
    "recipe: lamp\nuses: [aux]\nsteps: [{during: {aux.lamp: true}, until: aux.lamp and aux.beat < 0, within: none}]\n"
)
NUMBERS = {"level": st.one_of(st.none(), st.floats(0, 100)), "count": st.one_of(st.none(), st.integers(0, 100)),
           "ready": st.one_of(st.none(), st.booleans()), "state": st.sampled_from([None, 0, 2, 3, 9])}  # fmt: skip
WAITS_FOR = {"Fill": "plc.level", "Drain": "plc.level"}
"""Steps that end by a condition over one tag: while it is bad they do not end as done."""


@cache
def plan(policy: str) -> Plan:
    return plan_of(Path(mkdtemp()), RICH % policy, LAMP)


class AnyFactory(RuleBasedStateMachine):
    """One cell with two recipes. Each rule is a happening; the invariants look at every cycle that ran since."""

    @initialize(policy=st.sampled_from(["hold", "resume", "abort"]), mode=st.sampled_from(states.MODES))
    def begin(self, policy: str, mode: str) -> None:
        self.plan = plan(policy)
        self.run = Virtual(self.plan)
        self.numbers = 0
        self.cycles(2)
        self.start("rich", mode)

    def cycles(self, count: int, skip: int = 0) -> None:
        """Runs so many cycles and looks at each."""
        for _ in range(count):
            bad = {tag for tag in WAITS_FOR.values() if self.run.values[self.run.index(tag)] is None}
            events = self.run.run(1, skip=skip)
            self.look(bad, events)

    def look(self, bad: set[str], events: list[object]) -> None:
        state = self.run.engine.state
        live = {name: batch for name, batch in state.batches.items() if batch.state not in states.ENDED}
        assert set(state.owners.values()) <= set(live)
        for name, batch in live.items():
            assert [unit for unit, owner in state.owners.items() if owner == name] == list(
                self.plan.recipes[batch.recipe].uses
            )
        for event in events:
            if isinstance(event, StateChanged) and event.before in states.ENDED:
                assert event.state == "idle", event
            if isinstance(event, StateChanged) and event.before == "aborting":
                assert event.state == "aborted", event
            if isinstance(event, StepEnded) and event.how == "done" and WAITS_FOR.get(event.name) in bad:
                raise AssertionError(f"a bad value has ended {event}")
        for tag in self.plan.cell.tags:
            if tag.writable and tag.index not in self.run.engine.levels.beats:
                self.look_at_output(tag.index, state)
        for batch in state.batches.values():
            self.look_at_batch(batch)

    def look_at_output(self, tag: int, state: State) -> None:
        """An output has one owner, and the level that its owner gives; with no owner its failsafe, or a person's."""
        failsafe, level = self.plan.cell.tags[tag].failsafe, state.levels[tag]
        owner = self.run.engine.levels.owner(tag)
        if owner is None:
            assert level == state.manual.get(tag, failsafe)
            return
        assert tag not in state.manual
        own = {failsafe, owner.set.get(tag), owner.handler.get(tag), owner.manual.get(tag), owner.commanded.get(tag)}
        if owner.state in states.ACTING:
            own.add(owner.during.get(tag))
        assert level in own, (tag, level, owner.state)

    def look_at_batch(self, batch: BatchState) -> None:
        """A state and what it gives agree."""
        branches = list(every(batch.body))
        during = [tag for branch in branches for tag in branch.during]
        assert len(during) == len(set(during)) and set(during) == set(batch.during), "`during` has one step"
        if batch.manual:
            assert (batch.mode, batch.state) == (states.MANUAL, "held")
        if batch.mode == states.MANUAL:
            assert batch.state not in states.ACTING and batch.state != "restarting"
        if batch.state in states.ENDED:
            assert not (batch.during or batch.set or batch.handler or batch.manual or batch.prompts)
        if batch.state not in states.HANDLED:
            assert batch.handling is None
        if batch.mode != states.SEMI_AUTOMATIC:
            assert not any(branch.offer for branch in branches)

    # --- what may happen ---------------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 30), skip=st.sampled_from([0, 0, 0, 1, 5, 60]))
    def pass_time(self, count: int, skip: int) -> None:
        self.cycles(count if not skip else 1, skip)

    @rule(recipe=st.sampled_from(["rich", "rich", "lamp"]), mode=st.sampled_from(["", *states.MODES]))
    def start(self, recipe: str, mode: str) -> None:
        self.numbers += 1
        self.run.command("start", f"B{self.numbers}", recipe=recipe, mode=mode)
        self.cycles(3)

    @rule(do=st.sampled_from(states.COMMANDS[1:]), last=st.booleans(), data=st.integers(1, 5))
    def command(self, do: str, last: bool, data: int) -> None:
        self.run.command(do, self.someone(last))
        self.cycles(data)

    def someone(self, last: bool) -> str:
        return next(iter(reversed(self.run.engine.state.batches) if last else self.run.engine.state.batches), "none")

    @rule(mode=st.sampled_from(states.MODES), last=st.booleans())
    def choose_mode(self, mode: str, last: bool) -> None:
        self.run.command("mode", self.someone(last), mode=mode)
        self.cycles(2)

    @rule(step=st.integers(0, 20), last=st.booleans())
    def confirm(self, step: int, last: bool) -> None:
        name = self.someone(last)
        batch = self.run.engine.state.batches.get(name)
        offered = [one.block[one.at] for one in every(batch.body) if one.offer == 1] if batch else []
        self.run.command("confirm", name, step=offered[step % len(offered)] if offered else step)
        self.cycles(2)

    @rule(
        tag=st.sampled_from(["plc.valve", "plc.drain", "plc.speed", "aux.lamp"]),
        value=st.sampled_from([True, False, 7]),
    )
    def set_by_hand(self, tag: str, value: bool | int) -> None:
        self.run.command("set", "", tag=tag, value=value)
        self.cycles(1)

    @rule(value=st.sampled_from(["yes", "no", "perhaps"]), last=st.booleans())
    def answer(self, value: str, last: bool) -> None:
        name = self.someone(last)
        batch = self.run.engine.state.batches.get(name)
        self.run.command("answer", name, prompt=next(iter(batch.prompts), 0) if batch else 0, value=value)
        self.cycles(2)

    @rule(data=st.data(), tag=st.sampled_from(sorted(NUMBERS)))
    def show(self, data: st.DataObject, tag: str) -> None:
        self.run.put(f"plc.{tag}", data.draw(NUMBERS[tag]))
        self.cycles(2)

    @rule(device=st.sampled_from(["plc", "aux"]), gone=st.booleans())
    def come_or_go(self, device: str, gone: bool) -> None:
        (self.run.lose if gone else self.run.find)(device)
        self.cycles(2)

    @rule()
    def refuse_an_output(self) -> None:
        self.run.refuse("plc.valve", "write protected")
        self.cycles(2)
        self.run.send(TagReport(self.run.index("plc.valve"), 0, "", write=True))

    @rule(durable=st.booleans())
    def fill_the_disk(self, durable: bool) -> None:
        self.run.durable = durable
        self.cycles(3)

    @rule()
    def cut_the_power(self) -> None:
        """A new engine has what was committed, and nothing else."""
        self.agree()
        old = self.run
        self.run = Virtual(self.plan)
        self.run.values = list(old.values)
        for name, blob in old.blobs.items():
            if blob:
                self.run.restore(blob)
                self.run.blobs[name] = blob
        self.cycles(1)
        for batch in self.run.engine.state.batches.values():
            assert batch.state not in states.ACTING and not batch.manual

    @precondition(lambda self: self.run.engine.state.batches)
    @rule()
    def put_the_plant_right(self) -> None:
        """Nothing hinders: what is held can be restarted."""
        self.run.durable = True
        for device in ("plc", "aux"):
            self.run.find(device)
        for tag, value in (("level", 30.0), ("count", 0), ("ready", True), ("state", 2)):
            self.run.put(f"plc.{tag}", value)
        self.cycles(40)

    # --- the same inputs give the same outputs -----------------------------------------------------------------------

    def agree(self) -> None:
        """The same packets again, from the beginning, and from a copy of the state in mid-run."""
        taken, run = self.run.taken, self.run
        engine = Engine(self.plan)
        half = len(taken) // 2
        for packets in taken[:half]:
            engine.step(*packets)
        copy = msgspec.msgpack.decode(msgspec.msgpack.encode(engine.state), type=State)
        stale = set(engine.levels.stale)
        fork = Engine(self.plan, copy)
        fork.levels.stale.update(stale)
        for packets in taken[half:]:
            one, two = engine.step(*packets), fork.step(*packets)
            assert (one.frames, one.events, one.commit) == (two.frames, two.events, two.commit)
        end = msgspec.msgpack.encode(run.engine.state)
        assert msgspec.msgpack.encode(engine.state) == end == msgspec.msgpack.encode(fork.state)

    def teardown(self) -> None:
        if hasattr(self, "run"):
            self.agree()

    @invariant()
    def starts_and_ends_of_steps_go_together(self) -> None:
        """What has ended was begun in this life of the loop, or before the power was cut."""
        if not hasattr(self, "run"):
            return
        events = self.run.events
        ended = sum(isinstance(event, StepEnded) for event in events)
        begun = sum(isinstance(event, StepStarted) for event in events)
        entered = sum(
            branch.entered - branch.at
            for batch in self.run.engine.state.batches.values()
            for root in (batch.body, batch.handling)
            for branch in every(root)
        )
        assert ended + entered >= begun


def every(branch: BranchState | None) -> list[BranchState]:
    """A branch and all inside it."""
    return [] if branch is None else [branch, *(inner for child in branch.children for inner in every(child))]


AnyFactory.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestAnyFactory = AnyFactory.TestCase
