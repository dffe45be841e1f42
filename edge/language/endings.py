"""What ends a step, and what goes with it: its kind, its time limit, what it expects after a hold."""

from typing import Any

from edge.language import recipe
from edge.language.binding import Binding
from edge.language.program import Code
from edge.language.recipe import Kind
from edge.language.source import Problems, tick

_ENDS: dict[Kind, str] = {
    "set": "only sets outputs",
    "until": "waits for a condition",
    "wait": "waits a time",
    "ramp": "goes to a value",
    "pulse": "gives a pulse",
    "parallel": "has branches",
    "first": "has branches",
    "choose": "chooses",
    "repeat": "repeats",
    "ask": "asks",
    "do": "runs a phase",
    "include": "includes a recipe",
    "record": "records",
    "let": "sets variables",
    "alarm": "raises an alarm",
    "acquire": "acquires units",
    "release": "releases units",
}


def kind_of(binding: Binding, form: recipe.Step, *, handler: bool) -> Kind:
    """What ends the step; what goes with no such step is reported."""
    entries = form.node.entries
    endings: list[Kind] = [key for key in recipe.COMPLETIONS if key in entries]
    kind: Kind = endings[0] if endings else "set"
    if len(endings) > 1:
        binding.problems.error(
            entries[endings[1]].key,
            "two-endings",
            f"a step ends in one way: this one has `{endings[0]}` and `{endings[1]}`",
            "make two steps of it, or two branches of a `parallel`",
        )
    elif entries.keys() <= {"name"}:
        hint = f"a step has `set`, or one of {', '.join(f'`{key}`' for key in recipe.COMPLETIONS)}"
        binding.problems.error(form.node, "empty-step", "this step does nothing", hint)
    elif not endings and form.has("during"):
        hint = "say when it ends with `until` or `wait`, or use `set`"
        binding.problems.error(entries["during"].key, "during-no-end", "this step ends at once", hint)
    for key in recipe.GOES_WITH.keys() & entries.keys():
        kinds = recipe.GOES_WITH[key]
        if kind not in kinds:
            goes = " or ".join(f"`{name}`" for name in recipe.COMPLETIONS if name in kinds)
            message = f"`{key}` has no meaning in a step that {_ENDS[kind]}"
            binding.problems.error(entries[key].key, "key-not-here", message, f"it goes with {goes}")
    if form.has("on_timeout") and (form.within is None or form.within.text == "none"):
        hint = "add the time, such as `within: 60 s`"
        binding.problems.error(entries["on_timeout"].key, "no-within", "`on_timeout` needs a time in `within`", hint)
    barred = [key for key in (kind, "during", "interlocks") if key in entries and key not in recipe.PLAIN]
    if handler and barred:
        key = barred[0]
        message = f"`{key}` cannot stand in a handler of `on`"
        hint = f"a handler has steps with {', '.join(f'`{name}`' for name in sorted(recipe.PLAIN))}"
        binding.problems.error(entries[key].key, "not-in-handler", message, hint)
    return kind


def in_handler(binding: Binding, form: recipe.Step, why: str, inner: Problems) -> None:
    """Reports an operation in a handler of `on` that cannot stand there: because of `why`, or of what is in it.

    `inner` are the problems that it has there. By itself it is sound.
    """
    wrong = next((one for one in inner if one.severity == "error"), None)
    if wrong is not None:
        why = f"{wrong.message}, line {wrong.line}"
    if why:
        message = f"{tick(form.include or '')} cannot stand in a handler of `on`: {why}"
        binding.problems.error(form.place("include"), "not-in-handler", message, "write its steps here as they must be")


def within(binding: Binding, kind: Kind, form: recipe.Step, *, handler: bool) -> int | Code | None:
    node = form.within
    if node is None or kind not in recipe.LASTING:
        return None
    if node.text == "none":
        if handler:
            hint = "give it a time, such as `within: 10 s`"
            binding.problems.error(node, "endless-wait", "a handler must come to its end", hint)
        return None
    seconds = binding.seconds(node)
    if seconds is not None and seconds.high is not None and seconds.high * 1e9 < binding.plan.cell.scan_ns:
        scan = f"{binding.plan.cell.scan_ns / 1e6:g} ms"
        binding.problems.error(node, "short-within", f"this is shorter than the scan of the cell, {scan}")
    return binding.cycles(seconds)


def expects(binding: Binding, form: recipe.Step, *, handler: bool) -> dict[str, Any]:
    if form.expects is not None and handler:
        message = "`expects` cannot stand in a handler of `on`"
        hint = "a handler is not continued after a hold: ask with `until` where it must wait"
        binding.problems.error(form.node.entries["expects"].key, "not-in-handler", message, hint)
    condition = binding.condition(form.expects)
    if form.expects is None or condition is None:
        return {}
    if condition.always is False:
        binding.decided(form.expects, condition, "never-true", "the step could not go on after a hold")
    return {"expects": condition.code, "expected": condition.text}
