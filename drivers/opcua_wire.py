"""The socket of an OPC UA client: asyncua's, but that chunks are cut and bounded here, and encoded requests go out.

asyncua keeps the secure channel: what it sends and receives, and what is sent here, is secured by the same object. On a
channel without security whole messages go past it: they only take its numbers.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from drivers.link import FramingError
from drivers.opcua_codec import (
    MAX_CHUNK,
    MAX_CHUNKS,
    MAX_MESSAGE,
    Frames,
    Request,
    ServiceFault,
    open_answer,
    open_plain_chunk,
    plain_chunk,
)
from drivers.opcua_values import check_answer
from drivers.transport import Tcp

if TYPE_CHECKING:
    from asyncua.client.client import Client

LAST_ID = 0x7FFF_FFFF  # asyncua would go on counting, past what 32 bits can say
SMALLEST_BUFFER = 8192  # OPC 10000-6, 7.1.2.3


class Wire(Protocol):
    """What is used of a client's socket."""

    transport: asyncio.Transport | None
    stale: int
    """Answers that came to nothing that was asked."""

    def ask(self, request: Request) -> asyncio.Future[bytes]:
        """Sends a request; gives what follows its answer's ResponseHeader.

        The future has a ServiceFault, a FramingError or an OSError where there is no good answer; who cancels it
        drops the answer. Raises ConnectionError where there is no connection.
        """
        ...


class _Asked(msgspec.Struct, frozen=True):
    handle: int
    answer: int
    future: asyncio.Future[bytes]


async def open_wire(client: Client, tcp: Tcp, timeout: float) -> None:
    """Connects an asyncua client by a `Wire`, within `timeout` seconds. Raises OSError.

    asyncua would do it with `asyncio.wait_for`, which may swallow a cancellation (Python 3.11).
    """
    service: Any = client.uaclient
    client.max_messagesize, client.max_chunkcount = MAX_MESSAGE, MAX_CHUNKS
    async with asyncio.timeout(timeout):
        service.protocol = await tcp.open(lambda: _wire_class()(timeout, service.security_policy))


def wire_of(client: Client) -> Wire | None:
    return cast("Wire | None", client.uaclient.protocol)


@cache
def _wire_class() -> Any:
    """Made when it is first needed: its base is in a library that is slow to import."""
    from asyncua import ua
    from asyncua.client.ua_client import UASocketProtocol
    from asyncua.common.utils import Buffer
    from asyncua.ua import ua_binary

    binary: Any = ua_binary

    class AsyncuaWire(UASocketProtocol):
        def __init__(self, timeout: float, security_policy: Any) -> None:
            super().__init__(timeout, security_policy)
            self.stale = 0
            self._frames = Frames()
            self._plain = security_policy.URI.endswith("#None")
            self._numbers: dict[str, Any] = vars(self._connection)
            self._asked: dict[int, _Asked] = {}

        async def send_hello(self, url: str, max_messagesize: int = 0, max_chunkcount: int = 0) -> Any:
            hello: Any = ua.Hello()
            hello.EndpointUrl = url
            hello.ReceiveBufferSize = hello.SendBufferSize = MAX_CHUNK
            hello.MaxMessageSize, hello.MaxChunkCount = max_messagesize, max_chunkcount
            if self.transport is None:
                raise ConnectionError("Connection is not open")
            acknowledged: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._callbackmap[0] = acknowledged
            self.transport.write(binary.uatcp_to_binary(ua.MessageType.Hello, hello))
            async with asyncio.timeout(self.timeout):
                acknowledge = await acknowledged
            if min(acknowledge.ReceiveBufferSize, acknowledge.SendBufferSize) < SMALLEST_BUFFER:
                raise FramingError(f"a buffer of {acknowledge.ReceiveBufferSize} bytes")
            # asyncua takes what the server receives for what it sends; that is bounded here
            limits: Any = self._connection.__dict__["_limits"]
            limits.max_message_size = limits.max_chunk_count = 0
            return acknowledge

        def ask(self, request: Request) -> asyncio.Future[bytes]:
            if self.transport is None or self.transport.is_closing():
                raise ConnectionError("Connection is not open")
            if self._request_id >= LAST_ID:
                self._request_id = self._request_handle = 0
            self._request_handle += 1
            self._request_id += 1
            self.revolve_security_token()
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._asked[self._request_id] = _Asked(self._request_handle, request.answer, future)
            self.transport.write(self._chunks(request.encode(self._request_handle)))
            return future

        def _token(self) -> Any:
            return self._numbers["security_token"]

        def _chunks(self, message: bytes) -> bytes:
            numbers, token = self._numbers, self._token()
            sequence = numbers["_sequence_number"] + 1
            if not self._plain or len(message) > SMALLEST_BUFFER // 2 or sequence >= LAST_ID:
                return self._connection.message_to_binary(message, request_id=self._request_id)
            numbers["_sequence_number"] = sequence
            return plain_chunk(token.ChannelId, token.TokenId, sequence, self._request_id, message)

        def data_received(self, data: bytes) -> None:
            if self.transport is None or self.transport.is_closing():
                return
            try:
                for frame in self._frames.feed(data):
                    self._take(frame)
            except Exception as error:  # asyncua raises what it likes on bytes that make no sense
                self._break(error if isinstance(error, FramingError) else FramingError(str(error)))

        def _take(self, frame: bytes) -> None:
            if not frame.startswith(b"MSG"):
                self._process_received_data(frame)
                return
            numbers, token = self._numbers, self._token()
            if self._plain and not numbers["_incoming_parts"] and numbers["_peer_sequence_number"] is not None:
                sequence = numbers["_peer_sequence_number"] + 1
                opened = open_plain_chunk(frame, token.ChannelId, token.TokenId, sequence)
                if opened is not None:
                    numbers["_peer_sequence_number"] = sequence
                    self._answer(*opened)
                    return
            buffer = Buffer(frame)
            message = self._connection.receive_from_header_and_body(binary.header_from_binary(buffer), buffer)
            if message is not None:
                self._call_callback(message.request_id(), message.body())

        def _call_callback(self, request_id: int, body: Any) -> None:
            if request_id in self._asked:
                self._answer(request_id, body.read(len(body)))
            elif request_id in self._callbackmap:
                if isinstance(body, Buffer):
                    check_answer(bytes(body))
                super()._call_callback(request_id, body)
            else:
                self.stale += 1

        def _answer(self, request_id: int, message: bytes) -> None:
            asked = self._asked.pop(request_id, None)
            if asked is None:
                self._call_callback(request_id, Buffer(message))
                return
            try:
                answer = open_answer(message, asked.handle, asked.answer)
            except (ServiceFault, FramingError) as error:
                if not asked.future.done():
                    asked.future.set_exception(error)
                if isinstance(error, FramingError):
                    raise
            else:
                if not asked.future.done():
                    asked.future.set_result(answer)

        def _fail_all_pending(self, exc: Exception) -> None:
            super()._fail_all_pending(exc)
            for asked in self._asked.values():
                if not asked.future.done():
                    asked.future.set_exception(exc)
            self._asked.clear()

        def _break(self, error: Exception) -> None:
            """Ends a connection whose peer cannot be understood."""
            self._fail_all_pending(error)
            if self.transport is not None:
                self.transport.abort()

    return AsyncuaWire
