"""How deep a connection is used: settings, what `auto` finds out, and what it takes for harm."""

from drivers.depth import ROUNDS, Depth


def busy(depth: Depth, *, requests: int = 16, rate: float, writing: int = 0, periods: int = ROUNDS) -> None:
    """Busy periods with all requests ready at once, answered so many times a second."""
    for _ in range(periods):
        depth.begin(100.0)
        depth.held = requests > depth.trial
        depth.sent(min(requests, depth.trial), writing)
        depth.answered(requests, 100.0 + requests / rate)
    depth.begin(200.0)


def test_a_setting_stays() -> None:
    depth = Depth(4)
    assert (depth.proven, depth.trial, depth.learning) == (4, 4, False)
    depth.worsened()
    depth.failed()
    assert (depth.proven, depth.trial) == (4, 4)


def test_it_doubles_while_that_pays() -> None:
    depth = Depth("auto")
    found: list[int] = []
    for rate in (100, 190, 350, 600, 610):
        found.append(depth.proven)
        busy(depth, rate=rate)
    assert found == [1, 1, 2, 4, 8]
    assert (depth.proven, depth.trial, depth.learning) == (8, 8, False)


def test_it_goes_no_further_than_requests_are_there() -> None:
    depth = Depth("auto")
    for rate in (100, 200, 400, 800, 1600, 3200):
        busy(depth, requests=6, rate=rate)
    assert (depth.proven, depth.trial) == (4, 8)


def test_a_device_with_one_request_is_not_tried() -> None:
    depth = Depth("auto")
    busy(depth, requests=1, rate=100, periods=100)
    assert (depth.proven, depth.trial) == (1, 1)


def test_harm_ends_the_trial_for_good() -> None:
    depth = Depth("auto")
    busy(depth, rate=100)
    busy(depth, rate=200)
    assert (depth.proven, depth.trial) == (2, 4)
    depth.failed()
    busy(depth, rate=1000, periods=100)
    assert (depth.proven, depth.trial) == (2, 2)
    depth.worsened()
    assert (depth.proven, depth.trial) == (1, 1)
    depth.worsened()
    assert depth.proven == 1


def test_a_period_with_writes_proves_nothing() -> None:
    depth = Depth("auto")
    busy(depth, rate=100, writing=1, periods=100)
    assert depth.trial == 1


def test_what_is_found_wrong_after_the_last_answer_counts_against_the_trial() -> None:
    depth = Depth("auto")
    busy(depth, rate=100)
    busy(depth, rate=200, periods=ROUNDS - 1)
    depth.sent(2, 0)
    depth.answered(16, 201.0)
    assert depth.tried
    depth.failed()
    depth.begin(300.0)
    assert (depth.proven, depth.trial, depth.tried) == (1, 1, False)


def test_the_limit_of_another_device_or_of_the_peer() -> None:
    depth = Depth("auto")
    busy(depth, rate=100)
    busy(depth, rate=200)
    depth.limit(3)
    assert (depth.proven, depth.trial) == (2, 3)
    busy(depth, rate=400)
    assert (depth.proven, depth.trial, depth.learning) == (3, 3, False)
    depth.limit(1)
    assert (depth.proven, depth.trial) == (1, 1)
    fixed = Depth(8)
    fixed.limit(2)
    assert (fixed.proven, fixed.trial) == (2, 2)


def test_how_long_an_answer_may_be_missing_in_a_trial() -> None:
    depth = Depth("auto")
    busy(depth, rate=100)
    assert 0.1 < depth.patience_s(1.0) < 0.3
    assert depth.patience_s(0.05) == 0.05
