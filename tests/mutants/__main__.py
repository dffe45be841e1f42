"""`make mutants`: how many of the faults put into the engine and the language do the tests find?

    python -m tests.mutants [--slice 2/5] [--only TEXT] [FILE...]

Each file's tests run once to see which of them runs which line; then each mutant runs those alone, the fastest first,
until one fails, in a process forked for it that sees the mutant in the module's place. Heavy: it takes minutes a file.
"""

import argparse
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import hypothesis
import pytest

from tests.mutants.mutation import Mutant, mutants

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
FILES = (
    "edge/engine/states.py", "edge/engine/engine.py", "edge/engine/sequence.py", "edge/engine/control.py",
    "edge/language/expression.py", "edge/language/checker.py", "edge/language/arithmetic.py",
)  # fmt: skip
HEAVY = ("tests.served", "tests.processes", "tests.simulated", "tests.listening", "tests.bench", "subprocess", "socket")
"""A test file that imports one of these starts processes or listens: too slow for a thousand mutants."""

QUIET = (
    "-x",
    "-q",
    "--no-header",
    "-p",
    "no:cacheprovider",
    "--timeout",
    "60",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)
LIMIT_S, LIMIT_BYTES = 60, 4 << 30


class _Lines:
    """A pytest plugin: which test runs which lines of some files, and how long it takes."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = {str(ROOT / file): file for file in files}
        self.seen: dict[str, dict[int, set[str]]] = {file: {} for file in files}
        self.took: dict[str, float] = {}
        self.test = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self.test, began = item.nodeid, time.monotonic()
        sys.settrace(self._call)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.took[self.test] = time.monotonic() - began

    def _call(self, frame: FrameType, event: str, _: object) -> Any:
        file = self.files.get(frame.f_code.co_filename)
        if file is None:
            return None
        lines = self.seen[file]

        def line(frame: FrameType, event: str, _: object) -> Any:
            lines.setdefault(frame.f_lineno, set()).add(self.test)
            return line

        return line(frame, event, None)


class _Mutated(MetaPathFinder, Loader):
    """Gives the mutant in place of its module."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return (
            importlib.util.spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None
        )

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


def _test_files(files: Sequence[str]) -> list[str]:
    """The test files that may say something of these: light ones that import the engine or the language."""
    rooms = {"tests.virtual", *(file.removesuffix(".py").replace("/", ".") for file in files)}
    found: list[str] = []
    for path in sorted(TESTS.glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if any(room in text for room in rooms) and not any(f"import {one}" in text or one in text for one in HEAVY):
            found.append(str(path.relative_to(ROOT)))
    return found


def _in_a_child(work: Any, limit_s: float) -> int | None:
    """The exit code of what is done in a forked process; None where it took too long."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
        code = 70
        try:
            code = int(work())
        finally:
            os._exit(code)
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _covered(files: Sequence[str]) -> _Lines:
    """Which test runs which line, kept in build/ until a source is newer; the tests must pass as they are."""
    plugin, kept = _Lines(files), ROOT / "build" / f"mutants-{'-'.join(Path(file).stem for file in files)}.json"
    kept.parent.mkdir(exist_ok=True)

    def work() -> int:
        code = pytest.main([*QUIET, *_test_files(files)], plugins=[plugin])
        seen = {file: {line: sorted(tests) for line, tests in lines.items()} for file, lines in plugin.seen.items()}
        kept.write_text(json.dumps([seen, plugin.took]), encoding="utf-8")
        return code

    newest = max(path.stat().st_mtime for folder in ("edge", "tests") for path in (ROOT / folder).rglob("*.py"))
    if (not kept.exists() or kept.stat().st_mtime < newest) and _in_a_child(work, 1800) != 0:
        kept.unlink(missing_ok=True)
        sys.exit("the tests do not pass as they are: " + " ".join(_test_files(files)))
    seen, plugin.took = json.loads(kept.read_text(encoding="utf-8"))
    plugin.seen = {file: {int(line): set(tests) for line, tests in lines.items()} for file, lines in seen.items()}
    return plugin


def _is_killed(file: str, mutant: Mutant, tests: Sequence[str]) -> bool:
    code = compile(mutant.tree, str(ROOT / file), "exec")
    name = file.removesuffix(".py").replace("/", ".")

    def work() -> int:
        sys.meta_path.insert(0, _Mutated(name, ROOT / file, code))
        return pytest.main([*QUIET, *tests])

    return _in_a_child(work, LIMIT_S) != 0


def main() -> None:
    form = argparse.ArgumentParser(
        prog="make mutants", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    form.add_argument("files", nargs="*", default=FILES, help="modules to put faults into")
    form.add_argument("--slice", default="1/1", help="only the Nth of M parts, as in 2/5")
    form.add_argument("--only", default="", help="only mutants whose line says this")
    form.add_argument("--lines", default="", help="only these lines, as in 10-20,33")
    chosen = form.parse_args()
    number, count = map(int, chosen.slice.split("/"))
    hypothesis.settings.register_profile("mutants", derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")
    lines = _covered(chosen.files)
    wanted = {line for part in chosen.lines.split(",") if part for line in _span(part)}
    for file in chosen.files:
        every = [
            one
            for one in mutants((ROOT / file).read_text(encoding="utf-8"))
            if chosen.only in one.what and (not wanted or one.line in wanted)
        ][number - 1 :: count]
        survived: list[Mutant] = []
        whole = sorted({test for tests in lines.seen[file].values() for test in tests}, key=lines.took.__getitem__)
        for mutant in every:
            tests = sorted(lines.seen[file].get(mutant.line, ()), key=lines.took.__getitem__) or whole
            if not _is_killed(file, mutant, tests[:400]):
                survived.append(mutant)
                print(f"{file}:{mutant.line}: survived: {mutant.what}", flush=True)
        killed = len(every) - len(survived)
        print(f"{file}: {killed} of {len(every)} killed, {100 * killed / max(1, len(every)):.1f} %", flush=True)


def _span(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


main()
