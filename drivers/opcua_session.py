"""An OPC UA session (OPC 10000-4, 5.5 to 5.7): settings, logging in, requests under a deadline, failures in words."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from drivers import identity, opcua_codec, opcua_wire
from drivers.driver import MAX_AGE_S, DeviceError, File
from drivers.identity import Identity, Secret
from drivers.link import FramingError
from drivers.opcua_codec import Request, ServiceFault
from drivers.transport import Tcp
from drivers.value import (
    BAD_CERTIFICATE_UNTRUSTED,
    BAD_COMMUNICATION,
    BAD_CONFIGURATION,
    BAD_CONNECTION_CLOSED,
    BAD_IDENTITY_TOKEN_REJECTED,
    BAD_SECURITY_CHECKS_FAILED,
    BAD_SECURITY_POLICY_REJECTED,
    BAD_TIMEOUT,
)

if TYPE_CHECKING:
    from asyncua.ua.uatypes import DataValue

T = TypeVar("T")

DEFAULT_PORT = 4840
SESSION_MS = 20_000  # a session that edge lost ends at the server after this: reconnecting does not use them up
CHANNEL_MS = 3_600_000
_KEY_S = 60  # making a key takes seconds on a small machine
_POLICY = "http://opcfoundation.org/UA/SecurityPolicy#"
_MODES = {1: "None", 2: "Sign", 3: "SignAndEncrypt"}  # OPC 10000-4, 7.20 MessageSecurityMode
_ENCRYPTED = 3
_AND_SUBSCRIPTIONS = b"\x01"
_ANONYMOUS, _USER_NAME = 0, 1  # OPC 10000-4, 7.42 UserTokenType

_TRUST = "on the server, add {certificate} to the trusted certificates (it may lie among the rejected ones there)"
_SESSIONS = "close other OPC UA clients or allow more of them on the server; lost ones end there after a while"
_SMALLER = "set a smaller `batch` for this device"
_CLOCK = "compare the clocks of server and edge, and the dates of {certificate}"
_POLICIES = "compare `security` with what the server allows"
_REFUSED = (
    "refuses the user `{user}`: {name}",
    "compare `user` and `password` with the server's users and their rights",
)
_UNTRUSTED = ("does not trust edge's certificate: {name}", _TRUST)
_REFUSALS: dict[int, tuple[str, str]] = {
    0x8008_0000: ("finds a message too large: {name}", _SMALLER),  # BadEncodingLimitsExceeded
    0x8010_0000: ("takes fewer items in a request: {name}", _SMALLER),  # BadTooManyOperations
    0x80B8_0000: ("finds a request too large: {name}", _SMALLER),  # BadRequestTooLarge
    0x80B9_0000: ("finds its response too large: {name}", _SMALLER),  # BadResponseTooLarge
    0x8012_0000: _UNTRUSTED,  # BadCertificateInvalid
    0x8013_0000: _UNTRUSTED,  # BadSecurityChecksFailed
    0x801A_0000: _UNTRUSTED,  # BadCertificateUntrusted
    0x8014_0000: ("finds edge's certificate out of date: {name}", _CLOCK),  # BadCertificateTimeInvalid
    0x8017_0000: ("finds another URI in edge's certificate: {name}", _TRUST),  # BadCertificateUriInvalid
    0x801F_0000: _REFUSED,  # BadUserAccessDenied
    0x8020_0000: _REFUSED,  # BadIdentityTokenInvalid
    0x8021_0000: _REFUSED,  # BadIdentityTokenRejected
    0x8054_0000: ("rejects the security mode: {name}", _POLICIES),  # BadSecurityModeRejected
    0x8055_0000: ("rejects the security policy: {name}", _POLICIES),  # BadSecurityPolicyRejected
    0x8056_0000: ("has no session free: {name}", _SESSIONS),  # BadTooManySessions
    0x80B7_0000: ("has no connection free: {name}", _SESSIONS),  # BadMaxConnectionsReached
    0x8083_0000: ("does not know this url: {name}", "compare `url` with the server's endpoint, its path too"),
    0x8025_0000: ("has ended the session: {name}", "was it restarted? edge connects again"),  # BadSessionIdInvalid
}


class OpcUaSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An OPC UA server. `timeout` in seconds for each request (connecting has four), `batch` nodes in a request.

    With `mode: poll` every node is read at each scan; with `subscribe` the server tells what has changed.
    `trust` is the path of the server's certificate, PEM or DER: where it is given no other server is spoken to.
    `certificate` and `key` are edge's own; without them edge makes its own once and keeps it. In a
    cell or endpoints file these paths, and that of the password, are relative to that file.
    """

    url: Annotated[str, Meta(description="Its address.", examples=["opc.tcp://192.168.10.13:4840"])]
    security: Annotated[
        Literal["None", "Basic256Sha256", "Basic256Sha256/Sign", "Basic256Sha256/SignAndEncrypt"],
        Meta(description="How messages are signed and encrypted."),
    ] = "None"
    user: Annotated[str | None, Meta(description="The user's name at the server.", examples=["edge"])] = None
    password: Annotated[
        Secret | str | None,
        Meta(
            description="Where the password is kept; never the password.", examples=[{"credential": "robot-password"}]
        ),
    ] = None
    password_in_clear: Annotated[bool, Meta(description="true: it may go over a line without encryption.")] = False
    trust: Annotated[
        File | None, Meta(description="The server's certificate; no other server is spoken to.", examples=["robot.pem"])
    ] = None
    certificate: Annotated[File | None, Meta(description="edge's own certificate; made by itself if left out.")] = None
    key: Annotated[File | None, Meta(description="The key of that certificate.")] = None
    timeout: Annotated[
        float, Meta(gt=0, le=60, description="How long to wait for an answer, in s.", extra={"unit": "s"})
    ] = 1.0
    batch: Annotated[int, Meta(ge=1, le=10_000, description="Nodes in one request.")] = 100
    reading: Annotated[
        Literal["poll", "subscribe"],
        Meta(description="poll: every node is read at each scan; subscribe: the server tells what has changed."),
    ] = msgspec.field(default="poll", name="mode")
    every: Annotated[float, msgspec.Meta(gt=0, extra={"unit": "s"})] = 0.1  # these two are keys of every device
    max_age: Annotated[float, msgspec.Meta(gt=0, extra={"unit": "s"})] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.password, str):
            raise ValueError("a password is never written here; keep it in {credential: NAME} or {file: PATH}")
        if self.password is not None and self.user is None:
            raise ValueError("`password` needs a `user`")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("`certificate` and `key` go together")
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme == "opc.tcp" and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(f"`{self.url}` is no OPC UA address; write opc.tcp://HOST:4840")
        if "@" in urlsplit(self.url).netloc:
            raise ValueError("a url holds no user and password; write `user` and `password`")

    @property
    def policy(self) -> str:
        return self.security.partition("/")[0]

    @property
    def mode(self) -> int:
        """The MessageSecurityMode (OPC 10000-4, 7.20)."""
        if self.policy == "None":
            return 1
        return 2 if self.security.endswith("/Sign") else 3

    @property
    def heartbeat_s(self) -> float:
        """A subscribed server says at least this often that its values hold: twice in the time after which it is lost,
        and in that after which its values are bad.
        """
        return min(self.timeout, self.max_age or max(MAX_AGE_S, 3 * self.every)) / 2

    @property
    def server(self) -> str:
        """HOST:PORT, as the messages name it."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{host}:{parts.port or DEFAULT_PORT}"

    def read_password(self) -> str | None:
        """Raises DeviceError where it cannot be had."""
        return self.password.read() if isinstance(self.password, Secret) else None


class Session:
    """An activated session. Nothing runs between two requests: no task is left when it ends."""

    def __init__(self, settings: OpcUaSettings, own: Identity | None, client: Any) -> None:
        from asyncua.ua import ua_binary

        self._client = client
        self._service = client.uaclient
        encode: Any = ua_binary.nodeid_to_binary
        self._token: bytes = encode(self._service.session.authentication_token)
        self._settings = settings
        self._own = own
        self._renew_at = asyncio.get_running_loop().time() + _renewal(client)

    @property
    def lost(self) -> bool:
        return _transport(self._client) is None

    def request(self, service: int, parameters: bytes, *, patient: bool = False) -> Request:
        """A request of this session, to be sent again and again; to one that is `patient` an answer may take long."""
        timeout_ms = 0 if patient else round(self._settings.timeout * 1000)
        return opcua_codec.request(service, self._token, parameters, timeout_ms)

    def post(self, request: Request) -> asyncio.Future[bytes]:
        """Sends a request that is not waited for (`Wire.ask`). Raises DeviceError where there is no connection."""
        try:
            wire = opcua_wire.wire_of(self._client)
            if wire is None:
                raise ConnectionError
            return wire.ask(request)
        except OSError as error:
            raise self.told(error) from error

    async def ask(self, request: Request, decode: Callable[[bytes], T]) -> T:
        """What follows the ResponseHeader of the answer, decoded. A failure ends the session: DeviceError."""
        try:
            return await self.attempt(request, decode)
        except ServiceFault as error:
            raise await self.give_up(error) from error

    async def attempt(self, request: Request, decode: Callable[[bytes], T]) -> T:
        """As `ask`, but a request that the server refuses does not end the session: ServiceFault."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                return decode(await self.post(request))
        except ServiceFault:
            raise
        except Exception as error:
            raise await self.give_up(error) from error

    async def give_up(self, error: Exception) -> DeviceError:
        """Ends a session after a failure, which is given in words."""
        if isinstance(error, TimeoutError):  # a server that is only slow hears that the session is not used any longer
            with contextlib.suppress(Exception):
                self.post(self.request(opcua_codec.CLOSE_SESSION, _AND_SUBSCRIPTIONS)).cancel()
        await _end(self._client, self._settings.timeout, politely=not isinstance(error, OSError | FramingError))
        return self.told(error)

    def told(self, error: Exception) -> DeviceError:
        return _told(error, self._settings, self._own)

    async def read(self, request: Any, count: int) -> list[DataValue]:
        """A ReadRequest now and then."""
        return await self._ask(self._service.read(request), count)

    async def browse(self, request: Any, count: int) -> list[Any]:
        return await self._ask(self._service.browse(request), count)

    async def browse_next(self, request: Any, count: int) -> list[Any]:
        return await self._ask(self._service.browse_next(request), count)

    async def _ask(self, request: Awaitable[Sequence[T]], count: int) -> list[T]:
        """One request under the deadline, answered in `count` items. A failure ends the session: DeviceError."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                results = list(await request)
            if len(results) != count:
                text = f"{self._settings.server} answered {len(results)} of {count} items"
                raise DeviceError(text, _SMALLER, status=BAD_COMMUNICATION)
        except Exception as error:
            raise await self.give_up(error) from error
        return results

    async def renew(self) -> None:
        """A new security token once three quarters of the old one's life have passed (OPC 10000-4, 5.6.2.1)."""
        now = asyncio.get_running_loop().time()
        if now >= self._renew_at:
            await self._ask(self._new_token(), 0)
            self._renew_at = now + _renewal(self._client)

    async def _new_token(self) -> tuple[()]:
        await self._client.open_secure_channel(renew=True)
        return ()

    async def end(self) -> None:
        """Ends session, channel and socket within the deadline."""
        await _end(self._client, self._settings.timeout, politely=True)


