"""What may be sent, and when: tables and simulations in which time is a number."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs._protocol.rate_limits.limits import (
    ASSUMED_RESET,
    Allowance,
    Limits,
    TokenAccount,
    TokenBucket,
    bucket_of,
    reset_seconds,
)
from openai_runs.config import MAX_RETRY_AFTER
from openai_runs.types.http import RateLimit

DURATIONS = [
    ("6m0s", 360.0),
    ("1.5s", 1.5),
    ("120ms", 0.12),
    ("1h2m3.5s", 3723.5),
    ("8.64s", 8.64),
    ("750us", 0.00075),
    ("750µs", 0.00075),
    ("750μs", 0.00075),
    ("10ns", 1e-8),
    (".5s", 0.5),
    ("1.s", 1.0),
    ("0s", 0.0),
    ("59", 59.0),
    ("0.25", 0.25),
    (" 7 ", 7.0),
    (None, None),
    ("", None),
    ("soon", None),
    ("-1s", None),
    ("+1", None),
    ("1d", None),
    ("1s 2s", None),
    ("s", None),
    (".", None),
    ("nan", None),
    ("1e3", None),
    ("١s", None),
    ("2026-11-23T00:00:00Z", None),
    ("1" * 41, None),
]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS, ids=repr)
def test_reset_in_every_form(text: str | None, seconds: float | None) -> None:
    """Go's durations and plain seconds; anything else is not believed."""
    assert reset_seconds(text) == pytest.approx(seconds)


@given(st.text(alphabet="0123456789.hmsuµn -", max_size=45))
def test_reset_never_fails(text: str) -> None:
    """Whatever a server sends is a number of 0 or more, or None."""
    seconds = reset_seconds(text)

    assert seconds is None or 0 <= seconds < math.inf


def send_all(limits: Limits, times: list[float]) -> list[float]:
    """Return when requests go out that are wanted at these times, in order."""
    sent: list[float] = []
    now = 0.0
    for wanted in times:
        now = max(now, wanted)
        while (delay := limits.delay(now)) > 0:
            now += delay
        limits.take(now)
        sent.append(now)
    return sent


def busiest_minute(sent: list[float]) -> int:
    """Return the most requests that lie within 60 s, both ends included."""
    first = most = 0
    for last, now in enumerate(sent):
        while now - sent[first] > 60:
            first += 1
        most = max(most, last - first + 1)
    return most


@given(
    st.integers(1, 400),
    st.lists(st.floats(0, 30), min_size=1, max_size=300),
)
def test_fixed_limit_holds_in_every_minute(limit: int, gaps: list[float]) -> None:
    """However the requests come: never more than the limit in 60 s, from wherever counted."""
    limits = Limits(requests_per_minute=limit, tokens_per_minute=None, now=0.0)

    sent = send_all(limits, list(itertools.accumulate(gaps)))

    assert busiest_minute(sent) <= limit


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 60, 1000])
def test_fixed_limit_is_used_up(limit: int) -> None:
    """Under pressure, what is left unused of a limit is a twentieth, or part of one request."""
    limits = Limits(requests_per_minute=limit, tokens_per_minute=None, now=0.0)

    sent = send_all(limits, [0.0] * limit * 4)

    assert busiest_minute(sent) <= limit
    assert sum(1 for now in sent if now < 122) >= 2 * limit * 0.94


def test_bucket_is_refilled_to_its_burst_and_may_be_overdrawn() -> None:
    """A debt is paid off at the rate; a rest gains no more than the burst; time never goes back."""
    bucket = TokenBucket(burst=10.0, rate=2.0, now=100.0)

    bucket.take(100.0, 30.0)

    assert bucket.level(100.0) == -20
    assert bucket.delay(100.0, 0.0) == 10
    assert bucket.delay(90.0) == 10.5
    assert bucket.level(1000.0) == 10
    bucket.take(110.0, -500.0)
    assert bucket.level(110.0) == 10


def test_bucket_keeps_a_margin_for_requests_that_bunch_up() -> None:
    """Of 1000 a minute, 50 may go at once and the whole is 982."""
    bucket = bucket_of(1000, 0.0)

    assert bucket.level(0.0) + bucket.rate * 60 == pytest.approx(982, abs=1)


