"""A simulated OPC UA server, on asyncua: the points at their NodeIds, with the security that the device wants."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from drivers import identity
from drivers.driver import Point
from drivers.identity import Identity
from drivers.opcua_node import BUILT_IN, kind_number, parse_address
from drivers.opcua_session import OpcUaSettings, library
from drivers.value import DataType, Value, to_raw
from hil.controllers import OpcUaController

_READ, _WRITE = 1, 2  # OPC 10000-3, 8.57 AccessLevelType: CurrentRead, CurrentWrite
_END_S = 2.0


class _Variable(msgspec.Struct, frozen=True):
    """A point's node in the server's memory: asyncua's attribute Value, the type it has, its built-in type's number."""

    attribute: Any
    kind: DataType
    number: int


class OpcUaPlc:
    """One simulated server. Its certificate and its user's password are kept, so that a restart changes neither.

    They lie in edge's state directory, below `simulated/NAME`.
    """

    def __init__(
        self, name: str, points: Sequence[Point], settings: OpcUaSettings, controller: OpcUaController | None = None
    ) -> None:
        self._name = name
        self._controller = controller or OpcUaController()
        self._user = self._controller.user or settings.user
        self._hidden: set[Any] = set()
        self._points = points
        self._settings = settings
        self._addresses = [parse_address(point.address) for point in points]
        self._values: list[Value] = [_zero(point.type) for point in points]
        self._variables: list[_Variable] = []
        self._server: Any = None
        self._told: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> dict[str, Any]:
        settings = self._settings
        named = self._user is not None
        own = await asyncio.to_thread(self._identity) if settings.policy != "None" or named else None
        password = _password_file(own.path.with_name("password")) if own is not None and named else None
        authority = f"[{host}]" if ":" in host else host
        self._server = server = _new_server(_Users(self._user, password, encrypted=settings.policy != "None"))
        try:
            server.set_endpoint(f"opc.tcp://{authority}:{port}/")
            await self._prepare(own)
            await server.start()
        except BaseException:
            self._server, self._variables = None, []
            raise
        return {
            "url": f"opc.tcp://{authority}:{server.bserver.port}",
            "security": settings.security,
            "user": settings.user,
            "password": {"file": str(password)} if password is not None and settings.user else None,
            "trust": str(own.path) if own is not None else None,
        }

    def read(self, index: int) -> Value:
        if not self._variables:
            return self._values[index]
        data = self._variables[index].attribute.value
        return data.Value.Value if data is not None else self._values[index]

    def write(self, index: int, value: Value) -> None:
        """Raises ValueError where the point's type cannot hold the value."""
        if not self._variables:
            self._values[index] = to_raw(value, self._points[index].type, None)
            return
        variable = self._variables[index]
        raw = _stored(value, variable.kind)
        if raw == variable.attribute.value.Value.Value:
            return
        data = _data(raw, variable.number)
        variable.attribute.value = data
        for handle, changed in variable.attribute.datachange_callbacks.items():
            task = asyncio.get_running_loop().create_task(changed(handle, data))
            self._told.add(task)
            task.add_done_callback(self._told.discard)

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        self._values = [self.read(index) for index in range(len(self._points))]
        self._variables = []
        transports = server.iserver.asyncio_transports
        for transport in list(transports):
            transport.abort()  # closing would wait for a client that reads no more
        await server.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                while transports:  # noqa: ASYNC110 (asyncua tells nobody when the last is gone)
                    await asyncio.sleep(0.001)
                await asyncio.gather(*server.bserver.closing_tasks, *self._told, return_exceptions=True)

    @property
    def _uri(self) -> str:
        return f"urn:edge:simulated:{self._name}"

    def _identity(self) -> Identity:
        return identity.own_identity(identity.state_directory("simulated", self._name), "server", self._uri)

    def _policies(self) -> list[Any]:
        """What is offered: what the device asks for. A password without security needs a policy to encrypt it."""
        offered, settings = library().SecurityPolicyType, self._settings
        if settings.policy != "None":
            return [offered.Basic256Sha256_Sign if settings.mode == 2 else offered.Basic256Sha256_SignAndEncrypt]
        return [offered.NoSecurity, *([offered.Basic256Sha256_SignAndEncrypt] if self._user else [])]

    async def _prepare(self, own: Identity | None) -> None:
        ua, server = library(), self._server
        server.set_server_name(self._name)
        server.set_security_policy(self._policies())
        server.set_identity_tokens([ua.UserNameIdentityToken if self._user else ua.AnonymousIdentityToken])
        server.disable_clock()
        await server.init()
        await server.set_application_uri(self._uri)
        if own is not None:
            await server.load_certificate(own.certificate)
            await server.load_private_key(own.key)
        await self._add_variables()
        # The clock is read when somebody asks: as a task it would write every second, and stopping would wait for it.
        clock = ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime)
        server.iserver.set_attribute_value_callback(clock, _now)

    async def _add_variables(self) -> None:
        ua, server = library(), self._server
        namespaces = await self._register_namespaces()
        folder = await server.nodes.objects.add_folder(ua.NodeId(self._name, 1), ua.QualifiedName(self._name, 1))
        variables: list[_Variable] = []
        for point, address, value in zip(self._points, self._addresses, self._values, strict=True):
            node_id = ua.NodeId(address.identifier, address.index(namespaces))
            if node_id not in server.iserver.aspace:
                number = kind_number(point.type)
                name = ua.QualifiedName(point.name, node_id.NamespaceIndex)
                node = await folder.add_variable(node_id, name, value, ua.VariantType(number))
                await server.iserver.write_attribute_value(node.nodeid, _data(_stored(value, point.type), number))
            attributes = server.iserver.aspace[node_id].attributes
            self._permit(attributes, _READ | _WRITE if point.writable else _READ, self._forbidden(point))
            if self._forbidden(point) & _READ:
                self._hidden.add(node_id)
            attribute = attributes[ua.AttributeIds.Value]
            number = attribute.value.Value.VariantType.value
            kind = point.type if number == kind_number(point.type) else BUILT_IN.get(number, point.type)
            variables.append(_Variable(attribute, kind, number))
        self._variables = variables
        events = _events()
        server.iserver.subscribe_server_callback(events.PreWrite, self._stamp)
        if self._hidden:
            server.iserver.subscribe_server_callback(events.PostRead, self._hide)

    async def _register_namespaces(self) -> list[str]:
        """Every URI that is named, and every index: those in front, and as many as it takes to reach the last."""
        for address in self._addresses:
            if isinstance(address.namespace, str):
                await self._server.register_namespace(address.namespace)
        last = max((address.namespace for address in self._addresses if isinstance(address.namespace, int)), default=1)
        namespaces: list[str] = await self._server.get_namespace_array()
        for index in range(len(namespaces), last + 1):
            await self._server.register_namespace(f"{self._uri}:{index}")
        return await self._server.get_namespace_array()

    def _forbidden(self, point: Point) -> int:
        """The bits of an access level that the user lacks at a point's node."""
        lacking = {_READ: self._controller.not_readable, _WRITE: self._controller.not_writable}
        return sum(bit for bit, nodes in lacking.items() if point.address in nodes)

    def _permit(self, attributes: Any, level: int, forbidden: int) -> None:
        ua = library()
        for name, bits in (("AccessLevel", level), ("UserAccessLevel", level & ~forbidden)):
            data = ua.DataValue(ua.Variant(bits, ua.VariantType.Byte))
            attributes[getattr(ua.AttributeIds, name)].value = data

    def _hide(self, event: Any, _service: Any) -> None:
        """Refuses what the user may not read (OPC 10000-4, 7.38.2), which asyncua's server does not."""
        ua = library()
        for place, asked in enumerate(event.request_params.NodesToRead if event.is_external else ()):
            if asked.AttributeId == ua.AttributeIds.Value and asked.NodeId in self._hidden:
                refused = ua.StatusCode(ua.StatusCodes.BadUserAccessDenied)
                event.response_params[place] = ua.DataValue(StatusCode=refused)

    def _stamp(self, event: Any, _service: Any) -> None:
        """Gives what a client writes the time of the change, and turns away what is no scalar."""
        ua = library()
        for request in event.request_params.NodesToWrite if event.is_external else ():
            node = self._server.iserver.aspace.get(request.NodeId)
            if node is None or request.AttributeId != ua.AttributeIds.Value:
                continue
            old, variant = node.attributes[request.AttributeId].value, request.Value.Value
            if variant is None or variant.is_array:
                variant = ua.Variant()
            now = datetime.now(UTC)
            changed = old.SourceTimestamp if old is not None and old.Value == variant else now
            request.Value = ua.DataValue(variant, ua.StatusCode(), changed, now)