async def load_identity(settings: OpcUaSettings) -> Identity:
    """Edge's own certificate, the cell's or one that edge makes once. Raises DeviceError."""
    try:
        async with asyncio.timeout(_KEY_S):
            return await asyncio.to_thread(_load_identity, settings)
    except TimeoutError as error:
        text = f"edge could not load or make its certificate within {_KEY_S} s"
        raise DeviceError(text, "is this machine very busy, is its disk well?", status=BAD_CONFIGURATION) from error


def _load_identity(settings: OpcUaSettings) -> Identity:
    if settings.certificate is not None and settings.key is not None:
        return identity.load_identity(Path(settings.certificate), Path(settings.key))
    return identity.own_identity(identity.state_directory("pki"), "client", identity.application_uri())


async def open_session(settings: OpcUaSettings, own: Identity | None) -> Session:
    """Connects and logs in within four times the timeout. `own` is needed for a security other than None.

    Raises DeviceError; nothing is left open then.
    """
    library()
    password = settings.read_password()
    pinned = identity.read_certificate(Path(settings.trust)) if settings.trust else None
    try:
        async with asyncio.timeout(4 * settings.timeout):
            return await _LogIn(settings, own, password, pinned).session()
    except Exception as error:
        raise _told(error, settings, own) from error


def library() -> Any:
    """asyncua's `ua`, imported when it is first needed; its generated types say too little for a type checker.

    asyncua's own log lines (tracebacks among them) are kept to itself: what matters is raised.
    """
    from asyncua import ua

    for name in ("asyncua", "asyncuagds"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL + 1)
    return ua


