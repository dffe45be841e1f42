"""What a schema reads from nodes: texts, numbers, lists, maps. Each reader reports what is wrong and gives None."""

import math
import re
from collections.abc import Collection, Mapping

from edge.language.source import Node, Problems, is_empty, suggest, tick


def _found(node: Node) -> str:
    if node.kind != "text":
        return f"found a {node.kind}"
    return "found nothing" if is_empty(node) else f"found {tick(node.text)}"


def as_text(node: Node, problems: Problems) -> str | None:
    """The text of a scalar that is not empty (an empty one may be meant with `""`)."""
    if node.kind == "text" and not is_empty(node):
        return node.text
    hint = 'put it in quotes: "…"' if node.kind != "text" else ""
    return problems.error(node, "not-text", f"expected text, {_found(node)}", hint)


def as_bool(node: Node, problems: Problems) -> bool | None:
    """`true` or `false`."""
    if node.kind == "text" and not node.quoted and node.text in ("true", "false"):
        return node.text == "true"
    near = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false", "0": "false"}
    meant = node.text.casefold()
    meant = near.get(meant, meant if meant in ("true", "false") else "")
    hint = f"write `{meant}`, without quotes" if meant else ""
    return problems.error(node, "not-bool", f"expected `true` or `false`, {_found(node)}", hint)


_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")


def as_number(node: Node, problems: Problems, *, low: float | None = None, high: float | None = None) -> float | None:
    """A finite decimal number (`010` is 10) from low to high, both included."""
    if node.kind != "text" or node.quoted or not _NUMBER.fullmatch(node.text):
        return problems.error(node, "not-number", f"expected a number, {_found(node)}", _number_hint(node))
    value = float(node.text)
    if not math.isfinite(value):
        return problems.error(node, "out-of-range", f"{tick(node.text)} is too large for a number")
    return value if _in_range(node, value, low, high, problems) else None


def as_integer(node: Node, problems: Problems, *, low: int | None = None, high: int | None = None) -> int | None:
    """A whole decimal number (`010` is 10) from low to high, both included."""
    if node.kind != "text" or node.quoted or not _INTEGER.fullmatch(node.text):
        return problems.error(node, "not-integer", f"expected a whole number, {_found(node)}", _number_hint(node))
    value = int(node.text)
    return value if _in_range(node, value, low, high, problems) else None


def _number_hint(node: Node) -> str:
    if node.kind != "text":
        return ""
    if node.quoted and _NUMBER.fullmatch(node.text):
        return f"write `{node.text}`, without quotes"
    if _NUMBER.fullmatch(node.text.replace(",", ".", 1)):
        return "the decimal point is `.`" if "," in node.text else ""
    return ""


def _in_range(node: Node, value: float, low: float | None, high: float | None, problems: Problems) -> bool:
    if (low is None or value >= low) and (high is None or value <= high):
        return True
    limits = (
        f"from {low} to {high}" if None not in (low, high) else f"{low} or more" if high is None else f"{high} or less"
    )
    problems.error(node, "out-of-range", f"{tick(node.text)} is out of range", f"it must be {limits}")
    return False


def as_choice(node: Node, choices: Collection[str], problems: Problems) -> str | None:
    """One of some texts."""
    if node.kind == "text" and node.text in choices:
        return node.text
    hint = suggest(node.text, choices) if node.kind == "text" else ""
    listed = ", ".join(f"`{choice}`" for choice in choices)
    return problems.error(node, "not-a-choice", f"expected one of {listed}, {_found(node)}", hint)


def as_list(node: Node, problems: Problems) -> list[Node] | None:
    """The items of a list."""
    if node.kind == "list":
        return node.items
    return problems.error(node, "not-a-list", f"expected a list, {_found(node)}", "write `[…]`, or lines with `- …`")


def as_map(
    node: Node, allowed: Collection[str] | None, required: Mapping[str, str], problems: Problems
) -> dict[str, Node] | None:
    """The values of a map by key. `allowed` None: any key may stand in it. `required` keys have an example, or "".

    An unknown key and a missing one are reported, and are not in what is given: the rest can still be checked.
    """
    if node.kind != "map":
        gap = re.match(r"([\w.-]+):(\S.*)", node.text)
        hint = (
            f"a space is missing: {tick(f'{gap[1]}: {gap[2]}')}" if gap else "write `{…}`, or lines with `key: value`"
        )
        if not gap and required and all(required.values()):
            hint = f"write `{{{', '.join(f'{key}: {example}' for key, example in required.items())}}}`"
        return problems.error(node, "not-a-map", f"expected keys with values, {_found(node)}", hint)
    values: dict[str, Node] = {}
    for key, entry in node.entries.items():
        if allowed is None or key in allowed:
            values[key] = entry.value
            continue
        hint = suggest(key, allowed) or f"the keys here are {', '.join(f'`{name}`' for name in allowed)}"
        problems.error(entry.key, "unknown-key", f"no key {tick(key)} can stand here", hint)
    for key, example in required.items():
        if key not in values:
            hint = f"such as `{key}: {example}`" if example else ""
            problems.error(node, "missing-key", f"`{key}` is missing here", hint)
    return values
