"""The whole thing: the real daemon on real sockets against simulated PLCs, with processes killed on the way."""

import contextlib
import json
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from tests.processes import BOTTLING, Plcs, Running, Served, alive, descendants, edge, process_name, running, until

PROCESSES = {"edge-loop", "edge-modbus", "edge-s7", "edge-opcua", "edge-recorder", "edge-api"}


@pytest.fixture
def cell(tmp_path: Path):
    with running(Plcs(tmp_path, BOTTLING, "--restart-after", "1")) as plcs, contextlib.ExitStack() as stack:
        daemon = stack.enter_context(running(Served(tmp_path, BOTTLING, "--endpoints", plcs.endpoints)))
        yield daemon, plcs


def seen_at_the_plcs(plcs: Plcs, folder: Path) -> dict[str, object]:
    """Every tag as another client of the PLCs reads it."""
    look = edge(
        "tags", BOTTLING, "--endpoints", plcs.endpoints, "--once", "--format", "json", "--state", folder / "none"
    )
    assert look.returncode == 0, look.stderr
    return {name: one["value"] for name, one in json.loads(look.stdout).items()}


def answer(daemon: Served, batch: str) -> None:
    question = until(lambda: daemon.batch(batch).get("questions"), "the question")[0]
    assert question["say"]["ar"]
    status, body = daemon.post(f"/api/batches/{batch}/answer", {"prompt": question["prompt"], "value": "yes"})
    assert status == 200, body


def test_a_batch_from_start_to_record(cell, tmp_path: Path) -> None:
    daemon, plcs = cell
    batch = daemon.start("rinse-and-fill", volume=8)
    names = {process_name(daemon.pid), *descendants(daemon.pid)}
    assert {"edge-daemon", *PROCESSES} <= names
    answer(daemon, batch)
    daemon.await_state(batch, "complete")
    record = until(
        lambda: (one := daemon.get(f"/api/batches/{batch}")).get("state") == "complete" and one, "the record"
    )
    assert record["recipe"] == "rinse-and-fill" and {"name": "volume", "value": 8, "unit": "L"} in record["parameters"]
    printed = edge("batch", batch, "--state", daemon.state_dir)
    assert printed.returncode == 0 and "rinse-and-fill" in printed.stdout and "complete" in printed.stdout
    assert batch in edge("batches", "--state", daemon.state_dir).stdout
    seen = seen_at_the_plcs(plcs, tmp_path)
    assert seen["mixer.agitator"] == 0 and seen["mixer.drain"] is False and seen["conveyor.speed"] == 0
    metrics = daemon.text("/metrics")
    assert 'edge_device_up{device="mixer",driver="s7"} 1.0' in metrics
    assert "edge_cycle_lateness_seconds_bucket" in metrics


@pytest.mark.parametrize("device", ["mixer", "conveyor", "robot"])
def test_a_killed_plc_holds_the_batch_and_a_restart_finishes_it(cell, device: str) -> None:
    daemon, plcs = cell
    batch = daemon.start("rinse-and-fill", volume=8)
    daemon.await_step(batch, "Rinse")
    os.kill(plcs.pid_of(device), signal.SIGKILL)
    held = daemon.await_state(batch, "held")
    assert device in held["cause"]
    state = daemon.state()
    assert any(alarm["kind"] == "device-lost" and alarm["device"] == device for alarm in state["alarms"].values())
    bad = [tag for name, tag in state["tags"].items() if name.startswith(f"{device}.")]
    if not daemon.devices()[device]["up"]:
        assert all(tag["quality"] != "good" and tag["value"] is None for tag in bad)
    daemon.up()
    until(lambda: daemon.post(f"/api/batches/{batch}/restart")[0] == 200, "the restart")
    daemon.await_state(batch, "running")
    answer(daemon, batch)
    daemon.await_state(batch, "complete")


@pytest.mark.parametrize("name", sorted(PROCESSES - {"edge-loop"}))
def test_a_killed_process_comes_back_and_the_batch_ends(cell, name: str) -> None:
    daemon, _ = cell
    batch = daemon.start("rinse-and-fill", volume=8)
    daemon.await_step(batch, "Rinse")
    old = daemon.pid_called(name)
    os.kill(old, signal.SIGKILL)
    until(lambda: descendants(daemon.pid).get(name, old) != old, f"{name} again")
    assert f"{name} was killed (SIGKILL)" in daemon.said
    until(lambda: f'edge_process_restarts_total{{process="{name}"}} 1.0' in daemon.text("/metrics"), "the count of it")

    def question() -> bool:
        if daemon.batch(batch).get("state") == "held":
            daemon.post(f"/api/batches/{batch}/restart")
        return bool(daemon.batch(batch).get("questions"))

    until(question, "the question, after a restart where the batch was held")
    answer(daemon, batch)
    daemon.await_state(batch, "complete")
    assert edge("batch", batch, "--state", daemon.state_dir).stdout.count("Look at the label") == 1


