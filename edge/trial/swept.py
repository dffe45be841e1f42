"""What `edge test --sweep` prints: a line a test, the smallest case that fails, and a test file that replays it."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from edge.language.plan import TEST
from edge.language.plant import Plant
from edge.language.program import Plan
from edge.language.report import colors, safe
from edge.language.source import Problems
from edge.language.trial_program import Trial
from edge.trial.faults import Fault
from edge.trial.report import load_tests, story
from edge.trial.sweep import Finding, sweep
from edge.trial.trial import run_trial

SWEPT = f".swept{TEST}"
"""How the file ends that replays a case: it stands beside the test and is run with the others."""


def sweep_tests(paths: Iterable[str | Path], cases: int | None) -> bool:
    """Runs the tests in folders and test files, then up to so many faults of each (None: all); whether all have passed.

    Raises OSError where a file that replays a case cannot be written.
    """
    problems = Problems()
    files = [one for one in load_tests(paths, problems) if not one.file.endswith(SWEPT)]
    results = [
        _swept(one.file, one.plan, trial, one.plant, cases, problems)
        for one in files
        if one.plant is not None
        for trial in one.trials
    ]
    return bool(results) and all(results)


def _swept(file: str, plan: Plan, trial: Trial, plant: Plant, cases: int | None, problems: Problems) -> bool:
    """Sweeps one test and prints what came of it; whether no case has failed."""
    red, _, green, *_, normal = colors(sys.stdout.isatty())
    name, recipe_file = safe(f"{file}::{trial.name}"), plan.recipes[trial.recipe].file
    if (failure := run_trial(plan, trial, plant).failure) is not None:
        print(f"{name} {red}FAILED{normal} without a fault\n\n{story(failure, recipe_file, problems)}\n", flush=True)
        return False
    swept = sweep(plan, trial, plant, cases)
    word = f"{green}PASSED{normal}" if swept.smallest is None else f"{red}FAILED{normal}"
    listed = ", ".join(f"{number:,} {how}" for how, number in sorted(swept.counts.items()))
    print(f"{name} {word} {swept.covered:,} of {swept.total:,} faults: {listed}", flush=True)
    if swept.smallest is None:
        return True
    finding, fault = swept.smallest
    path = Path(f"{file.removesuffix(TEST)}.{trial.place.line}{SWEPT}")
    path.write_text(replay(file, trial, finding, fault, plan), encoding="utf-8")
    seconds = finding.cycle * plan.cell.scan_ns / 1e9
    print(f"\nthe smallest case that fails: {fault.kind}, {fault.target}, cycle {finding.cycle} ({seconds:.2f} s)\n")
    print(story(finding.failure, recipe_file, problems))
    print(f"\nto replay it: edge test {safe(str(path))}\n", flush=True)
    return False


def replay(file: str, trial: Trial, finding: Finding, fault: Fault, plan: Plan) -> str:
    """A test file with the test, the fault at its time, and how the batch ended: it fails where the case failed."""
    scan_ms = plan.cell.scan_ns / 1e6
    root: Any = _yaml(Path(file).read_text(encoding="utf-8"))
    tests = _value(root, "tests")
    test = _value(tests, trial.name)
    happens, before = _yaml(f"[{{at: {finding.cycle * scan_ms:.10g} ms, {fault.keys}}}]"), _value(test, "happens")
    if before is not None:
        happens.value = [*before.value, *happens.value]
    by = f"{finding.cycles * scan_ms / 1000 + 1:.0f} s"
    ends = _yaml(f"{{state: {finding.state}, by: {by}, alarms: [{', '.join(finding.alarms)}]}}")
    kept = [(key, value) for key, value in test.value if key.value not in ("expect", "ends", "happens")]
    test.value = [*kept, (_yaml("happens"), happens), (_yaml("ends"), ends)]
    test.flow_style = happens.flow_style = False
    tests.value = [(key, value) for key, value in tests.value if key.value == trial.name]
    return yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True, width=120)


def _yaml(text: str) -> Any:
    return yaml.compose(text, yaml.SafeLoader)


def _value(node: Any, key: str) -> Any:
    return next((value for name, value in node.value if name.value == key), None)
