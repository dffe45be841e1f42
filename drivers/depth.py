"""How many requests may be on their way at a time: a setting of the device, or found out with reads alone."""

from typing import Literal

ROUNDS = 8
"""So many busy periods are measured at a depth before the next is tried."""
GAIN = 1.1
"""A greater depth is kept where it answers so many times as many requests a second."""
SLACK_S = 0.1
"""The least that an answer may be late, while a greater depth is tried, before it counts as missing."""


class Depth:
    """The depth of one connection: `proven` for every request, `trial` for reads.

    `auto` starts at 1 and doubles up to `most`: after ROUNDS busy periods in which each request had its answer, and
    only where it pays. Where an answer is missing or comes twice, or the connection breaks, the last depth that was
    good stays for good. It outlives its connections.
    """

    def __init__(self, setting: int | Literal["auto"], most: int = 64) -> None:
        self.most = most
        self.learning = setting == "auto"
        self.proven: int = 1 if setting == "auto" else min(setting, most)
        self.trial: int = self.proven
        self.held = False  # whether requests had to wait for their turn in this busy period
        self._good: list[int] = [self.proven]
        self._rate = 0.0  # answers a second at the proven depth
        self._began_s = self._end_s = 0.0
        self._peak = self._answered = 0
        self._mixed = False
        self._forget()

    def _forget(self) -> None:
        self._periods, self._best = 0, 0.0

    @property
    def trying(self) -> bool:
        """Whether more reads may be on their way than is proven."""
        return self.trial > self.proven

    @property
    def tried(self) -> bool:
        """Whether more requests were on their way in this busy period than is proven."""
        return self.learning and self._peak > self.proven

    def limit(self, most: int) -> None:
        """Never more than this: another device on the connection, or the peer itself, stands no more."""
        self.most = min(self.most, most)
        self._good = [depth for depth in self._good if depth <= self.most] or [self.most]
        self.proven = self._good[-1]
        self.trial = min(self.trial, self.most) if self.learning else self.proven

    def patience_s(self, timeout_s: float) -> float:
        """How long to wait for an answer while a greater depth is tried: a missing one is then asked for again."""
        return min(timeout_s, SLACK_S + 4 * self.trial / self._rate)

    # One busy period of the connection: from a request on an idle connection to the last answer

    def begin(self, now_s: float) -> None:
        """A busy period begins. What the last one has shown counts only now: it may have been found wrong meanwhile."""
        whole = self.learning and self._peak >= self.trial and self._answered and not self._mixed
        if whole and (self.held or self.trying):
            self._measure(self._answered / max(self._end_s - self._began_s, 1e-9))
        self._began_s = self._end_s = now_s
        self._peak = self._answered = 0
        self._mixed = self.held = False

    def sent(self, pending: int, writing: int) -> None:
        """So many requests are on their way now, so many of them writes."""
        self._peak = max(self._peak, pending)
        self._mixed = self._mixed or writing > 0

    def answered(self, count: int, now_s: float) -> None:
        """So many answers have come."""
        self._answered += count
        self._end_s = now_s

    def _measure(self, rate: float) -> None:
        """Each request of a busy period at the depth in trial had its answer, so many a second."""
        self._periods, self._best = self._periods + 1, max(self._best, rate)  # the best: other work only slows down
        if self._periods < ROUNDS:
            return
        rate = self._best
        self._forget()
        if self.trying:
            if rate < self._rate * GAIN:
                self.failed()
                return
            self.proven = self.trial
            self._good.append(self.proven)
        self._rate = rate
        self.trial = min(2 * self.proven, self.most)
        self.learning = self.trying

    # Harm

    def failed(self) -> None:
        """The trial did harm, or does not pay: what is proven stays, for good."""
        self.trial, self.learning = self.proven, False
        self._forget()

    def worsened(self) -> None:
        """What had been found good does harm: the depth before it stays, for good. A setting is not touched."""
        if len(self._good) > 1:
            self._good.pop()
            self.proven = self._good[-1]
        self.failed()
