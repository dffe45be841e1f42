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
from tests.virtual import CELL, Virtual, plan_of

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
SHARED = (
    CELL.replace("tags:\n", "  arm: {driver: modbus, host: 127.0.0.3, every: 10 ms}\ntags:\n", 1).replace(
        "heartbeats:",
        """  arm:
    program: {at: holding:0, type: int16, access: write, failsafe: 0}
    command: {at: holding:1, type: int16, access: write, failsafe: 0}
    taken: {at: input:0, type: int16}
    status: {at: input:1, type: int16}
heartbeats:""",
        1,
    )
    + """
  arm.pick:
    parameters: {program: arm.program}
    acknowledged: arm.taken == arm.command
    start: {arm.command: 1}
    hold: {arm.command: 2}
    restart: {arm.command: 3}
    stop: {arm.command: 4}
    abort: {arm.command: 5}
    running: arm.status == 2
    done: arm.status == 3
    failed: arm.status == 9
    held: arm.status == 4
    stopped: arm.status == 5
    aborted: arm.status == 6
    within: {hold: 200 ms, stop: 200 ms, abort: 200 ms}
interlocks:
  - {when: plc.level > 95 L, settle: 20 ms, clears: plc.level < 90 L, do: hold, grace: 50 ms, say: {en: Brimful}}
  - {when: arm.status == 8, do: stop, say: {en: Arm gone mad}}
alarms:
  low: {when: plc.level < 5 L, settle: 50 ms, clears: 30 ms, latch: false, say: {en: Low}}
permissives:
  plc: [{must: plc.state != 9, say: {en: Sound}, before: [start, restart, resume]}]
"""
)
WIDE = """
recipe: wide
uses: [plc]
shares: [arm]
permissives: [{must: plc.count <= 70, say: {en: Not many}}]
interlocks:
  - {when: plc.count > 50, settle: 40 ms, clears: plc.count < 30, do: hold, grace: 50 ms, say: {en: Too many}}
steps:
  - name: Speed up
    ramp: {plc.speed: {to: 120 rpm, rate: 1200 rpm/s}}
    within: 1 s
    interlocks: [{when: plc.level > 80 L, settle: 30 ms, clears: 50 ms, do: hold, say: {en: Too full}}]
  - {name: Knock, pulse: {plc.valve: true}, for: 30 ms, within: 300 ms, on_timeout: continue}
  - name: Doses
    repeat: {each: dose, of: [5 L, 10 L, "clamp(plc.level, 1 L, 20 L)"]}
    steps: [{name: Fill, during: {plc.drain: true}, until: plc.level >= dose, within: 300 ms, on_timeout: continue}]
  - name: Race
    interlocks: [{when: plc.level > 85 L, settle: 20 ms, do: stop, say: {en: Over}}]
    first:
      full: [{name: Full, during: {plc.valve: true}, until: plc.level >= 30 L, within: none}]
      late: [{name: Late, wait: 100 ms}]
    into: winner
  - {name: Tell, alarm: {say: {en: Raced}, priority: low}}
  - {name: Heard, alarm: {say: {en: Heard?}, acknowledge: true}, within: 200 ms, on_timeout: continue}
  - {name: Take, acquire: [arm], within: 2 s, on_timeout: stop}
  - name: Both
    parallel:
      pick: [{name: Pick, do: arm.pick, with: {program: 3}, within: 1 s, on_timeout: continue}]
      rinse: [{name: Rinse, include: rinse, with: {soak: 50 ms}, within: 1 s}]
  - {name: Give, release: [arm]}
  - {name: Which, record: {winner: winner}}
on:
  hold: [{ramp: {plc.speed: {to: 0 rpm, rate: 3000 rpm/s}}}, {alarm: {say: {en: It stands}, priority: low}}]
  restart: [{pulse: {plc.drain: true}, for: 20 ms}]
  stop: [{pulse: {plc.drain: true}, for: 30 ms}]
  abort: [{set: {plc.drain: true}}, {wait: 50 ms}]
after_power_loss: %s
"""
RINSE = """
recipe: rinse
uses: [plc]
parameters: {soak: {unit: s, range: [0, 5]}}
interlocks: [{when: plc.level > 75 L, settle: 20 ms, do: hold, say: {en: No room}}]
steps:
  - name: Soak
    during: {plc.drain: true}
    wait: soak
  - {name: Once more, repeat: {times: 2}, steps: [{name: Splash, pulse: {plc.valve: true}, for: 20 ms, within: 200 ms}]}
"""
RIVAL = """
recipe: rival
uses: [aux]
shares: [arm]
steps:
  - name: Again
    repeat: {times: 3}
    steps:
      - {name: Grab, acquire: [arm], within: 2 s, on_timeout: stop}
      - {name: Point, set: {arm.program: 5}, during: {aux.lamp: true}, wait: 60 ms}
      - {name: Drop, release: [arm]}
"""
NUMBERS = {"level": st.one_of(st.none(), st.floats(0, 100)), "count": st.one_of(st.none(), st.integers(0, 100)),
           "ready": st.one_of(st.none(), st.booleans()), "state": st.sampled_from([None, 0, 2, 3, 9])}  # fmt: skip
WAITS_FOR = {"Fill": "plc.level", "Drain": "plc.level"}
"""Steps that end by a condition over one tag: while it is bad they do not end as done."""


@cache
def plan(policy: str) -> Plan:
    return plan_of(Path(mkdtemp()), RICH % policy, LAMP)


