"""The process that serves the operator's page, the API and the metrics, beside the loop, which it cannot delay."""

import errno
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge.language.program import Plan


class CannotListen(Exception):
    """Why the address cannot be listened on, and what to do."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; made before the first process starts, so that a port in use is an error at once.

    Port 0 takes a free one. Raises CannotListen.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
    except (OSError, UnicodeError, OverflowError):
        raise CannotListen(f"`{host}` is no address of this machine: give --listen 127.0.0.1:8088") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise CannotListen(_why(error, host, port)) from None
    return listener


def _why(error: OSError, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"port {port} of {host} is in use by another program, or by an edge that runs already: "
                "end it, or take another port with --listen"
            )
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine: `ip address` lists them"
        case errno.EACCES:
            return f"port {port} needs rights that edge does not have: take one from 1024 on with --listen"
        case _:
            return f"{host}:{port} cannot be listened on: {error.strerror}"


def url(listener: socket.socket) -> str:
    """Where the page is."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def run(
    plan: Plan,
    state_dir: Path,
    listener: socket.socket,
    loop: socket.socket,
    fieldbuses: Sequence[socket.socket],
    restarts: Mapping[str, int] | None = None,
) -> None:
    """The API process until SIGTERM. `loop` and `fieldbuses` are its ends of their sockets.

    `restarts` counts how often each process was started again, as far as this process can see it.
    """
    from edge.api.server import serve  # aiohttp and uvloop take a while to load: only this process needs them

    serve(plan, state_dir, listener, loop, fieldbuses, restarts or {})
