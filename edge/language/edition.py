"""The text of a version of a recipe: that of its file, then those of the recipes that it includes, each once.

Each of these begins with a line that starts a second YAML document, which no recipe file has: so the text comes apart
again as it was put together.
"""

import re
from collections.abc import Mapping

_NEXT = re.compile(r"\n--- # included: ([A-Za-z0-9][A-Za-z0-9_-]*)\n")


def joined(text: str, included: Mapping[str, str]) -> str:
    """One text of a recipe's own and of those that it includes, by name."""
    return "".join((text, *(f"\n--- # included: {name}\n{one}" for name, one in included.items())))


def parted(text: str) -> tuple[str, dict[str, str]]:
    """The recipe's own text, and those of the recipes that it includes, by name."""
    own, *rest = _NEXT.split(text)
    return own, dict(zip(rest[::2], rest[1::2], strict=True))
