"""When a scan begins: so that its answer is there just before the tick that uses it, and its connection free after it.

The loop takes inputs only at its ticks. An answer that comes just after one lies for a whole scan; one that comes long
before is old when it is used. So a fieldbus process knows the ticks (the loop tells it), learns how long each device
takes to answer, and begins each scan that much earlier. All times are ns of CLOCK_MONOTONIC, which every process of a
machine shares; nothing here asks a clock.
"""

from collections import deque
from collections.abc import Sequence
from math import ceil

WINDOW = 200
"""Response times that are remembered."""
STRAYS = 3
"""Of so many in the window the longest are not waited for: one stall is no reason to be early ever after."""
CHANGES = 20
"""Of so many that brought something new the longest is not waited for either."""
MARGIN_NS = 100_000
"""What an answer is to be there before its tick, by the slowest of the window that counts."""
_LOOK = 10


class Phase:
    """The loop's ticks: cycle n is due at `origin_ns` + n scans. Until the loop is heard, any grid is as good."""

    def __init__(self, scan_ns: int) -> None:
        self.scan_ns = scan_ns
        self.origin_ns = 0

    def hear(self, cycle: int, due_ns: int) -> None:
        """The loop says when a cycle is due; one that has started anew has other ticks from now on."""
        self.origin_ns = due_ns - cycle * self.scan_ns

    def tick(self, time_ns: int) -> int:
        """The first tick at or after a time."""
        return time_ns + (self.origin_ns - time_ns) % self.scan_ns


class Lead:
    """How long before its tick a device's scan is to begin, from how long its scans took lately.

    Scans that brought something new count for themselves: they take longer, are rare, and matter most.
    """

    def __init__(self) -> None:
        self.lead_ns = 0
        self._recent: deque[int] = deque(maxlen=WINDOW)
        self._changed: deque[int] = deque(maxlen=CHANGES)
        self._until_look = 1

    def add(self, took_ns: int, *, changed: bool) -> None:
        """A scan took so long, from its planned beginning to its frame's being on its way."""
        self._recent.append(took_ns)
        if changed:
            self._changed.append(took_ns)
        self._until_look -= 1
        if not self._until_look:
            self._until_look = min(_LOOK, len(self._recent))
            longest = max(_longest(self._recent, STRAYS / WINDOW), _longest(self._changed, 1 / CHANGES))
            self.lead_ns = longest + MARGIN_NS


def _longest(times: Sequence[int], strays: float) -> int:
    """The longest but for a share of strays, which is never all; 0 of none."""
    return sorted(times)[-1 - min(ceil(strays * len(times)), len(times) - 1)] if times else 0


class Turns:
    """The scans of one device: one each `every_ns`, each for the tick that comes next then.

    `first_ns` is where its grid begins: devices whose grids are apart share the time between two scans among them.
    """

    def __init__(self, every_ns: int, first_ns: int) -> None:
        self.every_ns = every_ns
        self.wanted_ns = first_ns
        self.tick_ns = 0

    def next(self, phase: Phase, now_ns: int, lead_ns: int) -> int:
        """When the next scan begins, not before now; its tick is then `tick_ns`.

        A device that is too slow for the next tick has the one after it; the grid stays where it was.
        """
        wanted = self.wanted_ns + self.every_ns
        self.tick_ns = phase.tick(max(wanted, now_ns + lead_ns, self.tick_ns + 1))
        self.wanted_ns = wanted + max(0, self.tick_ns - wanted) // self.every_ns * self.every_ns
        return self.tick_ns - lead_ns
