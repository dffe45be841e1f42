"""edge browse: what a device says of itself and offers, at simulated PLCs."""

import pytest

from drivers.driver import Node
from edge import browse
from edge.language.cell_file import load_cell
from edge.language.source import Problems
from tests.processes import BOTTLING, edge


def device(name: str):
    loaded = load_cell(BOTTLING, Problems())
    assert loaded is not None
    return next(one for one in loaded.cell.devices if one.name == name)


def test_lines_for_the_cell_file() -> None:
    nodes = [Node("DB1.DBB0", "uint8", "DB1", True), Node("ns=2;s=A b", "float32", "Tank 1/Level", False)]
    assert browse.lines(device("mixer"), {"product": "CPU 1214C", "version": "4.5"}, nodes) == [
        "# mixer (s7): product CPU 1214C, version 4.5",
        'db1: {at: "DB1.DBB0", type: "uint8", access: write, failsafe: …} # DB1',
        'tank_1_level: {at: "ns=2;s=A b", type: "float32"} # Tank 1/Level',
    ]
    assert browse.lines(device("mixer"), {}, []) == [
        "# mixer (s7): it does not say what it is",
        "# it does not tell what addresses it has",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("robot", 'robot_robot_state: {at: "nsu=urn:robot;s=State", type: "int32"}'),
        ("conveyor", "# conveyor (modbus): vendor edge, code simulated, version 1"),
        ("mixer", "# mixer (s7): it does not say what it is"),
    ],
)
def test_a_simulated_device(name: str, words: str) -> None:
    done = edge("browse", BOTTLING, name, "--simulate")
    assert (done.returncode, done.stderr) == (0, "")
    assert words in done.stdout


def test_a_device_that_is_not_there() -> None:
    done = edge("browse", BOTTLING, "robto", "--simulate")
    assert done.returncode == 1 and "no device `robto`: did you mean `robot`?" in done.stderr and not done.stdout
