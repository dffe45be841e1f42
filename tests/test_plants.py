"""Plant models: what flows in is there or has left; the same steps give the same plant; plant.yaml is read strictly."""

from importlib.metadata import EntryPoint
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.value import TYPES, Scale, Value
from edge.language import plant
from edge.language.cell import Cell, Device, Tag
from edge.language.cell_file import load_cell
from edge.language.source import Problems
from hil.cli import main
from hil.controllers import ModbusController, OpcUaController, S7Controller, Span
from hil.plant_file import Plant, load_plant
from hil.plants.bottling import DONE, FAILED, IDLE, RUNNING, Conveyor, Robot, Tank, Valve
from hil.plants.bottling import Scale as WeighingScale
from hil.plants.catalogue import MODELS
from hil.plants.model import SUFFIXES, Output, fields
from hil.schema import schema

DT_S = 0.01
FINITE = {"allow_nan": False, "allow_infinity": False}


def run(block, seconds, dt_s=DT_S):
    for _ in range(round(seconds / dt_s)):
        block.step(dt_s)


# --- tank ------------------------------------------------------------------------------------------------------------

valves = st.fixed_dictionaries(
    {name: st.booleans() for name in ("inlet", "rinse", "caustic", "outlet", "drain", "heater")}
)


@given(st.lists(st.tuples(valves, st.floats(0.001, 2.0)), max_size=60), st.floats(0, 150))
@settings(max_examples=200, deadline=None)
def test_a_tank_neither_makes_nor_loses_a_drop(steps, start_l):
    tank = Tank(start_level_l=start_l)
    came_l, left_l, first_l = 0.0, 0.0, tank.level_l
    for opened, dt_s in steps:
        for name, value in opened.items():
            setattr(tank, name, value)
        before_l = tank.level_l
        spilled_l = tank.spilled_l
        tank.step(dt_s)
        came = dt_s * 5.0 * (tank.inlet + tank.rinse + tank.caustic)
        left = before_l + came - tank.level_l - (tank.spilled_l - spilled_l)
        assert -1e-9 <= left <= dt_s * (3.0 * tank.outlet + 5.0 * tank.drain) + 1e-9
        assert tank.outflow_l_per_s * dt_s == pytest.approx(left * 3 / (3 + 5 * tank.drain) if tank.outlet else 0)
        came_l, left_l = came_l + came, left_l + left
        assert tank.heel_l <= tank.level_l <= tank.capacity_l
        assert tank.overflow == (tank.spilled_l > spilled_l)
        assert tank.ambient_c - 1e-9 <= tank.temperature_c <= 100
        assert 0 <= tank.conductivity_ms_per_cm <= tank.caustic_strength_ms_per_cm
    assert first_l + came_l == pytest.approx(tank.level_l + left_l + tank.spilled_l)


def test_a_tank_fills_at_the_rate_of_its_inlet_and_stops_with_it():
    tank = Tank(inlet=True)
    run(tank, 4)
    assert tank.level_l == pytest.approx(20.2)
    tank.inlet = False
    run(tank, 1)
    assert tank.level_l == pytest.approx(20.2)


def test_a_full_tank_overflows():
    tank = Tank(start_level_l=99.9, inlet=True)
    run(tank, 1)
    assert tank.overflow
    assert (tank.level_l, tank.spilled_l) == (100, pytest.approx(4.9))


def test_heat_goes_by_the_heat_capacity_of_water():
    tank = Tank(start_level_l=20, heater=True, heater_power_kw=41.86, cooling_time_s=1e9)
    run(tank, 10)
    assert tank.temperature_c == pytest.approx(20 + 41.86 * 10 / (20 * 4.186), rel=1e-3)


def test_each_rinse_dilutes_what_the_heel_holds_back():
    tank = Tank(caustic=True)
    run(tank, 4)
    tank.caustic = False
    seen = []
    for _ in range(3):
        tank.rinse, tank.drain = False, True
        run(tank, 10)
        seen.append(tank.conductivity_ms_per_cm)
        tank.rinse, tank.drain = True, False
        run(tank, 2)
    assert seen[0] > 75
    assert seen[1] == pytest.approx(seen[0] * 0.2 / 10.2, rel=1e-6)
    assert seen[2] == pytest.approx(seen[1] * 0.2 / 10.2, rel=1e-6)


