"""What a watcher knows: fed by the real engine's records, it says what the engine's own state says."""

import itertools
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.value import BAD_CONNECTION_REJECTED, BAD_NODE_UNKNOWN, GOOD
from edge import channel
from edge.api.stream import changes, event
from edge.image import pack_record
from edge.messages import (
    Command,
    CommandDone,
    DeviceReport,
    DeviceStats,
    LoopStats,
    Snapshot,
    TagReport,
    pack,
)
from edge.view import View
from tests.watched import WatchedLoop, histogram, plan

PLAN = plan()


class Watch:
    """A loop that runs when told, and a view that is fed with all that it sends."""

    def __init__(self) -> None:
        self.end, self.other = channel.pair()
        self.loop = WatchedLoop(PLAN, self.end)
        self.view = View(PLAN)
        self.events = []
        self.commands = 0

    def run(self, cycles: int = 1) -> None:
        self.loop.run(cycles)
        for packet in channel.drain(self.other, 10_000):
            self.events += self.view.feed(packet)

    def skip(self, cycles: int = 1) -> None:
        """Cycles of which the view hears nothing."""
        self.loop.run(cycles)
        channel.drain(self.other, 10_000)

    def command(self, do: str, **fields: object) -> int:
        self.commands += 1
        channel.send(self.other, pack(Command(self.commands, do, "Amina", "B1", **fields)))  # type: ignore[arg-type]
        self.run(4)
        return self.commands

    def start(self, recipe: str = "rinse-and-fill", **parameters: object) -> None:
        self.run(3)
        self.command("start", recipe=recipe, parameters=parameters)

    def close(self) -> None:
        self.end.close()
        self.other.close()


@pytest.fixture
def watch():
    found = Watch()
    yield found
    found.close()


def tag(watch: Watch, name: str) -> dict:
    return watch.view.tags()[name]


def test_a_new_view_knows_nothing_and_says_so():
    view = View(PLAN)
    state = view.state()
    assert view.incomplete and not view.alive
    assert state["cell"] == "bottling"
    assert not state["loop"]["alive"]
    assert not any(device["up"] for device in state["devices"].values())
    assert {one["quality"] for one in state["tags"].values()} == {"bad: no value yet"}
    assert {one["value"] for one in state["tags"].values()} == {None}


def test_the_first_snapshot_completes_it(watch):
    watch.run(2)
    assert watch.view.alive and not watch.view.incomplete
    assert watch.view.state()["devices"]["mixer"] | {"errors": 0} == {
        "driver": "s7",
        "up": True,
        "say": {},
        "reason": "",
        "hint": "",
        "every_s": 0.02,
        "scans": 0,
        "errors": 0,
    }


def test_tags_have_value_quality_time_and_unit(watch):
    watch.loop.put(mixer__level=12.5, conveyor__lot="A-7 é")
    before = time.time_ns()
    watch.run(2)
    level = tag(watch, "mixer.level")
    assert level | {"time": ""} == {"value": 12.5, "quality": "good", "time": "", "unit": "L", "kind": "float"}
    assert level["time"].endswith("Z") and level["time"][:4] == time.strftime("%Y", time.gmtime(before / 1e9))
    assert tag(watch, "conveyor.lot")["value"] == "A-7 é"
    lamp = tag(watch, "conveyor.lamp")
    assert (lamp["value"], lamp["level"], lamp["owner"]) == (False, False, None)


def test_a_bad_value_is_not_shown(watch):
    watch.loop.put(mixer__level=None)
    watch.run(2)
    assert tag(watch, "mixer.level")["value"] is None
    assert tag(watch, "mixer.level")["quality"] == "bad: device lost"
    assert tag(watch, "mixer.agitator")["quality"] == "good"


