"""`python -m tests.bench [NAME…]`: runs the cases whose names begin so (all, if none is named), next to their peers."""

import argparse
import signal
import sys
from pathlib import Path

import msgspec

from tests.bench import check, cycle, drivers, lateness, memory, reaction, scale, start, trial, wire
from tests.bench.case import Case, Result, run

CASES: tuple[type[Case], ...] = (
    *lateness.CASES,
    *cycle.CASES,
    *drivers.CASES,
    *scale.CASES,
    *reaction.CASES,
    *wire.CASES,
    *start.CASES,
    *memory.CASES,
    *check.CASES,
    *trial.CASES,
)
RESULTS = Path("build") / "bench.json"


def main() -> None:
    parser = argparse.ArgumentParser("tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as loop.lateness or start.first_cycle")
    parser.add_argument("--seconds", type=float, default=10, help="of each round of what takes time (default: 10)")
    parser.add_argument("--rounds", type=int, default=0, help="of edge and its peer in turns (default: 5, in some 3)")
    chosen = parser.parse_args()
    wanted = tuple(chosen.names) or ("",)
    cases = [case for case in CASES if any(name.startswith(wanted) for name in case.names)]
    if not cases:
        parser.error(f"there are {', '.join(name for case in CASES for name in case.names)}")
    results: list[Result] = []
    print(f"{'':32}{'edge':>12}{'peer':>12}{'ratio':>8}  unit  peer", flush=True)
    for kind in cases:
        case = kind(chosen.seconds, chosen.rounds)
        found = run(case)
        for result in found:
            print(line(result), flush=True)
        for note in case.notes:
            print(f"  {note}", flush=True)
        results += found
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    if any(result.edge is None for result in results):
        sys.exit("not every case could be measured")


def line(result: Result) -> str:
    edge, peer = ("none" if one is None else f"{one:.{1 if one >= 10 else 3}f}" for one in (result.edge, result.peer))
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
    return f"{result.name:32}{edge:>12}{peer:>12}{ratio:>8}  {result.unit:4}  {result.peer_name}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it, what it has started ends first
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("cut off: what was measured until then is in the file")
