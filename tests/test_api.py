"""The API in a real process: what it gives, what it refuses and in which words, and that nobody can stop it."""

import http.client
import json
import re
import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_metrics

from edge import record
from edge.api import process as api
from edge.api.guard import Guard
from edge.api.pages import Pages
from edge.api.request import RequestError, answer_to, level_of, parameters_of
from edge.api.server import MAX_STREAMS
from edge.language.program import Parameter
from edge.messages import Asked, CommandDone
from tests import watched
from tests.served import PATIENCE_S, Served, record_of_one, wait_for

PLAN = watched.plan()
JSON_POST = b"POST /api/batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
FILL = PLAN.recipes["rinse-and-fill"]


@pytest.fixture
def own(tmp_path):
    """A server of the test's own, with short times."""
    found = Served(tmp_path, ANSWER_S=0.3, SILENCE_S=0.8, SLOW_S=0.4, PERIOD_S=0.01, STREAM_BUFFER=4096)
    yield found
    found.close()


class Follower:
    """A client of /api/events. `buffer` makes its receive buffer as small as can be."""

    def __init__(self, served: Served, buffer: int | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
        if buffer:
            self.connection.sock = socket.socket()
            self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            self.connection.sock.settimeout(PATIENCE_S)
            self.connection.sock.connect(("127.0.0.1", served.port))
        self.connection.request("GET", "/api/events")
        self.response = self.connection.getresponse()

    def read(self, *names: str) -> dict:
        """The data of the next event, of one of these names if any are given. Raises EOFError at the end."""
        while True:
            lines = iter(lambda: self.response.readline().decode().rstrip("\n"), "")
            fields = dict(line.split(": ", 1) for line in lines)
            if not fields:
                raise EOFError
            if not names or fields["event"] in names:
                return json.loads(fields["data"])

    def close(self) -> None:
        self.response.close()
        self.connection.close()


@pytest.fixture
def follow():
    followers = []

    def start(served: Served, buffer: int | None = None) -> Follower:
        followers.append(Follower(served, buffer))
        return followers[-1]

    yield start
    for follower in followers:
        follower.close()


# --- reading ---------------------------------------------------------------------------------------------------------


def test_the_state(served):
    served.loop.put(mixer__level=12.5)
    wait_for(lambda: served.get("/api/state")["tags"]["mixer.level"]["value"] == 12.5, "the level comes")
    state = served.get("/api/state")
    assert state["cell"] == "bottling"
    level = {name: state["tags"]["mixer.level"][name] for name in ("value", "quality", "unit")}
    assert level == {"value": 12.5, "quality": "good", "unit": "L"}
    assert set(state["recipes"]) == {"rinse-and-fill", "changeover", "release"}
    assert served.get("/api/recipes") == state["recipes"]


def test_a_lost_device_is_bad_at_once(served):
    served.loop.lose("mixer")
    wait_for(lambda: not served.get("/api/state")["devices"]["mixer"]["up"], "mixer is lost")
    assert served.get("/api/state")["tags"]["mixer.level"]["value"] is None


def test_the_metrics(served):
    status, text, headers = served.ask("GET", "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=")
    families = {family.name: family for family in parse_metrics(text)}
    assert families["edge_device_up"].samples[0].value == 1
    status, text, headers = served.ask("GET", "/metrics", headers={"Accept": "application/openmetrics-text"})
    assert headers["Content-Type"].startswith("application/openmetrics-text") and text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/web/page.js", "text/javascript"),
        ("/web/style.css", "text/css"),
        ("/web/icon.svg", "image/svg+xml"),
        ("/web/vendor/preact.js", "text/javascript"),
        ("/web/vendor/LICENSE-preact.txt", "text/plain"),
    ],
)
def test_the_page_and_its_files(served, path, kind):
    status, _, headers = served.ask("GET", path)
    assert status == 200 and headers["Content-Type"].startswith(kind)
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in headers
    status, text, _ = served.ask("GET", path, headers={"If-None-Match": headers["ETag"]})
    assert (status, text) == (304, "")


@pytest.mark.parametrize("path", ["/web/../view.py", "/web/%2e%2e/view.py", "/web/", "/web/none.js", "/nothing"])
def test_nothing_else_is_served(served, path):
    status, answer, _ = served.ask("GET", path)
    assert status == 404 and "error" in answer