def test_a_lost_device_turns_its_tags_bad_at_once_and_the_next_frame_good_again(watch):
    watch.loop.put(mixer__level=12.5)
    watch.run(2)
    watch.loop.lose("mixer")
    watch.run()
    assert tag(watch, "mixer.level")["value"] is None
    assert tag(watch, "mixer.level")["quality"] == "bad: device lost"
    assert tag(watch, "conveyor.weight")["quality"] == "good"
    device = watch.view.state()["devices"]["mixer"]
    assert (device["up"], device["reason"]) == (False, "no answer from 192.168.10.11:102")
    assert device["hint"] == "check its power and its cable"
    watch.loop.find("mixer")
    watch.run()
    assert tag(watch, "mixer.level")["value"] == 12.5
    assert watch.view.state()["devices"]["mixer"]["up"]


def test_a_device_that_is_found_has_no_value_before_its_first_frame(watch):
    watch.loop.put(mixer__level=12.5)
    watch.run(2)
    watch.view.feed(pack_record(9, [pack(DeviceReport(0, False, 0x80310000, "gone"))], [], b""))
    layout = watch.loop.engine.layouts[0]
    late = layout.pack_unchanged(10, 0, 1)
    watch.view.feed(pack_record(10, [late], [], b""))
    assert not watch.view.devices[0].up
    watch.view.feed(pack_record(11, [pack(DeviceReport(0, True, GOOD)), late], [], b""))
    assert watch.view.devices[0].up
    assert tag(watch, "mixer.level")["value"] is None


def test_an_unchanged_frame_brings_a_new_time_only(watch):
    layout = watch.loop.engine.layouts[0]
    watch.run(2)
    watch.view.feed(pack_record(5, [layout.pack_input(1, 0, 10**18, [1.0, True, 2.0])], [], b""))
    watch.view.feed(pack_record(6, [layout.pack_unchanged(2, 0, 2 * 10**18)], [], b""))
    level = tag(watch, "mixer.level")
    assert (level["value"], level["time"]) == (1.0, "2033-05-18T03:33:20.000Z")


def test_source_times_of_single_values_are_kept(watch):
    layout = watch.loop.engine.layouts[0]
    watch.run(2)
    frame = layout.pack_input(1, 0, 10**18, [1.0, True, 2.0], None, [10**18, 2 * 10**18, 3 * 10**18])
    watch.view.feed(pack_record(5, [frame, layout.pack_unchanged(2, 0, 4 * 10**18)], [], b""))
    assert tag(watch, "mixer.inlet")["time"] == "2033-05-18T03:33:20.000Z"


def test_a_device_that_falls_silent_is_lost_as_the_engine_says(watch):
    watch.run(2)
    watch.loop.present.discard(0)
    watch.run(400)
    device = watch.view.state()["devices"]["mixer"]
    assert not device["up"] and "sends nothing" in device["reason"]
    assert tag(watch, "mixer.level")["quality"] == "bad: no answer in time"