class _LogIn:
    """One attempt: look at the endpoints, choose, secure the channel, create and activate the session."""

    def __init__(
        self, settings: OpcUaSettings, own: Identity | None, password: str | None, pinned: bytes | None
    ) -> None:
        self.settings = settings
        self.own = own
        self.password = password
        self.pinned = pinned
        self.client = self._new_client()

    async def session(self) -> Session:
        try:
            await self._connect_socket()
            await self._open_channel()
            endpoint = self._choose(await self.client.get_endpoints())
            if self.own is not None:
                await self._secure(self.own, _first(endpoint.ServerCertificate))
            await self._activate(_first(endpoint.ServerCertificate))
        except BaseException as error:
            heard = isinstance(error, Exception) and not isinstance(error, OSError)
            await _end(self.client, self.settings.timeout, politely=heard)
            raise
        return Session(self.settings, self.own, self.client)

    def _new_client(self) -> Any:
        from asyncua.client.client import Client

        url = urlsplit(self.settings.url)._replace(netloc=self.settings.server).geturl()
        client: Any = Client(url, timeout=self.settings.timeout)
        client.name = client.description = "edge"
        client.product_uri = "urn:edge"
        client.application_uri = self.own.uri if self.own is not None else identity.application_uri()
        client.session_timeout = max(SESSION_MS, round(3000 * self.settings.every))
        client.secure_channel_timeout = CHANNEL_MS
        return client

    async def _connect_socket(self) -> None:
        parts = urlsplit(self.settings.url)
        tcp = Tcp(parts.hostname or "", parts.port or DEFAULT_PORT)
        try:
            await opcua_wire.open_wire(self.client, tcp, self.settings.timeout)
        except TimeoutError as error:
            raise tcp.silent(self.settings.timeout) from error
        except OSError as error:
            raise tcp.refused(error) from error

    async def _open_channel(self) -> None:
        await self.client.send_hello()
        await self.client.open_secure_channel()

    async def _secure(self, own: Identity, server: bytes) -> None:
        """The same again on an encrypted or signed channel, to the server whose certificate this is."""
        from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256 as Basic256Sha256

        self._check_pin(server)
        await _end(self.client, self.settings.timeout, politely=True)
        self.client = self._new_client()
        mode = library().MessageSecurityMode(self.settings.mode)
        await self.client.set_security(Basic256Sha256, own.certificate, own.key, None, server, mode)
        await self._connect_socket()
        try:
            await self._open_channel()
        except Exception as error:
            # Some servers say why in an Error message, others close the socket or send what asyncua cannot read.
            if isinstance(error, DeviceError | library().UaStatusCodeError):
                raise
            text = f"{self.settings.server} broke off while the channel was being secured"
            raise DeviceError(text, _TRUST.format(certificate=own.path), status=BAD_SECURITY_CHECKS_FAILED) from error

    async def _activate(self, server: bytes) -> None:
        await self.client.create_session()
        security = self.client.security_policy
        if not security.peer_certificate:
            security.peer_certificate = server
        self._check_pin(security.peer_certificate)
        if self.password is not None:
            self._check_token(
                self.client.server_policy(library().UserTokenType.UserName), bool(security.peer_certificate)
            )
        await self.client.activate_session(self.settings.user, self.password)

    def _choose(self, endpoints: Sequence[Any]) -> Any:
        """The endpoint with the wanted security that takes this user. Its URL is not used: it may name another host."""
        settings = self.settings
        offers = {
            f"{(endpoint.SecurityPolicyUri or '').removeprefix(_POLICY)}/{_MODES.get(endpoint.SecurityMode)}": endpoint
            for endpoint in endpoints
            if (endpoint.EndpointUrl or "").startswith("opc.tcp")
        }
        chosen = offers.get(f"{settings.policy}/{_MODES[settings.mode]}")
        if chosen is None:
            offered = ", ".join(sorted(offer.replace("None/None", "None") for offer in offers)) or "nothing"
            hint = f"it offers {offered}; set `security` to one of them, or enable this one on the server"
            text = f"{settings.server} does not offer security {settings.security}"
            raise DeviceError(text, hint, status=BAD_SECURITY_POLICY_REJECTED)
        tokens = {int(token.TokenType) for token in chosen.UserIdentityTokens or ()}
        if settings.user is None and tokens and _ANONYMOUS not in tokens:
            hint = "set `user` and `password`, or allow anonymous access on the server"
            text = f"{settings.server} lets nobody in without a user"
            raise DeviceError(text, hint, status=BAD_IDENTITY_TOKEN_REJECTED)
        if settings.user is not None and _USER_NAME not in tokens:
            hint = "leave out `user` and `password`, or enable users on the server"
            text = f"{settings.server} takes no user and password"
            raise DeviceError(text, hint, status=BAD_IDENTITY_TOKEN_REJECTED)
        return chosen

    def _check_pin(self, shown: bytes) -> None:
        if self.pinned is not None and shown != self.pinned:
            found = f"one with SHA-256 {identity.fingerprint(shown)}" if shown else "none"
            raise DeviceError(
                f"{self.settings.server} shows another certificate than the trusted one: {found}",
                f"if the server or its certificate was exchanged, put the new certificate in {self.settings.trust}; "
                "if not, something else answers at this address",
                status=BAD_CERTIFICATE_UNTRUSTED,
            )

    def _check_token(self, token: Any, has_certificate: bool) -> None:
        """A password leaves edge only encrypted, unless the cell file says otherwise (OPC 10000-4, 7.41.4)."""
        sealed = has_certificate and token.SecurityPolicyUri not in (None, "", f"{_POLICY}None")
        if not sealed and self.settings.mode != _ENCRYPTED and not self.settings.password_in_clear:
            raise DeviceError(
                f"{self.settings.server} takes the password in clear text only",
                "set `security: Basic256Sha256/SignAndEncrypt`; or `password_in_clear: true` on a network of its own",
                status=BAD_CONFIGURATION,
            )