def test_a_killed_loop_leaves_failsafe_and_comes_back_with_the_batch_held(cell, tmp_path: Path) -> None:
    daemon, plcs = cell
    batch = daemon.start("rinse-and-fill", volume=8)
    daemon.await_step(batch, "Rinse")
    until(lambda: daemon.state().get("tags", {}).get("mixer.rinse", {}).get("value"), "the valve open")
    os.kill(daemon.pid_called("edge-loop"), signal.SIGKILL)
    daemon.await_state(batch, "held")
    seen = seen_at_the_plcs(plcs, tmp_path)
    assert seen["mixer.rinse"] is False and seen["mixer.agitator"] == 0
    daemon.up()
    until(lambda: daemon.post(f"/api/batches/{batch}/restart")[0] == 200, "the restart")
    answer(daemon, batch)
    daemon.await_state(batch, "complete")


def test_a_loop_that_hangs_leaves_failsafe_does_not_do_late_what_it_was_told_and_holds_the_batch(
    cell, tmp_path: Path
) -> None:
    daemon, plcs = cell
    batch = daemon.start("rinse-and-fill", volume=50)
    daemon.await_step(batch, "Fill the mixer")
    loop = daemon.pid_called("edge-loop")
    os.kill(loop, signal.SIGSTOP)
    try:
        status, refused = daemon.post(f"/api/batches/{batch}/abort")
        assert status == 503 and set(refused["say"]) == {"en", "fr", "ar"}
        until(lambda: seen_at_the_plcs(plcs, tmp_path)["mixer.inlet"] is False, "the valve shut")
    finally:
        os.kill(loop, signal.SIGCONT)
    held = daemon.await_state(batch, "held")
    assert "the control loop stood still" in held["cause"]


def test_systemd_hears_that_it_is_ready_and_of_no_cycle_that_did_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with running(Served(tmp_path, BOTTLING)) as daemon:
            assert b"READY=1" in notified.recv(1000)
            assert notified.recv(1000) == b"WATCHDOG=1"
            loop = daemon.pid_called("edge-loop")
            os.kill(loop, signal.SIGSTOP)
            notified.settimeout(2)
            heard = 0
            with contextlib.suppress(TimeoutError):
                while notified.recv(1000):
                    heard += 1
            assert heard <= 4, "the watchdog is fed although no cycle runs"
            os.kill(loop, signal.SIGCONT)
            notified.settimeout(30)
            assert notified.recv(1000) == b"WATCHDOG=1"
            assert daemon.end() == 0
        said = b""
        while b"STOPPING=1" not in said:
            said = notified.recv(1000)


def test_sigterm_ends_everything_with_outputs_at_failsafe(cell, tmp_path: Path) -> None:
    daemon, plcs = cell
    batch = daemon.start("rinse-and-fill", volume=8)
    daemon.await_step(batch, "Rinse")
    below = descendants(daemon.pid)
    assert daemon.end() == 0
    assert [name for name, pid in below.items() if alive(pid)] == []
    seen = seen_at_the_plcs(plcs, tmp_path)
    assert seen["mixer.rinse"] is False and seen["mixer.agitator"] == 0


def test_no_process_outlives_a_killed_daemon(cell) -> None:
    daemon, _ = cell
    daemon.up()
    below = descendants(daemon.pid)
    daemon.end(signal.SIGKILL)
    until(lambda: not [pid for pid in below.values() if alive(pid)], "the end of every process")


