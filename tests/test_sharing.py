"""Units that steps acquire and release: whose turn it is, what is held where, batches that wait for each other."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge.language.plan import check, load_plan
from edge.language.report import report
from edge.language.source import Problems
from edge.messages import AlarmRaised, CommandDone, UnitsTaken
from tests.virtual import Virtual, plan_of

CELL = """
cell: bench
scan: 10 ms
devices:
  a: {driver: modbus, host: 127.0.0.1, every: 10 ms}
  b: {driver: modbus, host: 127.0.0.2, every: 10 ms}
  c: {driver: modbus, host: 127.0.0.3, every: 10 ms}
tags:
  a: {go: {at: coil:0, type: bool, access: write, failsafe: false}, ready: {at: discrete:0, type: bool}}
  b: {go: {at: coil:0, type: bool, access: write, failsafe: false}, ready: {at: discrete:0, type: bool}}
  c: {go: {at: coil:0, type: bool, access: write, failsafe: false}, ready: {at: discrete:0, type: bool}}
"""
ONE = """
recipe: one
shares: [a]
steps:
  - {acquire: [a], within: none}
  - {set: {a.go: true}, until: a.ready, within: none}
  - release: [a]
  - wait: 5 s
"""


BOTH = """
recipe: both
shares: [a, b]
steps:
  - {acquire: [a, b], within: none}
  - {during: {b.go: true, a.go: true}, wait: 1 s}
"""


def crossing(name: str, first: str, second: str) -> str:
    return f"""
recipe: {name}
shares: [{first}, {second}]
steps:
  - {{acquire: [{first}], within: none}}
  - {{during: {{{first}.go: true}}, wait: 200 ms}}
  - {{acquire: [{second}], within: 60 s}}
  - {{during: {{{second}.go: true}}, wait: 200 ms}}
