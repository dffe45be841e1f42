"""The shipped cell and its recipes: clean, complete in virtual time on the plant model, and physically sound."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from edge.language.plan import load_plan
from edge.language.recipe import LANGUAGES
from edge.language.report import report
from edge.language.source import Problems, load
from edge.messages import Asked, Recorded, StateChanged
from hil.plant_file import load_plant
from tests.virtual import Virtual

CELL = Path(__file__).parent.parent / "recipes" / "bottling" / "cell.yaml"
DT_S = 0.01
SUPPLIES, EXITS = ("inlet", "rinse", "caustic"), ("outlet", "drain")
ANSWERS = {
    "label_ok": "yes",
    "made_ready": True,
    "sample_good": True,
    "product": "juice",
    "fill_weight": 6.0,
    "filter_changed": True,
    "released": True,
}


@pytest.fixture(scope="module")
def plan():
    problems = Problems()
    plan = load_plan(CELL, problems)
    assert not problems.errors and not problems.warnings, report(problems)
    return plan


class Line(Virtual):
    """The engine with the plant of the cell behind it; questions are answered in the cycle after they were asked."""

    def __init__(self, plan, answers=ANSWERS):
        super().__init__(plan)
        problems = Problems()
        self.plant = load_plant(plan.cell, problems)
        assert not problems.errors, report(problems)
        self.answers = {**ANSWERS, **answers}
        self.open = Counter()

    def run(self, cycles=1, *, skip=0):
        before = len(self.events)
        for _ in range(cycles):
            for tag in self.plan.cell.tags:
                if tag.writable:
                    self.plant.write(tag.index, self.values[tag.index])
            self.plant.step(DT_S)
            for tag in self.plan.cell.tags:
                if not tag.writable:
                    self.values[tag.index] = self.plant.read(tag.index)
            for event in super().run(1, skip=skip):
                if isinstance(event, Asked):
                    self.command("answer", event.batch, prompt=event.prompt, value=self.answers[event.name])
            self.check()
        return self.events[before:]

    def check(self):
        """What must hold in every cycle of every recipe."""
        opened = [name for name in (*SUPPLIES, *EXITS) if self.level(f"mixer.{name}")]
        self.open.update(opened)
        assert len(opened) <= 1, f"{opened} are open at once"
        if self.level("mixer.outlet"):
            assert self.values[self.index("conveyor.bottle")], "filling beside a bottle"
            assert self.level("conveyor.speed") == 0
        assert not self.values[self.index("mixer.overflow")]

    def finish(self, batch="B1", limit_s=180):
        for _ in range(round(limit_s / DT_S)):
            if self.state(batch) in ("complete", "held", "stopped", "aborted"):
                return self.state(batch)
            self.run()
        raise AssertionError(f"{batch} is still {self.state(batch)}")

    def recorded(self, name, batch="B1"):
        return [event.value for event in self.of(Recorded) if event.name == name and event.batch == batch]

    def seconds(self):
        return self.cycle * DT_S

    def at_rest(self):
        """Whether any recipe can start now."""
        self.run(5)
        assert all(
            self.level(tag.name) == tag.failsafe
            for tag in self.plan.cell.tags
            if tag.writable and tag.name != "robot.alive"
        )
        values = {tag.name: self.values[tag.index] for tag in self.plan.cell.tags}
        assert values["mixer.level"] <= 0.6
        assert values["robot.state"] == 1
        assert values["conveyor.weight"] <= 1
        return True


def test_the_shipped_recipes_have_no_problem(plan):
    assert set(plan.recipes) == {"rinse-and-fill", "clean-in-place", "changeover"}


def test_rinse_and_fill_fills_three_bottles_in_half_a_minute(plan):
    line = Line(plan)
    line.start("rinse-and-fill")
    assert line.finish() == "complete"
    assert 20 < line.seconds() < 35
    weights = line.recorded("bottle")
    assert len(weights) == 3
    assert all(6.3 <= weight < 6.6 for weight in weights)
    assert line.recorded("bottles") == [3]
    assert line.plant.blocks["line"].spilled_l == 0
    assert line.at_rest()


def test_a_bottle_with_a_wrong_label_is_rejected(plan):
    line = Line(plan, {"label_ok": "no"})
    line.start("rinse-and-fill")
    assert line.finish() == "complete"
    assert line.plant.blocks["arm"].cycles == 2
    assert line.at_rest()


@pytest.mark.parametrize("volume", [5.0, 50.0])
def test_rinse_and_fill_ends_with_an_empty_mixer_for_every_volume(plan, volume):
    line = Line(plan)
    line.start("rinse-and-fill", volume=volume)
    assert line.finish() == "complete"
    assert line.recorded("bottles") == [int(volume // 6.2)]
    assert line.at_rest()


def test_clean_in_place_rinses_until_it_is_water(plan):
    line = Line(plan)
    line.start("clean-in-place", washes=3)
    assert line.finish() == "complete"
    assert line.seconds() < 90
    assert line.recorded("wash_temperature")[0] >= 60
    assert line.recorded("conductivity")[0] < 1
    assert line.open["caustic"] and line.open["rinse"] and not line.open["inlet"]
    assert line.at_rest()


def test_without_a_sample_nobody_is_asked_at_the_end(plan):
    line = Line(plan)
    line.start("clean-in-place", sample=False)
    assert line.finish() == "complete"
    assert [event.name for event in line.of(Asked)] == ["made_ready"]
    assert line.recorded("sample_taken") == [False]


@pytest.mark.parametrize(
    ("product", "weight", "programs"), [("water", 6.0, 5), ("juice", 6.0, 6), ("juice", 1.0, 5), ("syrup", 0.5, 5)]
)
def test_changeover_follows_the_product(plan, product, weight, programs):
    line = Line(plan, {"product": product, "fill_weight": weight})
    line.start("changeover")
    assert line.finish() == "complete"
    assert line.plant.blocks["arm"].cycles == programs
    asked = [event.name for event in line.of(Asked)]
    assert ("filter_changed" in asked) == (product == "syrup" or weight < 2)
    assert line.recorded("product") == [product]
    assert line.at_rest()


def test_the_mixer_is_cleaned_while_the_line_is_changed_over(plan):
    line = Line(plan)
    line.start("clean-in-place", "B1")
    line.start("changeover", "B2")
    assert (line.finish("B1"), line.finish("B2")) == ("complete", "complete")
    assert line.at_rest()


def test_recipes_follow_one_another_in_any_order(plan):
    line = Line(plan)
    names = ["changeover", "rinse-and-fill", "clean-in-place", "clean-in-place", "rinse-and-fill", "changeover"]
    for number, name in enumerate(names):
        line.start(name, f"B{number}")
        assert line.finish(f"B{number}") == "complete", line.batch(f"B{number}").cause_say
        assert line.at_rest()


@pytest.mark.parametrize("recipe", ["rinse-and-fill", "clean-in-place", "changeover"])
@pytest.mark.parametrize("after_s", [1, 6, 9, 14, 26])
def test_held_at_any_time_a_restart_finishes_it(plan, recipe, after_s):
    line = Line(plan)
    line.start(recipe)
    line.run(round(after_s / DT_S))
    if line.state() == "complete":
        return
    line.command("hold")
    assert line.finish() == "held"
    assert not any(line.level(f"mixer.{name}") for name in (*SUPPLIES, *EXITS, "heater"))
    assert line.level("conveyor.speed") == 0
    line.run(500)
    line.command("restart")
    line.run(2)
    assert line.finish() == "complete"
    assert line.at_rest()


@pytest.mark.parametrize(
    ("recipe", "device"),
    [
        ("rinse-and-fill", "mixer"),
        ("rinse-and-fill", "conveyor"),
        ("rinse-and-fill", "robot"),
        ("clean-in-place", "mixer"),
        ("changeover", "conveyor"),
        ("changeover", "robot"),
    ],
)
@pytest.mark.parametrize("after_s", [1.5, 7, 12.5, 14.3])
def test_a_plc_that_was_away_and_forgot_everything_is_no_obstacle_after_a_restart(plan, recipe, device, after_s):
    line = Line(plan)
    line.start(recipe)
    line.run(round(after_s / DT_S))
    line.lose(device)
    for tag in plan.cell.tags:
        if tag.writable and tag.name.startswith(f"{device}."):
            line.values[tag.index] = False if tag.type.kind == "bool" else 0
    line.run(1000)
    assert line.state() == "held"
    line.find(device)
    line.run(100)
    line.command("restart")
    line.run(2)
    assert line.finish() == "complete", line.batch().cause_say
    assert line.at_rest()


@pytest.mark.parametrize("recipe", ["rinse-and-fill", "clean-in-place"])
@pytest.mark.parametrize("after_s", [1, 5, 12, 18])
def test_a_stop_leaves_an_empty_mixer(plan, recipe, after_s):
    line = Line(plan)
    line.start(recipe)
    line.run(round(after_s / DT_S))
    line.command("stop")
    assert line.finish() == "stopped"
    line.run(5)
    assert line.values[line.index("mixer.level")] <= 0.6


def test_an_overloaded_scale_holds_and_a_hot_mixer_aborts(plan):
    line = Line(plan)
    line.start("rinse-and-fill")
    line.run(200)
    line.plant.blocks["line"].bottle_weight_kg = 50
    line.plant.blocks["line"].bottles[0].position_mm = 0
    assert line.finish() == "held"
    line = Line(plan)
    line.start("clean-in-place")
    line.run(200)
    line.plant.blocks["mixer"].temperature_c = 90
    assert line.finish() == "aborted"
    assert [event.by for event in line.of(StateChanged)][-2:-1] == ["interlock"]


def keys_of(node):
    """Every key of a file, and how often."""
    found = Counter(list(node.entries))
    for entry in node.entries.values():
        found += keys_of(entry.value)
    for item in node.items:
        found += keys_of(item)
    return found


def says_of(node):
    for key, entry in node.entries.items():
        if key == "say":
            yield entry.value
        yield from says_of(entry.value)
    for item in node.items:
        yield from says_of(item)


def roots():
    return [load(path, Problems()) for path in sorted(CELL.parent.glob("*.yaml")) if path.stem not in ("cell", "plant")]


def test_together_the_recipes_show_every_kind_of_step():
    keys = sum((keys_of(root) for root in roots()), Counter())
    wanted = (
        "set during until within on_timeout wait parallel choose when else repeat times while ask answers number into "
    )
    wanted += "do with record interlocks grace hold restart stop abort parameters type choices range default unit"
    assert not [key for key in wanted.split() if not keys[key]]


@pytest.mark.parametrize("path", sorted(CELL.parent.glob("*.yaml")), ids=lambda path: path.name)
def test_every_yaml_tool_reads_the_same(path):
    """PyYAML's own reader is stricter than libyaml in what may stand without quotes, and takes `yes` for true."""

    def same(node, value):
        if node.kind == "map":
            keys = [True if key == "on" else int(key) if key.isdecimal() else key for key in node.entries]
            assert list(value) == keys
            return all(same(entry.value, one) for entry, one in zip(node.entries.values(), value.values(), strict=True))
        if node.kind == "list":
            return all(same(item, one) for item, one in zip(node.items, value, strict=True))
        return value == node.text or (not isinstance(value, str) and not node.quoted and node.text not in ("yes", "no"))

    assert same(load(path, Problems()), yaml.load(path.read_text(encoding="utf-8"), yaml.SafeLoader))


def test_every_text_is_there_in_three_languages():
    for root in roots():
        for say in says_of(root):
            assert set(say.entries) == set(LANGUAGES)
            assert all(entry.value.text.strip() for entry in say.entries.values())
            assert any("\u0600" <= letter <= "\u06ff" for letter in say.entries["ar"].value.text)