def test_every_module_that_the_page_imports_is_served():
    pages = Pages()
    wanted = {
        found.decode()
        for page in pages.files.values()
        for found in re.findall(rb"(?:from |src=|href=)['\"]/web/([^'\"]+)['\"]", page.content)
    }
    assert wanted and wanted <= set(pages.files)


# --- commands --------------------------------------------------------------------------------------------------------


def test_a_batch_from_start_to_reset(served):
    status, answer, headers = served.ask(
        "POST", "/api/batches", {"recipe": "rinse-and-fill", "parameters": {"volume": 10}, "by": "Amina"}
    )
    batch = answer["batch"]
    assert status == 201 and headers["Location"] == f"/api/batches/{batch}"
    assert re.fullmatch(r"[0-9]{8}-[0-9]{6}(-[0-9]+)?", batch)
    served.reach(batch, "running")
    assert served.post(f"/api/batches/{batch}/hold") == (200, {"batch": batch})
    served.reach(batch, "held")
    assert served.post(f"/api/batches/{batch}/restart")[0] == 200
    served.reach(batch, "running")
    served.loop.put(mixer__level=12.0, conveyor__bottle=True)
    (question,) = wait_for(lambda: served.batch(batch)["questions"], "the question")
    path = f"/api/batches/{batch}/answer"
    status, answer = served.post(path, prompt=question["prompt"], value="maybe")
    assert (status, answer["error"]) == (400, "answer one of yes, no")
    assert served.post(path, prompt=question["prompt"], value="yes")[0] == 200
    served.reach(batch, "complete")
    assert served.post(path, prompt=question["prompt"], value="yes")[0] == 409
    assert served.batch(batch)["recorded"][0]["name"] == "filled"
    assert served.post(f"/api/batches/{batch}/reset")[0] == 200
    wait_for(lambda: not served.get("/api/state")["batches"], "it is gone")


def test_an_engineer_s_question_takes_the_answer_of_who_declares_to_be_one(served):
    batch = served.start_batch("release")
    (question,) = wait_for(lambda: served.batch(batch)["questions"], "the question")
    assert question["who"] == "engineer" and question["labels"]["scrap"]["fr"] == "Rebuter"
    given = {"prompt": question["prompt"], "value": "scrap"}
    for role in ({}, {"role": "operator"}):
        status, answer = served.post(f"/api/batches/{batch}/answer", **given, **role)
        assert status == 409 and answer["say"]["fr"] == "seul un ingénieur peut répondre à cette question"
    assert served.post(f"/api/batches/{batch}/answer", **given, role="boss")[0] == 400
    assert served.post(f"/api/batches/{batch}/answer", **given, role="engineer")[0] == 200
    wait_for(lambda: served.batch(batch)["answers"] == {"fate": "scrap"}, "the answer")
    log = served.get("/api/state")["log"].values()
    (entry,) = [one for one in log if one["type"] == "answered" and one["batch"] == batch and one["label"]]
    assert (entry["role"], entry["label"]["ar"]) == ("engineer", "إتلاف")


@pytest.mark.parametrize("command", ["stop", "abort"])
def test_stop_and_abort(served, command):
    batch = served.start_batch()
    assert served.post(f"/api/batches/{batch}/{command}")[0] == 200
    served.reach(batch, {"stop": "stopped", "abort": "aborted"}[command])


def test_pause_and_resume(served):
    batch = served.start_batch()
    wait_for(lambda: served.batch(batch)["steps"], "its first step")
    assert served.post(f"/api/batches/{batch}/pause")[0] == 200
    served.reach(batch, "pausing")
    assert served.post(f"/api/batches/{batch}/resume")[0] == 200
    served.reach(batch, "running")


def test_batches_of_one_second_have_numbers(served):
    names = []
    for _ in range(3):
        names.append(served.start_batch("changeover", bottles=3))
        served.post(f"/api/batches/{names[-1]}/abort")
        served.reach(names[-1], "aborted")
    assert len(set(names)) == 3


def test_what_the_loop_refuses_is_a_conflict(served):
    batch = served.start_batch()
    status, answer = served.post("/api/batches", recipe="rinse-and-fill")
    assert status == 409 and batch in answer["error"]
    status, answer = served.post(f"/api/batches/{batch}/resume")
    assert status == 409 and "running" in answer["error"]
    status, answer = served.post("/api/tags/conveyor.lamp", value=True)
    assert status == 409 and batch in answer["error"]


