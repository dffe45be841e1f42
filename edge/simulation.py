"""Simulated PLCs for a cell (`--simulate`): `hil up`, started beside edge and ended with it."""

import contextlib
import ctypes
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO

from edge.language.cell import Cell
from edge.language.cell_file import apply_endpoints
from edge.language.report import report
from edge.language.source import Problems
from edge.lock import CannotStart

START_S = 30.0


@contextlib.contextmanager
def simulated(cell: Cell, says: int | None = None) -> Generator[Cell]:
    """The cell with the connections of simulated PLCs, which run meanwhile. Raises CannotStart.

    What they say of themselves goes to this file descriptor, to standard output where none is given.
    """
    # no folder around it: `hil up` takes away this file when it ends, also where edge was killed and takes away nothing
    endpoints = Path(tempfile.gettempdir()) / f"edge-{secrets.token_hex(8)}.yaml"
    with tempfile.TemporaryFile() as complaint, contextlib.ExitStack() as running:
        simulation = subprocess.Popen(
            [sys.executable, "-m", "hil", "up", cell.path, "--endpoints", str(endpoints)],
            stdin=subprocess.DEVNULL,
            stdout=says,
            stderr=complaint,
            start_new_session=True,
            preexec_fn=_end_with_us,  # noqa: PLW1509 - this process has one thread
        )
        running.callback(_end, simulation)
        _await(simulation, endpoints, complaint)
        connected = _connected(cell, endpoints)
        endpoints.unlink(missing_ok=True)
        yield connected


def _end(simulation: "subprocess.Popen[bytes]") -> None:
    simulation.terminate()
    try:
        simulation.wait(5)
    except subprocess.TimeoutExpired:
        simulation.kill()
        simulation.wait()


def _end_with_us() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _await(simulation: "subprocess.Popen[bytes]", endpoints: Path, complaint: IO[bytes]) -> None:
    until = time.monotonic() + START_S
    while not endpoints.exists():
        if simulation.poll() is not None or time.monotonic() > until:
            simulation.kill()
            complaint.seek(0)
            text = complaint.read().decode(errors="replace").strip()
            raise CannotStart(f"the simulated PLCs did not start: {text or 'no answer in time'}")
        time.sleep(0.02)


def _connected(cell: Cell, endpoints: Path) -> Cell:
    problems = Problems()
    connected = apply_endpoints(cell, endpoints, problems)
    if problems.errors:
        raise CannotStart(report(problems))
    return connected
