"""`edge reload`: the daemon of a cell takes in the recipe files that have changed."""

import getpass
import sys
from pathlib import Path
from typing import Any

from edge.ask import NotDone, ask, daemon
from edge.language.cell import Cell

PATIENCE_S = 60.0


def run(cell: Cell, state_dir: Path, by: str) -> int:
    """Gives the exit code: 0 where all that has changed is in force, 1 where something was refused."""
    try:
        url = daemon(cell, state_dir)
        if not url:
            raise NotDone(f"no edge serve runs on {state_dir}: it reads the recipes when it starts")
        done = ask(f"{url}/api/recipes/reload", {"by": by or getpass.getuser()}, PATIENCE_S)
    except NotDone as reason:
        _tell(dict(reason.answer))
        print(f"edge: {reason}", file=sys.stderr)
        return 1
    _tell(done)
    if not done["recipes"] and not done["gone"]:
        print("no recipe has changed")
    return 0


def _tell(done: dict[str, Any]) -> None:
    if done.get("report"):
        print(done["report"], file=sys.stderr)
    for name, digest in done.get("recipes", {}).items():
        print(f"{name}: version {digest[:7]} is in force; batches that run keep theirs")
    for name in done.get("gone", ()):
        print(f"{name}: withdrawn, its file is gone")
