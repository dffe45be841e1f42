"""Questions of a recipe to its operator: what may be answered, by whom, and what counts when nobody answers in time."""

from drivers.value import Value
from edge.language import nodes, recipe, shape
from edge.language.binding import Binding
from edge.language.program import Prompt, Texts
from edge.language.source import Node, tick


def prompt(binding: Binding, form: recipe.Step, ask: recipe.Ask) -> Prompt:
    """The question of a step; it is whole where no problem was found."""
    problems = binding.problems
    kinds = [key for key in ("answers", "number", "text") if ask.has(key)]
    if len(kinds) > 1:
        message = f"a question has `{kinds[0]}` or `{kinds[1]}`, not both"
        problems.error(ask.node.entries[kinds[1]].key, "two-kinds", message, "make two questions of it")
    if isinstance(ask.answers, tuple):
        first: dict[str, Node] = {}
        for node in ask.place("answers").items:
            if first.setdefault(node.text, node) is not node:
                problems.error(node, "answer-twice", f"{tick(node.text)} is already among the answers")
    elif ask.answers is not None and not ask.answers:
        problems.error(ask.place("answers"), "empty-list", "here are no answers", "such as `yes: {en: Yes, fr: Oui}`")
    if kinds and not ask.has("into"):
        problems.error(ask.node, "missing-key", "`into` is missing here", "name what keeps the answer")
    number = ask.number or recipe.Number(node=ask.node)
    low, high = number.range or (None, None)
    known = ask.into is not None and ask.into in binding.variables
    return Prompt(
        recipe.texts(ask.say),
        ask.kind,
        tuple(ask.answers or ()),
        number.unit,
        low,
        high,
        binding.variables.index(ask.into) if known and ask.into else None,
        _labels(ask),
        _default(binding, form, ask),
        ask.who,
    )


def _labels(ask: recipe.Ask) -> dict[str, Texts]:
    if ask.answers is None or isinstance(ask.answers, tuple):
        return {}
    return {answer: recipe.texts(say) for answer, say in ask.answers.items()}


def _default(binding: Binding, form: recipe.Step, ask: recipe.Ask) -> Value | None:
    """The answer that counts when the time is over."""
    node, problems = ask.default, binding.problems
    if node is None:
        return None
    if form.on_timeout != "continue":
        hint = "add `within: 60 s` and `on_timeout: continue` to the step, or leave it out"
        problems.error(ask.node.entries["default"].key, "key-not-here", "this answer is never used", hint)
    match ask.kind:
        case "confirm":
            return nodes.as_bool(node, problems)
        case "choice":
            return nodes.as_choice(node, list(ask.answers or ()), problems)
        case "text":
            return nodes.as_text(node, problems)
        case "number":
            assert ask.number is not None
            value = shape.constant(node, "float", ask.number.unit, problems)
            low, high = ask.number.range or (None, None)
            if isinstance(value, float) and not ((low is None or low <= value) and (high is None or value <= high)):
                limits = f"{low:g} to {high:g} {ask.number.unit}".rstrip()
                problems.error(node, "out-of-range", f"the default is outside the range, {limits}")
            return value
