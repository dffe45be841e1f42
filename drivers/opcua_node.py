"""OPC UA NodeIds and built-in types as edge writes them, without a connection (OPC 10000-6, 5.1.2 and 5.3.1.10)."""

import base64
import binascii
import math
import re
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from drivers.driver import AddressError
from drivers.value import (
    BAD_OUT_OF_RANGE,
    BAD_TYPE_MISMATCH,
    BAD_WAITING,
    GOOD,
    TYPES,
    DataType,
    Value,
)

STRING = 12
_NUMBERED = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float32 float64"
BUILT_IN: dict[int, DataType] = {
    **{number: TYPES[name] for number, name in enumerate(_NUMBERED.split(), start=1)},
    STRING: DataType("string", "string", "", 0),
}
"""The built-in types that a tag can have, by their number (OPC 10000-6, table 1)."""

_ADDRESS = re.compile(r"(?:ns=(?P<index>[0-9]+);|nsu=(?P<uri>[^;]+);)?(?P<kind>[isgb])=(?P<id>.+)", re.DOTALL)


class NodeAddress(msgspec.Struct, frozen=True):
    """A NodeId as the cell file writes it; `namespace` is an index, or a URI to be looked up on each connection."""

    namespace: int | str
    identifier: int | str | bytes | uuid.UUID

    def index(self, namespaces: Sequence[str]) -> int | None:
        """The namespace's index in a server's array; None where the server has no such namespace."""
        if isinstance(self.namespace, int):
            return self.namespace
        return namespaces.index(self.namespace) if self.namespace in namespaces else None


def parse_address(text: str) -> NodeAddress:
    """`ns=2;s=State`, `nsu=urn:robot;i=7`, `i=2258`… Raises AddressError."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        name = re.sub(r"^.*[=:;,]", "", text).strip() or "NAME"
        raise AddressError(f"`{text}` is no OPC UA NodeId", f"write `ns=2;s={name}` or `nsu=URI;s={name}`")
    kind, written = match["kind"], match["id"]
    namespace: int | str = 0
    if match["uri"]:
        namespace = match["uri"].replace("%3B", ";").replace("%3b", ";").replace("%25", "%")
    elif match["index"]:
        namespace = int(match["index"])
        if namespace > 0xFFFF:
            raise AddressError(f"there is no namespace {namespace}", "a namespace index is 0 to 65535")
    elif kind != "i":
        raise AddressError(f"`{text}` names no namespace", f"write `ns=2;{text}` or `nsu=URI;{text}`")
    return NodeAddress(namespace, _identifier(kind, written))


def _identifier(kind: str, written: str) -> int | str | bytes | uuid.UUID:
    try:
        if kind == "i":
            number = int(written) if re.fullmatch(r"[0-9]{1,10}", written) else -1
            if not 0 <= number <= 0xFFFF_FFFF:
                raise ValueError
            return number
        if kind == "g":
            return uuid.UUID(written)
        if kind == "b":
            return base64.b64decode(written, validate=True)
    except (ValueError, binascii.Error):
        form = {"i": "a number from 0 to 4294967295", "g": "a GUID", "b": "base64"}[kind]
        hint = f"if it is a name, write `s={written}`" if kind == "i" else ""
        raise AddressError(f"`{kind}={written}`: this is not {form}", hint) from None
    return written


def format_address(namespace: int, identifier: int | str | bytes | uuid.UUID, namespaces: Sequence[str]) -> str:
    """A NodeId in the cell file's form, its namespace by URI where that is known: it outlives a change of index."""
    if isinstance(identifier, bytes):
        written = f"b={base64.b64encode(identifier).decode()}"
    else:
        written = f"{'i' if isinstance(identifier, int) else 's' if isinstance(identifier, str) else 'g'}={identifier}"
    if namespace == 0:
        return written
    if namespace >= len(namespaces):
        return f"ns={namespace};{written}"
    return f"nsu={namespaces[namespace].replace('%', '%25').replace(';', '%3B')};{written}"


def convert(value: Any, built_in: int, is_array: bool, kind: DataType) -> tuple[Value | None, int, str]:
    """A server's value as one of the declared type: (value, StatusCode, what is wrong with it).

    The widths may differ as long as the value fits; the kinds (bool, integer, float, text) may not.
    """
    if is_array:
        return None, BAD_TYPE_MISMATCH, "it is an array, and a tag is one value: give a node that is a scalar"
    found = BUILT_IN.get(built_in)
    if found is None and built_in != 0:
        return None, BAD_TYPE_MISMATCH, f"it is OPC UA's built-in type {built_in}: neither number nor bool nor text"
    if value is None or found is None:
        return ("", GOOD, "") if built_in == STRING == kind_number(kind) else (None, BAD_WAITING, "it has no value yet")
    if found.kind != kind.kind:
        declare = "string[80]" if found.kind == "string" else found.name
        return None, BAD_TYPE_MISMATCH, f"it is {found.name} at the server, not {kind.name}: declare `type: {declare}`"
    if kind.kind == "string":
        try:
            fits = len(value.encode()) <= kind.size
        except UnicodeEncodeError:
            return None, BAD_TYPE_MISMATCH, "its text is not UTF-8, which OPC UA demands: correct it at the server"
    elif kind.kind == "float":
        fits = not math.isfinite(value) or abs(value) <= kind.high
    else:
        fits = kind.low <= value <= kind.high
    if not fits:
        return None, BAD_OUT_OF_RANGE, f"its value at the server does not fit {kind.name}: declare a longer type"
    return value, GOOD, ""


def refusal(value: Value, node: DataType) -> int:
    """Good where a node of this type can hold the value, else the StatusCode that says why it cannot."""
    if isinstance(value, bool) or node.kind == "bool":
        return GOOD if isinstance(value, bool) and node.kind == "bool" else BAD_TYPE_MISMATCH
    if isinstance(value, str) or node.kind == "string":
        return GOOD if isinstance(value, str) and node.kind == "string" else BAD_TYPE_MISMATCH
    if node.kind == "int" and not isinstance(value, int):
        return BAD_TYPE_MISMATCH
    return GOOD if node.low <= value <= node.high else BAD_OUT_OF_RANGE


def fits_always(built_in: int, kind: DataType) -> bool:
    """Whether every value of a built-in type is one of the declared type, so that none needs a look."""
    found = BUILT_IN[built_in]
    return found.kind == kind.kind != "string" and kind.low <= found.low and found.high <= kind.high


def kind_number(kind: DataType) -> int:
    """The built-in type that a declared type is written as."""
    return next((number for number, known in BUILT_IN.items() if known.name == kind.name), STRING)
