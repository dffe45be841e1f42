"""The terminal as a watcher of the loop: starts one recipe, shows its progress, asks its questions (`edge run`)."""

import asyncio
import signal
import socket
import sys
import time

import msgspec

from drivers.value import display
from edge import channel
from edge.console import Console
from edge.daemon import ABORT_BATCH, STOP_BATCH
from edge.engine import states, words
from edge.image import RECORD, unpack_record
from edge.language.program import Plan
from edge.messages import (
    AlarmRaised,
    Answered,
    Asked,
    Command,
    CommandDone,
    DeviceReport,
    Event,
    Hello,
    Recorded,
    StateChanged,
    StepEnded,
    StepStarted,
    StepWaits,
    pack,
    unpack_inward,
)
from edge.order import Order, parse_answer, span
from edge.record_text import labelled
from edge.view import View

EXIT_CODES = {"complete": 0, "stopped": 3, "aborted": 4}
NOT_BEGUN = 1
PATIENCE_S = 10.0
"""How long a start waits for a device that has said why it is not there: it may be starting too."""

FIRST_CONTACT_S = 90.0
"""And for one that has said nothing yet: a small machine takes its time to make the key of its first certificate."""

COMMANDS = ("hold", "restart", "pause", "resume", "stop", "abort")
MODES = (states.AUTOMATIC, states.SEMI_AUTOMATIC)
"""What a person can type while the batch runs."""


