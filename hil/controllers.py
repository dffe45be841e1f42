"""How a simulated controller is set up: `controllers` of plant.yaml, by device. Out of the box it allows everything.

A real one often does not. What it answers then is what edge has to explain to a technician.
"""

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from drivers.driver import AddressError
from drivers.modbus_address import READS
from drivers.opcua_node import parse_address
from edge.language.nodes import as_text
from edge.language.shape import FAILED, Seconds
from edge.language.source import Node, Problems, tick

_BLOCK = re.compile(r"DB([1-9][0-9]{0,4})")
_SPAN = re.compile(rf"({'|'.join(READS)}):([0-9]{{1,5}})(?:-([0-9]{{1,5}}))?")


class Span(msgspec.Struct, frozen=True):
    """Bits or registers of a Modbus area, from `first` to `last`."""

    area: str
    first: int
    last: int


def _read_block(node: Node, problems: Problems) -> Any:
    """`DB2` as its number."""
    text = as_text(node, problems)
    if text is not None and (match := _BLOCK.fullmatch(text)):
        return int(match[1])
    if text is not None:
        problems.error(node, "bad-address", f"{tick(text)} is no data block", "write it as `DB2`")
    return FAILED


def _read_span(node: Node, problems: Problems) -> Any:
    """`holding:40-47` as a Span."""
    text = as_text(node, problems)
    if text is not None and (match := _SPAN.fullmatch(text)):
        span = Span(match[1], int(match[2]), int(match[3] or match[2]))
        if span.first <= span.last <= 0xFFFF:
            return span
    if text is not None:
        hint = "write `holding:40` or `holding:40-47`; the areas are coil, discrete, holding and input, from 0 to 65535"
        problems.error(node, "bad-address", f"{tick(text)} is no part of a Modbus area", hint)
    return FAILED


def _read_node_id(node: Node, problems: Problems) -> Any:
    text = as_text(node, problems)
    if text is None:
        return FAILED
    try:
        parse_address(text)
    except AddressError as error:
        problems.error(node, "bad-address", str(error), error.hint)
        return FAILED
    return text


_Block = Annotated[
    int, Meta(extra={"read": _read_block}, extra_json_schema={"type": "string", "pattern": f"^{_BLOCK.pattern}$"})
]
_Registers = Annotated[
    Span, Meta(extra={"read": _read_span}, extra_json_schema={"type": "string", "pattern": f"^{_SPAN.pattern}$"})
]
_NodeId = Annotated[str, Meta(extra={"read": _read_node_id}, extra_json_schema={"type": "string"})]
_AnswerTime = Annotated[Seconds, Meta(description="How long it takes to answer.")]
_Connections = Annotated[
    int, Meta(ge=1, description="The clients that it serves at a time. Further ones are turned away.")
]


class S7Controller(msgspec.Struct, frozen=True, kw_only=True):
    """A simulated S7-1200 or S7-1500, as it is set up in TIA Portal."""

    put_get: Annotated[
        bool, Meta(description="Permit access with PUT/GET communication. Without it every read and write is refused.")
    ] = True
    optimized: Annotated[
        tuple[_Block, ...], Meta(description="Data blocks with optimized block access: nobody finds them by address.")
    ] = ()
    answer_time: _AnswerTime = 0.0
    connections: _Connections = 32


class ModbusController(msgspec.Struct, frozen=True, kw_only=True):
    """A simulated Modbus/TCP server."""

    functions: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=127)], ...],
        Meta(description="The function codes that it knows; others are illegal functions (exception 1)."),
    ] = (1, 2, 3, 4, 5, 6, 15, 16, 43)
    unmapped: Annotated[
        tuple[_Registers, ...],
        Meta(description="What it does not have, such as holding:40-47: illegal data addresses (exception 2)."),
    ] = ()
    answer_time: _AnswerTime = 0.0
    connections: _Connections = 32


class OpcUaController(msgspec.Struct, frozen=True, kw_only=True):
    """A simulated OPC UA server and whom it lets do what."""

    user: Annotated[str | None, Meta(description="The only user that it knows, where it is not the cell's.")] = None
    not_readable: Annotated[tuple[_NodeId, ...], Meta(description="Nodes that the user may not read.")] = ()
    not_writable: Annotated[tuple[_NodeId, ...], Meta(description="Nodes that the user may not write.")] = ()


Controller = S7Controller | ModbusController | OpcUaController

CONTROLLERS: dict[str, type[Controller]] = {"s7": S7Controller, "modbus": ModbusController, "opcua": OpcUaController}
"""What can be set up at the simulated controller of each driver's devices."""
