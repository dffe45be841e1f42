"""Mistakes that an engineer makes in the shipped cells: each gets a message in its place that names the fix."""

import shutil
from pathlib import Path

import pytest

from edge.language.plan import check
from edge.language.report import report
from edge.language.source import Problems

RECIPES = Path(__file__).parent.parent / "recipes"
CLEAN, SKID = "cip-skid/clean-tank1.yaml", "cip-skid/cell.yaml"
RINSE, SHARED = "cip-skid/final-rinse.yaml", "cip-skid/rinse-tank1.yaml"
RESIN, REACTOR = "reactor/resin.yaml", "reactor/cell.yaml"
COOL, CHARGE = "reactor/cool.yaml", "reactor/charge-a.yaml"
ESTER, SALT = "reactor/ester.yaml", "reactor/salt.yaml"
STACK, ROBOT = "palletising/palletise.yaml", "palletising/cell.yaml"

MISTAKES = {
    "a tag misspelled": (
        CLEAN,
        "until: skid.return_conductivity >= 40",
        "until: skid.return_conductivty >= 40",
        "no tag `skid.return_conductivty` | did you mean `skid.return_conductivity`?",
    ),
    "a unit that means something else": (
        CLEAN,
        "skid.return_conductivity >= 40 mS/cm",
        "skid.return_conductivity >= 40 mS",
        "`40 mS` is an electric conductance | give it in mS/cm",
    ),
    "a number without its unit": (
        CLEAN,
        "skid.return_conductivity >= 40 mS/cm",
        "skid.return_conductivity >= 40",
        "`40` has no unit | did you mean `40 mS/cm`?",
    ),
    "a wait that may never end": (
        CLEAN,
        "skid.return_conductivity < 40 mS/cm\n    within: 30 s",
        "skid.return_conductivity < 40 mS/cm",
        "this `until` has no `within` | add `within: 60 s`, or `within: none`",
    ),
    "degrees on a scale where a difference is meant": (
        CLEAN,
        "caustic_temperature - 2 K",
        "caustic_temperature - 2 degC",
        "is in K, a difference of temperatures | a difference of two temperatures is in K, not on a scale",
    ),
    "the other tank's valve": (
        CLEAN,
        "set: {tank1.spray: true}",
        "set: {tank2.spray: true}",
        "does not use the unit `tank2` | add `tank2` to `uses`",
    ),
    "a trip that the sensor cannot reach": (
        SKID,
        "when: skid.supply_temperature > 95 degC",
        "when: skid.supply_temperature > 195 degC",
        "is never true: `skid.supply_temperature` is from 0 to 150 degC | check the value, or the range of the tag",
    ),
    "a parameter that goes beyond what the pump takes": (
        CLEAN,
        "range: [10, 28]",
        "range: [10, 50]",
        "this can be 10 to 50 m3/h; `skid.flow_setpoint` goes from 0 to 30 m3/h | narrow the `range`",
    ),
    "a number that must stand still, and no band": (
        RINSE,
        "stable(skid.return_conductivity < clean_below, 2 s)",
        "stable(skid.return_conductivity, 2 s)",
        "by how much may it move? | add a band",
    ),
    "a word for a valve's state": (
        CLEAN,
        "set: {tank1.spray: true}",
        "set: {tank1.spray: open}",
        "no parameter or variable `open` | true or false stands here: did you mean `true`?",
    ),
    "a sensor that is set": (
        CLEAN,
        "set: {tank1.spray: true}",
        "set: {tank1.spray_opened: true}",
        "`tank1.spray_opened` is only read | give it `access: write` and a `failsafe`",
    ),
    "a state in place of a command": (CLEAN, "do: abort\n", "do: aborted\n", "found `aborted` | did you mean `abort`?"),
    "a key misspelled": (
        CLEAN,
        "on_timeout: stop\n  - name: Pre",
        "on_timout: stop\n  - name: Pre",
        "no key `on_timout` can stand here | did you mean `on_timeout`?",
    ),
    "a step that is not indented": (
        CLEAN,
        "  - name: Pre-rinse",
        "- name: Pre-rinse",
        "this line does not fit the one above | indent it as deep as the other `- ` of its list",
    ),
    "a default outside its range": (CLEAN, "default: 75", "default: 90", "outside the range, 50 to 85 degC"),
    "a text without French": (
        CLEAN,
        'fr: "Débit", ',
        "",
        "this text is missing in fr | other texts of the cell and its recipes have it",
    ),
    "a priority of another system": (
        SKID,
        "priority: critical",
        "priority: urgent",
        "expected one of `critical`, `high`, `low`, `medium`, found `urgent`",
    ),
    "a delay without its unit": (
        SKID,
        "settle: 5 s # a pump",
        "settle: 5 # a pump",
        "5 has no time unit | did you mean 5 s?",
    ),
    "a clear that means the trip": (
        SKID,
        "clears: skid.supply_temperature < 80 degC",
        "clears: skid.supply_temperature < 80 bar",
        "`80 bar` is a pressure | give it in degC",
    ),
    "a permissive of a device in a group": (
        REACTOR,
        "permissives:\n  reactor:",
        "permissives:\n  plc:",
        "no unit `plc` | write `reactor`",
    ),
    "a lot number that is a number": (
        RESIN,
        "lot: {type: text, identify: lot",
        "lot: {type: number, identify: lot",
        "the lot number is a text; this is a number | text",
    ),
    "an amount where a rate is meant": (
        RESIN,
        "{plc.dosing: dosing_rate}",
        "{plc.dosing: formalin}",
        "`formalin` is in kg, a mass; a value in kg/min, a mass flow, is expected | divide it by a time",
    ),
    "an answer that is used before it is asked": (
        RESIN,
        "dosed: plc.dosed}",
        "solids: solids}",
        "`solids` may have no answer yet here | it is asked on line",
    ),
    "an answer under another name": (RESIN, "into: solids", "into: solid", "`solids` | did you mean `solid`?"),
    "devices in place of their unit": (
        RESIN,
        "uses: [reactor]",
        "uses: [plc, thermostat]",
        "no unit `plc` | it is a device of the unit `reactor`: write `reactor`",
    ),
    "a name with a hyphen": (RESIN, "  hold_time:", "  hold-time:", "`hold-time` cannot be a name | write `hold_time`"),
    "and, as in C": (REACTOR, "kg/min and plc", "kg/min & plc", "`&` means nothing here | write `and`"),
    "less or equal, turned around": (COOL, "temperature <= 35", "temperature =< 35", "`=` means nothing | write `<=`"),
    "comparisons in a chain": (
        COOL,
        "until: plc.temperature <= 35 degC",
        "until: 15 degC < plc.temperature < 35 degC",
        "comparisons cannot be chained | join two comparisons with `and`",
    ),
    "a colon forgotten": (
        RESIN,
        "- when: plc.temperature",
        "- when plc.temperature",
        "expected `key: value` | colon missing: `when: …`?",
    ),
    "a range upside down": (RESIN, "[0.05, 300]", "[300, 0.05]", "from 300 to 0.05 | the lowest value comes first"),
    "a phase without its parameter": (
        STACK,
        ", pattern: pattern}",
        "}",
        "the parameter `pattern` of robot.place is missing | add `with: {pattern: …}`",
    ),
    "a phase that is given what it does not take": (
        STACK,
        "do: robot.park\n",
        "do: robot.park\n    with: {job: 4}\n",
        "robot.park has no parameter `job` | it has none",
    ),
    "a hold without the state that says so": (
        ROBOT,
        "    held: wrapper.state == 11\n",
        "",
        "`hold` | add `held:",
    ),
    "a command that the request was forgotten for": (
        ROBOT,
        "request: wrapper.request\n",
        "request: wrapper.state\n",
        "`wrapper.state` | access: write",
    ),
    "a phase that there is not": (
        STACK,
        "do: robot.park",
        "do: robot.home",
        "no phase `robot.home` | what robot can do: robot.pick, robot.place, robot.sheet, robot.park",
    ),
    "a vacuum with the wrong sign": (
        STACK,
        "line.vacuum <= -50 kPa",
        "line.vacuum >= 50 kPa",
        "never true: `line.vacuum` is from -100 to 0 kPa; the step cannot end | check the value",
    ),
    "an output without a failsafe": (
        ROBOT,
        "write, failsafe: true}",
        "write}",
        "`line.suction` is written and has no `failsafe` | such as `failsafe: 0` or `failsafe: false`",
    ),
    "two valves on one coil": (
        ROBOT,
        "at: coil:1",
        "at: coil:0",
        "`line.suction` also writes coil:0 | give each written tag an address of its own",
    ),
    "an address of another PLC": (ROBOT, "at: coil:1", "at: coils:1", "`coils:1` is no Modbus address | coil:1?"),
    "a type of IEC 61131-3": (
        ROBOT,
        "type: float32, unit: kPa",
        "type: real, unit: kPa",
        "`real` | did you mean `float32`?",
    ),
    "a ramp without a rate": (
        COOL,
        "{to: jacket, rate: rate}",
        "{to: jacket}",
        "`rate` is missing here | such as `rate: 2 K/min`",
    ),
    "a ramp that is only a value": (
        COOL,
        "ramp: {thermostat.setpoint: {to: jacket, rate: rate}}",
        "ramp: {thermostat.setpoint: 15 degC}",
        "expected keys with values, found `15 degC` | write `{to: 80 degC, rate: 2 K/min}`",
    ),
    "a rate that is no rate": (
        COOL,
        "{to: jacket, rate: rate}",
        "{to: jacket, rate: 2 K}",
        "a rate of temperature, is expected | divide it by a time",
    ),
    "a rate that may be nothing": (
        RESIN,
        "range: [0.2, 300]",
        "range: [0, 300]",
        "it would never arrive | narrow the `range`",
    ),
    "a ramp to where the thermostat cannot go": (
        COOL,
        "{to: jacket, rate",
        "{to: -15 degC, rate",
        "-15 degC is outside the range of `thermostat.setpoint`, -10 to 160 degC",
    ),
    "a branch that there is not": (
        ESTER,
        'outcome == "late"',
        'outcome == "lat"',
        "`outcome` is never `lat` | did you mean `late`?",
    ),
    "two branches that drive one valve": (
        SALT,
        "ramp: {thermostat.setpoint: {from",
        "set: {plc.agitator: 100 rpm}\n          ramp: {thermostat.setpoint: {from",
        "`plc.agitator` | other branch",
    ),
    "a loop over a list without the list": (
        SALT,
        "{each: share, of: [40 %, 25 %, 20 %, 10 %, 5 %]}",
        "{each: share}",
        "`of` is missing here | such as `of: [",
    ),
    "a mass among shares": (SALT, "25 %, 20", "25 kg, 20", "`25 kg` is a mass; a value in %, a ratio, is expected"),
    "a pulse without its time": (
        STACK,
        "            for: 100 ms\n",
        "",
        "`for` is missing here | such as `for: 500 ms`",
    ),
    "a default that is never used, since the time limit was forgotten": (
        STACK,
        "            within: 2 min\n            on_timeout: continue\n",
        "",
        "this answer is never used | add `within: 60 s` and `on_timeout: continue`",
    ),
    "an answer that cannot be given": (
        STACK,
        'found == "other"',
        'found == "no"',
        "`found` is never `no` | it is one of `empty`, `other`",
    ),
    "somebody who is not known": (
        RESIN,
        "within: 4 h\n    ask:\n",
        "within: 4 h\n    ask:\n      who: chemist\n",
        "expected one of `engineer`, `operator`, found `chemist`",
    ),
    "an order number with a default": (
        STACK,
        "{type: text, identify: order",
        "{type: text, default: A, identify: order",
        "the order number is asked for at every start: it has no `default` | leave it out",
    ),
    "a gauge pressure": (REACTOR, "1.8 bar", "1.8 barg", "no unit `barg` | did you mean `bar`?"),
    "a permissive written as an interlock": (
        REACTOR,
        "- must: plc.remote",
        "- when: plc.remote",
        "no key `when` can stand here | the keys here are `must`",
    ),
    "interlocks of a step, misspelled": (
        RESIN,
        "    interlocks:\n      # Too",
        "    interlock:\n      # Too",
        "no key `interlock` can stand here | did you mean `interlocks`?",
    ),
    "an operation that there is not": (
        RESIN,
        "include: discharge",
        "include: dischrage",
        "no recipe `dischrage` beside this cell | did you mean `discharge`?",
    ),
    "an operation without its parameter": (
        RESIN,
        "    with: {up_to: water + phenol}\n",
        "",
        "the parameter `up_to` of charge-a is missing | add `with: {up_to: …}`",
    ),
    "an operation's parameter misspelled": (
        RESIN,
        "{jacket: 15 degC, rate: warming}",
        "{jacket: 15 degC, rat: warming}",
        "cool has no parameter `rat` | did you mean `rate`?",
    ),
    "an operation that is given more than it takes": (
        RESIN,
        "range: [5, 25]",
        "range: [5, 40]",
        "`up_to` goes from 15 to 75 kg, and this can be outside | narrow the `range` of what it is made of",
    ),
    "an operation that is given another quantity": (
        RESIN,
        "{up_to: water + phenol}",
        "{up_to: dosing_rate}",
        "`dosing_rate` is in kg/min, a mass flow; a value in kg, a mass, is expected | multiply it by a time",
    ),
    "an operation with a unit that the recipe has not": (
        CLEAN,
        "uses: [skid, tank1]",
        "uses: [tank1]",
        "the recipe does not use the unit `skid` | add `skid` to `uses`",
    ),
    "an operation in a unit that is not acquired": (
        SHARED,
        "  - name: Wait for the skid # the other tank may have it\n    acquire: [skid]\n    within: 2 h\n",
        "",
        "the unit `skid` is not acquired here | a step before it must `acquire: [skid]`",
    ),
    "an operation that includes itself": (
        COOL,
        "  - name: Cool down\n",
        "  - include: cool\n  - name: Cool down\n",
        "`cool` would include itself: cool → cool | leave one out",
    ),
    "an operation with a handler": (
        CHARGE,
        "steps:\n",
        "on:\n  hold: [{set: {plc.agitator: 0 rpm}}]\nsteps:\n",
        "an operation has no `on` | leave it out",
    ),
    "an operation that is tested alone": (
        "reactor/salt.test.yaml",
        "recipe: salt",
        "recipe: cool",
        "`cool` is an operation: it runs only as a part of other recipes | name a recipe that includes it",
    ),
    "the branch that ended first, in no variable": (
        ESTER,
        "    into: outcome\n",
        "",
        "no parameter or variable `outcome` | add `into: outcome`",
    ),
    "a role that is nearly one": (
        RESIN,
        "within: 4 h\n    ask:\n",
        "within: 4 h\n    ask:\n      who: enginer\n",
        "expected one of `engineer`, `operator`, found `enginer` | did you mean `engineer`?",
    ),
    "a priority that is nearly one": (
        SKID,
        "priority: critical",
        "priority: critcal",
        "found `critcal` | did you mean `critical`?",
    ),
    "a phase that waits to be ready and cannot be reset": (
        ROBOT,
        "    reset: {wrapper.command: 1} # from Stopped and Complete to Idle\n",
        "",
        "nothing makes it `ready` again for a second run | add `reset: {TAG: …}`",
    ),
}
"""What is edited, where, and what must be said of it: parts of the message and, after `|`, of its hint."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_a_message_that_names_the_fix(tmp_path: Path, mistake: str) -> None:
    file, old, new, words = MISTAKES[mistake]
    folder = tmp_path / Path(file).parent
    shutil.copytree(RECIPES / Path(file).parent, folder)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert old in text, "the recipe has changed: change the mistake with it"
    (tmp_path / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    problems = Problems()
    check([folder], problems)
    said, _, hint = words.partition(" | ")
    meant = [one for one in problems if said in one.message and hint in f"{one.message} {one.hint}"]
    assert meant, report(problems)
    assert Path(meant[0].file) == tmp_path / file
    assert len(list(problems)) <= 4, report(problems)
