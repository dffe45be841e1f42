"""OPC UA (OPC 10000): batched reads with status and source time, writes in the node's own data type, browsing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import msgspec

from drivers.driver import AddressError, DeviceError, Node, Point
from drivers.identity import Identity
from drivers.opcua_codec import READ, WRITE, encode_node_id, read_parameters, write_parameters
from drivers.opcua_image import Batch, Image
from drivers.opcua_node import BUILT_IN, NodeAddress, format_address, kind_number, parse_address, refusal
from drivers.opcua_session import OpcUaSettings, Session, library, load_identity, open_session
from drivers.opcua_subscription import Subscription
from drivers.opcua_values import encode_variant, read_statuses
from drivers.value import (
    BAD_NODE_UNKNOWN,
    BAD_NOT_CONNECTED,
    GOOD,
    Scan,
    Value,
)

if TYPE_CHECKING:
    from asyncua.ua.uatypes import DataValue, NodeId

T = TypeVar("T")

BROWSE_NODES = 10_000
BROWSE_DEPTH = 12
_CAN_WRITE = 2  # OPC 10000-3, 8.57 AccessLevelType: CurrentWrite


class _Nodes(msgspec.Struct, frozen=True):
    """What was looked up on this connection, and the requests that are sent again and again.

    `ids` holds each point's NodeId (None: its namespace is not there), `types` the built-in type in which a point is
    written.
    """

    batch: int
    namespaces: list[str]
    ids: list[NodeId | None]
    reads: list[Batch]
    types: dict[int, int]


class OpcUaDriver:
    """One OPC UA server. Every device has a session of its own, and no task runs between two calls.

    Connecting, writing and browsing go through asyncua, what is cyclic through our own codec on its secure channel.
    """

    Settings: ClassVar[type[msgspec.Struct]] = OpcUaSettings

    def __init__(self, settings: OpcUaSettings, points: Sequence[Point], connections: dict[str, Any]) -> None:
        self._image = Image(points)
        self.troubles = self._image.troubles
        self._settings = settings
        self._points = points
        self._addresses: list[NodeAddress] = [parse_address(point.address) for point in points]
        self._own: Identity | None = None
        self._session: Session | None = None
        self._subscription: Subscription | None = None
        self._nodes = _Nodes(settings.batch, [], [], [], {})

    @staticmethod
    def check(point: Point) -> None:
        parse_address(point.address)
        if point.byte_order != "big" or point.word_order != "big":
            raise AddressError("OPC UA has no byte or word order", "leave out `byte_order` and `word_order`")

    async def connect(self) -> None:
        if self._session is not None and not self._session.lost:
            return
        if self._settings.policy != "None" and self._own is None:
            self._own = await load_identity(self._settings)
        session = await open_session(self._settings, self._own)
        self._image.wait(range(len(self._points)))
        try:
            self._nodes = nodes = await self._look_up(session)
            if self._settings.reading == "subscribe":
                self._subscription = Subscription(session, self._image, nodes.reads, self._settings)
                await self._subscription.refresh()
        except BaseException:
            await session.end()
            raise
        self._session = session

    async def scan(self) -> Scan:
        session, image = self._connected(), self._image
        await session.renew()
        if self._subscription is not None:
            return image.scan(await self._subscription.refresh())
        for read in self._nodes.reads:
            await session.ask(read.request, partial(read.take, image=image))
        return image.scan()

    async def write(self, values: Mapping[int, Value]) -> Mapping[int, int]:
        session = self._connected()
        statuses: dict[int, int] = {}
        items: list[tuple[int, tuple[bytes, bytes]]] = []
        for index, value in values.items():
            node = self._nodes.ids[index]
            number = self._nodes.types.get(index) or kind_number(self._points[index].type)
            statuses[index] = BAD_NODE_UNKNOWN if node is None else refusal(value, BUILT_IN[number])
            if node is not None and statuses[index] == GOOD:
                encoded = encode_node_id(node.NamespaceIndex, node.Identifier)
                items.append((index, (encoded, encode_variant(number, value))))
        for part in _parts(items, self._nodes.batch):
            request = session.request(WRITE, write_parameters([item for _, item in part]))
            answers = await session.ask(request, partial(read_statuses, expected=len(part)))
            statuses.update((index, status) for (index, _), status in zip(part, answers, strict=True))
        return statuses

    async def browse(self) -> Sequence[Node]:
        """The variables below Objects, the nearest first, up to BROWSE_NODES of them."""
        ua = library()
        session, batch = self._connected(), self._nodes.batch
        found: list[tuple[NodeId, str]] = []
        level: list[tuple[NodeId, str]] = [(ua.NodeId(ua.ObjectIds.ObjectsFolder), "")]
        seen = {level[0][0], ua.NodeId(ua.ObjectIds.Server)}
        for _ in range(BROWSE_DEPTH):
            children = [child for part in _parts(level, batch) for child in await _below(session, part)]
            level = []
            for node, path, is_variable in children:
                if node not in seen:
                    seen.add(node)
                    level.append((node, path))
                    if is_variable:
                        found.append((node, path))
            if not level or len(found) >= BROWSE_NODES:
                break
        del found[BROWSE_NODES:]
        ids = ua.AttributeIds
        asked = (ids.DataType, ids.Value, ids.ValueRank, ids.UserAccessLevel)
        answers = await _attributes(session, [node for node, _ in found], asked, batch)
        return [self._described(node, path, *told) for (node, path), told in zip(found, answers, strict=True)]

    async def identify(self) -> Mapping[str, str]:
        """Vendor, product and version of the server (OPC 10000-5, 12.4 BuildInfo)."""
        ua = library()
        parts = {"vendor": "ManufacturerName", "product": "ProductName", "version": "SoftwareVersion"}
        nodes = [ua.NodeId(getattr(ua.ObjectIds, f"Server_ServerStatus_BuildInfo_{part}")) for part in parts.values()]
        answers = await _attributes(self._connected(), nodes, (ua.AttributeIds.Value,), self._nodes.batch)
        texts = {name: _plain(answer) for name, (answer,) in zip(parts, answers, strict=True)}
        return {name: text for name, text in texts.items() if isinstance(text, str) and text}

    async def close(self) -> None:
        session, self._session, self._subscription = self._session, None, None
        if session is not None:
            await session.end()

    def _connected(self) -> Session:
        if self._session is None or self._session.lost:
            raise DeviceError(
                f"the connection to {self._settings.server} is gone",
                "was the server restarted? it is connected again by itself",
                status=BAD_NOT_CONNECTED,
            )
        return self._session

    async def _look_up(self, session: Session) -> _Nodes:
        """The server's namespaces and limits, the points' NodeIds, the types of those that are written."""
        ua = library()
        limits = "Server_ServerCapabilities_OperationLimits_Max"
        asked = ["Server_NamespaceArray", f"{limits}NodesPerRead", f"{limits}NodesPerWrite"]
        if self._settings.reading == "subscribe":
            asked.append(f"{limits}MonitoredItemsPerCall")
        server = [ua.NodeId(getattr(ua.ObjectIds, name)) for name in asked]
        answers = await _attributes(session, server, (ua.AttributeIds.Value,), self._settings.batch)
        array, *most = [_plain(answer) for (answer,) in answers]
        batch = min([self._settings.batch, *(limit for limit in most if isinstance(limit, int) and limit > 0)])
        namespaces = [str(uri) for uri in cast("list[Any]", array)] if isinstance(array, list) else []
        ids = [self._node_id(at, namespaces) for at in range(len(self._points))]
        known = [(index, node) for index, node in enumerate(ids) if node is not None]
        reads = [_read(session, part) for part in _runs(known, batch)]
        written = [(index, node) for index, node in known if self._points[index].writable]
        asked = (ua.AttributeIds.DataType, ua.AttributeIds.Value)
        answers = await _attributes(session, [node for _, node in written], asked, batch)
        types = {index: _written_as(*told) for (index, _), told in zip(written, answers, strict=True)}
        return _Nodes(batch, namespaces, ids, reads, types)

    def _node_id(self, at: int, namespaces: Sequence[str]) -> NodeId | None:
        address = self._addresses[at]
        index = address.index(namespaces)
        if index is None:
            offered = ", ".join(f"`{uri}`" for uri in namespaces[1:]) or "none of its own"
            self._image.refuse(at, BAD_NODE_UNKNOWN, f"the server has no such namespace; it has {offered}")
            return None
        return library().NodeId(address.identifier, index)

    def _described(
        self, node: NodeId, path: str, data_type: DataValue, value: DataValue, rank: DataValue, access: DataValue
    ) -> Node:
        kind = BUILT_IN.get(_written_as(data_type, value))
        name = "other" if kind is None else "string[80]" if kind.kind == "string" else kind.name
        array = "[]" if (_plain(rank) or 0) > 0 or (value.Value is not None and value.Value.is_array) else ""
        address = format_address(node.NamespaceIndex, node.Identifier, self._nodes.namespaces)
        return Node(address, name + array, path, bool((_plain(access) or 0) & _CAN_WRITE))


def _read(session: Session, nodes: Sequence[tuple[int, NodeId]]) -> Batch:
    """The points of a row, read in one request."""
    encoded = [encode_node_id(node.NamespaceIndex, node.Identifier) for _, node in nodes]
    return Batch(nodes[0][0], encoded, session.request(READ, read_parameters(encoded)))


async def _attributes(
    session: Session, nodes: Sequence[NodeId], attributes: Sequence[int], batch: int
) -> list[list[DataValue]]:
    """Some attributes of each node, in requests of at most `batch` of them."""
    ua = library()
    reads = [ua.ReadValueId(node, attribute) for node in nodes for attribute in attributes]
    answers: list[DataValue] = []
    for part in _parts(reads, batch):
        request = ua.ReadParameters(0, ua.TimestampsToReturn.Neither, list(part))
        answers += await session.read(request, len(part))
    return [list(part) for part in _parts(answers, len(attributes))]


async def _below(session: Session, parents: Sequence[tuple[NodeId, str]]) -> list[tuple[NodeId, str, bool]]:
    """Objects and variables below each parent, in as many answers as it takes: NodeId, path, is it a variable.

    No more is asked for once there are BROWSE_NODES: a server may have no end.
    """
    ua = library()
    kinds, hierarchical = ua.NodeClass.Object | ua.NodeClass.Variable, ua.NodeId(ua.ObjectIds.HierarchicalReferences)
    forward, all_fields = ua.BrowseDirection.Forward, ua.BrowseResultMask.All
    view = ua.BrowseParameters()
    view.NodesToBrowse = [
        ua.BrowseDescription(node, forward, hierarchical, True, kinds, all_fields) for node, _ in parents
    ]
    children: list[tuple[NodeId, str, bool]] = []
    paths = [path for _, path in parents]
    results = await session.browse(view, len(parents))
    while results and len(children) < BROWSE_NODES:
        more: list[tuple[str, bytes]] = []
        for path, result in zip(paths, results, strict=True):
            for reference in result.References or ():
                node = ua.NodeId(reference.NodeId.Identifier, reference.NodeId.NamespaceIndex)
                name = f"{path}/{reference.BrowseName.Name}".removeprefix("/")
                children.append((node, name, reference.NodeClass == ua.NodeClass.Variable))
            if result.ContinuationPoint:
                more.append((path, result.ContinuationPoint))
        paths = [path for path, _ in more]
        following = ua.BrowseNextParameters(False, [point for _, point in more])
        results = await session.browse_next(following, len(more)) if more else []
    return children


def _written_as(data_type: DataValue, value: DataValue) -> int:
    """The built-in type to write: the DataType, or for a derived one (an enumeration…) what its value has; else 0."""
    declared = _plain(data_type)
    number = declared.Identifier if getattr(declared, "NamespaceIndex", None) == 0 else 0
    if number not in BUILT_IN and value.Value is not None:
        number = value.Value.VariantType.value
    return number if number in BUILT_IN else 0


def _plain(data: DataValue) -> Any:
    return data.Value.Value if data.Value is not None else None


def _runs(nodes: Sequence[tuple[int, T]], size: int) -> Iterator[list[tuple[int, T]]]:
    """Parts of at most `size` whose points have numbers in a row."""
    run: list[tuple[int, T]] = []
    for node in nodes:
        if run and (len(run) == size or node[0] != run[-1][0] + 1):
            yield run
            run = []
        run.append(node)
    if run:
        yield run


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))