"""


Bench = Callable[..., Virtual]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return lambda *recipes: Virtual(plan_of(tmp_path, *recipes, cell=CELL))


def said(folder: Path, *recipes: str) -> list[tuple[str, str]]:
    (folder / "cell.yaml").write_text(CELL)
    for number, text in enumerate(recipes):
        (folder / f"r{number}.yaml").write_text(text)
    problems = Problems()
    check([folder], problems)
    return [(one.code, one.message) for one in problems if one.code != "unused-tag"]


def steps(text: str, head: str = "shares: [a, b]") -> str:
    return f"recipe: r\n{head}\nsteps:\n{text}"


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_unit_is_taken_and_given_back_with_its_outputs_at_failsafe(bench: Bench) -> None:
    run = bench(ONE)
    run.start("one")
    run.run(4)
    assert run.level("a.go") is True and run.engine.state.owners == {"a": "B1"}
    run.put("a.ready", True)
    run.run(5)
    assert run.level("a.go") is False and run.engine.state.owners == {} and run.state() == "running"


def test_batches_have_a_unit_in_the_order_of_their_asking(bench: Bench) -> None:
    run = bench(ONE)
    for name in ("B1", "B2", "B3"):
        run.start("one", name)
    run.run(5)
    assert run.engine.state.owners == {"a": "B1"}
    order: list[str] = []
    for _ in range(3):
        run.put("a.ready", True)
        run.run(4)
        run.put("a.ready", False)
        run.run(6)
    order = [event.batch for event in run.of(UnitsTaken)]
    assert order == ["B1", "B2", "B3"]


def test_all_units_of_a_step_are_taken_at_once_or_none(bench: Bench) -> None:
    run = bench(ONE, BOTH)
    run.start("one")
    run.start("both", "B2")
    run.run(10)
    assert run.engine.state.owners == {"a": "B1"}
    run.put("a.ready", True)
    run.run(10)
    assert run.engine.state.owners == {"a": "B2", "b": "B2"}


def test_a_start_is_refused_while_a_batch_waits_for_its_unit(bench: Bench) -> None:
    used = "recipe: used\nuses: [b]\nsteps:\n  - {during: {b.go: true}, wait: 1 s}\n"
    run = bench(ONE, BOTH, used)
    run.start("one")
    run.start("both", "B2")
    run.run(5)
    run.command("start", "B3", recipe="used")
    run.run(2)
    assert "B3" not in run.engine.state.batches


def test_waiting_counts_under_within(bench: Bench) -> None:
    run = bench(ONE, ONE.replace("recipe: one", "recipe: two").replace("within: none", "within: 100 ms", 1))
    run.start("one")
    run.start("two", "B2")
    run.run(20)
    assert run.state("B2") == "held" and run.of(AlarmRaised)[0].kind == "timeout"


def pulse(run: Virtual) -> None:
    """Unit a is ready for a moment: who has it gives it back."""
    run.put("a.ready", True)
    run.run()
    run.put("a.ready", False)
    run.run(8)


def test_a_held_batch_keeps_its_turn_and_bars_nobody(bench: Bench) -> None:
    run = bench(ONE)
    for name in ("B1", "B2", "B3"):
        run.start("one", name)
    run.command("hold", "B2")
    run.run(3)
    pulse(run)
    run.start("one", "B4")
    run.command("restart", "B2")
    run.run(10)
    assert run.engine.state.owners == {"a": "B3"}
    pulse(run)
    pulse(run)
    assert [event.batch for event in run.of(UnitsTaken)] == ["B1", "B3", "B2", "B4"]


def test_all_is_released_however_a_batch_ends(bench: Bench) -> None:
    run = bench(ONE)
    run.start("one")
    run.start("one", "B2")
    run.run(5)
    run.command("abort")
    run.run(5)
    assert run.engine.state.owners == {"a": "B2"} and run.batch().units == []


def test_a_lost_device_holds_who_has_its_unit_and_nobody_else(bench: Bench) -> None:
    run = bench(ONE)
    run.start("one")
    run.start("one", "B2")
    run.run(5)
    run.lose("a")
    run.run(3)
    assert (run.state(), run.state("B2")) == ("held", "running")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("interlocks:\n  - {when: not a.ready, do: hold, grace: 20 ms, say: {en: Not ready}}\n", "an interlock stands"),
        ("permissives:\n  a: [{must: a.ready, say: {en: Ready}}]\n", "Ready"),
    ],
)
def test_what_guards_a_unit_bars_the_restart_of_the_batch_that_has_acquired_it(
    tmp_path: Path, more: str, text: str
) -> None:
    hold = "recipe: keep\nshares: [a]\nsteps: [{acquire: [a], within: none}, {during: {a.go: true}, wait: 1 s}]\n"
    run = Virtual(plan_of(tmp_path, hold, cell=CELL + more))
    run.put("a.ready", True)
    run.start("keep")
    run.run(4)
    run.put("a.ready", None)
    run.run(2)
    run.command("hold")
    run.run(4)
    assert run.state() == "held"
    restart = run.command("restart")
    for _ in range(5):
        run.run(1)
        assert run.level("a.go") is False
    (done,) = [event for event in run.of(CommandDone) if event.id == restart]
    assert not done.ok and text in done.text
    run.put("a.ready", True)
    run.run(2)
    run.command("restart")
    run.run(4)
    assert run.state() == "running" and run.level("a.go") is True


def test_units_and_turns_outlive_a_power_loss(bench: Bench) -> None:
    run = bench(ONE)
    for name in ("B1", "B2", "B3"):
        run.start("one", name)
    run.run(5)
    again = Virtual(run.plan)
    for name in ("B3", "B1", "B2"):
        again.restore(run.blobs[name])
    again.run(3)
    assert again.engine.state.owners == {"a": "B1"}
    for name in ("B3", "B2", "B1"):
        again.command("restart", name)
    again.run(10)
    again.put("a.ready", True)
    again.run(6)
    assert [event.batch for event in again.of(UnitsTaken)][:1] == ["B2"]


# --- batches that wait for each other --------------------------------------------------------------------------------


def test_the_checker_finds_recipes_that_acquire_in_opposite_orders(tmp_path: Path) -> None:
    wrong = said(tmp_path, crossing("there", "a", "b"), crossing("back", "b", "a"))
    assert [code for code, _ in wrong] == ["deadlock"]
    assert "this acquires `a` while `b` may be held" in wrong[0][1] or "this acquires `b`" in wrong[0][1]
    assert "r0.yaml acquires" in wrong[0][1] or "r1.yaml acquires" in wrong[0][1]


def test_a_recipe_with_itself_cannot_cross_in_one_order(tmp_path: Path) -> None:
    assert said(tmp_path, crossing("there", "a", "b")) == []


def test_recipes_that_use_one_unit_all_the_time_never_meet(tmp_path: Path) -> None:
    def used(text: str) -> str:
        return text.replace("shares:", "uses: [c]\nshares:") + "  - {during: {c.go: true}, wait: 1 s}\n"

    assert said(tmp_path, used(crossing("there", "a", "b")), used(crossing("back", "b", "a"))) == []


def test_a_unit_that_both_hold_keeps_them_apart(tmp_path: Path) -> None:
    def gated(text: str) -> str:
        return text.replace("shares: [", "shares: [c, ").replace(
            "steps:\n", "steps:\n  - {acquire: [c], within: none}\n  - {during: {c.go: true}, wait: 1 s}\n"
        )

    assert said(tmp_path, gated(crossing("there", "a", "b")), gated(crossing("back", "b", "a"))) == []


def test_a_ring_of_three_is_found(tmp_path: Path) -> None:
    wrong = said(tmp_path, crossing("x", "a", "b"), crossing("y", "b", "c"), crossing("z", "c", "a"))
    assert [code for code, _ in wrong] == ["deadlock"]


def test_batches_that_wait_for_each_other_are_parted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker would have found it; this is what happens where it could not."""
    monkeypatch.setattr("edge.language.plan.report_deadlocks", lambda orders, problems: None)
    run = bench(crossing("there", "a", "b"), crossing("back", "b", "a"))
    run.start("there")
    run.start("back", "B2")
    run.run(60)
    (alarm,) = run.of(AlarmRaised)
    assert alarm.kind == "deadlock" and alarm.batch == "B2"
    assert all(part in alarm.say["en"] for part in ("B1 (a)", "B2 (b)", "B2 is stopped"))
    assert (run.state("B2"), run.state("B1")) == ("stopped", "complete")