def allowance_of(remaining: int, reset: float | None = 60.0, limit: int | None = 100) -> Allowance:
    """Return what is known after one answer at second 0."""
    allowance = Allowance()
    allowance.update(limit=limit, remaining=remaining, reset=reset, number=1, sent=1, now=0.0)
    return allowance


def test_nothing_is_held_back_while_nothing_is_known() -> None:
    """No header, no limit."""
    allowance = Allowance()
    allowance.update(limit=100, remaining=None, reset=60.0, number=1, sent=1, now=0.0)

    allowance.take(0.0)

    assert allowance.delay(0.0) == 0
    assert allowance.rate(0.0) is None
    assert allowance.remaining(0.0) is None
    assert allowance.reset(0.0) is None


def test_plenty_is_not_held_back() -> None:
    """More than half of the limit is left: a call goes at once."""
    allowance = allowance_of(90)

    allowance.take(0.0)

    assert allowance.delay(0.0) == 0
    assert allowance.remaining(0.0) == 89
    assert allowance.rate(0.0) == pytest.approx(89 / 60)


def test_scarce_rest_is_spread_over_the_time_to_the_reset() -> None:
    """With 31 left for 60 s, one goes now and each further one 2 s later."""
    allowance = allowance_of(31)
    now, sent = 0.0, []
    for _ in range(31):
        now += allowance.delay(now)
        allowance.take(now)
        sent.append(now)

    assert sent[:3] == pytest.approx([0, 2, 4])
    assert sent[-1] <= 60
    assert allowance.delay(sent[-1]) == pytest.approx(60 - sent[-1])


def test_nothing_is_sent_when_nothing_remains_until_the_reset() -> None:
    """The 0 of the server is believed, and so is its time."""
    allowance = allowance_of(0, 20.0)

    assert allowance.delay(0.0) == allowance.delay(0.0, 3) == 20
    assert allowance.delay(19.0) == 1
    assert allowance.delay(20.0) == 0


def test_after_a_reset_no_more_go_at_once_than_the_server_grants() -> None:
    """500 waiters and a limit of 100: 100 may go before another answer has come."""
    allowance = allowance_of(0, 20.0)

    for _ in range(100):
        allowance.take(20.0)

    assert allowance.delay(20.0) == pytest.approx(60)
    assert allowance.remaining(80.0) is None, "and what was only a guess is forgotten"
    assert allowance.delay(80.0) == 0


def test_without_a_reset_ten_seconds_are_assumed() -> None:
    """Azure sends what remains and nothing else."""
    allowance = allowance_of(0, None, None)

    assert allowance.delay(0.0) == ASSUMED_RESET


def test_without_a_limit_the_most_that_was_left_stands_in() -> None:
    """100 were left once, so 30 are few."""
    allowance = allowance_of(100, None, None)
    allowance.update(limit=None, remaining=30, reset=None, number=2, sent=2, now=0.0)
    allowance.take(0.0)

    assert allowance.limit == 100
    assert allowance.delay(0.0) > 0


def test_answers_that_overtake_each_other_are_put_in_order() -> None:
    """What was sent later than the answered request is not in its count; old answers are old."""
    allowance = Allowance()

    allowance.update(limit=100, remaining=20, reset=60.0, number=5, sent=8, now=0.0)
    allowance.update(limit=100, remaining=90, reset=60.0, number=2, sent=8, now=0.0)

    assert allowance.remaining(0.0) == 17


def test_forgotten_knowledge_makes_room_for_any_answer() -> None:
    """A request that nobody counted is believed once nothing is known any more."""
    allowance = Allowance()
    allowance.update(limit=100, remaining=1, reset=1.0, number=50, sent=50, now=0.0)
    assert allowance.remaining(1.0) == 100
    assert allowance.remaining(61.0) is None

    allowance.update(limit=100, remaining=7, reset=60.0, number=0, sent=50, now=62.0)

    assert allowance.remaining(62.0) == 7


def test_reset_in_an_hour_holds_nothing_back() -> None:
    """A daily limit that is used up is said by a 429, at once, and not by a wait for hours."""
    allowance = allowance_of(0, 3600.0)

    assert allowance.delay(0.0) == 0
    assert allowance.rate(0.0) is None
    assert allowance_of(0, MAX_RETRY_AFTER).delay(0.0) == MAX_RETRY_AFTER


def limits_of(**changes: int | None) -> Limits:
    """Return limits at second 0."""
    return Limits(**{"requests_per_minute": None, "tokens_per_minute": None, **changes}, now=0.0)


