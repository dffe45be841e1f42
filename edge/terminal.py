"""The terminal as a watcher of the loop: starts one recipe, shows its progress, asks its questions (`edge run`)."""

import asyncio
import getpass
import re
import signal
import socket
import sys
import time
from datetime import datetime

import msgspec

from drivers.value import Value
from edge import channel, states, units
from edge.image import RECORD, unpack_record
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
    pack,
    unpack_inward,
)
from edge.program import Parameter, Plan, Recipe, Texts
from edge.source import suggest
from edge.view import View

EXIT_CODES = {"complete": 0, "stopped": 3, "held": 3, "aborted": 4}
PATIENCE_S = 10.0
"""How long a start waits for devices that are not there yet."""

RECORD_S = 2.0


class Order(msgspec.Struct, frozen=True):
    """One batch to make: recipe, parameters, the answers to its questions by variable, who."""

    batch: str
    recipe: str
    parameters: dict[str, Value]
    answers: dict[str, str]
    by: str


def order(plan: Plan, name: str, given: dict[str, str], answers: dict[str, str], by: str) -> Order | str:
    """An order from the texts of the command line; a text that says what is wrong with them."""
    recipe = plan.recipes.get(name)
    if recipe is None:
        hint = suggest(name, plan.recipes) or f"it has {', '.join(plan.recipes) or 'none'}"
        return f"the cell {plan.cell.name} has no recipe {name}: {hint}"
    parameters: dict[str, Value] = {}
    for key, text in given.items():
        parameter = next((one for one in recipe.parameters if one.name == key), None)
        if parameter is None:
            names = [one.name for one in recipe.parameters]
            hint = suggest(key, names) or f"it has {', '.join(names) or 'none'}"
            return f"{name} has no parameter {key}: {hint}"
        try:
            parameters[key] = parse_value(text, parameter.type, parameter.unit)
        except ValueError as error:
            return f"--set {key}={text}: {error}"
        wrong = _out_of_range(parameter, parameters[key])
        if wrong:
            return f"--set {key}={text}: {wrong}"
    missing = [one.name for one in recipe.parameters if one.default is None and one.name not in parameters]
    if missing:
        return f"{name} needs --set {missing[0]}=VALUE"
    unknown = [answer for answer in answers if answer not in _questions(recipe)]
    if unknown:
        return f"{name} asks nothing into {unknown[0]}: {suggest(unknown[0], _questions(recipe)) or 'see the recipe'}"
    batch = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    return Order(batch, name, parameters, answers, by or getpass.getuser())


def _questions(recipe: Recipe) -> list[str]:
    return list(recipe.variables[len(recipe.parameters) :])


def _out_of_range(parameter: Parameter, value: Value) -> str:
    if isinstance(value, str) and parameter.choices and value not in parameter.choices:
        return f"it is one of {', '.join(parameter.choices)}"
    low, high = parameter.low, parameter.high
    if not isinstance(value, str) and ((low is not None and value < low) or (high is not None and value > high)):
        return f"it goes from {low} to {high} {parameter.unit}".rstrip()
    return ""


def parse_value(text: str, kind: str, unit: str = "") -> Value:
    """A value as a person types it: `20`, `20 L`, `0.02 m3`, `true`. Raises ValueError in words."""
    if kind == "text":
        return text
    if kind == "bool":
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ValueError("true or false was expected")
    match = re.fullmatch(r"\s*([+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(.*?)\s*", text)
    if match is None:
        raise ValueError(f"a number was expected{f', in {unit}' if unit else ''}")
    if match[2].startswith(","):
        raise ValueError(f"write a point before the decimals: {text.strip().replace(',', '.')}")
    if match[2] in ("", unit) and match[1].lstrip("+-").isdigit():
        return int(match[1])
    number = float(match[1])
    if match[2] and match[2] != unit:
        number = _converted(number, match[2], unit)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _converted(number: float, given: str, wanted: str) -> float:
    source, target = units.parse(given), units.parse(wanted or "1")
    if not units.same_dimension(source, target):
        raise ValueError(f"{given} is no unit for it: it is in {wanted or 'no unit'}")
    return units.convert(number, source, target)