def test_trouble_of_a_single_tag(watch):
    watch.run(2)
    watch.loop.packets.append(pack(TagReport(0, BAD_NODE_UNKNOWN, "DB1 may not be read: allow PUT/GET")))
    watch.loop.packets.append(pack(TagReport(2, BAD_NODE_UNKNOWN, "DB1 may not be written", write=True)))
    watch.run()
    assert tag(watch, "mixer.level")["quality"] == "bad: no such address"
    assert tag(watch, "mixer.level")["value"] is None
    assert tag(watch, "mixer.level")["trouble"] == "DB1 may not be read: allow PUT/GET"
    assert tag(watch, "mixer.agitator")["quality"] == "good"
    assert tag(watch, "mixer.agitator")["trouble"] == "DB1 may not be written"
    watch.loop.packets.append(pack(TagReport(0, GOOD)))
    watch.run()
    assert "trouble" not in tag(watch, "mixer.level")


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_from_start_to_end(watch):
    watch.start(volume=10)
    state = watch.view.state()
    batch = state["batches"]["B1"]
    assert (batch["state"], batch["recipe"], batch["by"]) == ("running", "rinse-and-fill", "Amina")
    assert batch["parameters"] == {"volume": 10, "side": "front", "rinse": True}
    assert batch["commands"] == ["hold", "pause", "stop", "abort"]
    (step,) = batch["steps"]
    assert (step["name"], step["kind"], step["condition"], step["limit"]) == (
        "Fill",
        "until",
        "mixer.level >= volume",
        60.0,
    )
    assert state["units"]["mixer"] == {"devices": ["mixer"], "owner": "B1", "waiting": []}
    assert state["tags"]["mixer.inlet"]["owner"] == "B1"
    assert state["tags"]["mixer.inlet"]["level"] is True
    watch.loop.put(mixer__level=12.0)
    watch.run(4)
    names = [(step["branch"], step["name"]) for step in watch.view.state()["batches"]["B1"]["steps"]]
    assert names == [("", "Stir and bring"), ("stir", "Stir"), ("bring", "Bring a bottle")]
    watch.loop.put(conveyor__bottle=True)
    watch.run(30)
    (question,) = watch.view.state()["batches"]["B1"]["questions"]
    assert question["answers"] == ("yes", "no") and question["name"] == "label_ok"
    assert question["say"]["fr"] == "L'étiquette est-elle droite ?"
    watch.command("answer", prompt=question["prompt"], value="yes")
    watch.run(5)
    batch = watch.view.state()["batches"]["B1"]
    assert (batch["state"], batch["steps"], batch["questions"]) == ("complete", [], [])
    assert batch["answers"] == {"label_ok": "yes"}
    assert batch["recorded"] == [{"name": "filled", "value": 12.0, "unit": "L", "step": 6}]
    assert watch.view.state()["units"]["mixer"]["owner"] is None
    watch.command("reset")
    assert watch.view.batches == {}


def test_a_refused_command_comes_back_as_an_event(watch):
    watch.start()
    number = watch.command("resume")
    (done,) = [one for one in watch.events if isinstance(one, CommandDone) and one.id == number]
    assert not done.ok and "running" in done.text


def test_the_clock_of_a_step_stands_while_the_batch_is_held(watch):
    watch.start()
    watch.run(100)
    watch.command("hold")
    batch = watch.view.batches["B1"]
    assert batch.state == "held"
    (step,) = batch.steps.values()
    before = watch.view.seconds(batch, step)
    assert 0.9 < before < 1.2
    watch.run(200)
    assert watch.view.seconds(batch, step) == before
    watch.command("restart")
    watch.run(100)
    engine = watch.loop.engine.state.batches["B1"]
    assert abs(watch.view.seconds(batch, step) - (engine.clock - engine.body.since) / 100) < 0.1


def test_what_the_loop_stood_still_counts_for_no_step(watch):
    watch.start()
    watch.run(100)
    watch.loop.cycle += 90
    watch.run(4)
    batch = watch.view.batches["B1"]
    assert batch.state == "held" and not watch.view.incomplete
    (step,) = batch.steps.values()
    engine = watch.loop.engine.state.batches["B1"]
    assert abs(watch.view.seconds(batch, step) - (engine.clock - engine.body.since) / 100) < 0.1


def test_a_snapshot_gives_the_same_as_the_events_did(watch):
    watch.start(volume=10)
    watch.loop.put(mixer__level=12.0)
    watch.run(10)
    watch.loop.put(conveyor__weight=50.0)
    watch.run(5)
    late = View(PLAN)
    watch.loop.snapshot = True
    for packet in watch.loop.run(1):
        watch.view.feed(packet)
        late.feed(packet)
    watch.run(1)
    ours, theirs = watch.view.state(), late.state()
    for batch in (ours["batches"]["B1"], theirs["batches"]["B1"]):
        del batch["started"], batch["since"]
    for state in (ours, theirs):
        for entry in (*state["tags"].values(), *state["alarms"].values()):
            entry.pop("time")
        del state["log"], state["loop"], state["cycle"]
    assert ours == theirs


def test_lost_records_make_it_incomplete_until_a_snapshot_comes(watch):
    watch.run(3)
    channel.send(watch.other, pack(Command(1, "start", "Amina", "B1", recipe="rinse-and-fill")))
    watch.skip(4)
    watch.command("hold")
    assert watch.view.incomplete
    watch.loop.snapshot = True
    watch.run()
    assert not watch.view.incomplete
    assert watch.view.batches["B1"].state == "held"


