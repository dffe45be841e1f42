"""The standard nodes of a simulated OPC UA server: those of a small controller. All 6000 take a second to make."""

from collections.abc import Iterable
from typing import Any

from asyncua.server.internal_server import InternalServer
from asyncua.server.standard_address_space import standard_address_space

from drivers.opcua_session import library

_BASIC = range(1, 100)
"""The NodeIds of the basic types and the folders (OPC 10000-6, annex A)."""

_NAMES: dict[str, int] = library().ObjectIds.__dict__
_SERVER = [number for name, number in _NAMES.items() if name.startswith("Server_")]
"""Those of the Server object's parts."""


class SmallServer(InternalServer):
    """asyncua's server with the basic types, the folders, the Server object, and what these are made of."""

    async def load_standard_address_space(self, shelf_file: Any = None) -> None:
        known = _Known()
        standard_address_space.fill_address_space(known)  # pyright: ignore[reportUnknownMemberType]
        chosen = known.chosen([*_BASIC, *_SERVER])
        left = [node for node in known.nodes if node.RequestedNewNodeId.Identifier in chosen]
        while left:  # a node comes after its parent and its type
            before, left = left, list(self.node_mgt_service.try_add_nodes(left, check=False))
            assert len(left) < len(before), left[0]
        references = [
            one for one in known.references if {one.SourceNodeId.Identifier, one.TargetNodeId.Identifier} <= chosen
        ]
        for _ in self.node_mgt_service.try_add_references(references):
            pass


class _Known:
    """All standard nodes and references, as what asyncua fills takes them."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.references: list[Any] = []

    def try_add_nodes(self, nodes: Iterable[Any], *, check: bool) -> Iterable[Any]:
        self.nodes += nodes
        return ()

    def try_add_references(self, references: Iterable[Any]) -> Iterable[Any]:
        self.references += references
        return ()

    def chosen(self, wanted: Iterable[int]) -> set[int]:
        """The wanted nodes with their parents, types, and the types of their values and references."""
        nodes = {node.RequestedNewNodeId.Identifier: node for node in self.nodes}
        found: set[int] = set()
        todo = list(wanted)
        while todo:
            number = todo.pop()
            if number in nodes and number not in found:
                found.add(number)
                node = nodes[number]
                kinds = (node.ParentNodeId, node.ReferenceTypeId, node.TypeDefinition)
                todo += [kind.Identifier for kind in (*kinds, getattr(node.NodeAttributes, "DataType", None)) if kind]
        return found
