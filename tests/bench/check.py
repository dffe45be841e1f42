"""`edge check` on many recipes: 100 of them, each of 100 steps of every kind, no expression twice."""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.case import Case

RECIPES = 100
STEPS = 100
TANKS = 10

_CELL = """cell: bench
scan: 10 ms
devices:
{devices}
tags:
{tags}
phases:
{phases}
"""

_TAGS = """  tank{n}:
    level: {{at: DB1.DBD0, type: float32, unit: L, range: [0, 1000]}}
    heat: {{at: DB1.DBD4, type: float32, unit: degC, range: [0, 120]}}
    weight: {{at: DB1.DBD8, type: float32, unit: kg}}
    state: {{at: DB1.DBW12, type: int16}}
    ready: {{at: DB1.DBX14.0, type: bool}}
    inlet: {{at: DB1.DBX14.1, type: bool, access: write, failsafe: false}}
    outlet: {{at: DB1.DBX14.2, type: bool, access: write, failsafe: false}}
    stirrer: {{at: DB1.DBD16, type: float32, unit: rpm, access: write, range: [0, 300], failsafe: 0}}
    program: {{at: DB1.DBW20, type: int16, access: write, failsafe: 0}}"""

_PHASE = (
    "  tank{n}.run: {{parameters: {{program: tank{n}.program}}, running: tank{n}.state == 2, done: tank{n}.state == 3}}"
)

_RECIPE = """recipe: recipe{number}
uses: [{tanks}]
parameters:
  volume: {{unit: L, default: 20, range: [5, 50]}}
  hot: {{unit: degC, default: 60, range: [20, 90]}}
interlocks:
  - when: {tank}.level > {high} L or {tank}.heat >= 99.{number} degC
    do: hold
    say: {{en: Too full, fr: Trop plein}}
steps:
"""

_STEPS = (
    """  - name: Fill {place}
    during: {{{tank}.inlet: true}}
    until: {tank}.level >= volume + {amount} L
    within: {place} min
""",
    """  - name: Stir {place}
    set: {{{tank}.stirrer: 1{amount} rpm}}
""",
    """  - name: Heat {place}
    until: "{tank}.heat >= hot + {amount} K and not ({tank}.level < {amount} L or {tank}.state == {place})"
    within: {amount} s
""",
    """  - wait: {amount}.{number} s
""",
    """  - do: {tank}.run
    with: {{program: {place}}}
    within: 1{amount} s
""",
    """  - choose:
      - when: "{tank}.weight / ({tank}.level + {amount} L) > 0.9{number} kg/L"
        steps: [{{set: {{{tank}.outlet: true}}}}]
      - else: []
""",
    """  - record: {{weight{place}: {tank}.weight - {amount}.{number} kg}}
""",
    """  - parallel:
      a: [{{wait: 1{amount} ms}}]
      b: [{{during: {{{tank}.stirrer: "clamp({tank}.state * 1 rpm, {place} rpm, 2{place} rpm)"}}, wait: {amount} s}}]
""",
    """  - repeat: {{while: "{tank}.level > {amount}.{number} L"}}
    steps: [{{until: {tank}.ready, within: {amount} s}}]
""",
)
"""A step of each kind; `_HELD`: of how many steps it is."""

_HELD = (1, 1, 1, 1, 1, 2, 1, 3, 2)


def write(folder: Path) -> None:
    """A cell of ten tanks and its recipes."""
    devices = [f"  tank{n}: {{driver: s7, host: 192.168.0.{n + 1}}}" for n in range(TANKS)]
    tags = [_TAGS.format(n=n) for n in range(TANKS)]
    phases = [_PHASE.format(n=n) for n in range(TANKS)]
    cell = _CELL.format(devices="\n".join(devices), tags="\n".join(tags), phases="\n".join(phases))
    (folder / "cell.yaml").write_text(cell, encoding="utf-8")
    for number in range(RECIPES):
        (folder / f"recipe{number}.yaml").write_text(_recipe(number), encoding="utf-8")


def _recipe(number: int) -> str:
    tanks = [f"tank{(number + offset) % TANKS}" for offset in range(3)]
    text = _RECIPE.format(number=number, tanks=", ".join(tanks), tank=tanks[0], high=800 + number)
    place, steps = 1, 0
    while steps < STEPS:
        kind = place % len(_STEPS)
        tank, amount = tanks[place % len(tanks)], 10 + (number * 7 + place) % 90
        text += _STEPS[kind].format(place=place, tank=tank, amount=amount, number=number)
        place, steps = place + 1, steps + _HELD[kind]
    return text


def _per_second(*command: str | Path) -> float:
    """The recipes that a command, which ends well, goes through in a second of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return RECIPES / (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


class Check(Case):
    """`edge check` of it all, from the command to its last line, next to PyYAML that only reads the files in C."""

    names = ("check.recipes_per_second",)
    unit = "1/s"
    peer_name = "PyYAML, read only"
    rounds = 3

    def __enter__(self) -> "Check":
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        write(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        self.temporary.cleanup()

    def edge(self) -> tuple[float, ...]:
        return (_per_second(sys.executable, "-m", "edge", "check", self.folder),)

    def peer(self) -> tuple[float, ...]:
        return (_per_second(sys.executable, "-c", _READ, self.folder),)


_READ = """
import sys, yaml, pathlib
for path in pathlib.Path(sys.argv[1]).glob("*.yaml"):
    yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
"""

CASES: tuple[type[Case], ...] = (Check,)
