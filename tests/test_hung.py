"""A PLC that hangs with its connection open, as one behind a stalled gateway does: real processes, real sockets."""

import os
import signal
from pathlib import Path

import pytest

from edge.language.cell_file import load_cell
from edge.language.report import report
from edge.language.source import Problems
from tests.processes import BOTTLING, Plcs, Served, running, until
from tests.virtual import CELL, plan_of


@pytest.mark.parametrize("device", ["mixer", "conveyor", "robot"])
def test_its_values_turn_bad_at_the_age_limit_and_come_back(tmp_path: Path, device: str) -> None:
    with (
        running(Plcs(tmp_path)) as plcs,
        running(Served(tmp_path, BOTTLING, "--endpoints", plcs.endpoints)) as served,
    ):
        served.up()
        pid = plcs.pid_of(device)
        os.kill(pid, signal.SIGSTOP)
        try:
            too_old = f"{device}: no answer for 0.5 s: its values are too old to be used"
            until(lambda: too_old in served.said, f"what is said of {device}: {served.said}")
            until(lambda: not good(served, device), "bad values")
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: good(served, device), "good values")


def good(served: Served, device: str) -> list[str]:
    """The tags of a device that are good."""
    tags = served.state().get("tags", {})
    return [name for name, tag in tags.items() if name.startswith(f"{device}.") and tag["quality"] == "good"]


@pytest.mark.parametrize(
    ("keys", "limit_ms"), [("every: 20 ms", 500), ("every: 1 s", 3000), ("every: 20 ms, max_age: 80 ms", 80)]
)
def test_the_age_limit_of_a_device(tmp_path: Path, keys: str, limit_ms: int) -> None:
    plan = plan_of(tmp_path, cell=CELL.replace("127.0.0.1, every: 10 ms", f"127.0.0.1, {keys}"))
    assert plan.cell.devices[0].max_age_ns == limit_ms * 1_000_000


def test_an_age_limit_that_every_scan_would_break_is_an_error(tmp_path: Path) -> None:
    text = CELL.replace("127.0.0.1, every: 10 ms", "127.0.0.1, every: 100 ms, max_age: 100 ms")
    (tmp_path / "cell.yaml").write_text(text, encoding="utf-8")
    problems = Problems()
    load_cell(tmp_path / "cell.yaml", problems)
    assert "`max_age` is more than `every`" in report(problems)