class Terminal:
    """One order, from its start to its end. `run` gives the exit code.

    `log` brings those lines of the log that a person must see, `simulation` what simulated PLCs say of themselves.
    """

    def __init__(
        self, plan: Plan, order: Order, console: Console, log: socket.socket, simulation: socket.socket
    ) -> None:
        self.plan = plan
        self.order = order
        self.console = console
        self.log = log
        self.simulation = simulation
        self.view = View(plan)
        self.recipe = plan.recipes[order.recipe]
        self.loop: socket.socket
        self.ended: asyncio.Future[int]
        self.began = time.monotonic()
        self.sent: dict[int, Command] = {}
        self.commands = 0
        self.started = self.ending = False
        self.asking: Asked | None = None
        self.cause = ""
        self.connected: set[int] = set()
        self.down: dict[int, set[str]] = {}

    def run(self, loop: socket.socket) -> int:
        self.loop = loop
        return asyncio.run(self._run())

    async def _run(self) -> int:
        running = asyncio.get_running_loop()
        self.ended = running.create_future()
        running.add_reader(self.loop, self._take)
        running.add_reader(self.log, self._told, self.log, "! ")
        running.add_reader(self.simulation, self._told, self.simulation, "")
        running.add_signal_handler(STOP_BATCH, self.interrupted, "stop")
        running.add_signal_handler(ABORT_BATCH, self.interrupted, "abort")
        running.add_signal_handler(signal.SIGTERM, self._end, EXIT_CODES["stopped"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {STOP_BATCH, ABORT_BATCH})
        if self.console.typing:
            running.add_reader(sys.stdin, self._keys)
        channel.send(self.loop, pack(Hello("terminal")))
        running.set_exception_handler(lambda _, context: self._fail(context.get("exception")))
        tasks = [asyncio.create_task(work) for work in (self._start(), self._show())]
        for task in tasks:
            task.add_done_callback(lambda task: self._fail(None if task.cancelled() else task.exception()))
        try:
            return await self.ended
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {STOP_BATCH, ABORT_BATCH, signal.SIGTERM})  # it ends already
            self.console.show("")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)

    def _fail(self, error: BaseException | None) -> None:
        """A fault of this process ends it: nobody waits at a terminal that has stopped to listen."""
        if error is not None and not self.ended.done():
            self.ended.set_exception(error)

    # --- to the loop -------------------------------------------------------------------------------------------------

    def _command(self, do: str, **fields: object) -> None:
        self.commands += 1
        command = Command(self.commands, do, self.order.by, self.order.batch)
        self.sent[command.id] = command = msgspec.structs.replace(command, **fields)
        channel.send(self.loop, pack(command))

    async def _start(self) -> None:
        """Asks for the start until it is granted, as long as the devices may still be coming."""
        while not self.started and not self.ending:
            self._command("start", recipe=self.order.recipe, parameters=self.order.parameters, mode=self.order.mode)
            await asyncio.sleep(0.1)

    def interrupted(self, do: str) -> None:
        """The daemon is to end: first the batch, in order or at once; one that has ended already needs neither."""
        if self.ended.done():
            return
        self.ending = True
        if not self.started:
            self._say("interrupted before the start")
        elif do == "stop":
            self._say("interrupted: the batch is stopped; again: it is aborted")
        else:
            self._say("interrupted again: the batch is aborted")
        self._command(do, cause=f"{do} by {self.order.by}: edge run was interrupted")

    # --- from the loop -----------------------------------------------------------------------------------------------

    def _take(self) -> None:
        for packet in channel.drain(self.loop):
            if packet[0] == RECORD:
                for inward in unpack_record(packet)[1]:
                    if inward[0] == 0:
                        self._device(unpack_inward(inward))
            for event in self.view.feed(packet):
                self._event(event)
        if self.view.incomplete:
            channel.send(self.loop, pack(Hello("terminal")))

    def _told(self, end: socket.socket, mark: str) -> None:
        for packet in channel.drain(end):
            self._say(f"{mark}{packet.decode(errors='replace').rstrip()}")

    def _device(self, message: object) -> None:
        """A device that came or went: each reason is said once while it is away."""
        if not isinstance(message, DeviceReport):
            return
        name = self.plan.cell.devices[message.device].name
        if message.up:
            self.down.pop(message.device, None)
            if message.device not in self.connected:
                self.connected.add(message.device)
                self._say(f"{name}: connected")
            return
        self.connected.discard(message.device)
        said = self.down.setdefault(message.device, set())
        if message.text not in said:
            said.add(message.text)
            self._say(f"! {name}: {words.detail(message)}")

    def _event(self, event: Event) -> None:
        match event:
            case CommandDone():
                self._answered(event)
            case AlarmRaised():
                if event.kind != "device-lost":  # the device's own line says more
                    detail = f" ({event.detail})" if event.detail else ""
                    self._say(f"! {words.english(event.say)}{detail}")
            case StateChanged() if event.batch == self.order.batch:
                self._changed(event)
            case StepWaits(waits=True) if event.batch == self.order.batch:
                self._offered(event)
            case StepStarted() if event.batch == self.order.batch:
                self._say(f"> {_named(event.name, event.branch)}")
            case StepEnded() if event.batch == self.order.batch:
                self._step_ended(event)
            case Recorded() if event.batch == self.order.batch:
                self._say(f"  recorded {event.name} = {display(event.value, event.unit, 4)}")
            case Asked() if event.batch == self.order.batch:
                self._asked(event)
            case Answered() if event.batch == self.order.batch:
                self._say(f"  answered {labelled(display(event.value), event.label)} by {event.by}")
                self._ask_next()
            case _:
                pass

    def _step_ended(self, ended: StepEnded) -> None:
        """Says how a step ended; one that was over at once needs no second line."""
        seconds = ended.active * self.plan.cell.scan_ns / 1e9
        how = {"done": "done", "timeout": "took too long", "cut": "cut short"}[ended.how]
        if ended.how != "done" or seconds >= 0.05:
            self._say(f"  {_named(ended.name, ended.branch)}: {how} after {seconds:.1f} s")

    def _answered(self, done: CommandDone) -> None:
        """What came of a command of this terminal."""
        command = self.sent.pop(done.id, None)
        if command is None or (command.do == "start" and self.started):
            return
        if command.do == "start":
            self.started = done.ok or self.order.batch in self.view.batches
            if not self.started and not self._may_still_come():
                self._say(f"! cannot start {self.order.recipe}: {done.text}")
                self._end(NOT_BEGUN)
        elif not done.ok and not self.started and self.ending:
            self._end(EXIT_CODES["stopped"])
        elif not done.ok:
            self._say(f"! refused: {done.text}")
            self._ask_next()

    def _may_still_come(self) -> bool:
        """Whether what the recipe needs may be on its way: a device that connects, a first value."""
        waited = time.monotonic() - self.began
        silent = [device for device in self._away() if device not in self.down]
        return waited < (FIRST_CONTACT_S if silent else PATIENCE_S) and bool(self._away() or self._without_value())

    def _away(self) -> list[int]:
        return [device for device in self.recipe.devices if not self.view.devices[device].up]

    def _without_value(self) -> list[int]:
        return [
            tag.index
            for device in self.recipe.devices
            for tag, value, _, _ in self.view.devices[device].readings()
            if value is None and tag.index in self.recipe.inputs
        ]

    def _changed(self, change: StateChanged) -> None:
        cause = f" ({change.cause})" if change.cause and change.cause != self.cause else ""
        self.cause = change.cause
        self._say(f"{self.order.recipe} is {change.state}{cause}")
        if change.state in states.ENDED:
            self._end(EXIT_CODES[change.state])
        elif change.state == "held" and self.console.typing:
            self._say("  type restart, stop or abort")
        elif change.state == "held":
            self._say("  there is no terminal to restart it from: stopping")
            self._command("stop", cause=f"held with no terminal to restart it from: {change.cause}")
        elif change.before == "restarting" and change.state == "running":
            for step in self.view.batches[change.batch].waits.values():
                self._offered(step)

    # --- questions ---------------------------------------------------------------------------------------------------

    def _asked(self, asked: Asked) -> None:
        """A new question: answered from the command line, or put to the person when it is its turn."""
        given = self.order.answers.get(asked.name)
        if given is not None:
            self._say(f"? {words.english(asked.say)}")
            self._give(asked, given)
        elif not self.console.typing:
            self._say(f"? {words.english(asked.say)}")
            self._unanswered(asked)
        elif self._current() in (None, asked):
            self._put(asked)

    def _unanswered(self, asked: Asked) -> None:
        how = f"give --answer {asked.name}=VALUE, or run it at a terminal" if asked.name else "run it at a terminal"
        self._say(f"! nobody can answer here: {how}")
        self._command("stop", cause=f"nobody could answer: {words.english(asked.say)}")

    def _offered(self, step: StepWaits) -> None:
        """A step that waits to be confirmed, in semi-automatic mode."""
        name = _named(step.name, step.branch)
        if self.console.typing:
            self._say(f"? {name}: press Enter to begin it")
        else:
            self._say(f"! nobody can confirm {name} here: run it at a terminal")
            self._command("stop", cause=f"nobody could confirm {name}")

    def _waiting(self) -> StepWaits | None:
        """The first of the steps that wait to be confirmed."""
        batch = self.view.batches.get(self.order.batch)
        return next(iter(batch.waits.values()), None) if batch is not None else None

    def _current(self) -> Asked | None:
        """The question that was put to the person, while it is open."""
        batch = self.view.batches.get(self.order.batch)
        if self.asking is None or batch is None or self.asking.prompt not in batch.questions:
            return None
        return self.asking

    def _ask_next(self) -> None:
        """Puts the question that is open, or else the oldest of the others, to the person again."""
        batch = self.view.batches.get(self.order.batch)
        given = {command.prompt for command in self.sent.values() if command.do == "answer"}
        open_ones = [one for one in (batch.questions.values() if batch else ()) if one.prompt not in given]
        current = self._current()
        if open_ones and self.console.typing:
            self._put(current if current in open_ones else open_ones[0])

    def _put(self, asked: Asked) -> None:
        self.asking = asked
        match asked.kind:
            case "choice":
                shown = [labelled(answer, asked.labels.get(answer, {})) for answer in asked.answers]
                how = f"type one of: {', '.join(shown)}"
            case "number":
                limits = span(asked.low, asked.high, asked.unit)
                how = f"type a number{f' that {limits}' if limits else f' in {asked.unit}' if asked.unit else ''}"
            case "confirm":
                how = "press Enter to confirm"
            case _:
                how = "type the answer"
        self._say(f"? {words.english(asked.say)}")
        self._say(f"  {how}")

    def _give(self, asked: Asked, text: str) -> None:
        try:
            value = parse_answer(text, asked)
        except ValueError as error:
            self._say(f"! {error}")
            if not self.console.typing:
                self._unanswered(asked)
            return
        self._command("answer", prompt=asked.prompt, value=value, role=asked.who)

    # --- what is typed -----------------------------------------------------------------------------------------------

    def _keys(self) -> None:
        for line in self.console.read():
            self._typed(line)
        if not self.console.typing:
            asyncio.get_running_loop().remove_reader(sys.stdin)

    def _typed(self, text: str) -> None:
        asked = self._current()
        if text:
            self._say(f"< {text}")
        if asked is not None and text not in asked.answers and text in COMMANDS:
            asked = None
        if asked is not None:
            self._give(asked, text)
        elif not text and (waiting := self._waiting()) is not None:
            self._command("confirm", step=waiting.step)
        elif text in MODES and self.started:
            self._command("mode", mode=text)
        elif text in COMMANDS and self.started:
            self._command(text)
        elif text in COMMANDS:
            self._say("  it has not started yet; Ctrl-C gives it up")
        elif text:
            self._say(f"  type {', '.join(COMMANDS[:-1])} or {COMMANDS[-1]}")

    # --- what is seen ------------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        first, *others = text.splitlines() or [""]
        self.console.say(f"{time.monotonic() - self.began:7.1f} s  {first}")
        for line in others:
            self.console.say(f"{'':11}  {line}")

    async def _show(self) -> None:
        """The line that lives: state, step, main tags, cycle. Without a terminal it is printed every 5 s."""
        while True:
            await asyncio.sleep(0.2 if self.console.live else 5.0)
            line = self._line()
            if self.console.live:
                self.console.show(line)
            elif line:
                self._say(line)

    def _line(self) -> str:
        batch = self.view.batches.get(self.order.batch)
        if batch is None:
            return self._awaited()
        scan_s = self.plan.cell.scan_ns / 1e9
        cycle = self.view.cycle
        steps = [f"{one.name} {batch.active_cycles(one, cycle) * scan_s:.0f} s" for one in batch.steps.values()]
        values = self._values([one.step for one in batch.steps.values()])
        late = ""
        if self.view.loop is not None and self.view.loop.lateness.counts:
            mean = self.view.loop.lateness.sum_s / sum(self.view.loop.lateness.counts)
            late = f"cycle {cycle}, {scan_s * 1e3:g} ms, {mean * 1e6:.0f} us late"
        return "  |  ".join(part for part in (batch.state, ", ".join(steps), values, late) if part)

    def _awaited(self) -> str:
        """What the start waits for."""
        cell = self.plan.cell
        names = [cell.devices[device].name for device in self._away()]
        names = names or [f"a good value of {cell.tags[tag].name}" for tag in self._without_value()[:3]]
        return f"waiting for {', '.join(names)}" if names else ""

    def _values(self, steps: list[int]) -> str:
        """The main tags: those that the active steps wait for, else the first that the recipe reads."""
        read = [tag for step in steps for tag in self.recipe.steps[step].inputs]
        tags = list(dict.fromkeys([*read, *self.recipe.inputs]))[:3]
        shown = {tag.index: value for device in self.view.devices for tag, value, _, _ in device.readings()}
        cell = self.plan.cell.tags
        values = [(cell[tag], shown[tag]) for tag in tags]
        return "  ".join(
            f"{tag.name} {'bad' if value is None else display(value, tag.unit, 4)}" for tag, value in values
        )


def _named(step: str, branch: str) -> str:
    return f"{branch}: {step}" if branch else step
