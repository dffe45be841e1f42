"""Asks the daemon of a cell, which may run on this machine, through its API."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.language.cell import Cell
from edge.lock import holder_of

PATIENCE_S = 5.0


class NotDone(Exception):
    """Why something could not be done, in words; `answer` is all that the daemon said."""

    def __init__(self, text: str, answer: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.answer = answer or {}


def daemon(cell: Cell, state_dir: Path) -> str:
    """Where the API of this state directory's daemon is; "" where none runs. Raises NotDone where `edge run` does."""
    holder = holder_of(state_dir)
    if holder is None:
        return ""
    url = str(holder.get("url") or "")
    if not url:
        raise NotDone(
            f"a recipe runs on {cell.name} now (edge run, process {holder.get('pid')}): wait for its end; through "
            "`edge serve` tags can be seen while a recipe runs"
        )
    return url


def ask(url: str, body: Mapping[str, Any] | None = None, patience_s: float = PATIENCE_S) -> Any:
    """One call of the daemon's API. Raises NotDone with what it says."""
    import urllib.error
    import urllib.request

    # The daemon is on this machine: a proxy that the environment names for the web does not reach it.
    local = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with local.open(request, timeout=patience_s) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        said: dict[str, Any] = {}
        try:
            said = json.load(error)
            text = said["error"]
        except (ValueError, KeyError, TypeError):
            text = f"the daemon answers {error.code}"
        raise NotDone(str(text), said) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        text = getattr(reason, "strerror", None) or str(reason)
        where = url.partition("/api/")[0]
        raise NotDone(f"the daemon at {where} does not answer ({text.lower()}): see its log") from None
