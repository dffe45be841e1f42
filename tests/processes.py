"""Real processes for tests: `hil up` and `edge serve` on a cell, with what a test asks of them."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BOTTLING = Path(__file__).parent.parent / "recipes" / "bottling" / "cell.yaml"
DEADLINE_S = 30.0


def edge(*arguments: str | Path, **more: Any) -> "subprocess.CompletedProcess[str]":
    """One command of edge, to its end."""
    command = [sys.executable, "-m", "edge", *map(str, arguments)]
    more = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 90, **more}
    return subprocess.run(command, check=False, **more)


def until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Waits for a condition; gives what it gave. Fails with `what` after the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)


def process_name(pid: int) -> str:
    """As `ps -e` and `top` show it."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def descendants(pid: int) -> dict[str, int]:
    """Every live process below one: name -> pid."""
    found: dict[str, int] = {}
    todo = [pid]
    while todo:
        parent = todo.pop()
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
                todo.append(int(child))
                found[process_name(int(child))] = int(child)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Running:
    """A process whose output is kept in a file."""

    def __init__(self, command: list[str | Path], log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command)], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )
        self.pid = self.process.pid

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Plcs(Running):
    """`hil up` of a cell."""

    def __init__(self, folder: Path, cell: Path = BOTTLING, *options: str) -> None:
        self.endpoints = folder / "endpoints.yaml"
        command: list[str | Path] = ["-m", "hil", "up", cell, "--endpoints", self.endpoints, *options]
        super().__init__(command, folder / "hil.log")
        until(lambda: self.endpoints.exists() or self.process.poll() is not None, "the endpoints of hil up")
        assert self.endpoints.exists(), self.said

    def pid_of(self, device: str) -> int:
        return until(lambda: descendants(self.pid).get(f"hil-{device}"), f"the process of {device}")


class Served(Running):
    """`edge serve` of a cell, and its API. `program` is what runs in place of `edge`."""

    program: tuple[str | Path, ...] = ("-m", "edge")

    def __init__(self, folder: Path, cell: Path, *options: str | Path) -> None:
        self.state_dir = folder / "state"
        command = [*self.program, "serve", cell, "--state", self.state_dir, "--listen", "127.0.0.1:0"]
        super().__init__([*command, *options], folder / "serve.log")
        until(lambda: "operator's page" in self.said or self.process.poll() is not None, "the daemon's first line")
        found = re.search(r"http://[^/\s]+", self.said)
        assert found is not None, self.said
        self.url = found[0]

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            return json.load(answer)

    def text(self, path: str) -> str:
        """A page's text; "" while the API is not there."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    def post(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        data = json.dumps({"by": "tester", **(body or {})}).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def state(self) -> dict[str, Any]:
        try:
            return self.get("/api/state")
        except OSError:
            return {}

    def up(self) -> None:
        """Waits until every device is there."""
        until(lambda: all(one["up"] for one in self.devices().values()) and self.devices(), "every device")

    def devices(self) -> dict[str, Any]:
        return self.state().get("devices", {})

    def batch(self, batch: str) -> dict[str, Any]:
        return self.state().get("batches", {}).get(batch, {})

    def start(self, recipe: str, **parameters: Any) -> str:
        self.up()

        def started() -> str | None:
            status, body = self.post("/api/batches", {"recipe": recipe, "parameters": parameters})
            return body["batch"] if status == 201 else None

        return until(started, f"the start of {recipe}")

    def await_state(self, batch: str, *wanted: str) -> dict[str, Any]:
        return until(
            lambda: (one := self.batch(batch)).get("state") in wanted and one, f"{batch} {wanted}: {self.said}"
        )

    def await_step(self, batch: str, name: str) -> None:
        until(lambda: name in [step["name"] for step in self.batch(batch).get("steps", [])], f"the step {name}")

    def pid_called(self, name: str) -> int:
        return until(lambda: descendants(self.pid).get(name), f"the process {name}")


@contextlib.contextmanager
def running(process: Running) -> Iterator[Any]:
    """Ends the process and all that it started, by pid, whatever happens."""
    try:
        yield process
    finally:
        below = descendants(process.pid)
        process.end()
        for pid in below.values():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
