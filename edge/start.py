"""Starts a cell: simulated PLCs where asked for, the state directory, the watcher, and the daemon around them."""

import contextlib
import itertools
import logging
import os
import socket
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TextIO

import msgspec

from edge import channel, record, record_text, recorder
from edge.batch import BatchState
from edge.console import Console
from edge.daemon import Daemon, Watcher
from edge.engine import states
from edge.language.program import Plan
from edge.lock import CannotStart, Lock
from edge.order import Order
from edge.simulation import simulated
from edge.terminal import Terminal


def serve(plan: Plan, where: tuple[str, int], state_dir: Path, *, simulate: bool, core: int | None) -> int:
    """`edge serve`: the cell with its page, API and metrics, until SIGTERM. Gives the exit code."""
    from edge.api import process as api

    _log_to(sys.stderr)
    try:
        listener = api.bind(*where)
        url = api.url(listener).rstrip("/")
        lock = Lock(state_dir, {"url": url, "cell": plan.cell.path})
        with _reached(plan, simulate) as ready:

            def work(plan: Plan, loop: socket.socket, stats: list[socket.socket], restarts: Mapping[str, int]) -> None:
                api.run(plan, state_dir, listener, loop, stats, restarts)

            print(f"edge: cell {plan.cell.name}: operator's page {url}/  metrics {url}/metrics", flush=True)
            print(f"edge: journal and batch record in {state_dir}", flush=True)
            code = Daemon(ready, state_dir, Watcher("edge-api", work), _spare_core() if core is None else core).run()
        lock.release()
        return code
    except (CannotStart, api.CannotListen) as reason:
        print(f"edge: {reason}", file=sys.stderr)
        return 1


def run_once(plan: Plan, order: Order, state_dir: Path, *, simulate: bool) -> int:
    """`edge run`: one recipe to its end, then the batch record. Gives the exit code."""
    console = Console()
    try:
        lock = Lock(state_dir, {"url": "", "cell": plan.cell.path})
        _refuse_interrupted(plan, state_dir, simulate=simulate)
        order = msgspec.structs.replace(order, batch=_unused(order.batch, state_dir))
        lines, told = channel.pair()
        simulation, says = channel.pair()
        says.setblocking(True)  # it is another program's standard output
        with _log_file(state_dir) as log, _reached(plan, simulate, says.fileno()) as ready, console.keys_alone():
            _log_to(log)
            logging.getLogger().addHandler(_Telling(told))

            def work(plan: Plan, loop: socket.socket, _stats: object, _restarts: object) -> None:
                sys.exit(Terminal(plan, order, console, lines, simulation).run(loop))

            code = Daemon(ready, state_dir, Watcher("edge-run", work, last=True), _spare_core()).run()
        lock.release()
    except CannotStart as reason:
        print(f"edge: {reason}", file=sys.stderr)
        return 1
    with contextlib.suppress(record.NoRecord):
        kept = f"kept in {state_dir / record.FILE}; read it again: edge batch {order.batch} --state {state_dir}"
        _print(f"\n{record_text.printed(state_dir / record.FILE, order.batch)}\n\n{kept}")
    late = channel.drain(lines)  # what came when the terminal had ended, or why it did
    for line in late:
        print(f"edge: {line.decode(errors='replace').rstrip('.')}", file=sys.stderr)
    if late:
        print(f"edge: the log has more: {log.name}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _reached(plan: Plan, simulate: bool, says: int | None = None) -> Generator[Plan]:
    """The plan; where it is to be simulated, with the connections of simulated PLCs, which run meanwhile."""
    if not simulate:
        yield plan
        return
    with simulated(plan.cell, says) as cell:
        yield msgspec.structs.replace(plan, cell=cell)


def _print(text: str) -> None:
    """Prints where there is still somebody to read it: a terminal that has gone changes no exit code."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse_interrupted(plan: Plan, state_dir: Path, *, simulate: bool) -> None:
    """A batch that a power loss or a kill has cut off comes back held, and is for a person to end. Raises CannotStart.

    One that was being stopped or aborted needs nobody: it is over once the loop starts.
    """
    try:
        left = [msgspec.msgpack.decode(one, type=BatchState) for one in recorder.unfinished(state_dir)]
    except (record.NoRecord, msgspec.MsgspecError) as error:
        raise CannotStart(str(error)) from None
    for batch in left:
        if states.after(batch.state, "power-loss") not in states.ENDED:
            serve = f"edge serve {plan.cell.path} --state {state_dir}{' --simulate' if simulate else ''}"
            raise CannotStart(
                f"batch {batch.batch} ({batch.recipe}) was interrupted and has not ended: restart, stop or abort it on "
                f"the page of `{serve}`, or run this with another --state DIR"
            )


def _unused(batch: str, state_dir: Path) -> str:
    """The name of a batch, with a number where one that began in the same second has it."""
    for name in itertools.chain([batch], (f"{batch}-{number}" for number in itertools.count(2))):
        try:
            record.batch(state_dir / record.FILE, name)
        except record.NoRecord:
            return name
    raise AssertionError


def _log_file(state_dir: Path) -> TextIO:
    """Where the log of `edge run` goes. Raises CannotStart."""
    path = state_dir / "edge.log"
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise CannotStart(f"the log {path} cannot be written: {error.strerror}") from None


class _Telling(logging.Handler):
    """Sends the person at the terminal what the log has of troubles of edge itself; devices have lines of their own."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__(logging.WARNING)
        self.end = end

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.name == recorder.log.name:
            channel.send(self.end, record.getMessage().encode())


def _spare_core() -> int | None:
    """The core for the loop: the last of four or more; with fewer, the scheduler places it better."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[-1] if len(cores) >= 4 else None


def _log_to(stream: TextIO) -> None:
    logging.basicConfig(stream=stream, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", force=True)
