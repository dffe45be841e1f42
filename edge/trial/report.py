"""What `edge test` prints, as pytest's users expect it: a line a test, then what failed and how things stood; JUnit."""

import math
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import msgspec

from drivers.value import Value, display
from edge.language.plan import Trials, load_trials
from edge.language.report import clip, colors, report, safe, shown
from edge.language.source import Place, Problem, Problems
from edge.trial.trial import Failure, Shown, Verdict, run_trial

_WIDTH = 100


class Result(msgspec.Struct, frozen=True):
    """A test that was run: its file, that of its recipe, how it came out, and the time that it took."""

    file: str
    recipe_file: str
    verdict: Verdict
    took_s: float


def run_tests(paths: Iterable[str | Path], junit: str | None = None) -> bool:
    """Runs the tests in folders and test files and prints how they come out; whether all have passed.

    Nothing is run while there is a problem in any file. `junit` is a file to write JUnit's XML to. Raises OSError where
    it cannot be written.
    """
    color = sys.stdout.isatty()
    problems = Problems()
    files = load_tests(paths, problems)
    if not files:
        return False
    results: list[Result] = []
    for one in files:
        if one.plant is None:
            continue
        for trial in one.trials:
            begin = time.perf_counter()
            verdict = run_trial(one.plan, trial, one.plant)
            result = Result(one.file, one.plan.recipes[trial.recipe].file, verdict, time.perf_counter() - begin)
            results.append(result)
            print(_line(result, color=color), flush=True)
    _print_end(results, problems, color=color)
    if junit is not None:
        Path(junit).write_bytes(junit_xml(results, problems))
    return not any(result.verdict.failure for result in results)


def load_tests(paths: Iterable[str | Path], problems: Problems) -> list[Trials]:
    """The tests in folders and test files, each with its plant; none, with the problems printed, where there is one."""
    files = load_trials(paths, problems)
    if not problems.errors and any(one.plant is None for one in files):
        problems.error(Place(files[0].file, 1, 1), "no-plant-models", "nothing is installed that makes a plant's model")
    if problems.errors:
        print(report(problems, color=sys.stderr.isatty()), file=sys.stderr)
        return []
    return files


def _line(result: Result, *, color: bool) -> str:
    red, _, green, *_, normal = colors(color)
    verdict = result.verdict
    word = f"{red}FAILED{normal}" if verdict.failure else f"{green}PASSED{normal}"
    return f"{safe(f'{result.file}::{verdict.trial.name}')} {word} ({verdict.seconds:.2f} s)"


def story(failure: Failure, recipe_file: str, problems: Problems, *, color: bool = False) -> str:
    """What was not as it must be, where the test says so, and how things stood at the moment."""
    place = failure.place
    problem = Problem(place.file, place.line, place.column, "error", "failed", failure.message, length=place.length)
    cause = f" ({failure.cause})" if failure.cause and failure.state != "running" else ""
    lines = [f"at {failure.seconds:.2f} s, {failure.state}{cause}"]
    lines += [f"  in step {name}, {place}" for name, place in failure.steps]
    width = max((len(one.tag) for one in failure.tags), default=0)
    lines += [f"    {one.tag:{width}}  {_tag(one)}" for one in failure.tags]
    return "\n".join([shown(problem, problems.lines(place.file), color=color), *map(safe, lines)])


def _tag(one: Shown) -> str:
    """A tag's value, and what edge takes it for where that is something else."""
    truth = "none" if one.truth is None else display(one.truth, one.unit)
    seen = "a bad value" if one.seen is None else display(one.seen, one.unit)
    return truth if _near(one.truth, one.seen) else f"{truth}  (edge sees {seen})"


def _near(truth: Value | None, seen: Value | None) -> bool:
    """Whether both are the same but for the scan that edge is behind."""
    if isinstance(truth, bool | str) or isinstance(seen, bool | str) or truth is None or seen is None:
        return truth == seen
    return math.isclose(truth, seen, rel_tol=0.02)


def _print_end(results: Sequence[Result], problems: Problems, *, color: bool) -> None:
    red, _, green, _, bold, normal = colors(color)
    failed = [(result, failure) for result in results if (failure := result.verdict.failure)]
    if failed:
        print(f"\n{' FAILURES ':=^{_WIDTH}}")
    for result, failure in failed:
        title = f" {clip(result.verdict.trial.name, _WIDTH - 4)} "
        print(f"{title:_^{_WIDTH}}\n\n{story(failure, result.recipe_file, problems, color=color)}\n")
    counts = [f"{len(failed)} failed"] if failed else []
    counts += [f"{passed} passed"] if (passed := len(results) - len(failed)) else []
    took_s = sum(result.took_s for result in results)
    plant_s = sum(result.verdict.seconds for result in results)
    speed = f", {plant_s / took_s:.0f} times real time" if took_s else ""
    told = f" {', '.join(counts)} in {took_s:.2f} s ({plant_s:.1f} s at the plant{speed}) "
    print(f"{bold}{red if failed else green}{told:=^{_WIDTH}}{normal}")


def junit_xml(results: Iterable[Result], problems: Problems) -> bytes:
    """The results as JUnit's XML, as CI servers read it: a suite for each file."""
    root = ElementTree.Element("testsuites", name="edge test")
    suites: dict[str, list[Result]] = {}
    for result in results:
        suites.setdefault(result.file, []).append(result)
    for file, members in suites.items():
        failures = sum(result.verdict.failure is not None for result in members)
        took_s = sum(result.took_s for result in members)
        counts = {
            "name": file,
            "tests": str(len(members)),
            "failures": str(failures),
            "errors": "0",
            "time": f"{took_s:.6f}",
        }
        suite = ElementTree.SubElement(root, "testsuite", counts)
        for result in members:
            _case(suite, result, problems)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _case(suite: ElementTree.Element, result: Result, problems: Problems) -> None:
    trial, failure = result.verdict.trial, result.verdict.failure
    where = {"classname": trial.recipe, "file": result.file, "line": str(trial.place.line)}
    case = ElementTree.SubElement(suite, "testcase", {"name": trial.name, "time": f"{result.took_s:.6f}", **where})
    if failure is not None:
        text = story(failure, result.recipe_file, problems)
        ElementTree.SubElement(case, "failure", message=failure.message).text = text