class Terminal:
    """One order, from its start to its end. `run` gives the exit code."""

    def __init__(self, plan: Plan, order: Order) -> None:
        self.plan = plan
        self.order = order
        self.view = View(plan)
        self.recipe = plan.recipes[order.recipe]
        self.loop: socket.socket
        self.ended: asyncio.Future[int]
        self.began = time.monotonic()
        self.commands = 0
        self.started = False
        self.asking: Asked | None = None
        self.interactive = sys.stdin.isatty()
        self.live = sys.stdout.isatty()
        self.shown_at = 0.0
        self.down: dict[int, str] = {}

    def run(self, loop: socket.socket) -> int:
        self.loop = loop
        return asyncio.run(self._run())

    async def _run(self) -> int:
        running = asyncio.get_running_loop()
        self.ended = running.create_future()
        running.add_reader(self.loop, self._take)
        running.add_signal_handler(signal.SIGINT, self._interrupted)
        running.add_signal_handler(signal.SIGTERM, self._end, EXIT_CODES["stopped"])
        if self.interactive:
            running.add_reader(sys.stdin, self._typed)
        channel.send(self.loop, pack(Hello("terminal")))
        starting = asyncio.create_task(self._start())
        showing = asyncio.create_task(self._show())
        code = await self.ended
        for task in (starting, showing):
            task.cancel()
        self._clear_line()
        await asyncio.gather(starting, showing, return_exceptions=True)
        return code

    def _end(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)

    # --- to the loop -------------------------------------------------------------------------------------------------

    def _command(self, do: str, **fields: object) -> None:
        self.commands += 1
        command = Command(self.commands, do, self.order.by, self.order.batch)
        channel.send(self.loop, pack(msgspec.structs.replace(command, **fields)))

    async def _start(self) -> None:
        """Asks for the start until it is granted, as long as the devices may still be coming."""
        while not self.started:
            self._command("start", recipe=self.order.recipe, parameters=self.order.parameters)
            await asyncio.sleep(0.1)

    def _interrupted(self) -> None:
        if not self.started:
            self._end(EXIT_CODES["stopped"])
        self._say("interrupted: stopping")
        self._command("stop")

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

    def _device(self, message: object) -> None:
        """A device that came or went: each is said once."""
        if not isinstance(message, DeviceReport):
            return
        name, text = self.plan.cell.devices[message.device].name, message.text
        if self.down.get(message.device) == text:
            return
        self.down[message.device] = text
        hint = f" ({message.hint})" if message.hint else ""
        self._say(f"{name}: connected" if message.up else f"! {name}: {text}{hint}")

    def _event(self, event: Event) -> None:
        match event:
            case CommandDone():
                self._answered(event)
            case StateChanged() if event.batch == self.order.batch:
                self._changed(event)
            case StepStarted() if event.batch == self.order.batch:
                self._say(f"> {_named(event.name, event.branch)}")
            case StepEnded() if event.batch == self.order.batch:
                self._step_ended(event)
            case Recorded() if event.batch == self.order.batch:
                self._say(f"  recorded {event.name} = {_number(event.value)} {event.unit}".rstrip())
            case Asked() if event.batch == self.order.batch:
                self._asked(event)
            case Answered() if event.batch == self.order.batch:
                self._say(f"  answered {_number(event.value)} by {event.by}")
            case AlarmRaised():
                self._say(f"! {_text(event.say)}")
            case _:
                pass

    def _step_ended(self, ended: StepEnded) -> None:
        """Says how a step ended; one that was over at once needs no second line."""
        seconds = ended.active * self.plan.cell.scan_ns / 1e9
        how = {"done": "done", "timeout": "took too long", "cut": "cut short"}[ended.how]
        if ended.how != "done" or seconds >= 0.05:
            self._say(f"  {_named(ended.name, ended.branch)}: {how} after {seconds:.1f} s")

    def _answered(self, done: CommandDone) -> None:
        if not self.started and done.batch == self.order.batch:
            if done.ok:
                self.started = True
            elif time.monotonic() - self.began > PATIENCE_S or "interlock" in done.text or "parameter" in done.text:
                self._say(f"! cannot start {self.order.recipe}: {done.text}")
                self._end(EXIT_CODES["stopped"])
        elif not done.ok and self.started:
            self._say(f"! refused: {done.text}")
            if self.asking is not None and not self.interactive:
                self._unanswered(self.asking)
            elif self.asking is not None:
                self._question(self.asking)

    def _changed(self, change: StateChanged) -> None:
        cause = f" ({change.cause})" if change.cause else ""
        self._say(f"{self.order.recipe} is {change.state}{cause}")
        if change.state in states.ENDED:
            asyncio.get_running_loop().call_later(0.3, self._end, EXIT_CODES[change.state])
        elif change.state == "held" and self.interactive:
            self._say("  type restart, stop or abort")
        elif change.state == "held":
            self._say("  there is no terminal to restart it from: stopping")
            self._command("stop")

    # --- questions ---------------------------------------------------------------------------------------------------

    def _asked(self, asked: Asked) -> None:
        self.asking = asked
        self._say(f"? {_text(asked.say)}")
        given = self.order.answers.get(asked.name)
        if given is not None:
            self._give(asked, given)
        elif self.interactive:
            self._question(asked)
        else:
            self._unanswered(asked)

    def _unanswered(self, asked: Asked) -> None:
        self._say(f"! nobody can answer here: give --answer {asked.name or 'NAME'}=VALUE, or run it at a terminal")
        self._command("stop")

    def _question(self, asked: Asked) -> None:
        match asked.kind:
            case "choice":
                self._say(f"  type one of: {', '.join(asked.answers)}")
            case "number":
                span = "" if asked.low is None and asked.high is None else f" from {asked.low} to {asked.high}"
                self._say(f"  type a number{span} {asked.unit}".rstrip())
            case "confirm":
                self._say("  press Enter to confirm")
            case _:
                self._say("  type the answer")

    def _give(self, asked: Asked, text: str) -> None:
        kind = {"number": "number", "confirm": "bool"}.get(asked.kind, "text")
        try:
            value = True if kind == "bool" else parse_value(text, kind, asked.unit)
        except ValueError as error:
            self._say(f"! {error}")
            return
        self._command("answer", prompt=asked.prompt, value=value)

    def _typed(self) -> None:
        line = sys.stdin.readline()
        if not line:
            asyncio.get_running_loop().remove_reader(sys.stdin)
            return
        text = line.strip()
        batch = self.view.batches.get(self.order.batch)
        if text in states.COMMANDS:
            self._command(text)
        elif self.asking is not None and batch is not None and self.asking.prompt in batch.questions:
            self._give(self.asking, text)
        elif text:
            self._say("  type hold, restart, pause, resume, stop or abort")

    # --- what is seen ------------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self._clear_line()
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    def _clear_line(self) -> None:
        if self.live:
            print("\r\x1b[2K", end="", flush=True)

    async def _show(self) -> None:
        """The line that lives: state, step, main tags, cycle. Without a terminal it is printed every 5 s."""
        while True:
            await asyncio.sleep(0.2 if self.live else 5.0)
            line = self._line()
            if line and self.live:
                print(f"\r\x1b[2K{line}", end="", flush=True)
            elif line:
                self._say(line)

    def _line(self) -> str:
        batch = self.view.batches.get(self.order.batch)
        if batch is None:
            return ""
        scan_s = self.plan.cell.scan_ns / 1e9
        cycle = self.view.cycle
        steps = [f"{one.name} {batch.active_cycles(one, cycle) * scan_s:.0f} s" for one in batch.steps.values()]
        values = self._values([one.step for one in batch.steps.values()])
        late = ""
        if self.view.loop is not None and sum(self.view.loop.lateness):
            mean = self.view.loop.lateness_sum_s / sum(self.view.loop.lateness)
            late = f"cycle {cycle}, {scan_s * 1e3:g} ms, {mean * 1e6:.0f} us late"
        return "  |  ".join(part for part in (batch.state, ", ".join(steps), values, late) if part)[:200]

    def _values(self, steps: list[int]) -> str:
        """The main tags: those that the active steps wait for, else the first that the recipe reads."""
        read = [tag for step in steps for tag in self.recipe.steps[step].inputs]
        tags = list(dict.fromkeys([*read, *self.recipe.inputs]))[:3]
        shown = {tag.index: value for device in self.view.devices for tag, value, _, _ in device.readings()}
        cell = self.plan.cell.tags
        return "  ".join(
            f"{cell[tag].name} {'bad' if shown[tag] is None else _number(shown[tag])} {cell[tag].unit}".rstrip()
            for tag in tags
        )


def _named(step: str, branch: str) -> str:
    return f"{branch}: {step}" if branch else step


def _text(say: Texts) -> str:
    return say.get("en") or next(iter(say.values()), "")


def _number(value: Value | None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
