"""The HTTP API: what a View knows, and commands to the loop. This process waits for the loop, never the loop for it.

GET  /api/state, /api/events (server-sent), /api/recipes, /api/versions, /api/batches, /api/batches/{id}, /metrics, /
     and /web/…
POST /api/batches {recipe, parameters, mode, by}, /api/batches/{id}/{command} {by}, /api/batches/{id}/mode {mode, by},
     /api/batches/{id}/confirm {step, by}, /api/batches/{id}/answer {prompt, value, by, role}, /api/recipes/reload {by},
     /api/tags/{tag} {value, by}, /api/alarms/{id}/acknowledge {by}, /api/alarms/{id}/shelve {minutes, why, by},
     /api/alarms/{id}/unshelve {by}

An error is {"error": text}: 400 what was asked is wrong, 403 where it comes from, 404 there is no such thing, 409 the
loop refuses it now, 422 a recipe file has mistakes (`problems`), 503 the loop does not answer. `say` is the text in the
languages of the floor, `fields` says what is wrong with which parameter.
"""

import asyncio
import itertools
import logging
import signal
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from prometheus_client.exposition import choose_encoder

from edge import record
from edge.api.files import Files
from edge.api.guard import Guard
from edge.api.link import Link
from edge.api.metrics import registry
from edge.api.pages import Pages
from edge.api.request import (
    Answer,
    Confirm,
    RequestError,
    SetMode,
    SetTag,
    Shelve,
    Start,
    Steer,
    answer_to,
    level_of,
    parameters_of,
    recipe_of,
    tag_of,
)
from edge.api.stream import Stream
from edge.batch_view import BatchView
from edge.devices import iso
from edge.engine import refusals, states
from edge.language.program import Plan
from edge.view import View

log = logging.getLogger("edge.api")

MAX_BODY = 64 * 1024
MAX_STREAMS = 64
SLOW_S = 5.0
STREAM_BUFFER = 64 * 1024
STEERING = (*(command for command in states.COMMANDS if command != "start"),)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_Body = TypeVar("_Body", bound=msgspec.Struct)