def test_an_agitator_takes_time_to_turn_and_to_stand():
    tank = Tank(agitator_rpm=100, agitator_inertia_s=0.5)
    run(tank, 0.5)
    assert 55 < tank.agitator_speed_rpm < 70
    run(tank, 5)
    assert tank.agitator_speed_rpm == pytest.approx(100, rel=0.01)
    tank.agitator_rpm = 0
    run(tank, 15)
    assert tank.agitator_speed_rpm == 0


# --- valve and scale -------------------------------------------------------------------------------------------------


def test_a_valve_is_between_its_limit_switches_while_it_travels():
    valve = Valve(travel_time_s=1.0, full_flow_l_per_s=2.0, open=True)
    run(valve, 0.5)
    assert (valve.opened, valve.closed, valve.flow_l_per_s) == (False, False, pytest.approx(1.0))
    run(valve, 0.6)
    assert (valve.opened, valve.closed, valve.flow_l_per_s) == (True, False, 2.0)
    valve.open = False
    run(valve, 1.1)
    assert (valve.opened, valve.closed, valve.flow_l_per_s) == (False, True, 0.0)


def test_a_scale_weighs_what_flowed_in_until_it_is_emptied():
    scale = WeighingScale(tare_kg=1.0, density_kg_per_l=2.0, fill_l_per_s=0.5)
    run(scale, 3)
    scale.fill_l_per_s = 0.0
    run(scale, 1)
    assert scale.weight_kg == pytest.approx(4.0, rel=1e-3)
    scale.empty = True
    run(scale, 20)
    assert scale.weight_kg == pytest.approx(1.0, rel=1e-3)


# --- conveyor --------------------------------------------------------------------------------------------------------


def until(block, condition, limit_s=60):
    for _ in range(round(limit_s / DT_S)):
        if condition():
            return
        block.step(DT_S)
    raise AssertionError("it did not come true")


def test_a_belt_brings_bottles_to_the_scale_fills_and_counts_them():
    line = Conveyor(bottle_weight_kg=0.3)
    for number in range(1, 4):
        line.speed_mm_per_s = 200
        until(line, lambda: line.bottle)
        line.speed_mm_per_s = 0
        until(line, lambda: line.ready)
        line.fill_l_per_s = 3
        until(line, lambda: line.weight_kg >= 6.3)
        line.fill_l_per_s = 0
        run(line, 1)
        assert 6.3 <= line.weight_kg < 6.5
        line.speed_mm_per_s = 200
        until(line, lambda: not line.bottle)
        assert line.filled == number
    assert line.spilled_l == 0


def test_a_belt_that_stands_brings_nothing():
    line = Conveyor()
    run(line, 100, 0.1)
    assert (line.bottle, line.ready, line.weight_kg) == (False, False, 0)


def test_filling_beside_a_bottle_or_over_its_brim_is_spilled():
    line = Conveyor(bottle_volume_l=7, fill_l_per_s=1)
    run(line, 2)
    assert line.spilled_l == pytest.approx(2)
    line.fill_l_per_s, line.speed_mm_per_s = 0, 200
    until(line, lambda: line.bottle)
    line.fill_l_per_s, line.speed_mm_per_s = 1, 0
    run(line, 10)
    assert line.spilled_l == pytest.approx(2 + 10 - 7)


