"""The lock of a state directory: one daemon at a time, and who it is."""

import fcntl
import os
from pathlib import Path

import msgspec


class CannotStart(Exception):
    """Why the daemon does not start, in words."""


class Lock:
    """One daemon a state directory. Held until the process ends; the file says who holds it, and where its API is."""

    def __init__(self, state_dir: Path, about: dict[str, object]) -> None:
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            self.path = state_dir / "daemon.json"
            self.file = self.path.open("a+b")
        except OSError as error:
            raise CannotStart(
                f"the state directory {state_dir} cannot be used: {error.strerror}: "
                "give one that edge's user may write with --state DIR"
            ) from None
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = holder_of(state_dir) or {}
            where = holder.get("url") or "edge run"
            raise CannotStart(f"edge runs on {state_dir} already (process {holder.get('pid', '?')}, {where})") from None
        os.set_inheritable(self.file.fileno(), False)
        try:
            self.file.truncate(0)
            self.file.write(msgspec.json.encode({"pid": os.getpid(), **about}))
            self.file.flush()
        except OSError as error:
            from edge.record import FILE, explain  # who only looks at the lock needs no SQLite

            raise CannotStart(explain(error, state_dir / FILE)) from None

    def release(self) -> None:
        self.file.truncate(0)
        self.file.close()


def holder_of(state_dir: Path) -> dict[str, object] | None:
    """What the daemon of this state directory says of itself; None where none runs."""
    try:
        with (state_dir / "daemon.json").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return msgspec.json.decode(file.read() or b"{}")
    except (OSError, msgspec.DecodeError):
        pass
    return None