# --- what is held where ----------------------------------------------------------------------------------------------

WRONG = {
    "not acquired": ("  - {during: {a.go: true}, wait: 1 s}\n", ["unit-not-acquired"]),
    "only read": ("  - {until: a.ready, within: 1 s}\n", ["unit-not-acquired"]),
    "after its release": (
        "  - {acquire: [a], within: 1 s}\n  - release: [a]\n  - set: {a.go: true}\n",
        ["unit-not-acquired"],
    ),
    "in one way only": (
        "  - choose:\n      - {when: b.ready, steps: [{acquire: [a], within: 1 s}]}\n      - else: []\n"
        "  - set: {a.go: true}\n",
        ["unit-not-acquired"],
    ),
    "perhaps not in time": (
        "  - {acquire: [a], within: 1 s, on_timeout: continue}\n  - set: {a.go: true}\n",
        ["unit-not-acquired"],
    ),
    "released in a round before": (
        "  - {acquire: [a], within: 1 s}\n  - repeat: {times: 2}\n    steps: [{set: {a.go: true}}, {release: [a]}]\n",
        ["unit-not-acquired", "unit-not-acquired"],
    ),
    "released beside": (
        "  - {acquire: [a], within: 1 s}\n  - parallel: {x: [{release: [a]}], y: [{set: {a.go: true}}]}\n",
        ["unit-not-acquired"],
    ),
    "acquired in two branches": (
        "  - parallel: {x: [{acquire: [a], within: 1 s}], y: [{acquire: [a], within: 1 s}]}\n  - set: {a.go: true}\n",
        ["acquired-twice"],
    ),
    "twice": (
        "  - {acquire: [a], within: 1 s}\n  - {acquire: [a], within: 1 s}\n  - set: {a.go: true}\n",
        ["acquired-twice"],
    ),
    "never acquired, released": ("  - release: [a]\n", ["unit-not-acquired"]),
    "not shared": ("  - {acquire: [c], within: 1 s}\n", ["not-shared"]),
    "no time limit": ("  - acquire: [a]\n  - set: {a.go: true}\n", ["no-within"]),
}
PART = {"unused-unit", "always-true"}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_certainly_held_is_an_error(what: str, tmp_path: Path) -> None:
    text, codes = WRONG[what]
    head = "uses: [b]\nshares: [a]" if "b.ready" in text else "shares: [a]"
    assert [code for code, _ in said(tmp_path, steps(text, head)) if code not in PART] == codes


