"""The metrics: valid text, every name once, and what they say agrees with the view."""

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from edge import __version__, channel
from edge.api.metrics import registry
from edge.messages import Command, pack
from edge.view import View
from tests.watched import WatchedLoop, plan

NAMES = {
    "edge_cycle_lateness_seconds",
    "edge_cycle_duration_seconds",
    "edge_cycle_cpu_seconds_max",
    "edge_cycle_overruns",
    "edge_records_dropped",
    "edge_device_up",
    "edge_device_scan_seconds",
    "edge_device_age_seconds",
    "edge_device_reaction_seconds",
    "edge_device_errors",
    "edge_tag_value",
    "edge_tag_quality",
    "edge_batch_state",
    "edge_step_seconds",
    "edge_alarms_active",
    "edge_alarms_unacknowledged",
    "edge_alarms_shelved",
    "edge_process_restarts",
    "edge_build_info",
}


@pytest.fixture
def running():
    """A view of a batch that fills, with `conveyor` lost and the figures of a second of cycles."""
    end, other = channel.pair()
    loop, view = WatchedLoop(plan(), end), View(plan())
    loop.run(2)
    channel.send(other, pack(Command(1, "start", "Amina", 'B"1\n', recipe="rinse-and-fill")))
    loop.put(mixer__level=12.5)
    loop.run(120)
    loop.lose("conveyor")
    loop.run(3)
    loop.put(mixer__inlet=True)
    loop.run(2)
    for packet in channel.drain(other, 1000):
        view.feed(packet)
    yield view
    end.close()
    other.close()


def samples(view: View, restarts: dict[str, int] | None = None) -> dict[tuple, float]:
    text = generate_latest(registry(view, restarts)).decode()
    found = {}
    for family in parse(text):
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def test_the_text_is_valid_and_has_every_name_once(running):
    text = generate_latest(registry(running, {"edge-loop": 1})).decode()
    families = [family.name for family in parse(text)]
    assert set(families) == NAMES and len(families) == len(NAMES)
    assert all(line.split(" ", 3)[3] for line in text.splitlines() if line.startswith("# HELP"))


def test_it_is_valid_openmetrics(running):
    text = generate_openmetrics(registry(running)).decode()
    assert {family.name for family in parse_openmetrics(text)} >= NAMES - {"edge_build_info"}


def test_nothing_is_known_before_the_loop_is_heard():
    found = samples(View(plan()))
    assert found["edge_device_up", ("device", "mixer"), ("driver", "s7")] == 0
    assert found["edge_tag_quality", ("tag", "mixer.level")] == 0
    assert not [key for key in found if key[0].startswith(("edge_tag_value", "edge_cycle_lateness"))]


def test_devices(running):
    found = samples(running)
    assert found["edge_device_up", ("device", "mixer"), ("driver", "s7")] == 1
    assert found["edge_device_up", ("device", "conveyor"), ("driver", "modbus")] == 0
    assert found["edge_device_errors_total", ("device", "mixer")] == 3
    assert found["edge_device_scan_seconds_count", ("device", "mixer")] == 40
    assert found["edge_device_scan_seconds_sum", ("device", "mixer")] == 0.01


def test_how_old_inputs_are_and_how_long_a_reaction_takes(running):
    found = samples(running)
    assert found["edge_device_age_seconds_count", ("device", "mixer")] == 4
    assert found["edge_device_age_seconds_sum", ("device", "mixer")] == 0.004
    assert found["edge_device_age_seconds_bucket", ("device", "mixer"), ("le", "0.001")] == 4
    assert found["edge_device_age_seconds_count", ("device", "conveyor")] == 0
    assert found["edge_device_reaction_seconds_count", ("device", "mixer")] == 2
    assert found["edge_device_reaction_seconds_sum", ("device", "mixer")] == 0.002
    assert found["edge_cycle_cpu_seconds_max",] == 0.0003


def test_histograms_are_cumulative(running):
    found = samples(running)
    buckets = [value for key, value in found.items() if key[0] == "edge_cycle_lateness_seconds_bucket"]
    assert buckets == sorted(buckets) and buckets[0] == 5
    assert found["edge_cycle_lateness_seconds_bucket", ("le", "+Inf")] == 8
    assert found["edge_cycle_lateness_seconds_count",] == 8
    assert found["edge_cycle_overruns_total",] == 2


def test_only_good_numbers_and_bools_have_a_value(running):
    found = samples(running)
    assert found["edge_tag_value", ("tag", "mixer.level"), ("unit", "L")] == 12.5
    assert found["edge_tag_value", ("tag", "mixer.inlet"), ("unit", "")] == 1
    assert found["edge_tag_quality", ("tag", "mixer.level")] == 1
    assert found["edge_tag_quality", ("tag", "conveyor.weight")] == 0
    assert not [key for key in found if key[0] == "edge_tag_value" and "conveyor" in str(key)]


def test_batches_steps_and_alarms(running):
    found = samples(running)
    held = ("batch", 'B"1\n'), ("recipe", "rinse-and-fill")
    assert [key for key in found if key[0] == "edge_batch_state"] == [("edge_batch_state", *held, ("state", "held"))]
    assert found["edge_step_seconds", *held, ("step", "Fill")] == pytest.approx(1.2, abs=0.1)
    assert found["edge_alarms_active", ("kind", "device-lost"), ("priority", "high")] == 1
    assert found["edge_alarms_active", ("kind", "interlock"), ("priority", "high")] == 0
    assert found["edge_alarms_unacknowledged",] == 1 and found["edge_alarms_shelved",] == 0


def test_restarts_and_build(running):
    found = samples(running, {"edge-loop": 2, "edge-s7": 0})
    assert found["edge_process_restarts_total", ("process", "edge-loop")] == 2
    (build,) = [key for key in found if key[0] == "edge_build_info"]
    assert ("version", __version__) in build