class Server:
    """The application: its handlers and what they share."""

    def __init__(self, state_dir: Path, guard: Guard, link: Link, restarts: Mapping[str, int]) -> None:
        self.plan = link.view.plan
        self.record_file = state_dir / record.FILE
        self.guard = guard
        self.link = link
        self.view = link.view
        self.stream = Stream(self.view.state)
        self.pages = Pages()
        self.metrics = registry(self.view, restarts)
        self.files = Files(link)
        self.given: deque[str] = deque(maxlen=64)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._answer_errors, self._check_origin], client_max_size=MAX_BODY)
        app.on_response_prepare.append(_add_headers)
        app.add_routes(
            [
                web.get("/", self.page),
                web.get("/web/{path:.+}", self.page),
                web.get("/metrics", self.scrape),
                web.get("/api/state", self.state),
                web.get("/api/events", self.events),
                web.get("/api/recipes", self.recipes),
                web.get("/api/versions", self.versions),
                web.post("/api/recipes/reload", self.reload),
                web.get("/api/batches", self.batches),
                web.get("/api/batches/{batch}", self.batch),
                web.post("/api/batches", self.start),
                web.post("/api/batches/{batch}/answer", self.answer),
                web.post("/api/batches/{batch}/mode", self.set_mode),
                web.post("/api/batches/{batch}/confirm", self.confirm),
                web.post("/api/batches/{batch}/{command}", self.steer),
                web.post("/api/tags/{tag}", self.set_tag),
                web.post("/api/alarms/{alarm}/shelve", self.shelve),
                web.post("/api/alarms/{alarm}/unshelve", self.unshelve),
                web.post("/api/alarms/{alarm}/acknowledge", self.acknowledge),
            ]
        )
        return app

    # --- before and after every handler ------------------------------------------------------------------------------

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every error is JSON in words."""
        try:
            return await handler(request)
        except RequestError as error:
            more = {"fields": error.fields, "say": error.say}
            return _json({"error": error.text, **{name: one for name, one in more.items() if one}}, error.status)
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            return _json({"error": f"{request.path} takes {allowed} only"}, error.status, {"Allow": allowed})
        except web.HTTPRequestEntityTooLarge as error:
            return _json({"error": f"a request has at most {MAX_BODY} bytes"}, error.status)
        except web.HTTPException as error:
            return _json({"error": f"{request.path}: {error.reason}"}, error.status)
        except ConnectionError:
            return _json({"error": "the connection has broken off"}, 400)
        except Exception:
            log.exception("%s %s failed by a fault of edge itself", request.method, request.path)
            return _json({"error": "edge itself has failed here; its log says more"}, 500)

    @web.middleware
    async def _check_origin(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = request.headers
        fault = self.guard.fault(request.method, headers.getall(hdrs.HOST, []), headers)
        if fault:
            raise RequestError(403, fault)
        plain = headers.get(hdrs.CONTENT_ENCODING, "identity") == "identity"
        if request.method == "POST" and not (plain and request.content_type == "application/json"):
            raise RequestError(415, "send plain JSON, with Content-Type: application/json and no Content-Encoding")
        return await handler(request)

    async def _body(self, request: web.Request, kind: type[_Body]) -> _Body:
        try:
            async with asyncio.timeout(SLOW_S):
                text = await request.read()
        except TimeoutError:
            raise RequestError(408, "the request did not come to its end") from None
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.ValidationError as error:
            raise RequestError(400, f"this is not what {request.path} takes: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(400, f"this is no JSON: {error}") from None

    # --- to read -----------------------------------------------------------------------------------------------------

    async def page(self, request: web.Request) -> web.Response:
        found = self.pages.find(request.match_info.get("path", "index.html"))
        if found is None:
            raise web.HTTPNotFound
        headers = {"Cache-Control": "no-cache", "ETag": found.etag}
        if request.headers.get(hdrs.IF_NONE_MATCH) == found.etag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=found.content, headers={**headers, "Content-Type": found.kind})

    async def scrape(self, request: web.Request) -> web.Response:
        encode, kind = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=encode(self.metrics), headers={"Content-Type": kind})

    async def state(self, request: web.Request) -> web.Response:
        return _json(self.view.state())

    async def recipes(self, request: web.Request) -> web.Response:
        return _json(self.view.recipes())

    async def versions(self, request: web.Request) -> web.Response:
        """Every version of a recipe that has come into force, the oldest first."""
        if not self.record_file.exists():
            return _json([])
        try:
            return _json(await asyncio.to_thread(record.versions, self.record_file))
        except record.NoRecord as error:
            raise RequestError(503, str(error)) from None

    async def events(self, request: web.Request) -> web.StreamResponse:
        """A stream's bytes wait in one small buffer; who does not take them is dropped."""
        if self.stream.listeners >= MAX_STREAMS:
            raise RequestError(503, f"{MAX_STREAMS} pages are open already: close one")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        transport = request.transport
        if transport is not None:
            transport.set_write_buffer_limits(high=STREAM_BUFFER)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STREAM_BUFFER)
        async for packet in self.stream.events():
            try:
                async with asyncio.timeout(SLOW_S):
                    await response.write(packet)
                    await response.drain()
            except TimeoutError:
                if transport is not None:
                    transport.abort()
                break
            except ConnectionError:
                break
        return response

    async def batches(self, request: web.Request) -> web.Response:
        """The record's batches, the latest first, with those that live now and are not in it yet before them.

        `lot` and `order` ask for those of that lot or order.
        """
        limit = request.query.get("limit", "100")
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= 1000):
            raise RequestError(400, f"limit is a number from 1 to 1000, not `{limit}`")
        of = {name: request.query.get(name, "") for name in ("lot", "order")}
        found = await self._recorded(int(limit), **of)
        recorded = {one.id for one in found}
        live = [self._summary(one) for one in self.view.batches.values() if one.batch not in recorded]
        live = [one for one in live if all(one[name] == number for name, number in of.items() if number)]
        return _json([*reversed(live), *({**msgspec.to_builtins(one), "live": self._lives(one.id)} for one in found)])

    async def _recorded(self, limit: int, **of: str) -> list[record.Summary]:
        if not self.record_file.exists():
            return []
        try:
            return await asyncio.to_thread(record.batches, self.record_file, limit, **of)
        except record.NoRecord as error:
            raise RequestError(503, str(error)) from None

    def _summary(self, batch: BatchView) -> dict[str, Any]:
        """A batch that is not in the record yet, as the record would list it."""
        recipe = self.plan.version(batch.recipe, batch.hash)
        numbers = recipe.identified(batch.parameters) if recipe is not None else {}
        return {
            "id": batch.batch,
            "recipe": batch.recipe,
            "state": batch.state,
            "by": batch.by,
            "started": iso(batch.started_ns),
            "ended": None,
            "lot": numbers.get("lot", ""),
            "order": numbers.get("order", ""),
            "live": True,
        }

    def _lives(self, batch: str) -> bool:
        return batch in self.view.batches

    async def batch(self, request: web.Request) -> web.Response:
        """The record of one batch; `live` is what the loop knows of it now, null where it does not any more."""
        name = request.match_info["batch"]
        view = self.view.batches.get(name)
        live = self.view.batch(view) if view is not None else None
        try:
            found = await asyncio.to_thread(record.batch, self.record_file, name)
        except record.NoRecord as error:
            if view is not None:
                return _json({**self._summary(view), "live": live})
            # the record's own refusals have no cause; a disk that fails has
            raise RequestError(404 if error.__cause__ is None else 503, str(error)) from None
        return _json({**msgspec.to_builtins(found), "live": live})

    # --- to command --------------------------------------------------------------------------------------------------

    async def start(self, request: web.Request) -> web.Response:
        body = await self._body(request, Start)
        recipe = recipe_of(self.plan, body.recipe)
        parameters = parameters_of(recipe, body.parameters)
        batch = await self._new_id()
        await self.link.command(
            "start", body.by, batch=batch, recipe=recipe.name, parameters=parameters, mode=body.mode
        )
        return _json({"batch": batch}, 201, {"Location": f"/api/batches/{batch}"})

    async def _new_id(self) -> str:
        """The local time; a number is added where a batch has it already."""
        stem = time.strftime("%Y%m%d-%H%M%S")
        for name in itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2))):
            if name in self.given or name in self.view.batches:
                continue
            self.given.append(name)
            try:
                await asyncio.to_thread(record.batch, self.record_file, name)
            except record.NoRecord:
                return name
        raise AssertionError

    async def reload(self, request: web.Request) -> web.Response:
        """Takes in the recipe files that have changed; 422 where some have mistakes, whose versions in force stay."""
        body = await self._body(request, Steer)
        done = await self.files.reload(body.by)
        return _json(done, 422 if "error" in done else 200)

    async def steer(self, request: web.Request) -> web.Response:
        command = request.match_info["command"]
        if command not in STEERING:
            raise RequestError(
                404, f"there is no command `{command}`; there are {', '.join(STEERING)}, mode, confirm and answer"
            )
        body = await self._body(request, Steer)
        batch = self._live(request)
        await self.link.command(command, body.by, batch=batch.batch)
        return _json({"batch": batch.batch})

    async def set_mode(self, request: web.Request) -> web.Response:
        body = await self._body(request, SetMode)
        batch = self._live(request)
        await self.link.command("mode", body.by, batch=batch.batch, mode=body.mode)
        return _json({"batch": batch.batch, "mode": body.mode})

    async def confirm(self, request: web.Request) -> web.Response:
        body = await self._body(request, Confirm)
        batch = self._live(request)
        await self.link.command("confirm", body.by, batch=batch.batch, step=body.step)
        return _json({"batch": batch.batch})

    async def answer(self, request: web.Request) -> web.Response:
        body = await self._body(request, Answer)
        batch = self._live(request)
        asked = batch.questions.get(body.prompt)
        if asked is None:
            raise RequestError(409, "this question is not open any more", say=refusals.QUESTION_CLOSED)
        value = answer_to(asked, body.value)
        await self.link.command("answer", body.by, batch=batch.batch, prompt=body.prompt, value=value, role=body.role)
        return _json({"batch": batch.batch})

    def _live(self, request: web.Request) -> BatchView:
        name = request.match_info["batch"]
        batch = self.view.batches.get(name)
        if batch is None:
            raise RequestError(404, f"no batch `{name}` is here; /api/state has those that are")
        return batch

    async def set_tag(self, request: web.Request) -> web.Response:
        body = await self._body(request, SetTag)
        tag = tag_of(self.plan, request.match_info["tag"])
        value = level_of(tag, body.value)
        await self.link.command("set", body.by, tag=tag.name, value=value)
        return _json({"tag": tag.name, "value": value})

    async def acknowledge(self, request: web.Request) -> web.Response:
        return await self._see_to(request, "acknowledge")

    async def unshelve(self, request: web.Request) -> web.Response:
        return await self._see_to(request, "unshelve")

    async def _see_to(self, request: web.Request, command: str) -> web.Response:
        body = await self._body(request, Steer)
        number = self._alarm(request)
        await self.link.command(command, body.by, alarm=number)
        return _json({"alarm": number})

    async def shelve(self, request: web.Request) -> web.Response:
        body = await self._body(request, Shelve)
        number = self._alarm(request)
        await self.link.command("shelve", body.by, alarm=number, cause=body.why, seconds=body.minutes * 60)
        return _json({"alarm": number})

    def _alarm(self, request: web.Request) -> int:
        name = request.match_info["alarm"]
        number = int(name) if name.isascii() and name.isdigit() and len(name) < 16 else -1
        if number not in self.view.alarms:
            raise RequestError(404, f"there is no alarm {name}")
        return number


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    response.headers.pop(hdrs.SERVER, None)