class _Users:
    """Who may log in (asyncua's user manager). On an encrypted server nobody comes in without a secured channel."""

    def __init__(self, user: str | None, password: Path | None, *, encrypted: bool) -> None:
        self._user = user
        self._password = password
        self._encrypted = encrypted

    def get_user(self, iserver: Any, username: str | None = None, password: Any = None, certificate: Any = None) -> Any:
        from asyncua.crypto.permission_rules import User, UserRole

        if self._encrypted and not certificate:
            return None
        if self._user is not None and self._password is not None:
            given = password if isinstance(password, str) else ""
            right = hmac.compare_digest(given.encode(), self._password.read_bytes())
            if username != self._user or not right:
                return None
        return User(UserRole.User, username)


def _password_file(path: Path) -> Path:
    """A random password that only this user of the machine can read, made the first time."""
    identity.write_once(path, secrets.token_urlsafe(24).encode(), mode=0o600)
    return path


def _zero(kind: DataType) -> Value:
    return {"bool": False, "int": 0, "float": 0.0}.get(kind.kind, "")


def _stored(value: Value, kind: DataType) -> Value:
    """A value as memory holds it: a REAL has 32 bits."""
    raw = to_raw(value, kind, None)
    return struct.unpack("f", struct.pack("f", raw))[0] if kind.code == "f" else raw


def _now(_node: Any, _attribute: Any) -> Any:
    return _data(datetime.now(UTC), library().VariantType.DateTime)


def _data(value: Any, number: int) -> Any:
    """A good value, changed now."""
    ua, now = library(), datetime.now(UTC)
    return ua.DataValue(ua.Variant(value, ua.VariantType(number)), ua.StatusCode(), now, now)


def _new_server(users: Any) -> Any:
    from asyncua.server.server import Server

    from hil.opcua_nodes import SmallServer

    return Server(SmallServer(user_manager=users))


def _events() -> Any:
    from asyncua.common.callback import CallbackType

    return CallbackType
