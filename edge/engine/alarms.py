"""The list of alarms, after ISA-18.2 (IEC 62682): raised with its cause, cleared when that is gone, acknowledged or
shelved by a person.
"""

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from edge.batch import Alarm, Shelf, State
from edge.language.program import Texts
from edge.language.rules import AlarmKind, Priority
from edge.messages import (
    AlarmAcknowledged,
    AlarmChanged,
    AlarmCleared,
    AlarmRaised,
    AlarmShelved,
    AlarmUnshelved,
    Event,
)

MAX_ALARMS = 256

Transition = AlarmChanged | AlarmCleared | AlarmAcknowledged | AlarmShelved | AlarmUnshelved

DEFAULTS: dict[AlarmKind, Priority] = {
    "interlock": "high",
    "alarm": "medium",
    "device-lost": "high",
    "timeout": "medium",
    "no-value": "medium",
    "refused": "medium",
    "phase-failed": "medium",
    "phase-held": "medium",
    "phase-late": "high",
    "deadlock": "high",
    "power-loss": "medium",
    "stood-still": "high",
    "record": "high",
    "differs": "medium",
}
"""The priority of each kind where nobody has given another: high is what makes a machine stand that should not."""


def raised(event: AlarmRaised, cycle: int, alarms: dict[int, Alarm]) -> None:
    """Puts a new alarm on the list. One that its thing has there shelved gives way to it, and it is shelved in turn."""
    old = next((one for one in alarms.values() if one.shelved and one.key == event.key), None)
    if old is not None:
        del alarms[old.alarm]
    alarms[event.alarm] = Alarm(
        event.alarm,
        event.kind,
        event.say,
        cycle,
        event.batch,
        event.device,
        event.tag,
        event.detail,
        priority=event.priority,
        key=event.key,
        latch=event.latch,
        shelved=old.shelved if old is not None else None,
    )
    if len(alarms) > MAX_ALARMS:
        gone = next((one.alarm for one in alarms.values() if not one.active and not one.shelved), None)
        if gone is not None:
            del alarms[gone]


def change(event: Transition, alarms: dict[int, Alarm]) -> None:
    """A transition of ISA-18.2: the alarm on the list as it is after it, or gone from there."""
    alarm = alarms.get(event.alarm)
    if alarm is None:
        return
    match event:
        case AlarmChanged():
            alarm = replace(alarm, say=event.say, detail=event.detail)
        case AlarmCleared():
            alarm = replace(alarm, active=False)
        case AlarmAcknowledged():
            alarm = replace(alarm, acknowledged=True)
        case AlarmShelved():
            alarm = replace(alarm, shelved=Shelf(event.by, event.why, event.until))
        case AlarmUnshelved():  # active: it asks for attention again; not active: who shelved it has seen it
            alarm = replace(alarm, shelved=None, acknowledged=not alarm.active)
    if alarm.active or alarm.shelved or (alarm.latch and not alarm.acknowledged):
        alarms[event.alarm] = alarm
    else:
        del alarms[event.alarm]


class Alarms:
    """Each thing that can raise an alarm has a key, and at most one active alarm: `device:0`, `batch:B1:timeout`."""

    def __init__(self, state: State, emit: Callable[[Event], None]) -> None:
        self.state = state
        self.emit = emit

    def raise_alarm(
        self,
        key: str,
        kind: AlarmKind,
        say: Texts,
        *,
        batch: str = "",
        device: str = "",
        tag: str = "",
        detail: str = "",
        priority: Priority | None = None,
        latch: bool = True,
    ) -> None:
        """A new alarm; where the thing has one already, it says its newest reason."""
        state = self.state
        number = state.alarm_keys.get(key)
        if number is not None:
            alarm = state.alarms[number]
            if (say, detail) != (alarm.say, alarm.detail):
                self._tell(AlarmChanged(number, say, detail))
            return
        number = state.next_alarm
        state.next_alarm += 1
        state.alarm_keys[key] = number
        event = AlarmRaised(
            number, kind, say, batch, device, tag, detail, priority=priority or DEFAULTS[kind], key=key, latch=latch
        )
        raised(event, state.cycle, state.alarms)
        self.emit(event)

    def _tell(self, event: Transition) -> None:
        change(event, self.state.alarms)
        self.emit(event)

    def clear(self, key: str) -> None:
        """The alarm's cause is gone; it stays until it is acknowledged (ISA-18.2, returned to normal)."""
        number = self.state.alarm_keys.pop(key, None)
        if number is not None:
            self._tell(AlarmCleared(number))

    def clear_all(self, prefix: str) -> None:
        for key in [key for key in self.state.alarm_keys if key.startswith(prefix)]:
            self.clear(key)

    def acknowledge(self, number: int, by: str) -> bool:
        """False where there is no such alarm to acknowledge."""
        alarm = self.state.alarms.get(number)
        if alarm is None or alarm.acknowledged:
            return False
        self._tell(AlarmAcknowledged(number, by))
        if alarm.key.startswith("notice:"):
            self.clear(alarm.key)  # a step has raised it: it has no cause that could be gone by itself
        return True

    def shelve(self, number: int, by: str, why: str, cycles: int) -> bool:
        """Takes an alarm off the list for some time, its next ones too; False where there is no such alarm."""
        if number not in self.state.alarms:
            return False
        self._tell(AlarmShelved(number, by, why, self.state.cycle + cycles))
        self._look_again()
        return True

    def unshelve(self, number: int, by: str) -> bool:
        """False where there is no such alarm that is shelved."""
        alarm = self.state.alarms.get(number)
        if alarm is None or alarm.shelved is None:
            return False
        self._tell(AlarmUnshelved(number, by))
        self._look_again()
        return True

    def come_back(self) -> None:
        """Alarms whose time on the shelf is over are on the list again."""
        for alarm in self._shelved():
            if alarm.shelved is not None and alarm.shelved.until <= self.state.cycle:
                self.unshelve(alarm.alarm, "edge")

    def _shelved(self) -> Iterable[Alarm]:
        return [alarm for alarm in self.state.alarms.values() if alarm.shelved is not None]

    def _look_again(self) -> None:
        self.state.unshelve = min((one.shelved.until for one in self._shelved() if one.shelved), default=0)