@given(st.floats(0, 150), st.integers(0, 2**32), st.lists(st.floats(0, 500, **FINITE), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_bottles_keep_their_order_and_one_seed_gives_one_belt(jitter_mm, seed, speeds):
    lines = [Conveyor(jitter_mm=jitter_mm, seed=seed) for _ in range(2)]
    for speed in speeds:
        for line in lines:
            line.speed_mm_per_s = speed
            run(line, 0.5, 0.02)
            places = [bottle.position_mm for bottle in line.bottles]
            assert places == sorted(places, reverse=True)
            assert places[0] <= line.scale_length_mm / 2
            assert places[-1] <= -line.spacing_mm + 500 * 0.02 + jitter_mm
    assert lines[0].bottles == lines[1].bottles
    assert lines[0].weight_kg == lines[1].weight_kg


# --- robot -----------------------------------------------------------------------------------------------------------


def test_a_program_runs_for_its_time_and_is_done_until_the_number_returns_to_zero():
    robot = Robot(programs_s={3: 1.0})
    run(robot, 1)
    assert robot.state == IDLE
    robot.program = 3
    run(robot, 0.9)
    assert robot.state == RUNNING
    run(robot, 0.2)
    assert (robot.state, robot.cycles) == (DONE, 1)
    run(robot, 5)
    assert robot.state == DONE
    robot.program = 0
    run(robot, DT_S)
    assert robot.state == IDLE


def test_a_program_that_the_robot_does_not_have_fails():
    robot = Robot(programs_s={3: 1.0}, program=8)
    run(robot, DT_S)
    assert robot.state == FAILED
    robot.program = 0
    run(robot, DT_S)
    assert robot.state == IDLE


def test_zero_ends_a_running_program_and_the_next_one_starts_anew():
    robot = Robot(programs_s={3: 1.0}, program=3)
    run(robot, 0.5)
    robot.program = 0
    run(robot, DT_S)
    assert (robot.state, robot.cycles) == (IDLE, 0)
    robot.program = 3
    run(robot, 0.9)
    assert robot.state == RUNNING


def test_another_number_counts_only_when_no_program_runs():
    robot = Robot(programs_s={3: 1.0, 4: 1.0}, program=3)
    run(robot, 0.5)
    robot.program = 4
    run(robot, 0.6)
    assert (robot.state, robot.cycles) == (DONE, 1)
    robot.program = 3
    run(robot, 1.2)
    assert (robot.state, robot.cycles) == (DONE, 2)


def test_a_running_robot_stops_when_the_heartbeat_it_saw_stands_still():
    robot = Robot(programs_s={3: 60.0}, watchdog_s=2.0, program=3)
    for beat in range(1, 50):
        robot.heartbeat = beat
        run(robot, 0.1)
    assert robot.state == RUNNING
    run(robot, 1.8)
    assert robot.state == RUNNING
    run(robot, 0.3)
    assert robot.state == FAILED
    robot.program = 0
    run(robot, DT_S)
    assert robot.state == IDLE


@pytest.mark.parametrize("beats", [[0], [7], [5, 6, 0]], ids=["never", "stands", "returned to 0"])
def test_without_a_counting_heartbeat_there_is_no_watchdog(beats):
    robot = Robot(programs_s={3: 60.0}, watchdog_s=2.0, program=3)
    for beat in beats:
        robot.heartbeat = beat
        run(robot, 0.1)
    run(robot, 10)
    assert robot.state == RUNNING


# --- declarations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS.values())
def test_every_field_has_one_name_and_ends_with_its_unit(model):
    declared = fields(model)
    attributes = [field.attribute for field in declared.values()]
    assert len(set(attributes)) == len(attributes)
    for name, field in declared.items():
        assert field.attribute == name + SUFFIXES[field.role.unit]
        assert field.role.unit or name in field.attribute
    assert any(isinstance(field.role, Output) for field in declared.values())


# --- plant.yaml ------------------------------------------------------------------------------------------------------


def tag(index, name, kind="float32", unit="", writable=False, **more):
    return Tag(index, name, 0, "", TYPES[kind], unit, writable=writable, **more)


TAGS = (
    tag(0, "mixer.level", unit="m3", low=0.0, high=1.0),
    tag(1, "mixer.inlet", "bool", writable=True),
    tag(2, "mixer.agitator", unit="1/min", writable=True),
    tag(3, "mixer.temperature", unit="degF"),
    tag(4, "mixer.flow"),
    tag(5, "mixer.speed", "uint16", unit="mm/s", writable=True, scale=Scale(0, 1000, 0, 500)),
    tag(6, "mixer.pressure", unit="bar", low=1.0, high=9.0),
    tag(7, "mixer.full", "bool"),
    Tag(8, "mixer.lot", 0, "", TYPES["bool"]),
)


def cell_beside(folder, text=None, tags=TAGS):
    if text is not None:
        (folder / "plant.yaml").write_text(text, encoding="utf-8")
    device = Device(0, "mixer", "s7", None, 0, tuple(range(len(tags))))
    return Cell("c", str(folder / "cell.yaml"), 10_000_000, (device,), tags, {"mixer": (0,)}, {})


def test_a_cell_without_a_plant_stands_still_within_its_ranges(tmp_path):
    problems = Problems()
    plant = load_plant(cell_beside(tmp_path), problems)
    assert not problems.errors
    seen: dict[int, Value] = {}
    for _ in range(3):
        plant.write(1, True)
        plant.step(DT_S)
        now = {one.index: plant.read(one.index) for one in TAGS if not one.writable}
        assert now == (seen or now)
        seen = now
    assert seen == {0: 0.0, 3: 0.0, 4: 0.0, 6: 1.0, 7: False, 8: False}


GOOD = """
blocks:
  a:
    model: tank
    capacity: 0.05 m3
    inlet_flow: 300 L/min
    inputs: {inlet: mixer.inlet, agitator: mixer.agitator}
    outputs: {level: mixer.level, temperature: mixer.temperature, overflow: mixer.full}
  b:
    model: conveyor
    from: {fill: a.outflow}
    inputs: {speed: mixer.speed}
    outputs: {weight: mixer.flow}
constants: {mixer.pressure: 2000 hPa}
"""


def test_wires_convert_between_the_units_of_tags_and_blocks(tmp_path):
    problems = Problems()
    plant = load_plant(cell_beside(tmp_path, GOOD), problems)
    assert [problem.message for problem in problems] == []
    plant.write(1, True)
    plant.write(2, 90.0)
    plant.write(5, None)
    for _ in range(100):
        plant.step(DT_S)
    assert plant.read(0) == pytest.approx(0.0052)
    assert plant.read(3) == pytest.approx(68)
    assert plant.read(6) == pytest.approx(2.0)
    assert plant.read(7) is False
    assert plant.blocks["a"].agitator_rpm == 90


def test_what_leaves_a_tank_reaches_the_bottle_below(tmp_path):
    plant = load_plant(cell_beside(tmp_path, GOOD), Problems())
    tank, line = plant.blocks["a"], plant.blocks["b"]
    tank.level_l, tank.outlet = 30.0, True
    for _ in range(100):
        plant.step(DT_S)
    assert line.spilled_l == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (("model: tank", "model: tonk"), "not-a-choice", "tank"),
        (("    model: conveyor\n", ""), "missing-key", "model"),
        (("capacity: 0.05 m3", "capacty: 0.05 m3"), "unknown-key", "did you mean `capacity`"),
        (("0.05 m3", "5 kg"), "wrong-unit", "a mass"),
        (("0.05 m3", "0 L"), "out-of-range", "0.1 L or more"),
        (("0.05 m3", "lots"), "not-number", "lots"),
        (("inlet: mixer.inlet", "inlat: mixer.inlet"), "unknown-input", "did you mean `inlet`"),
        (("inlet: mixer.inlet", "inlet: mixer.inlat"), "unknown-tag", "did you mean `mixer.inlet`"),
        (("inlet: mixer.inlet", "inlet: mixer.full"), "wrong-direction", "nothing writes `mixer.full`"),
        (("inlet: mixer.inlet", "level: mixer.inlet"), "wrong-direction", "an output of the block"),
        (("level: mixer.level", "inlet: mixer.full"), "wrong-direction", "an input of the block"),
        (("level: mixer.level", "level: mixer.agitator"), "wrong-direction", "no sensor"),
        (("level: mixer.level", "level: mixer.pressure"), "wrong-unit", "a volume"),
        (("level: mixer.level", "level: mixer.lot"), "wrong-type", "`mixer.lot` is a bool"),
        (("weight: mixer.flow", "weight: mixer.level"), "wired-twice", "already shows"),
        (("a.outflow", "z.outflow"), "unknown-block", "no block `z`"),
        (("a.outflow", "a.outfow"), "unknown-output", "did you mean `outflow`"),
        (("a.outflow", "a"), "unknown-output", "its outputs are"),
        (("a.outflow", "a.overflow"), "wrong-type", "bool"),
        (("a.outflow", "a.level"), "wrong-unit", "a volume"),
        (("{speed: mixer.speed}", "{speed: mixer.speed, fill: mixer.agitator}"), "wrong-unit", "a volume flow"),
        (("2000 hPa", "200 bar"), "out-of-range", "outside the range"),
        (("mixer.pressure:", "mixer.inlet:"), "wrong-direction", "it is written"),
        (("mixer.pressure:", "mixer.level:"), "wrong-direction", "an output of a block"),
        (("blocks:", "block:"), "unknown-key", "did you mean `blocks`"),
    ],
)
def test_what_is_wrong_in_a_plant_file_is_said_where_it_stands(tmp_path, change, code, words):
    text = GOOD.replace(*change, 1)
    problems = Problems()
    assert load_plant(cell_beside(tmp_path, text), problems) is None
    found = next(problem for problem in problems if problem.code == code)
    assert words in f"{found.message} {found.hint}"
    line = text.splitlines()[found.line - 1]
    assert line[found.column - 1 :].strip()