def test_nothing_is_limited_until_something_is_known() -> None:
    """No limit, no header, no 429."""
    limits = limits_of()

    assert limits.delay(0.0) == limits.token_delay(0.0) == limits.paused(0.0) == 0
    assert limits.rate(0.0) is None
    assert not limits.is_limiting(0.0)


def test_strictest_limit_holds() -> None:
    """A fixed limit, one of the server and a pause at once."""
    limits = limits_of(requests_per_minute=600)
    limits.on_headers(
        RateLimit(limit_requests=100, remaining_requests=0, reset_requests="20s"), 0, 0.0
    )
    assert limits.delay(0.0) == 20
    assert limits.rate(0.0) == pytest.approx(1 / 20)

    limits.on_answer(refused=True, asked=30.0, number=0, now=0.0)

    assert limits.delay(0.0) == limits.paused(0.0) == 30
    assert limits.is_limiting(0.0)


def test_pause_is_the_longest_that_was_asked_for_and_no_endless_one() -> None:
    """A shorter `Retry-After` does not undo a longer; more than 120 s holds nobody back."""
    limits = limits_of()
    limits.on_answer(refused=True, asked=9.0, number=0, now=0.0)
    limits.on_answer(refused=True, asked=3.0, number=0, now=1.0)
    limits.on_answer(refused=True, asked=3600.0, number=0, now=1.0)
    limits.on_answer(refused=True, asked=None, number=0, now=1.0)

    assert limits.paused(1.0) == 8
    assert limits.is_limiting(1.0)


def test_runs_wait_while_no_tokens_are_left_by_the_servers_word() -> None:
    """Until their reset, unless that is an hour away; requests go on."""
    limits = limits_of()

    limits.on_headers(RateLimit(remaining_tokens=0, reset_tokens="7s"), 0, 0.0)

    assert limits.token_delay(0.0) == 7
    assert limits.delay(0.0) == 0
    assert limits.is_limiting(0.0)
    limits.on_headers(RateLimit(remaining_tokens=0, reset_tokens="1h0m0s"), 0, 0.0)
    assert limits.token_delay(0.0) == 0
    limits.on_headers(RateLimit(remaining_tokens=10, reset_tokens="7s"), 0, 0.0)
    assert limits.token_delay(0.0) == 0


def test_tokens_are_paid_for_afterwards() -> None:
    """A run's use is a debt that the minute pays off; until then no other run is created."""
    limits = limits_of(tokens_per_minute=6000)
    account = limits.account
    assert account is not None
    assert limits.is_limiting(0.0)
    account.began("run_1", account.begin(0.0))
    assert limits.token_delay(0.0) == 0

    account.ended("run_1", 6300, 0.0)

    assert limits.token_delay(0.0) == pytest.approx(60, rel=0.1)


def test_runs_under_way_are_charged_with_what_others_used() -> None:
    """Nobody knows what they will use: those before them are the best guess."""
    account = TokenAccount(6000, 0.0)
    account.began("run_1", account.begin(0.0))
    account.ended("run_1", 1000, 0.0)
    paid = account.delay(0.0)

    guess = account.begin(0.0)
    account.began("run_2", guess)

    assert guess == 1000
    assert account.delay(0.0) > paid
    account.ended("run_2", 0, 0.0)
    assert account.delay(0.0) == pytest.approx(paid)
    assert account.begin(0.0) == 800
    account.undo(800, 0.0)
    assert account.delay(0.0) == pytest.approx(paid)


def test_run_is_charged_once_and_only_where_it_was_begun() -> None:
    """It may be fetched again and again after its end, and others' runs are theirs."""
    account = TokenAccount(6000, 0.0)
    account.began("run_1", account.begin(0.0))

    account.ended("run_1", 900, 0.0)
    paid = account.delay(0.0)
    account.ended("run_1", 900, 0.0)
    account.ended("run_of_others", 900, 0.0)

    assert account.delay(0.0) == paid


def test_runs_that_are_never_seen_ended_are_forgotten() -> None:
    """A client that only creates does not grow for ever."""
    account = TokenAccount(6000, 0.0)
    for number in range(TokenAccount.MAX_OPEN + 1):
        account.began(f"run_{number}", 0.0)

    account.ended("run_0", 9000, 0.0)
    assert account.delay(0.0) == 0
    account.ended("run_1", 9000, 0.0)
    assert account.delay(0.0) > 0
