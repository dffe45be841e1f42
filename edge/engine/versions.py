"""Which version of a recipe new batches run: it comes as any input does, and changes nothing for a batch that runs."""

from collections.abc import Callable

from edge.batch import State
from edge.engine import refusals
from edge.engine.refusals import Refused
from edge.language.parcel import MOST_BYTES, unpack
from edge.language.program import Plan
from edge.messages import CommandDone, Event, RecipeRevised, Revision


class Versions:
    """Brings versions into force; a version that no batch runs any more is forgotten."""

    def __init__(self, plan: Plan, state: State, emit: Callable[[Event], None]) -> None:
        self.plan = plan
        self.state = state
        self.emit = emit

    def take(self, revision: Revision) -> None:
        """Obeys or refuses a revision; either way it is answered."""
        try:
            if revision.until and not revision.since <= self.state.cycle <= revision.until:
                raise Refused(refusals.TOO_LATE)
            digest = self._revise(revision)
        except Refused as refused:
            self.emit(CommandDone(revision.id, False, refused.text, say=refused.say))
            return
        self.state.versions[revision.recipe] = digest
        self.forget()
        self.emit(RecipeRevised(revision.recipe, digest, revision.by, revision.text))
        self.emit(CommandDone(revision.id, True))

    def _revise(self, revision: Revision) -> str:
        """The hash of the version that is in force now."""
        if not revision.packed:
            if revision.recipe not in self.plan.recipes:
                raise Refused(refusals.no_recipe(revision.recipe))
            self.plan.withdraw(revision.recipe)
            return ""
        if len(revision.packed) > MOST_BYTES:
            raise Refused(refusals.recipe_too_long(revision.recipe))
        try:
            recipe = unpack(revision.packed, revision.text)
        except ValueError as error:
            raise Refused(refusals.no_recipe(revision.recipe), str(error)) from None
        self.plan.put(recipe)
        for tag in recipe.ages:
            self.state.held.setdefault(tag, self.state.cycle)
        return recipe.hash

    def forget(self) -> None:
        """Keeps of the versions that are not in force those that batches run."""
        run = {batch.hash for batch in self.state.batches.values()}
        for digest in [digest for digest in self.plan.others if digest not in run]:
            del self.plan.others[digest]