def test_every_problem_of_a_plant_file_is_reported_at_once(tmp_path):
    text = GOOD.replace("mixer.inlet", "mixer.inlat").replace("0.05 m3", "5 kg").replace("2000 hPa", "200 bar")
    problems = Problems()
    assert load_plant(cell_beside(tmp_path, text), problems) is None
    assert {problem.code for problem in problems} == {"unknown-tag", "wrong-unit", "out-of-range"}


@given(text=st.text(alphabet="abmixer.:{}[]-, \n\t'\"#&*!|>01Lkg/s", max_size=120))
@settings(max_examples=200, deadline=None)
def test_no_text_breaks_the_reader(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("plant")
    problems = Problems()
    plant = load_plant(cell_beside(folder, f"blocks: {text}"), problems)
    assert (plant is None) == bool(problems.errors)
    assert plant is None or isinstance(plant, Plant)


# --- how the simulated controllers are set up ------------------------------------------------------------------------

CELL = """
cell: c
devices:
  mixer: {driver: s7, host: 127.0.0.1}
  line: {driver: modbus, host: 127.0.0.1}
  arm: {driver: opcua, url: "opc.tcp://127.0.0.1"}
tags: {}
"""
CONTROLLERS = """
controllers:
  mixer: {put_get: false, optimized: [DB2, DB17], answer_time: 50 ms, connections: 1}
  line: {functions: [3, 16], unmapped: [holding:40-47, coil:3]}
  arm: {user: maria, not_readable: ["ns=2;s=State"], not_writable: ["nsu=urn:a;i=7"]}
"""


def controllers(folder, text):
    """The controllers of a plant file, and its problems."""
    (folder / "cell.yaml").write_text(CELL)
    (folder / "plant.yaml").write_text(text)
    problems = Problems()
    loaded = load_cell(folder / "cell.yaml", problems)
    assert loaded is not None, list(problems)
    made = load_plant(loaded.cell, problems)
    return made.controllers if made else None, list(problems)


def test_a_simulated_controller_is_set_up_in_the_plant_file(tmp_path):
    found, problems = controllers(tmp_path, CONTROLLERS)
    assert problems == []
    assert found == {
        "mixer": S7Controller(put_get=False, optimized=(2, 17), answer_time=0.05, connections=1),
        "line": ModbusController(functions=(3, 16), unmapped=(Span("holding", 40, 47), Span("coil", 3, 3))),
        "arm": OpcUaController(user="maria", not_readable=("ns=2;s=State",), not_writable=("nsu=urn:a;i=7",)),
    }
    for one in found.values():  # as the process of a simulated PLC gets it
        assert msgspec.convert(msgspec.to_builtins(one), type(one)) == one


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (("mixer:", "mixre:"), "unknown-device", "did you mean `mixer`"),
        (("put_get", "putget"), "unknown-key", "did you mean `put_get`"),
        (("put_get: false", "put_get: off"), "not-bool", "`true` or `false`"),
        (("DB17", "17"), "bad-address", "write it as `DB2`"),
        (("DB17", "DB0"), "bad-address", "no data block"),
        (("connections: 1", "connections: 0"), "out-of-range", ""),
        (("50 ms", "50"), "bad-duration", ""),
        (("holding:40-47", "holding:47-40"), "bad-address", "write `holding:40`"),
        (("holding:40-47", "registers:1"), "bad-address", "the areas are coil"),
        (("[3, 16]", "[0]"), "out-of-range", ""),
        (("ns=2;s=State", "State"), "bad-address", "write `ns=2;s=State`"),
        (("arm: {user: maria", "arm: {put_get: false"), "unknown-key", "not_readable"),
    ],
)
def test_a_controller_that_cannot_be_set_up_so(tmp_path, change, code, words):
    found, problems = controllers(tmp_path, CONTROLLERS.replace(*change, 1))
    assert found is None
    (problem,) = problems
    assert problem.code == code
    assert words in f"{problem.message} {problem.hint}"


