"""The timer: calls in the order of their times, each once, however many there are and whenever they are added."""

import select

from hypothesis import given
from hypothesis import strategies as st

from edge.clock import GRAIN_NS, Timer, now_ns

MS = 1_000_000


def run(timer: Timer, done) -> None:
    while not done():
        assert select.select([timer.fd], [], [], 10)[0], "the timer has a call, but does not wake for it"
        timer.run()


@given(st.lists(st.integers(-5 * MS, 5 * MS), min_size=1, max_size=20))
def test_calls_come_in_the_order_of_their_times_none_too_early(offsets) -> None:
    timer, start = Timer(), now_ns()
    called: list[tuple[int, int]] = []
    for offset in offsets:
        timer.at(start + offset, lambda offset=offset: called.append((offset, now_ns())))
    run(timer, lambda: len(called) == len(offsets))
    timer.close()
    assert [offset for offset, _ in called] == sorted(offsets)
    assert all(when + GRAIN_NS >= start + offset for offset, when in called)


def test_a_call_may_add_the_next_one() -> None:
    timer = Timer()
    called: list[int] = []

    def call() -> None:
        called.append(now_ns())
        timer.at(0 if len(called) % 2 else now_ns() + MS, call)

    timer.at(0, call)
    run(timer, lambda: len(called) == 6)
    timer.close()