def test_a_handler_and_an_interlock_hold_no_shared_unit(tmp_path: Path) -> None:
    text = ONE + "on:\n  hold: [{set: {a.go: false}}]\ninterlocks: [{when: a.ready, do: hold, say: {en: Ready}}]\n"
    assert [code for code, _ in said(tmp_path, text)] == ["unit-not-acquired", "unit-not-acquired"]


def test_a_unit_is_used_or_shared(tmp_path: Path) -> None:
    text = "recipe: r\nuses: [a]\nshares: [a]\nsteps:\n  - {during: {a.go: true}, wait: 1 s}\n"
    assert [code for code, _ in said(tmp_path, text)] == ["unit-twice"]


def test_a_loop_may_acquire_and_release_in_each_round(tmp_path: Path) -> None:
    text = "  - repeat: {times: 3}\n    steps:\n      - {acquire: [a], within: 1 s}\n"
    text += "      - {during: {a.go: true}, wait: 1 s}\n      - release: [a]\n"
    assert said(tmp_path, steps(text, "shares: [a]")) == []


def test_two_shipped_rinses_have_the_skid_one_after_the_other() -> None:
    problems = Problems()
    plan = load_plan(Path(__file__).parent.parent / "recipes" / "cip-skid" / "cell.yaml", problems)
    assert plan is not None, report(problems)
    assert sorted(plan.recipes) == ["clean-tank1", "rinse-tank1", "rinse-tank2"]  # its operations are in no list
    run = Virtual(plan)
    for tag in ("skid.remote", "tank1.manhole", "tank2.manhole", "tank1.spray_opened", "tank2.spray_opened"):
        run.put(tag, True)
    for tag, value in (("skid.flow", 20.0), ("skid.return_flow", 20.0), ("skid.return_conductivity", 0.4)):
        run.put(tag, value)
    for tag in ("skid.caustic_level", "skid.acid_level", "skid.caustic_strength"):
        run.put(tag, 400.0 if "level" in tag else 90.0)
    run.start("rinse-tank1", "B1")
    run.start("rinse-tank2", "B2")
    run.run(30)
    assert run.level("tank1.spray") is True and run.level("tank2.spray") is False
    assert [one.batch for one in run.of(UnitsTaken)] == ["B1"] and run.state("B2") == "running"
    run.put("tank1.spray_closed", True)
    run.put("tank1.spray_opened", False)
    cycles = 0
    while run.state("B1") != "complete" and (cycles := cycles + 1) < 300:
        run.run()
        assert run.level("tank2.spray") is False or len(run.of(UnitsTaken)) == 2
    run.run(10)
    assert run.state("B1") == "complete" and run.level("tank1.spray") is False
    assert [one.batch for one in run.of(UnitsTaken)] == ["B1", "B2"] and run.level("tank2.spray") is True
    assert run.level("skid.flow_setpoint") == 20
