"""Who may ask: no other site's page, and no name that a foreign DNS has pointed at this machine (DNS rebinding)."""

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """Knows the names under which this machine may be asked: those of the loopback, the listened address, its own."""

    def __init__(self, listened: str) -> None:
        own = socket.gethostname().lower()
        self.anywhere = listened in ("0.0.0.0", "::")
        self.names = LOOPBACK | {listened.lower(), own, f"{own}.local"}

    def fault(self, method: str, hosts: Sequence[str], headers: Mapping[str, str]) -> str:
        """Why the request is refused; "" where it may pass."""
        if len(hosts) != 1 or not self._knows(_name(hosts[0])):
            return "this machine is not known by that name: use its address, or localhost on the machine itself"
        if method in ("GET", "HEAD"):
            return ""
        origin = headers.get("Origin")
        if origin is not None and _authority(origin) != hosts[0].lower():
            return "another site's page may give no command here"
        if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            return "another site's page may give no command here"
        return ""

    def _knows(self, name: str) -> bool:
        """An address cannot be rebound; where every address is listened on, each is allowed."""
        return name in self.names or (self.anywhere and _is_address(name))


def _name(host: str) -> str:
    """The host without its port; "" where it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host and "/" not in host else ""
    except ValueError:
        return ""


def _authority(origin: str) -> str:
    """`http://HOST:PORT` without its scheme; "" for `null` and any other thing."""
    scheme, separator, rest = origin.partition("://")
    return rest.lower() if separator and scheme in ("http", "https") else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