def test_parameters_are_refused_before_the_loop_hears_of_them(served):
    before = len(served.loop.events)
    status, answer = served.post("/api/batches", recipe="rinse-and-fill", parameters={"volume": 80, "rinze": True})
    assert status == 400
    assert "volume: 80 L is out of range, it goes from 5 to 50 L" in answer["error"]
    assert "rinse-and-fill has no parameter `rinze` (did you mean `rinse`?)" in answer["error"]
    assert set(answer["fields"]) == {"volume", "rinze"}
    assert len(served.loop.events) == before


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/api/batches", b"{", 400, "no JSON"),
        ("/api/batches", b"\xff", 400, "no JSON"),
        ("/api/batches", b"[" * 60_000, 400, "Expected `object`"),
        ("/api/batches", b'{"parameters": {"a": ' + b"[" * 60_000, 400, "$.parameters"),
        ("/api/batches", b'{"recipe": "changeover"}', 400, "`by`"),
        ("/api/batches", b'{"recipe": "changeover", "by": ""}', 400, "$.by"),
        ("/api/batches", b'{"recipe": "changeover", "by": " "}', 400, "$.by"),
        ("/api/batches", b'{"recipe": "changeover", "by": "a\\nb"}', 400, "$.by"),
        ("/api/batches", b'{"recipe": 7, "by": "A"}', 400, "$.recipe"),
        ("/api/batches", b'{"recipe": "changeover", "by": "A", "parameter": {}}', 400, "unknown field `parameter`"),
        ("/api/batches", b'{"recipe": "changeover", "by": "A", "parameters": {"bottles": [1]}}', 400, "$.parameters"),
        ("/api/batches", b'{"recipe": "changeover", "by": "A"}', 400, "bottles is needed: it goes from 1 to 999 pcs"),
        ("/api/batches", b'{"recipe": "changeove", "by": "A"}', 404, "did you mean `changeover`?"),
        ("/api/batches/none/hold", b'{"by": "A"}', 404, "no batch `none`"),
        ("/api/batches/none/answer", b'{"by": "A", "prompt": 1}', 404, "no batch `none`"),
        ("/api/batches/none/explode", b'{"by": "A"}', 404, "no command `explode`"),
        ("/api/batches/none/start", b'{"by": "A"}', 404, "no command `start`"),
        ("/api/tags/mixer.levl", b'{"by": "A", "value": 1}', 404, "did you mean `mixer.level`?"),
        ("/api/tags/mixer.level", b'{"by": "A", "value": 1}', 400, "can only be read"),
        ("/api/tags/mixer.agitator", b'{"by": "A", "value": 301}', 400, "it goes from 0 to 300 rpm"),
        ("/api/tags/mixer.agitator", b'{"by": "A", "value": true}', 400, "it is a number"),
        ("/api/tags/mixer.inlet", b'{"by": "A", "value": 1}', 400, "true or false"),
        ("/api/alarms/7/acknowledge", b'{"by": "A"}', 404, "no alarm 7"),
        ("/api/alarms/x/acknowledge", b'{"by": "A"}', 404, "no alarm x"),
        ("/api/state", b"{}", 405, "takes GET, HEAD only"),
        ("/api/batches", b'"' + b"a" * 70_000 + b'"', 413, "at most 65536 bytes"),
    ],
)
def test_requests_that_are_wrong(served, path, body, status, words):
    got, answer, _ = served.ask("POST", path, body)
    assert got == status and words in answer["error"]
    assert "Traceback" not in answer["error"]


def test_a_tag_that_nobody_owns_is_set(served):
    assert served.post("/api/tags/conveyor.speed", value=250) == (200, {"tag": "conveyor.speed", "value": 250.0})
    wait_for(lambda: served.get("/api/state")["tags"]["conveyor.speed"]["value"] == 250.0, "the speed comes back")
    assert served.get("/api/state")["tags"]["conveyor.speed"]["level"] == 250.0


