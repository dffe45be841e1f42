"""`edge test` as its user has it: the shipped recipes pass, a failure is told, JUnit's XML is what CI servers read."""

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edge.cli import main
from edge.language.plan import TEST

RECIPES = Path(__file__).parent.parent / "recipes"
BOTTLING = RECIPES / "bottling"


@pytest.fixture
def bottling(tmp_path: Path, monkeypatch) -> Path:
    """The shipped cell with its recipes and its plant, without their tests, as the current directory."""
    shutil.copytree(BOTTLING, tmp_path / "cell", ignore=shutil.ignore_patterns(f"*{TEST}"))
    monkeypatch.chdir(tmp_path / "cell")
    return tmp_path / "cell"


@pytest.mark.parametrize("path", sorted(RECIPES.glob(f"*/*{TEST}")), ids=lambda path: path.name)
def test_the_shipped_tests_pass(path: Path, capsys) -> None:
    assert main(["test", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(re.fullmatch(rf"{re.escape(str(path))}::.* PASSED \(\d+\.\d\d s\)", line) for line in lines[:-1])
    assert re.fullmatch(r"=+ \d+ passed in .* times real time\) =+", lines[-1])


def test_every_shipped_recipe_has_tests_with_faults() -> None:
    for path in BOTTLING.glob("*.yaml"):
        if "\nsteps:" in path.read_text(encoding="utf-8"):
            text = path.with_suffix("").with_suffix(TEST).read_text(encoding="utf-8")
            assert re.search("lost: .*(spike|cut): |(spike|cut): .*lost: ", text, re.DOTALL), path


FAILING = """
recipe: rinse-and-fill
answers: {label_ok: "yes"}
tests:
  It fills: {}
  A level sensor that stands still lets in no more:
    happens: [{step: Fill the mixer, stuck: mixer.level}]
    always: [mixer.level < 30 L]
"""


def test_a_failure_is_told_with_its_moment_its_tags_and_its_step(bottling: Path, capsys) -> None:
    (bottling / "a.test.yaml").write_text(FAILING)
    assert main(["test", "a.test.yaml"]) == 1
    out = capsys.readouterr().out
    assert "a.test.yaml::It fills PASSED" in out
    assert "a.test.yaml::A level sensor that stands still lets in no more FAILED" in out
    assert (
        "a.test.yaml:8:14: error: this must always be: mixer.level < 30 L\n"
        " 8 |     always: [mixer.level < 30 L]\n"
        "   |              ^^^^^^^^^^^^^^^^^^\n"
    ) in out
    assert re.search(r"^at \d+\.\d\d s, running\n  in step Fill the mixer, rinse-and-fill.yaml:\d+$", out, re.MULTILINE)
    assert re.search(r"^    mixer\.level +30(?:\.\d+)? L  \(edge sees 0\.\d+ L\)$", out, re.MULTILINE)
    assert re.search(r"^=+ 1 failed, 1 passed in ", out, re.MULTILINE)


def test_junit(bottling: Path, capsys) -> None:
    (bottling / "a.test.yaml").write_text(FAILING)
    assert main(["test", ".", "--junit", "results.xml"]) == 1
    root = ElementTree.parse(bottling / "results.xml").getroot()
    (suite,) = root.findall("testsuite")
    assert root.tag == "testsuites"
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    passed, failed = suite.findall("testcase")
    assert (passed.get("name"), passed.get("classname"), passed.get("line")) == ("It fills", "rinse-and-fill", "5")
    assert not list(passed) and float(passed.get("time", "0")) > 0
    (failure,) = failed.findall("failure")
    assert failure.get("message") == "this must always be: mixer.level < 30 L"
    assert "in step Fill the mixer" in (failure.text or "")


def test_a_results_file_that_cannot_be_written(bottling: Path, capsys) -> None:
    (bottling / "a.test.yaml").write_text(FAILING)
    assert main(["test", ".", "--junit", "nowhere/results.xml"]) == 1
    assert "nowhere/results.xml cannot be written" in capsys.readouterr().err


def test_nothing_runs_while_a_file_has_a_mistake(bottling: Path, capsys) -> None:
    (bottling / "a.test.yaml").write_text(FAILING)
    (bottling / "b.test.yaml").write_text("recipe: changeover\ntests: {It changes: {answers: {produkt: juice}}}\n")
    assert main(["test", "."]) == 1
    out, err = capsys.readouterr()
    assert not out and "changeover does not ask `produkt`" in err


def test_a_mistake_in_the_plant(bottling: Path, capsys) -> None:
    (bottling / "a.test.yaml").write_text(FAILING)
    plant = bottling / "plant.yaml"
    plant.write_text(plant.read_text(encoding="utf-8").replace("model: tank", "model: tnak"), encoding="utf-8")
    assert main(["test", "."]) == 1
    assert "plant.yaml" in capsys.readouterr().err


def test_no_tests_at_all(bottling: Path, capsys) -> None:
    assert main(["test", "."]) == 1
    assert "here is no test" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["nowhere", "nowhere/x.yaml", "nowhere/a.test.yaml", "nowhere/cell.yaml"])
def test_what_is_not_there_is_no_success(path: str, bottling: Path, capsys) -> None:
    (bottling / "a.test.yaml").write_text(FAILING)
    for paths in ([path], [".", path]):
        assert main(["test", *paths]) == 1
        out, err = capsys.readouterr()
        assert not out and "nowhere" in err and "there is no such file" in err


def test_a_folder_without_a_cell_is_no_success(tmp_path: Path, capsys) -> None:
    assert main(["test", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert not out and "no cell.yaml in this folder" in err


def test_no_path_is_a_wrong_command(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["test"])
    assert ended.value.code == 2 and "PATH" in capsys.readouterr().err
