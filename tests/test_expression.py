"""Expressions: what they mean, what they refuse, and that three-valued logic holds for any of them."""

from edge.expression import Scope, Symbol, compile_text
from edge.source import Place, Problems
from edge.units import parse as unit

SCOPE = Scope(
    {
        "mixer.level": Symbol("tag", 0, "number", unit("L"), 0, 100),
        "volume": Symbol("variable", 0, "number", unit("L"), 5, 50),
    }
)


def test_a_comparison():
    problems = Problems()
    compiled = compile_text("mixer.level >= volume", Place("r.yaml", 1, 1), SCOPE, problems, expect="bool")
    assert compiled is not None and not problems.errors
    assert (compiled.tags, compiled.variables) == ((0,), (0,))
    assert compiled.code([20.0], [20]) is True
    assert compiled.code([None], [20]) is None