@cache
def shared_plan(policy: str) -> Plan:
    return plan_of(Path(mkdtemp()), WIDE % policy, RINSE, RIVAL, cell=SHARED)


class AnyFactory(RuleBasedStateMachine):
    """One cell with two recipes. Each rule is a happening; the invariants look at every cycle that ran since."""

    made = staticmethod(plan)
    recipes = ("rich", "lamp")

    @initialize(policy=st.sampled_from(["hold", "resume", "abort"]), mode=st.sampled_from(states.MODES))
    def begin(self, policy: str, mode: str) -> None:
        self.plan = self.made(policy)
        self.run = Virtual(self.plan)
        self.numbers = 0
        self.cycles(2)
        self.start(0, mode)

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
            owned = [unit for unit, owner in state.owners.items() if owner == name]
            assert sorted(owned) == sorted([*self.plan.recipes[batch.recipe].uses, *batch.units])
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
            self.look_at_guards(batch)

    def look_at_output(self, tag: int, state: State) -> None:
        """An output has one owner, and the level that its owner gives; with no owner its failsafe, or a person's."""
        failsafe, level = self.plan.cell.tags[tag].failsafe, state.levels[tag]
        owner = self.run.engine.levels.owner(tag)
        if owner is None:
            assert level == state.manual.get(tag, failsafe)
            return
        assert tag not in state.manual
        own = {failsafe, owner.set.get(tag), owner.handler.get(tag), owner.manual.get(tag), owner.commanded.get(tag)}
        own.add(owner.pulsed.get(tag))
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
            assert not (batch.pulsed or batch.commanded or batch.phases or batch.units or batch.asked or batch.armed)
        if batch.state not in states.HANDLED:
            assert batch.handling is None
        if batch.mode != states.SEMI_AUTOMATIC:
            assert not any(branch.offer for branch in branches)

    def look_at_guards(self, batch: BatchState) -> None:
        """What a step guards counts from before it gives anything; while an interlock stands its batch does not act."""
        recipe, state = self.plan.recipes[batch.recipe], self.run.engine.state
        active = [recipe.steps[one.block[one.at]] for one in every(batch.body) if one.begun]
        assert {number for step in active for number in step.interlocks} <= set(batch.armed)
        trips = [recipe.interlocks[number] for number, mark in batch.marks.items() if mark.stands]
        trips += [
            one
            for number, one in enumerate(self.plan.interlocks)
            if number in state.marks and state.marks[number].stands and not set(one.units).isdisjoint(recipe.uses)
        ]
        if trips:
            assert batch.state not in states.ACTING and batch.state != "restarting", (batch.state, trips)
        for step, run in batch.phases.items():
            assert batch.state in states.HANDLED or run.left or recipe.steps[step] in active, "a phase has its step"
            assert self.plan.phases[run.phase].unit in (*recipe.uses, *batch.units), "a phase has its unit"

    # --- what may happen ---------------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 30), skip=st.sampled_from([0, 0, 0, 1, 5, 60]))
    def pass_time(self, count: int, skip: int) -> None:
        self.cycles(count if not skip else 1, skip)

    @rule(recipe=st.sampled_from([0, 0, 1]), mode=st.sampled_from(["", *states.MODES]))
    def start(self, recipe: int, mode: str) -> None:
        self.numbers += 1
        self.run.command("start", f"B{self.numbers}", recipe=self.recipes[recipe], mode=mode)
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
        for device in self.plan.cell.devices:
            self.run.find(device.name)
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


class SharedArm(AnyFactory):
    """A cell with an arm that batches share, which does as it likes, and recipes with steps of all other kinds."""

    made = staticmethod(shared_plan)
    recipes = ("wide", "rival")

    @rule(cycles=st.integers(1, 30))
    def obey(self, cycles: int) -> None:
        """The arm does what it is told, and each thing takes it three cycles."""
        ends = {0: 0, 1: 3, 2: 4, 3: 3, 4: 5, 5: 6}
        for _ in range(cycles):
            command = self.run.level("arm.command")
            assert isinstance(command, int)
            if command and command != self.run.values[self.run.index("arm.taken")]:
                self.run.put("arm.status", 2 if command in (1, 3) else 0)
                self.cycles(3)
                self.run.put("arm.status", ends[command])
            self.run.put("arm.taken", command)
            self.cycles(1)

    @rule(status=st.sampled_from([None, 0, 2, 3, 4, 5, 6, 8, 9]))
    def show_status(self, status: int | None) -> None:
        self.run.put("arm.status", status)
        self.cycles(2)

    @rule(gone=st.booleans())
    def lose_the_arm(self, gone: bool) -> None:
        (self.run.lose if gone else self.run.find)("arm")
        self.cycles(2)

    @rule(value=st.sampled_from([0, 7]))
    def set_the_arm_by_hand(self, value: int) -> None:
        self.run.command("set", "", tag="arm.program", value=value)
        self.cycles(1)

    @precondition(lambda self: self.run.engine.state.alarms)
    @rule(last=st.booleans())
    def acknowledge(self, last: bool) -> None:
        alarms = self.run.engine.state.alarms
        self.run.command("acknowledge", "", alarm=next(iter(reversed(alarms) if last else alarms)))
        self.cycles(2)


AnyFactory.TestCase.settings = SharedArm.TestCase.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None
)
TestAnyFactory = AnyFactory.TestCase
TestSharedArm = SharedArm.TestCase
