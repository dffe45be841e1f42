"""The list of alarms, after ISA-18.2: raised with its cause, cleared when that is gone, acknowledged by a person."""

from collections.abc import Callable

from msgspec.structs import replace

from edge.batch import Alarm, State
from edge.language.program import Texts
from edge.messages import AlarmAcknowledged, AlarmChanged, AlarmCleared, AlarmRaised, Event

MAX_ALARMS = 256


class Alarms:
    """Each thing that can raise an alarm has a key, and at most one active alarm: `device:0`, `batch:B1:timeout`."""

    def __init__(self, state: State, emit: Callable[[Event], None]) -> None:
        self.state = state
        self.emit = emit

    def raise_alarm(
        self, key: str, kind: str, say: Texts, *, batch: str = "", device: str = "", tag: str = "", detail: str = ""
    ) -> None:
        """A new alarm; where the thing has one already, it says its newest reason."""
        state = self.state
        if key in state.alarm_keys:
            self._change(state.alarm_keys[key], say, detail)
            return
        number = state.next_alarm
        state.next_alarm += 1
        state.alarm_keys[key] = number
        state.alarms[number] = Alarm(number, kind, say, state.cycle, batch, device, tag, detail)
        self.emit(AlarmRaised(number, kind, say, batch, device, tag, detail))
        if len(state.alarms) > MAX_ALARMS:
            old = next((one for one, alarm in state.alarms.items() if not alarm.active), None)
            if old is not None:
                del state.alarms[old]

    def _change(self, number: int, say: Texts, detail: str) -> None:
        alarm = self.state.alarms[number]
        if (say, detail) != (alarm.say, alarm.detail):
            self.state.alarms[number] = replace(alarm, say=say, detail=detail)
            self.emit(AlarmChanged(number, say, detail))

    def clear(self, key: str) -> None:
        """The alarm's cause is gone; it stays until it is acknowledged (ISA-18.2, returned to normal)."""
        number = self.state.alarm_keys.pop(key, None)
        if number is None:
            return
        alarm = self.state.alarms[number]
        self.emit(AlarmCleared(number))
        if alarm.acknowledged:
            del self.state.alarms[number]
        else:
            self.state.alarms[number] = replace(alarm, active=False)

    def clear_all(self, prefix: str) -> None:
        for key in [key for key in self.state.alarm_keys if key.startswith(prefix)]:
            self.clear(key)

    def acknowledge(self, number: int, by: str) -> bool:
        """False where there is no such alarm to acknowledge."""
        alarm = self.state.alarms.get(number)
        if alarm is None or alarm.acknowledged:
            return False
        self.emit(AlarmAcknowledged(number, by))
        if alarm.active:
            self.state.alarms[number] = replace(alarm, acknowledged=True)
        else:
            del self.state.alarms[number]
        return True