def _transport(client: Any) -> asyncio.Transport | None:
    wire = opcua_wire.wire_of(client)
    return wire.transport if wire is not None else None


async def _end(client: Any, deadline: float, *, politely: bool) -> None:
    """Ends the session where the server can still be told, then the socket; waits until that is gone."""
    protocol, transport = client.uaclient.protocol, _transport(client)
    if protocol is None or transport is None:
        return
    gone = asyncio.Event()

    def lost(_error: Exception | None) -> None:
        gone.set()

    protocol.on_connection_lost = lost
    try:
        if politely:
            # Whatever the server answers, the socket is closed next.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(deadline):
                    await client.close_session()
                    await client.close_secure_channel()
    finally:
        transport.abort()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline):
            await gone.wait()


def _first(chain: bytes | None) -> bytes:
    """The leading certificate of a DER chain (OPC 10000-6, 6.2.3); empty where there is none."""
    if not chain:
        return b""
    return chain[: int.from_bytes(chain[2:4], "big") + 4] if chain[1] == 0x82 else chain


def _renewal(client: Any) -> float:
    return float(client.secure_channel_timeout) * 0.75e-3


def _told(error: Exception, settings: OpcUaSettings, own: Identity | None) -> DeviceError:
    """Any failure in words for a technician."""
    ua = library()
    if isinstance(error, DeviceError):
        return error
    if isinstance(error, TimeoutError):
        text = f"{settings.server} did not answer within {settings.timeout:g} s"
        return DeviceError(text, "is an OPC UA server running there, is the network loaded?", status=BAD_TIMEOUT)
    if isinstance(error, ServiceFault | ua.UaStatusCodeError):
        code = error.status if isinstance(error, ServiceFault) else int(getattr(error, "code", 0))
        name, doc = ua.status_codes.get_name_and_doc(code)
        text, hint = _REFUSALS.get(code, (f"answers {name}: {doc}", ""))
        words = {
            "name": name,
            "user": settings.user or "anonymous",
            "certificate": own.path if own else "its certificate",
        }
        return DeviceError(f"{settings.server} {text.format(**words)}", hint.format(**words), status=code)
    if isinstance(error, OSError):
        text = f"{settings.server} closed the connection"
        return DeviceError(text, "was it stopped or restarted? edge connects again", status=BAD_CONNECTION_CLOSED)
    text = f"{settings.server} does not answer as an OPC UA server does: {error or type(error).__name__}"
    return DeviceError(text, "is the port right, is the server's software up to date?", status=BAD_COMMUNICATION)