def test_a_loop_that_starts_anew_is_taken_as_it_is(watch):
    watch.start()
    watch.loop.renew()
    watch.run(3)
    assert watch.view.batches == {} and not watch.view.incomplete
    assert watch.view.cycle == 3


@pytest.mark.parametrize("packet", [b"", b"\x00", b"\x00\xff", b"\x04\x01\x00", b"\x09", b"\x00" + b"\x81" * 9])
def test_bytes_that_are_no_packet_make_it_incomplete_and_every_value_bad(watch, packet):
    watch.run(2)
    assert watch.view.feed(packet) == ()
    if packet != b"\x09":
        assert watch.view.incomplete
        assert {one["value"] for one in watch.view.tags().values()} == {None}
    watch.loop.snapshot = True
    watch.run()
    assert tag(watch, "mixer.level")["quality"] == "good"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x00", b"\x04", b"\x04\x00\x01\x00\x00\x00\x00\x00"]))
def test_no_bytes_raise(data, start):
    view = View(PLAN)
    view.feed(start + data)
    view.state()


def test_a_frame_of_another_shape_is_bad(watch):
    watch.run(2)
    layout = watch.loop.engine.layouts[0]
    frame = layout.pack_input(1, 0, 10**18, [1.0, True, 2.0])
    watch.view.feed(pack_record(9, [frame[:-3]], [], b""))
    assert tag(watch, "mixer.level")["value"] is None
    watch.view.feed(pack_record(10, [frame], [], b""))
    assert tag(watch, "mixer.level")["value"] == 1.0


def test_silence_turns_everything_bad(watch):
    watch.start()
    watch.view.silence()
    state = watch.view.state()
    assert not state["loop"]["alive"]
    assert {one["value"] for one in state["tags"].values()} == {None}
    assert not any(device["up"] for device in state["devices"].values())
    assert state["devices"]["mixer"]["reason"] == "the control loop is silent"
    watch.loop.snapshot = True
    watch.run()
    assert watch.view.alive and tag(watch, "mixer.level")["quality"] == "good"


# --- alarms, log, figures --------------------------------------------------------------------------------------------


def test_an_alarm_is_raised_cleared_and_acknowledged(watch):
    watch.start()
    watch.loop.put(conveyor__weight=50.0)
    watch.run(3)
    (number,) = watch.view.alarms
    alarm = watch.view.state()["alarms"][str(number)]
    assert alarm["say"]["fr"] == "Balance en surcharge"
    assert (alarm["kind"], alarm["batch"], alarm["active"], alarm["acknowledged"]) == ("interlock", "B1", True, False)
    watch.command("acknowledge", alarm=number)
    assert watch.view.state()["alarms"][str(number)]["acknowledged"]
    watch.loop.put(conveyor__weight=1.0)
    watch.run(3)
    assert watch.view.alarms == {}


def test_an_alarm_that_was_not_acknowledged_stays(watch):
    watch.run(3)
    watch.loop.lose("mixer")
    watch.run()
    watch.loop.find("mixer")
    watch.run(2)
    ((number, alarm),) = watch.view.alarms.items()
    assert not alarm.active and alarm.device == "mixer"
    watch.command("acknowledge", alarm=number)
    assert watch.view.alarms == {}


def test_the_newest_reason_of_a_lost_device_shows_also_to_a_newcomer(watch):
    watch.run(2)
    watch.loop.lose("mixer")
    watch.run()
    watch.loop.lose("mixer", "refuses the connection", BAD_CONNECTION_REJECTED)
    watch.run()
    newcomer = View(watch.loop.plan)
    newcomer.feed(pack(Snapshot(watch.loop.cycle, msgspec.msgpack.encode(watch.loop.engine.state))))
    for view in (watch.view, newcomer):
        state = view.state()
        (alarm,) = state["alarms"].values()
        assert alarm["say"]["fr"] == "mixer est perdu : connexion refusée"
        assert alarm["detail"] == "refuses the connection (check its power and its cable)"
        device = state["devices"]["mixer"]
        assert device["say"]["ar"] == "رُفض الاتصال" and device["reason"] == "refuses the connection"


