"""`python -m tests.bench [NAME…]`: runs the cases whose names begin so (all, if none is named), next to their peers."""

import argparse
from pathlib import Path

import msgspec

from tests.bench import check, cycle, lateness, memory, start
from tests.bench.case import Case, Result, run

CASES: tuple[type[Case], ...] = (*lateness.CASES, *cycle.CASES, *start.CASES, *memory.CASES, *check.CASES)
RESULTS = Path("build") / "bench.json"


def main() -> None:
    parser = argparse.ArgumentParser("tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as loop.lateness or start.first_cycle")
    parser.add_argument("--seconds", type=float, default=10, help="of each round of what takes time (default: 10)")
    chosen = parser.parse_args()
    wanted = tuple(chosen.names) or ("",)
    cases = [case for case in CASES if any(name.startswith(wanted) for name in case.names)]
    if not cases:
        parser.error(f"there are {', '.join(name for case in CASES for name in case.names)}")
    results: list[Result] = []
    print(f"{'':32}{'edge':>12}{'peer':>12}{'ratio':>8}  unit  peer", flush=True)
    for kind in cases:
        case = kind(chosen.seconds)
        found = run(case)
        for result in found:
            print(line(result), flush=True)
        for note in case.notes:
            print(f"  {note}", flush=True)
        results += found
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")


def line(result: Result) -> str:
    peer = "none" if result.peer is None else f"{result.peer:.1f}"
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
    return f"{result.name:32}{result.edge:12.1f}{peer:>12}{ratio:>8}  {result.unit:4}  {result.peer_name}"


if __name__ == "__main__":
    main()
