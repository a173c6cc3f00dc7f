"""The limits of a stream's time: of all of it, and of a silence."""

from __future__ import annotations

import math

from openai_runs._client.streams.idle_timer import IdleTimer
from openai_runs.config import STREAM_DRAIN
from tests.support import ManualClock


def test_silence_is_counted_from_the_last_event() -> None:
    """Whoever hears something may wait as long again."""
    clock = ManualClock()
    timer = IdleTimer(clock.monotonic, timeout=None, idle=30)

    clock.now += 29
    timer.restart()

    assert timer.limit(is_draining=False) == clock.now + 30


def test_end_is_not_put_off_when_more_comes_behind_it() -> None:
    """A server that goes on sending after the run's last event is not read for ever."""
    clock = ManualClock()
    timer = IdleTimer(clock.monotonic, timeout=None, idle=30)
    limit = timer.limit(is_draining=True)

    clock.now += 0.5
    timer.restart()

    assert limit == clock.now - 0.5 + STREAM_DRAIN
    assert timer.limit(is_draining=True) == limit
    assert timer.limit(is_draining=False) == clock.now + 30


def test_run_is_polled_once_before_the_whole_time_is_up() -> None:
    """At 90 % of it, in case the stream has stalled; after that the limit is the deadline."""
    clock = ManualClock()
    timer = IdleTimer(clock.monotonic, timeout=10, idle=30)
    began = clock.now
    first = timer.limit(is_draining=False)

    clock.now = first
    timer.polled()

    assert first == began + 9
    assert timer.limit(is_draining=False) == timer.deadline == began + 10
    assert timer.seconds_left() == 1


def test_run_sets_the_deadline_that_the_caller_has_not_set() -> None:
    """A timeout of the caller's is kept; without one the first run says how long it has."""
    clock = ManualClock()
    own = IdleTimer(clock.monotonic, timeout=10, idle=30)
    runs = IdleTimer(clock.monotonic, timeout=None, idle=30)

    assert runs.seconds_left() == math.inf
    for timer in (own, runs):
        timer.allow(600)

    assert (own.seconds_left(), runs.seconds_left()) == (10, 600)
