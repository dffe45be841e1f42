"""What a case is: figures of edge and of its peer, taken in turns; and what comes of them."""

import contextlib
import os
import statistics
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec


class Unavailable(Exception):
    """Why a peer cannot be had here, and what to install."""


class Result(msgspec.Struct, frozen=True):
    """One line of the table: medians over the rounds. What cannot be had is None; `ratio` is edge / peer."""

    name: str
    edge: float | None
    peer: float | None
    peer_name: str
    unit: str
    ratio: float | None


class Case(ABC):
    """A benchmark. `names` are its figures; `edge` and `peer` measure them once, in that order, for one round.

    `notes` are told below the table: what no single figure says.
    """

    names: tuple[str, ...] = ()
    unit = ""
    peer_name = ""
    rounds = 5

    def __init__(self, seconds: float, rounds: int = 0) -> None:
        self.seconds = seconds
        self.rounds = rounds or self.rounds
        self.notes: list[str] = []

    def begin(self, stack: contextlib.ExitStack) -> None:  # noqa: B027 (a case may need nothing)
        """What is there in all rounds; `stack` ends it. Raises Unavailable where not even edge can be measured."""

    def __enter__(self) -> "Case":
        with contextlib.ExitStack() as stack:
            self.begin(stack)
            self.open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.open.close()

    @abstractmethod
    def edge(self) -> tuple[float, ...]: ...

    @abstractmethod
    def peer(self) -> tuple[float, ...]:
        """Raises Unavailable."""


def run(case: Case) -> list[Result]:
    """All rounds of a case, edge and its peer in turns."""
    ours: list[tuple[float, ...]] = []
    theirs: list[tuple[float, ...]] = []
    missing = ""
    try:
        with case:
            for _ in range(case.rounds):
                ours.append(case.edge())
                if not missing:
                    try:
                        theirs.append(case.peer())
                    except Unavailable as why:
                        missing = f"{case.peer_name}: {why}"
    except Unavailable as why:
        missing = str(why)
    except Exception as error:  # one case's trouble is not the others'
        traceback.print_exc()
        missing, ours, theirs = f"failed: {error}", [], []
    results: list[Result] = []
    for place, name in enumerate(case.names):
        edge = statistics.median([one[place] for one in ours]) if ours else None
        peer = statistics.median([one[place] for one in theirs]) if theirs else None
        ratio = edge / peer if edge is not None and peer else None
        results.append(Result(name, edge, peer, missing or case.peer_name, case.unit, ratio))
    return results


@contextlib.contextmanager
def undisturbed(pid: int = 0) -> Iterator[None]:
    """Real-time priority for a short measurement, where permitted: other programs' turns are not what is measured.

    Of the caller's thread, or of all threads of another process.
    """
    threads = [int(one.name) for one in Path(f"/proc/{pid}/task").iterdir()] if pid else [0]
    try:
        _schedule(threads, os.SCHED_FIFO, 1)
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        _schedule(threads, os.SCHED_OTHER, 0)


def _schedule(threads: Sequence[int], policy: int, priority: int) -> None:
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setscheduler(thread, policy, os.sched_param(priority))