def test_an_alarm_is_acknowledged(served):
    served.loop.lose("mixer")
    alarms = wait_for(lambda: served.get("/api/state")["alarms"], "the alarm")
    (number,) = alarms
    assert served.post(f"/api/alarms/{number}/acknowledge") == (200, {"alarm": int(number)})
    wait_for(lambda: served.get("/api/state")["alarms"][number]["acknowledged"], "it is acknowledged")
    assert served.post(f"/api/alarms/{number}/acknowledge")[0] == 409


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00\xff garbage\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 400),
        (b"GET /web/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /api/batches/%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"POST /api/batches HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (JSON_POST + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd", 415),
        (JSON_POST + b"Content-Length: 20\r\n\r\n{", 408),
    ],
)
def test_what_is_no_request_is_refused_and_stops_nothing(own, data, status):
    with socket.create_connection(("127.0.0.1", own.port), PATIENCE_S) as connection:
        connection.sendall(data)
        assert connection.recv(65_536).split(b" ", 2)[1] == str(status).encode()
    assert own.get("/api/state")["loop"]["alive"]


def test_a_request_that_breaks_off(own):
    with socket.create_connection(("127.0.0.1", own.port), PATIENCE_S) as connection:
        connection.sendall(JSON_POST + b"Content-Length: 20\r\n\r\n{")
    assert own.get("/api/state")["loop"]["alive"]


# --- who may ask -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),
        ({"Origin": "http://localhost:{port}", "Host": "localhost:{port}"}, 404),
        ({"Origin": "http://127.0.0.1:{port}"}, 404),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.example:{port}"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost:{port}@evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_commands_from_elsewhere_are_refused(served, headers, status):
    filled = {name: value.format(port=served.port) for name, value in headers.items()}
    got, answer, _ = served.ask("POST", "/api/batches/none/hold", {"by": "A"}, filled)
    assert got == status and answer["error"]


def test_a_foreign_name_cannot_even_read(served):
    assert served.ask("GET", "/api/state", headers={"Host": "evil.example"})[0] == 403
    assert served.ask("GET", "/api/state", headers={"Host": f"localhost:{served.port}"})[0] == 200


@pytest.mark.parametrize(
    ("listened", "host", "known"),
    [
        ("127.0.0.1", "127.0.0.1:8088", True),
        ("127.0.0.1", "[::1]:8088", True),
        ("127.0.0.1", "LOCALHOST", True),
        ("127.0.0.1", "192.168.1.7:8088", False),
        ("127.0.0.1", f"{socket.gethostname()}:8088", True),
        ("192.168.1.7", "192.168.1.7:8088", True),
        ("192.168.1.7", "192.168.1.8:8088", False),
        ("0.0.0.0", "192.168.1.7:8088", True),
        ("::", "[fe80::1]:8088", True),
        ("0.0.0.0", "192.168.1.7.nip.example", False),
        ("0.0.0.0", "plant.example", False),
        ("0.0.0.0", "[::1", False),
        ("0.0.0.0", "a b", False),
        ("0.0.0.0", "", False),
    ],
)
def test_the_names_of_this_machine(listened, host, known):
    assert (Guard(listened).fault("GET", [host], {}) == "") == known
    assert Guard(listened).fault("GET", [host, host], {}) != ""
    assert Guard(listened).fault("GET", [], {}) != ""


# --- the stream ------------------------------------------------------------------------------------------------------


def test_the_stream_brings_the_state_then_what_changes(served, follow):
    follower = follow(served)
    assert follower.response.headers["Content-Type"] == "text/event-stream"
    state = follower.read()
    assert state["tags"]["mixer.level"]["value"] == 0.0
    served.loop.put(mixer__level=33.0)
    change = follower.read("change")
    assert change["tags"]["mixer.level"]["value"] == 33.0
    assert "conveyor.weight" not in change["tags"] and "recipes" not in change
    batch = served.start_batch()
    for change in iter(lambda: follower.read("change"), None):
        if change.get("batches", {}).get(batch, {}).get("state") == "running":
            break


def test_a_quiet_stream_beats(served, follow):
    follower = follow(served)
    first = follower.read("state")["cycle"]
    beats = [follower.read("beat")["cycle"] for _ in range(2)]
    assert first < beats[0] < beats[1]


def test_followers_are_bounded(served, follow):
    def admitted() -> Follower:
        """One more follower; those of other tests may not have been missed yet."""
        return wait_for(lambda: (one := follow(served)).response.status == 200 and one, "there is room")

    followers = [admitted() for _ in range(MAX_STREAMS)]
    for one in followers:
        one.read("state")
    status, answer, _ = served.ask("GET", "/api/events")
    assert status == 503 and f"{MAX_STREAMS} pages" in answer["error"]
    served.loop.put(mixer__level=5.0)
    assert [one.read("change")["tags"]["mixer.level"]["value"] for one in followers] == [5.0] * MAX_STREAMS
    for one in followers:
        one.close()
    assert admitted().read("state")["cell"] == "bottling"


