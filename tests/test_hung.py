"""A PLC that hangs with its connection open, as one behind a stalled gateway does: real processes, real sockets."""

import os
import signal
from pathlib import Path

import pytest

from tests.processes import BOTTLING, Plcs, Served, running, until


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
