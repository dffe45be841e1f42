"""Which versions of its recipes a process of the daemon begins with: those of the files, and what the record adds."""

import logging
from contextlib import suppress
from pathlib import Path

import msgspec

from edge import record, recorder
from edge.batch import BatchState
from edge.language.plan import recompile
from edge.language.program import Plan

log = logging.getLogger("edge.versions")


def recalled(plan: Plan, state_dir: Path, life: int) -> Plan:
    """The plan that was loaded when this life of the daemon began, with every version that came into force since, and
    with the older ones that unfinished batches run. Raises NoRecord where the record cannot be read.
    """
    path = state_dir / record.FILE
    if not path.exists():
        return plan
    plan = plan.copy()
    with suppress(record.NothingYet):
        for version in record.versions(path, life):
            _bring(plan, version)
    for state in recorder.unfinished(state_dir):
        _keep(plan, msgspec.msgpack.decode(state, type=BatchState), path)
    return plan


def _bring(plan: Plan, version: record.Version) -> None:
    if not version.hash:
        plan.withdraw(version.recipe)
    elif plan.version(version.recipe, version.hash) is not plan.recipes.get(version.recipe):
        recipe = plan.version(version.recipe, version.hash) or recompile(plan, version.recipe, version.text)
        if recipe is not None:
            plan.put(recipe)


def _keep(plan: Plan, batch: BatchState, path: Path) -> None:
    """The version that a batch runs, where it is not in force."""
    if plan.version(batch.recipe, batch.hash) is not None:
        return
    recipe = recompile(plan, batch.recipe, record.recipe_text(path, batch.hash))
    if recipe is not None and recipe.hash == batch.hash:
        plan.others[recipe.hash] = recipe
    else:
        log.error("batch %s cannot go on: its version of %s is none of this cell any more", batch.batch, batch.recipe)
