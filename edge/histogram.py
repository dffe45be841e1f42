"""Counts of times, cheap enough to be kept in every cycle: for the metrics of the processes that keep time."""

from bisect import bisect_left

from edge.messages import BOUNDS_S, Times

_BOUNDS_NS = [int(bound * 1e9) for bound in BOUNDS_S]


class Histogram:
    """Counts per bucket of BOUNDS_S; the last bucket is the rest."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_ns = 0

    def add(self, time_ns: int) -> None:
        self.counts[bisect_left(_BOUNDS_NS, time_ns)] += 1
        self.sum_ns += time_ns

    def times(self) -> Times:
        """What there is so far, for a message."""
        return Times(tuple(self.counts), self.sum_ns / 1e9)