def test_a_follower_that_takes_nothing_is_dropped(own, follow):
    lazy, keen = follow(own, buffer=1024), follow(own)
    assert lazy.response.status == 200
    taken = 0
    while taken < 1_000_000:
        own.loop.lose("mixer", "no answer" + "." * 4000)
        own.loop.find("mixer")
        taken += len(json.dumps(keen.read("change")))
    for _ in range(2):
        keen.read("beat")
    with pytest.raises((EOFError, http.client.IncompleteRead, ConnectionError)):
        while True:
            lazy.read()
    own.loop.put(mixer__level=5.0)
    assert keen.read("change")["tags"]["mixer.level"]["value"] == 5.0


# --- when the loop, or this process, goes -----------------------------------------------------------------------------


def test_a_loop_that_does_not_answer(own):
    own.loop.mute = True
    status, answer = own.post("/api/batches", recipe="rinse-and-fill")
    assert status == 503 and "has not answered" in answer["error"]
    wait_for(lambda: not own.get("/api/state")["loop"]["alive"], "the silence is noticed")
    state = own.get("/api/state")
    assert {tag["value"] for tag in state["tags"].values()} == {None}
    status, answer = own.post("/api/batches", recipe="rinse-and-fill")
    assert status == 503 and "not running" in answer["error"]
    own.loop.mute = False
    wait_for(lambda: own.get("/api/state")["tags"]["mixer.level"]["quality"] == "good", "the loop is heard again")
    assert own.get("/api/state")["loop"]["alive"]


def test_what_was_answered_503_is_not_done_later(own):
    own.loop.mute = True
    status, answer = own.post("/api/tags/conveyor.lamp", value=True)
    assert status == 503 and "it will not do" in answer["error"] and set(answer["say"]) == {"en", "fr", "ar"}
    with own.loop.lock:
        own.loop.cycle += 100  # a loop that stood still skips the cycles that it has missed
        own.loop.mute = False
    wait_for(lambda: [one for one in own.loop.events if isinstance(one, CommandDone)], "the loop takes the command")
    assert own.get("/api/state")["tags"]["conveyor.lamp"]["level"] is False
    wait_for(lambda: own.post("/api/tags/conveyor.lamp", value=True)[0] == 200, "the loop obeys again")


def test_it_ends_when_told_to_even_with_followers(own, follow):
    follower = follow(own)
    follower.read("state")
    assert own.stop() == 0
    with pytest.raises((EOFError, http.client.IncompleteRead)):
        while True:
            follower.read()
    own.start()


def test_a_new_process_on_the_same_port_knows_what_runs(own):
    record_of_one(own.state_dir / record.FILE, "earlier", state="complete")
    batch = own.start_batch()
    record_of_one(own.state_dir / record.FILE, batch, state="running")
    own.reach(batch, "running")
    own.process.kill()
    own.process.wait()
    own.start()
    wait_for(lambda: own.get("/api/state")["batches"], "the batch is known")
    wait_for(lambda: own.batch(batch)["recorded"], "the record is read")
    assert own.batch(batch)["state"] == "running"
    assert own.batch(batch)["started"] == "2026-01-02T03:04:05.000Z"
    assert own.batch(batch)["recorded"] == [{"name": "filled", "value": 12.5, "unit": "L", "step": 6}]


# --- the record ------------------------------------------------------------------------------------------------------


def test_batches_of_the_record_and_of_now(own):
    assert own.get("/api/batches") == []
    record_of_one(own.state_dir / record.FILE, "earlier", state="complete")
    batch = own.start_batch()
    live, earlier = own.get("/api/batches")
    assert (live["id"], live["state"], live["live"], live["ended"]) == (batch, "running", True, None)
    assert (earlier["id"], earlier["state"], earlier["live"]) == ("earlier", "complete", False)
    assert earlier["ended"] == "2026-01-02T03:04:06Z"
    assert [one["id"] for one in own.get("/api/batches?limit=1")] == [batch, "earlier"]
    assert own.ask("GET", "/api/batches?limit=none")[0] == 400
    found = own.get("/api/batches/earlier")
    assert (found["live"], found["parameters"]) == (None, [{"name": "volume", "value": 20, "unit": "L"}])
    assert own.get(f"/api/batches/{batch}")["live"]["state"] == "running"
    status, answer, _ = own.ask("GET", "/api/batches/none")
    assert status == 404 and "no batch `none`" in answer["error"]