# --- its schema ------------------------------------------------------------------------------------------------------

BOTTLING = Path(__file__).parent.parent / "recipes" / "bottling"
KEPT = BOTTLING.parent / "schema" / "plant.json"


def fits(text):
    return not list(jsonschema.Draft202012Validator(schema()).iter_errors(yaml.safe_load(text)))


def test_the_kept_schema_is_up_to_date(capsys):
    jsonschema.Draft202012Validator.check_schema(schema())
    assert main(["schema"]) == 0
    assert KEPT.read_text() == capsys.readouterr().out, "run: hil schema > recipes/schema/plant.json"


def test_the_schema_takes_what_the_loader_takes():
    assert (BOTTLING / "plant.yaml").read_text().startswith("# yaml-language-server: $schema=../schema/plant.json\n")
    for text in ((BOTTLING / "plant.yaml").read_text(), GOOD, CONTROLLERS, "blocks: {}"):
        assert fits(text), text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("model: tank", "model: tonk"), GOOD),
        (("    model: conveyor\n", ""), GOOD),
        (("capacity: 0.05 m3", "capacty: 0.05 m3"), GOOD),
        (("0.05 m3", "0"), GOOD),
        (("inlet: mixer.inlet", "inlat: mixer.inlet"), GOOD),
        (("level: mixer.level", "inlet: mixer.full"), GOOD),
        (("a.outflow", "a"), GOOD),
        (("blocks:", "block:"), GOOD),
        (("put_get", "putget"), CONTROLLERS),
        (("DB17", "DB0"), CONTROLLERS),
        (("connections: 1", "connections: 0"), CONTROLLERS),
        (("holding:40-47", "registers:1"), CONTROLLERS),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(change, text):
    assert fits(text)
    assert not fits(text.replace(*change, 1))


