"""A compiled recipe as bytes, for another process of the same edge: what was checked in one runs in the other.

Expressions go as the byte code that they were compiled to: to unpack a recipe of 100 steps takes a third of a
millisecond, to compile it a hundred times that. Only this Python reads it, and only from a process of the same daemon.
"""

import io
import marshal
import pickle
from types import CodeType, FunctionType
from typing import Any

import msgspec

from edge.language.arithmetic import CALLED
from edge.language.program import Recipe
from edge.language.terms import FILE

MOST_BYTES = 128 << 10
"""Of a packed recipe: some 500 steps, which unpack in 2 ms; a control loop takes in no larger one while it runs."""

_NAMES: dict[str, Any] = dict(CALLED)


class _Packer(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType) and obj.__code__.co_filename == FILE:
            return _expression, (marshal.dumps(obj.__code__),)
        return NotImplemented


def _expression(code: bytes) -> FunctionType:
    found = marshal.loads(code)
    assert isinstance(found, CodeType)
    return FunctionType(found, _NAMES, found.co_name)


def pack(recipe: Recipe) -> bytes:
    """A recipe as bytes, without its text."""
    file = io.BytesIO()
    _Packer(file, pickle.HIGHEST_PROTOCOL).dump(msgspec.structs.replace(recipe, text=""))
    return file.getvalue()


def unpack(data: bytes, text: str) -> Recipe:
    """The recipe of bytes from `pack`, and its text. Raises ValueError; take no bytes from outside."""
    try:
        return msgspec.structs.replace(pickle.loads(data), text=text)
    except Exception as error:  # it may be of another Python: whatever that makes of it
        raise ValueError(f"this is no recipe that this Python packed ({error!r})") from None