def test_a_damaged_record_is_said_and_stops_nothing(own):
    (own.state_dir / record.FILE).write_bytes(b"no database at all" * 100)
    status, answer, _ = own.ask("GET", "/api/batches")
    assert status == 503 and "damaged" in answer["error"]
    own.start_batch()


# --- the address -----------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_an_error_in_words():
    with api.bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(api.CannotListen, match=f"port {port} of 127.0.0.1 is in use"):
            api.bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "x" * 300])
def test_an_address_of_another_machine(host):
    with pytest.raises(api.CannotListen, match="no address of this machine"):
        api.bind(host, 0)


def test_the_url_of_an_ipv6_address():
    with api.bind("::1", 0) as listener:
        assert re.fullmatch(r"http://\[::1\]:[0-9]+/", api.url(listener))


# --- checks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"volume": 4.9}, "volume: 4.9 L is out of range, it goes from 5 to 50 L"),
        ({"volume": "ten"}, "volume: ten is not a number"),
        ({"volume": True}, "volume: True is not a number"),
        ({"volume": float("nan")}, "volume: nan is not a number"),
        ({"side": "top"}, "side: top is none of front, back"),
        ({"rinse": "yes"}, "rinse: yes is neither true nor false"),
        ({"x": 1}, "rinse-and-fill has no parameter `x`"),
    ],
)
def test_wrong_parameters(given, words):
    with pytest.raises(RequestError, match=re.escape(words)) as error:
        parameters_of(FILL, given)
    assert error.value.status == 400 and list(error.value.fields) == list(given)


@pytest.mark.parametrize("given", [{}, {"volume": 5}, {"volume": 50.0, "side": "back", "rinse": False}])
def test_right_parameters(given):
    assert parameters_of(FILL, given) == {"volume": 20, "side": "front", "rinse": True} | given


def test_a_number_with_one_limit_and_a_text():
    recipe = watched.plan().recipes["changeover"]
    low = Parameter("mass", "number", "kg", low=0.5)
    text = Parameter("note", "text")
    one = type(recipe)(
        **{name: getattr(recipe, name) for name in recipe.__struct_fields__} | {"parameters": (low, text)}
    )
    with pytest.raises(RequestError, match=r"mass is needed: it is at least 0\.5 kg; note is needed"):
        parameters_of(one, {})
    with pytest.raises(RequestError, match=r"mass: 0\.1 kg is out of range, it is at least 0\.5 kg; note: a text"):
        parameters_of(one, {"mass": 0.1, "note": " "})


def asked(kind: str, **more: object) -> Asked:
    return Asked("B1", 1, 0, {"en": "?"}, kind, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("question", "value", "words"),
    [
        (asked("confirm"), True, ""),
        (asked("confirm"), None, ""),
        (asked("confirm"), False, "to be confirmed"),
        (asked("choice", answers=("yes", "no")), "yes", ""),
        (asked("choice", answers=("yes", "no")), True, "answer one of yes, no"),
        (asked("number", unit="g", low=10, high=500), 10, ""),
        (asked("number", unit="g", low=10, high=500), 9, "9 g is out of range, it goes from 10 to 500 g"),
        (asked("number"), "9", "9 is not a number"),
        (asked("number"), None, "nothing is not a number"),
        (asked("text"), "A-7", ""),
        (asked("text"), "", "a text is needed"),
        (asked("text"), 7, "a text is needed"),
        (asked("text"), "x" * 201, "at most 200 characters"),
    ],
)
def test_answers(question, value, words):
    if not words:
        assert answer_to(question, value) == (True if value is None else value)
        return
    with pytest.raises(RequestError, match=re.escape(words)):
        answer_to(question, value)


def test_levels():
    assert level_of(PLAN.cell.tag("mixer.agitator"), 120) == 120.0
    with pytest.raises(RequestError, match="can only be read"):
        level_of(PLAN.cell.tag("mixer.level"), 1)