def test_every_key_of_the_schema_has_a_description():
    for name, definition in schema()["$defs"].items():
        assert definition["description"], name
        for key, value in definition["properties"].items():
            assert value["description"], f"{name}.{key}"


# --- the entry point -------------------------------------------------------------------------------------------------


def test_edge_finds_the_plant_by_the_file_beside_the_cell(tmp_path):
    assert isinstance(plant.load_plant(cell_beside(tmp_path, GOOD), Problems()), Plant)
    problems = Problems()
    assert plant.load_plant(cell_beside(tmp_path, GOOD.replace("tank", "tonk")), problems) is None
    assert problems.errors


def test_what_reads_the_file_that_is_there_goes_first(tmp_path, monkeypatch):
    kinds = [EntryPoint(name, f"none:{name}", plant.GROUP) for name in ("a.yaml", "plant.yaml", "z.yaml")]
    monkeypatch.setattr(plant, "entry_points", lambda group: kinds)
    monkeypatch.setattr(EntryPoint, "load", lambda self: lambda cell, problems, path: self.name)
    cell = cell_beside(tmp_path)
    (tmp_path / "z.yaml").touch()
    assert plant.load_plant(cell, Problems()) == "z.yaml"
    monkeypatch.setattr(plant, "entry_points", lambda group: [])
    with pytest.raises(LookupError, match=r"entry points of group edge\.plants"):
        plant.load_plant(cell, Problems())


def test_a_copy_of_a_plant_takes_its_own_course(tmp_path):
    one = load_plant(cell_beside(tmp_path, GOOD), Problems())
    one.write(1, True)
    one.step(1.0)
    other = one.copy()
    assert other.read(0) == one.read(0) == pytest.approx(0.0052)
    other.write(1, False)
    for _ in range(100):
        one.step(DT_S)
        other.step(DT_S)
    assert (other.read(0), one.read(0)) == (pytest.approx(0.0052), pytest.approx(0.0102))
