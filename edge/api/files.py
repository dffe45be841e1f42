"""Takes recipe files that have changed into the running cell: read and checked here, run by the loop from then on."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from edge.api.link import Link
from edge.devices import iso
from edge.language.parcel import MOST_BYTES, pack
from edge.language.plan import Changes, changes
from edge.language.program import Plan
from edge.language.report import as_json, report
from edge.language.source import Place, Problems

log = logging.getLogger("edge.api")


class Files:
    """The recipe files beside the cell. A file with a mistake is refused, and its version in force stays."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.view = link.view
        self._alone = asyncio.Lock()

    async def reload(self, by: str) -> dict[str, Any]:
        """What came into force, by name with its hash, what is gone, every problem; `error` where some were refused.

        Raises RequestError where the loop does not take them in.
        """
        async with self._alone:
            problems = Problems()
            found = await asyncio.to_thread(_read, self.view.plan.copy(), problems)
            self._forget()
            for recipe in found.revised:
                await self.link.revise(recipe, by)
                log.info("%s is in force as %s, brought by %s", recipe.name, recipe.hash[:7], by)
            for name in found.gone:
                await self.link.withdraw(name, by)
                log.info("%s is withdrawn, its file is gone: asked by %s", name, by)
        if problems.errors:
            log.warning("recipe files with mistakes stay out:\n%s", report(problems))
        wrong = sorted({Path(one.file).name for one in problems if one.severity == "error"})
        error = {"error": f"there are mistakes in {', '.join(wrong)}: what is in force stays"} if wrong else {}
        self.view.reloaded = {
            "time": iso(time.time_ns()),
            "by": by,
            "recipes": {recipe.name: recipe.hash for recipe in found.revised},
            "gone": list(found.gone),
            "problems": as_json(problems),
            "report": report(problems),
            **error,
        }
        return self.view.reloaded

    def _forget(self) -> None:
        """Of the versions that are not in force those that batches run are kept."""
        run = {batch.hash for batch in self.view.batches.values()}
        for digest in [digest for digest in self.view.plan.others if digest not in run]:
            del self.view.plan.others[digest]


def _read(plan: Plan, problems: Problems) -> Changes:
    """What has changed and may come into force."""
    found = changes(plan, problems)
    fit = [recipe for recipe in found.revised if len(pack(recipe)) <= MOST_BYTES]
    for recipe in found.revised:
        if recipe not in fit:
            message = "this recipe is too long to be taken in while the loop runs"
            hint = "split it, or restart edge when no batch runs"
            problems.error(Place(recipe.file, 1, 1), "too-long", message, hint)
    return Changes(tuple(fit), found.gone)