def test_causes_are_in_the_languages_of_the_floor_also_for_a_newcomer(watch):
    watch.start()
    watch.command("hold")
    watch.run(2)
    newcomer = View(watch.loop.plan)
    newcomer.feed(pack(Snapshot(watch.loop.cycle, msgspec.msgpack.encode(watch.loop.engine.state))))
    for view in (watch.view, newcomer):
        batch = view.state()["batches"]["B1"]
        assert batch["cause"] == "hold by Amina"
        assert batch["cause_say"] == {"en": "hold by Amina", "fr": "maintien par Amina", "ar": "تعليق بواسطة Amina"}


def test_the_log_is_bounded_and_numbered(watch):
    watch.run(2)
    for _ in range(300):
        watch.loop.lose("mixer")
        watch.run()
        watch.loop.find("mixer")
        watch.run()
    log = watch.view.state()["log"]
    assert len(log) == 200
    assert list(map(int, log)) == sorted(map(int, log))
    assert {"device", "alarm-raised", "alarm-cleared"} == {entry["type"] for entry in log.values()}
    assert next(entry for entry in log.values() if entry["type"] == "device")["device"] == "mixer"


def test_figures(watch):
    watch.run(2)
    watch.view.feed(pack(LoopStats(77, 4, histogram(0.1, 1), histogram(0.2, 2), 5)))
    watch.view.feed(pack(DeviceStats(1, True, 10, 3, 2, histogram(0.4, 10))))
    state = watch.view.state()
    assert (state["cycle"], state["loop"]["overruns"], state["loop"]["dropped"]) == (77, 4, 5)
    assert (state["devices"]["conveyor"]["scans"], state["devices"]["conveyor"]["errors"]) == (10, 3)


def test_recipes_and_their_parameters(watch):
    recipe = watch.view.state()["recipes"]["rinse-and-fill"]
    assert recipe["title"]["ar"] == "الشطف والتعبئة"
    assert recipe["parameters"][0] == {
        "name": "volume",
        "type": "number",
        "unit": "L",
        "default": 20,
        "low": 5,
        "high": 50,
        "choices": [],
        "say": {"en": "Volume", "fr": "Volume", "ar": "الحجم"},
    }
    assert recipe["tags"] == ["mixer.level", "mixer.inlet", "mixer.agitator", "conveyor.weight", "conveyor.bottle"]


# --- changes ---------------------------------------------------------------------------------------------------------


def apply(state: dict, change: dict) -> dict:
    """What the page does with a change."""
    named = {"devices", "units", "tags", "batches", "alarms", "log"}
    new = dict(state)
    for section, value in change.items():
        if section in named:
            merged = {**state.get(section, {}), **value}
            new[section] = {name: entry for name, entry in merged.items() if entry is not None}
        else:
            new[section] = value
    return new


def test_changes_lead_from_one_state_to_the_next(watch):
    watch.start(volume=10)
    states = [watch.view.state()]
    for level in (0.0, 12.0, 12.0, 30.0):
        watch.loop.put(mixer__level=level)
        watch.run(30)
        states.append(watch.view.state())
    watch.command("stop")
    watch.command("reset")
    states.append(watch.view.state())
    for old, new in itertools.pairwise(states):
        reached = apply(old, msgspec.json.decode(event("change", changes(old, new)).split(b"\n")[1][6:]))
        for state in (reached, new):
            state.pop("cycle", None)
            for entry in (*state["tags"].values(), *state["devices"].values()):
                entry.pop("time", None)
        assert reached == msgspec.json.decode(msgspec.json.encode(new))


def test_the_time_of_an_unchanged_value_is_no_change(watch):
    watch.run(2)
    before = watch.view.state()
    watch.run(3)
    assert changes(before, watch.view.state()) == {}
    watch.loop.put(mixer__level=1.0)
    watch.run()
    found = changes(before, watch.view.state())
    assert set(found) == {"tags", "cycle"} and set(found["tags"]) == {"mixer.level"}
