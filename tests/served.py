"""The API in a process of its own, over the cell and the loop of `watched`.

`python -m tests.served LISTENER LOOP STATE_DIR [NAME=SECONDS]...` is that process; `Served` starts it.
"""

import http.client
import json
import logging
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge import channel, record
from edge.api import process as api
from tests import watched

PATIENCE_S = 15.0


def wait_for(true: Callable[[], Any], what: str) -> Any:
    """Waits until it is true; gives what it gave."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        found = true()
        if found:
            return found
        select.select([], [], [], 0.02)
    raise AssertionError(f"in vain: {what}")


class Served:
    """A loop that runs and the API beside it. `close` ends both."""

    def __init__(self, state_dir: Path, **settings: float) -> None:
        self.state_dir = state_dir
        self.log = state_dir / "api.log"
        self.settings = settings
        self.loop_end, self.api_end = channel.pair()
        self.listener = api.bind("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.url = api.url(self.listener)
        self.start()
        self.loop = watched.WatchedLoop(watched.plan(), self.loop_end)
        self.loop.begin()
        wait_for(lambda: self.get("/api/state")["loop"]["alive"], "the API hears the loop")

    def start(self) -> None:
        ends = (self.listener.fileno(), self.api_end.fileno())
        more = [f"{name}={value}" for name, value in self.settings.items()]
        command = [sys.executable, "-m", "tests.served", *map(str, ends), str(self.state_dir), *more]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, pass_fds=ends, stderr=log)

    def stop(self) -> int:
        """Ends the API process as systemd does; gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """Ends both; nothing that the tests did may have been a fault of edge itself."""
        self.stop()
        self.loop.end()
        for end in (self.loop_end, self.api_end, self.listener):
            end.close()
        assert "Traceback" not in self.log.read_text(), self.log.read_text()

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """(status, JSON or text, headers). A body that is no bytes goes as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, data, {**kind, **(headers or {})})
            answer = connection.getresponse()
            text = answer.read().decode()
            found = dict(answer.getheaders())
            is_json = found.get("Content-Type", "").startswith("application/json")
            return answer.status, json.loads(text) if is_json else text, found
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        status, answer, _ = self.ask("GET", path)
        assert status == 200, answer
        return answer

    def post(self, path: str, **body: object) -> tuple[int, Any]:
        status, answer, _ = self.ask("POST", path, {"by": "Amina", **body})
        return status, answer

    def start_batch(self, recipe: str = "rinse-and-fill", **parameters: object) -> str:
        status, answer = self.post("/api/batches", recipe=recipe, parameters=parameters)
        assert status == 201, answer
        return answer["batch"]

    def renew(self) -> None:
        """A loop that knows nothing of what was; the API has taken that in when this returns."""
        self.loop.mute = False
        self.loop.renew()
        wait_for(lambda: self._fresh(self.get("/api/state")), "the API takes in the new loop")

    def _fresh(self, state: dict[str, Any]) -> bool:
        return (
            not state["batches"]
            and not state["alarms"]
            and all(tag["quality"] == "good" for tag in state["tags"].values())
            and state["cycle"] <= self.loop.cycle
        )

    def batch(self, batch: str) -> dict[str, Any]:
        return self.get("/api/state")["batches"][batch]

    def reach(self, batch: str, state: str) -> None:
        wait_for(lambda: self.batch(batch)["state"] == state, f"{batch} is {state}")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One loop and API for all tests of a file."""
    found = Served(tmp_path_factory.mktemp("state"))
    yield found
    found.close()


@pytest.fixture
def served(shared: Served) -> Served:
    """The file's loop and API, as they are at their start."""
    shared.renew()
    return shared


def record_of_one(file: Path, batch: str, state: str) -> None:
    """A batch record with one more batch in it."""
    new = not file.exists()
    at = 1_767_323_045 * 10**9
    with sqlite3.connect(file, isolation_level=None) as db:
        if new:
            db.executescript(record.SCHEMA)
        number = db.execute(
            "INSERT INTO batch VALUES "
            "(NULL, ?, 1, 1, 'bottling', 'rinse-and-fill', 'h', ?, 'Amina', ?, ?, ?, NULL, 0, '', '')",
            (
                batch,
                '[{"name": "volume", "value": 20, "unit": "L"}]',
                state,
                at,
                at + 10**9 if state != "running" else None,
            ),
        ).lastrowid
        db.execute(
            "INSERT INTO state_change VALUES (?, 1, 1, ?, 'idle', ?, 'started', 'Amina', ?)",
            (number, at, state, '{"en": "started", "fr": "démarré"}'),
        )
        db.execute("INSERT INTO recorded VALUES (?, 1, 1, ?, 6, 'filled', '12.5', 'L')", (number, at))
    db.close()


def main() -> None:
    from edge.api import link, server, stream

    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    listener, loop = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    for setting in sys.argv[4:]:
        name, value = setting.split("=")
        for module in (link, server, stream):
            if hasattr(module, name):
                setattr(module, name, type(getattr(module, name))(float(value)))
    api.run(watched.plan(), Path(sys.argv[3]), listener, loop, ())


if __name__ == "__main__":
    main()
