"""The command line: a word that is wrong is met with the one that was meant, and nothing heavy is imported for help."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.cli import main

BOTTLING = Path(__file__).parent.parent / "recipes" / "bottling"
COMMANDS = ("check", "run", "serve", "test", "tags", "batches", "batch", "schema")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chekc", "x"], "edge: error: no command `chekc`: did you mean `check`?"),
        (["fly"], "edge: error: no command `fly`"),
        (["--verison"], "edge: error: no option `--verison`: did you mean `--version`?"),
        (["check", "--frmat", "json", "x"], "edge check: error: no option `--frmat`: did you mean `--format`?"),
        (["check", "x", "-q"], "edge check: error: no option `-q`"),
        (["run", "cell", "fill", "--sett=volume=3"], "edge run: error: no option `--sett`: did you mean `--set`?"),
        (["run", "cell", "fill", "20"], "edge run: error: `20` is one argument too many"),
        (["run", "cell"], "edge run: error: the following arguments are required: RECIPE"),
        (["serve", "cell", "--core", "-1"], "edge serve: error: argument --core: -1 is no processor core"),
        (["serve", "cell", "--core", "9999"], f"of this machine: they are 0 to {(os.cpu_count() or 1) - 1}"),
    ],
)
def test_a_word_that_is_wrong(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("usage: edge")
    assert said in err.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: edge {command} ")


def imported(code: str) -> set[str]:
    """The modules that are there after some code."""
    code = f"import sys\n{code}\nprint(*sys.modules, file=sys.__stdout__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_nothing_heavy() -> None:
    loaded = imported("import edge.cli\ntry: edge.cli.main(['tags', '--help'])\nexcept SystemExit: pass")
    assert loaded.isdisjoint({"msgspec", "yaml", "asyncio", "edge.language.cell", "edge.daemon", "inspect"})


def test_a_look_at_the_tags_does_not_import_what_runs_them() -> None:
    loaded = imported("import edge.technician")
    assert loaded.isdisjoint({"edge.daemon", "edge.loop", "edge.recorder", "sqlite3", "urllib.request", "uvloop"})


def test_a_recipe_that_is_misspelt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(BOTTLING), "rinse-and-fil"]) == 1
    err = capsys.readouterr().err
    assert "error: no recipe `rinse-and-fil` beside this cell" in err
    assert "hint: did you mean `rinse-and-fill`?" in err
    assert err.endswith("\n1 error\n")


def test_a_recipe_that_may_be_in_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cell.yaml").write_bytes((BOTTLING / "cell.yaml").read_bytes())
    (tmp_path / "fill.yaml").write_text("")
    assert main(["run", str(tmp_path), "fill"]) == 1
    err = capsys.readouterr().err
    assert "hint: it may be in fill.yaml, which cannot be read" in err
    assert "fill.yaml:1:1: error: the file is empty" in err
