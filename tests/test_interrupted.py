"""Each kind of step, held, paused or cut off in any of its cycles: nothing is done twice, nothing is lost."""

from collections import Counter
from pathlib import Path

import pytest

from edge.language.program import Plan
from edge.messages import AlarmRaised, Answered, Recorded, StepEnded
from tests.virtual import Virtual, plan_of

KINDS = {
    "ask": "- ask: {say: {en: Fine?}, answers: [good, bad], into: x}\n  - record: {x: x}",
    "ask with a default": """- ask: {say: {en: Fine?}, answers: [good, bad], into: x, default: bad, who: engineer}
    within: 90 ms
    on_timeout: continue
  - record: {x: x}""",
    "pulse": "- {pulse: {plc.valve: true}, for: 50 ms}",
    "ramp": "- ramp: {plc.speed: {from: 0 rpm, to: 80 rpm, rate: 1000 rpm/s}}",
    "first": """- first:
      a: [{wait: 80 ms}]
      b: [{wait: 200 ms}]
    into: x
  - record: {x: x}""",
    "each": "- repeat: {each: x, of: [1, 2, 3]}\n    steps: [{record: {x: x}}, {wait: 20 ms}]",
    "include": "- {include: inner, with: {volume: 7 L}}",
    "alarm": "- alarm: {say: {en: Look}, acknowledge: true}",
    "alarm for nobody": "- alarm: {say: {en: Look}}\n  - wait: 50 ms",
    "parallel": "- parallel: {a: [{wait: 30 ms}, {record: {a: 1}}], b: [{record: {b: 1}}, {wait: 60 ms}]}",
}
INNER = """
recipe: inner
uses: [plc]
parameters: {volume: {unit: L, range: [1, 9]}}
interlocks: [{when: plc.level > 10 * volume, do: hold, say: {en: Too full}}]
steps: [{wait: 20 ms}, {let: {twice: volume * 2}}, {record: {twice: twice}}, {wait: 20 ms}]
"""
ENDED = 400
REACTION = 5


class Floor(Virtual):
    """A batch with a person who answers and acknowledges after a moment; `pulses` are the edges that the device saw."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.since: dict[tuple[str, int], int] = {}
        self.pulses = 0

    def go(self, cycles: int) -> None:
        for _ in range(cycles):
            before = self.values[self.index("plc.valve")]
            self.run()
            self.pulses += not before and self.values[self.index("plc.valve")] is True
            state = self.engine.state
            prompts = [] if "B1" not in state.batches else self.batch().prompts
            notices = [one.alarm for one in state.alarms.values() if one.kind == "alarm" and not one.acknowledged]
            for what, number in (*(("prompt", one) for one in prompts), *(("alarm", one) for one in notices)):
                since = self.since.setdefault((what, number), self.cycle)
                if self.cycle - since == REACTION and what == "prompt":
                    self.command("answer", prompt=number, value="good", role="engineer")
                elif self.cycle - since == REACTION:
                    self.command("acknowledge", alarm=number)

    def reach(self, state: str) -> None:
        for _ in range(ENDED):
            if self.state() == state:
                return
            self.go(1)
        raise AssertionError(f"{self.state()}, not {state}")


def plan_for(folder: Path, kind: str) -> Plan:
    """The step between two that tell in the record that they were there."""
    steps = f"  - record: {{before: 1}}\n  {KINDS[kind]}\n  - record: {{after: 1}}\n"
    return plan_of(folder, f"recipe: r\nuses: [plc]\nsteps:\n{steps}", INNER)


def done(*runs: Floor) -> Counter[tuple[object, ...]]:
    """What the record has of the runs of one batch: each entry as often as it is there."""
    events = [event for run in runs for event in run.events]
    found: list[tuple[object, ...]] = []
    for event in events:
        match event:
            case Recorded():
                found.append(("recorded", event.name, event.value))
            case StepEnded():
                found.append(("ended", event.step, event.how))
            case Answered():
                found.append(("answered", event.value))
            case AlarmRaised(kind="alarm"):
                found.append(("alarm",))
            case _:
                pass
    return Counter(found)


def begun(plan: Plan) -> Floor:
    run = Floor(plan)
    run.go(2)
    run.command("start", recipe="r", parameters={})
    run.go(1)
    return run


@pytest.fixture
def undisturbed(tmp_path: Path, kind: str) -> tuple[Plan, Floor, int]:
    """The plan, a run of it that nobody interrupts, and its cycles."""
    plan = plan_for(tmp_path, kind)
    run = begun(plan)
    first = run.cycle
    run.reach("complete")
    return plan, run, run.cycle - first


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("command", "state", "back"), [("hold", "held", "restart"), ("pause", "paused", "resume")])
def test_held_or_paused_in_any_cycle(undisturbed, kind: str, command: str, state: str, back: str) -> None:
    plan, calm, cycles = undisturbed
    for cycle in range(cycles - 1):
        run = begun(plan)
        run.go(cycle)
        run.command(command)
        for _ in range(ENDED):
            if run.state() in (state, "complete"):
                break
            run.go(1)
        run.go(20)
        if run.state() != "complete":
            run.command(back)
            run.reach("complete")
        assert done(run) == done(calm), cycle
        assert run.pulses == calm.pulses, cycle


@pytest.mark.parametrize("kind", KINDS)
def test_cut_off_in_any_cycle(undisturbed, kind: str) -> None:
    plan, calm, cycles = undisturbed
    for cycle in range(cycles - 1):
        run = begun(plan)
        run.go(cycle)
        after = Floor(plan)
        after.values = list(run.values)
        after.go(2)
        after.restore(run.blobs["B1"])
        after.go(2)
        after.command("restart")
        after.reach("complete")
        found = done(run, after)
        if kind.startswith("alarm"):  # one that nobody has acknowledged is raised anew: it is on no list any more
            found[("alarm",)] = min(found[("alarm",)], 1)
        assert found == done(calm), cycle
        again = ("ended", 1, "done") not in done(run)  # a pulse whose end is not in the record
        assert calm.pulses <= run.pulses + after.pulses <= calm.pulses + again, cycle