def _json(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(data),
        status=status,
        headers={"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store", **(headers or {})},
    )


def _in_a_line(entry: logging.LogRecord) -> bool:
    """What is wrong with a request that is no HTTP is worth a line of the log, not a traceback."""
    if entry.exc_info is not None:
        entry.msg, entry.args, entry.exc_info = f"{entry.getMessage()}: {entry.exc_info[1]!r}", (), None
    return True


def serve(
    plan: Plan,
    state_dir: Path,
    listener: socket.socket,
    loop: socket.socket,
    fieldbuses: Sequence[socket.socket],
    restarts: Mapping[str, int],
) -> None:
    """Serves until SIGTERM."""
    link = Link(View(plan), loop, fieldbuses, state_dir / record.FILE)
    server = Server(state_dir, Guard(listener.getsockname()[0]), link, restarts)
    uvloop.run(_serve(server, listener))


async def _serve(server: Server, listener: socket.socket) -> None:
    running = asyncio.get_running_loop()
    ended = asyncio.Event()
    running.add_signal_handler(signal.SIGTERM, ended.set)
    http_log = logging.getLogger("edge.http")
    http_log.addFilter(_in_a_line)
    runner = web.AppRunner(
        server.application(),
        access_log=None,
        logger=http_log,
        auto_decompress=False,
        shutdown_timeout=0.3,
        keepalive_timeout=30,
    )
    await runner.setup()
    await web.SockSite(runner, listener).start()
    tasks = [asyncio.create_task(work) for work in (server.link.run(), server.link.recall(), server.stream.run())]
    finished = asyncio.create_task(ended.wait())
    await asyncio.wait([*tasks, finished], return_when=asyncio.FIRST_COMPLETED)
    server.stream.close()
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await runner.cleanup()
    for fault in results:
        if isinstance(fault, Exception):
            raise fault