def test_tags_go_through_the_daemon_and_respect_the_owner(cell) -> None:
    daemon, plcs = cell
    daemon.up()
    options = ("--endpoints", plcs.endpoints, "--state", daemon.state_dir)
    done = edge("tags", BOTTLING, *options, "--set", "conveyor.lamp=true", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["conveyor.lamp"]["value"] is True
    batch = daemon.start("rinse-and-fill", volume=8)
    refused = edge("tags", BOTTLING, *options, "--set", "mixer.inlet=true")
    assert refused.returncode == 1 and f"belongs to batch {batch}" in refused.stderr


def test_a_changed_recipe_is_the_next_version_and_a_killed_loop_keeps_each_batch_in_its_own(tmp_path: Path) -> None:
    folder = shutil.copytree(BOTTLING.parent, tmp_path / "line")
    recipe = folder / "rinse-and-fill.yaml"
    text = recipe.read_text()
    with (
        running(Plcs(tmp_path, folder / "cell.yaml")) as plcs,
        running(Served(tmp_path, folder / "cell.yaml", "--endpoints", plcs.endpoints)) as daemon,
    ):
        batch = daemon.start("rinse-and-fill", volume=8)
        daemon.await_step(batch, "Rinse")
        first = daemon.state()["recipes"]["rinse-and-fill"]["hash"]
        where = ("--state", daemon.state_dir, "--by", "Amina")

        recipe.write_text(text.replace("name: Rinse", "name: Rinse, rinsed"))
        reloaded = edge("reload", folder, *where)
        assert reloaded.returncode == 0 and "rinse-and-fill: version" in reloaded.stdout, reloaded.stderr
        second = daemon.state()["recipes"]["rinse-and-fill"]["hash"]
        assert second != first and daemon.batch(batch)["hash"] == first
        assert edge("reload", folder, *where).stdout == "no recipe has changed\n"

        recipe.write_text(text.replace("name: Rinse", "nmae: Rinse"))
        refused = edge("reload", folder, *where)
        assert refused.returncode == 1 and "did you mean `name`?" in refused.stderr and "^" in refused.stderr
        state = daemon.state()
        assert state["recipes"]["rinse-and-fill"]["hash"] == second
        assert state["reloaded"]["by"] == "Amina" and state["reloaded"]["problems"][0]["code"] == "unknown-key"

        os.kill(descendants(daemon.pid)["edge-loop"], signal.SIGKILL)
        held = daemon.await_state(batch, "held")
        assert held["hash"] == first and daemon.state()["recipes"]["rinse-and-fill"]["hash"] == second
        daemon.post(f"/api/batches/{batch}/restart", {})
        answer(daemon, batch)
        daemon.await_state(batch, "complete")
        listed = json.loads(edge("batches", "--state", daemon.state_dir, "--format", "json").stdout)
        assert [one["version"] for one in listed] == [1]
        versions = [one for one in daemon.get("/api/versions") if one["recipe"] == "rinse-and-fill"]
        assert [(one["version"], one["by"]) for one in versions] == [(1, "edge"), (2, "Amina")]


def test_a_second_daemon_on_the_same_state_says_who_runs(cell) -> None:
    daemon, plcs = cell
    second = edge(
        "serve", BOTTLING, "--endpoints", plcs.endpoints, "--state", daemon.state_dir, "--listen", "127.0.0.1:0"
    )
    assert second.returncode == 1 and f"process {daemon.pid}" in second.stderr and daemon.url in second.stderr


def test_a_port_in_use_is_said_before_anything_starts(cell, tmp_path: Path) -> None:
    daemon, _ = cell
    second = edge("serve", BOTTLING, "--state", tmp_path / "other", "--listen", daemon.url.removeprefix("http://"))
    assert second.returncode == 1 and "is in use by another program, or by an edge that runs already" in second.stderr


def test_a_device_that_does_not_answer_leaves_the_rest_running(tmp_path: Path) -> None:
    with running(Plcs(tmp_path, BOTTLING, "--restart-after", "never")) as plcs:
        os.kill(plcs.pid_of("conveyor"), signal.SIGKILL)
        with running(Served(tmp_path, BOTTLING, "--endpoints", plcs.endpoints)) as daemon:
            until(lambda: daemon.devices().get("mixer", {}).get("up"), "the mixer")
            until(lambda: "conveyor: " in daemon.said, "a line that names the conveyor")
            status, body = daemon.post("/api/batches", {"recipe": "rinse-and-fill", "parameters": {}})
            assert status == 409 and "conveyor" in body["error"]


def test_edge_killed_while_its_simulated_plcs_start_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    left = tmp_path / "left"
    left.mkdir()
    monkeypatch.setenv("TMPDIR", str(left))
    command = ["-m", "edge", "serve", BOTTLING, "--simulate", "--state", tmp_path / "state", "--listen", "127.0.0.1:0"]
    with running(Running(command, tmp_path / "serve.log")) as daemon:
        until(lambda: {"hil-up", "hil-mixer"} & set(descendants(daemon.pid)), "simulated PLCs that start")
        below = descendants(daemon.pid)
        os.kill(daemon.pid, signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in below.values()), "their end")
    assert list(left.iterdir()) == []
