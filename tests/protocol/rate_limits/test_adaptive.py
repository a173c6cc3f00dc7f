"""The rate that is found by trying, against servers that refuse and say nothing."""

import pytest

from openai_runs._protocol.rate_limits.adaptive import AdaptiveRate, RateMeter
from openai_runs._protocol.rate_limits.limits import Limits


def reject(rate: AdaptiveRate, count: int, now: float, **changes: float) -> None:
    """Have so many requests refused at once."""
    for _ in range(count):
        rate.on_answer(**{**NOBODY, "refused": True, "start": now, "now": now, **changes})  # type: ignore[arg-type]


NOBODY = {"number": 0, "sent": 0, "usual": 0.0}
"""Requests that were sent before anybody counted."""


def test_lone_refusal_cuts_no_rate() -> None:
    """One 429 among many answers: its call waits, the others go on."""
    rate = AdaptiveRate()
    reject(rate, 1, 0.0)
    assert rate.is_watching(0.0)
    for step in range(20):
        now = step / 10
        rate.on_answer(refused=False, number=0, sent=0, usual=0.0, start=now, now=now)

    assert rate.rate(2.0) is None
    assert not rate.is_watching(2.0)
    assert rate.delay(2.0) == 0
    rate.take(2.0)


def test_old_refusals_are_no_evidence() -> None:
    """Two 429s with minutes in between are two lone ones."""
    rate = AdaptiveRate()

    for minute in range(3):
        reject(rate, 1, minute * 60.0)

    assert rate.rate(120.0) is None


def test_storm_cuts_the_rate_and_calm_doubles_it_while_nothing_is_known() -> None:
    """Ten refusals are enough; then 20 a second, 40, 80: slow start, as nobody had counted."""
    rate = AdaptiveRate()

    reject(rate, 500, 0.0)

    assert [rate.rate(float(second)) for second in range(3)] == [20, 40, 80]
    assert rate.rate(60.0) is None, "a minute without refusals ends it"


def test_storm_halves_a_rate_that_is_known_and_calm_raises_it_by_a_tenth() -> None:
    """Additive increase, multiplicative decrease."""
    rate = AdaptiveRate()

    reject(rate, 10, 0.0, number=900, sent=1000, usual=200.0)

    assert rate.rate(0.0) == 100
    assert rate.rate(5.0) == 150


def test_refusals_of_what_was_sent_before_a_cut_do_not_cut_again() -> None:
    """A hundred in flight are refused for one reason."""
    rate = AdaptiveRate()
    reject(rate, 10, 0.0, number=900, sent=1000, usual=200.0)

    reject(rate, 90, 0.0, number=1000, sent=1000, usual=200.0)
    assert rate.rate(0.0) == 100

    reject(rate, 10, 0.0, number=1001, sent=1100, usual=200.0)
    assert rate.rate(0.0) == 50


def test_rate_never_falls_below_its_floor() -> None:
    """One in 8 s goes out whatever happens, so that the end of a storm is seen."""
    rate = AdaptiveRate()
    for round_ in range(40):
        reject(rate, 10, 0.0, number=round_, sent=round_, usual=20.0)

    assert rate.rate(0.0) == AdaptiveRate.FLOOR


def test_rate_grows_only_from_the_end_of_a_pause() -> None:
    """Silence that the server asked for is no sign that it takes more."""
    rate = AdaptiveRate()

    reject(rate, 10, 0.0, number=1, sent=1, usual=200.0, start=30.0)

    assert rate.rate(30.0) == 100


def test_tried_rate_is_kept_by_pacing() -> None:
    """Ten a second: one each 100 ms; after a rest 50 ms are made up for, and no more."""
    rate = AdaptiveRate()
    reject(rate, 10, 0.0, number=1, sent=1, usual=20.0)
    rate.take(0.0)
    assert rate.delay(0.0) == pytest.approx(0.1)
    assert rate.delay(0.0, 2) == pytest.approx(0.2)

    rate.take(0.2)

    assert rate.delay(0.2) == pytest.approx(0.05, rel=0.1)


def test_refusals_converge_near_what_a_server_takes() -> None:
    """Against 50 a second, 10 seconds later, hardly a tenth is refused."""
    limits = Limits(requests_per_minute=None, tokens_per_minute=None, now=0.0)
    accepted: list[float] = []
    refusals = {True: 0, False: 0}
    now = 0.0
    while now < 120:
        now += max(limits.delay(now), 0.001)
        number = limits.take(now)
        refused = len([one for one in accepted[-50:] if one > now - 1]) >= 50
        if not refused:
            accepted.append(now)
        refusals[refused] += now > 10
        limits.on_answer(refused=refused, asked=None, number=number, now=now)

    assert refusals[True] < refusals[False] / 10
    assert refusals[False] > 110 * 50 / 2


def test_meter_follows_what_was_sent_of_late() -> None:
    """Ten a second for a while read as ten a second, and a rest as none."""
    meter = RateMeter()
    for tenth in range(200):
        meter.count(tenth / 10)

    assert meter.read(19.9) == pytest.approx(10, rel=0.1)
    assert meter.read(60.0) < 0.001


def test_storm_that_says_how_long_it_lasts_cuts_no_rate() -> None:
    """A hundred in flight get a 429 with a pause; after that all goes as before."""
    limits = Limits(requests_per_minute=None, tokens_per_minute=None, now=0.0)
    for storm in range(5):
        begin = storm * 10.0
        numbers = [limits.take(begin) for _ in range(100)]
        for number in numbers:
            limits.on_answer(refused=True, asked=1.0, number=number, now=begin + 0.01)
        assert limits.delay(begin + 0.01) == pytest.approx(1.0)
        assert limits.is_limiting(begin + 1.5), "what follows at once is looked at"
        number = limits.take(begin + 1.1)
        limits.on_answer(refused=False, asked=None, number=number, now=begin + 1.2)

        assert limits.rate(begin + 5.0) is None
        assert not limits.is_limiting(begin + 5.0)


def test_storm_that_goes_on_after_its_pause_cuts_the_rate() -> None:
    """A 429 again after the pause says that there were too many."""
    limits = Limits(requests_per_minute=None, tokens_per_minute=None, now=0.0)
    for number in [limits.take(0.0) for _ in range(100)]:
        limits.on_answer(refused=True, asked=1.0, number=number, now=0.01)
    assert limits.rate(0.5) is None

    for number in [limits.take(1.05) for _ in range(100)]:
        limits.on_answer(refused=True, asked=1.0, number=number, now=1.1)

    rate = limits.rate(2.1)
    assert rate is not None
    assert rate < 100
