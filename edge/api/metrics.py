"""Every Prometheus name, once: what a View knows, as metric families (Prometheus text format 0.0.4 and OpenMetrics)."""

import itertools
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from drivers.value import is_good
from edge import __version__
from edge.language.rules import PRIORITIES, AlarmKind
from edge.messages import BOUNDS_S, Times
from edge.view import View


class ViewCollector(Collector):
    """Collects from a View when it is scraped. `restarts` counts the restarts of each process, where that is known."""

    def __init__(self, view: View, restarts: Mapping[str, int]) -> None:
        self.view = view
        self.restarts = restarts

    def collect(self) -> Iterator[Metric]:
        yield from self._loop()
        yield from self._devices()
        yield from self._tags()
        yield from self._batches()
        yield from self._alarms()
        yield _counter(
            "edge_process_restarts", "Restarts of a process by the daemon.", ["process"], self.restarts.items()
        )
        build = InfoMetricFamily("edge_build", "The version of edge and of the Python that runs it.")
        build.add_metric([], {"version": __version__, "python": platform.python_version()})
        yield build

    def _loop(self) -> Iterator[Metric]:
        loop = self.view.loop
        if loop is None:
            return
        lateness = HistogramMetricFamily("edge_cycle_lateness_seconds", "How late a scan cycle began.")
        lateness.add_metric([], *_buckets(loop.lateness))
        yield lateness
        duration = HistogramMetricFamily("edge_cycle_duration_seconds", "How long a scan cycle took.")
        duration.add_metric([], *_buckets(loop.duration))
        yield duration
        yield GaugeMetricFamily(
            "edge_cycle_cpu_seconds_max", "The most processor time that a scan cycle took.", value=loop.cpu_max_s
        )
        yield CounterMetricFamily("edge_cycle_overruns", "Scan cycles that were skipped.", value=loop.overruns)
        yield CounterMetricFamily(
            "edge_records_dropped", "Records of a cycle that the journal missed.", value=loop.dropped
        )

    def _devices(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("edge_device_up", "1 while the device answers.", labels=["device", "driver"])
        scan = HistogramMetricFamily("edge_device_scan_seconds", "How long a scan took.", labels=["device"])
        age = HistogramMetricFamily(
            "edge_device_age_seconds",
            "How old the device's inputs were when a scan cycle took them.",
            labels=["device"],
        )
        reaction = HistogramMetricFamily(
            "edge_device_reaction_seconds",
            "From the arrival of changed inputs to the device's confirmation of the outputs that changed with them.",
            labels=["device"],
        )
        errors = CounterMetricFamily("edge_device_errors", "Scans and writes that failed.", labels=["device"])
        ages = self.view.loop.ages if self.view.loop is not None else ()
        for device, times in zip(self.view.devices, ages, strict=False):
            age.add_metric([device.device.name], *_buckets(times))
        for device in self.view.devices:
            name, stats = device.device.name, device.stats
            up.add_metric([name, device.device.driver], device.up)
            if stats is not None:
                scan.add_metric([name], *_buckets(stats.scan))
                reaction.add_metric([name], *_buckets(stats.reaction))
                errors.add_metric([name], stats.errors)
        yield from (up, scan, age, reaction, errors)

    def _tags(self) -> Iterator[Metric]:
        values = GaugeMetricFamily("edge_tag_value", "The value of a good number or bool.", labels=["tag", "unit"])
        quality = GaugeMetricFamily("edge_tag_quality", "1 good, 0 bad (OPC UA StatusCode).", labels=["tag"])
        for device in self.view.devices:
            for tag, value, status, _ in device.readings():
                quality.add_metric([tag.name], is_good(status))
                if value is not None and not isinstance(value, str):
                    values.add_metric([tag.name, tag.unit], value)
        yield from (values, quality)

    def _batches(self) -> Iterator[Metric]:
        view = self.view
        state = GaugeMetricFamily(
            "edge_batch_state", "1 for the state that a batch is in (ISA-88).", labels=["batch", "recipe", "state"]
        )
        steps = GaugeMetricFamily(
            "edge_step_seconds", "How long an active step has run.", labels=["batch", "recipe", "step"]
        )
        for batch in view.batches.values():
            state.add_metric([batch.batch, batch.recipe, batch.state], 1)
            longest: dict[str, float] = {}
            for step in batch.steps.values():
                longest[step.name] = max(longest.get(step.name, 0.0), view.seconds(batch, step))
            for name, seconds in longest.items():
                steps.add_metric([batch.batch, batch.recipe, name], seconds)
        yield from (state, steps)

    def _alarms(self) -> Iterator[Metric]:
        """Every kind with every priority: a series that comes and goes cannot be watched."""
        alarms = GaugeMetricFamily(
            "edge_alarms_active", "Alarms whose cause is still there, shelved or not.", labels=["kind", "priority"]
        )
        known = self.view.alarms.values()
        counts = Counter((alarm.kind, alarm.priority) for alarm in known if alarm.active)
        for kind, priority in itertools.product(get_args(AlarmKind), PRIORITIES):
            alarms.add_metric([kind, priority], counts[kind, priority])
        yield alarms
        unseen = sum(not alarm.acknowledged and alarm.shelved is None for alarm in known)
        yield GaugeMetricFamily("edge_alarms_unacknowledged", "Alarms that nobody has acknowledged.", value=unseen)
        shelved = sum(alarm.shelved is not None for alarm in known)
        yield GaugeMetricFamily("edge_alarms_shelved", "Alarms that a person has shelved.", value=shelved)


def registry(view: View, restarts: Mapping[str, int] | None = None) -> CollectorRegistry:
    """A registry of its own over a View; nothing global is touched."""
    found = CollectorRegistry()
    found.register(ViewCollector(view, restarts or {}))
    return found


def _counter(name: str, text: str, labels: list[str], values: Iterable[tuple[str, int]]) -> Metric:
    counter = CounterMetricFamily(name, text, labels=labels)
    for label, value in values:
        counter.add_metric([label], value)
    return counter


def _buckets(times: Times) -> tuple[list[tuple[str, float]], float]:
    """A histogram as Prometheus wants it: cumulative counts per bucket of BOUNDS_S, the last one `+Inf`; the sum."""
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip([*map(repr, BOUNDS_S), "+Inf"], times.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets, times.sum_s
