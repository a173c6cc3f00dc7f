"""When an attempt is repeated, and after how long: a table of facts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs._protocol.retry import (
    RetryBudget,
    backoff,
    is_ambiguous,
    is_retryable,
    is_spent,
    is_too_long,
    retry_after,
    server_time,
)
from openai_runs.config import MAX_RETRY_AFTER, RETRY_BUDGET, RETRY_COST, RetryPolicy

EPOCH_2026 = 1767225600.0
"""Thu, 01 Jan 2026 00:00:00 GMT."""
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"

ASKED = [
    ({}, None),
    ({"retry-after-ms": "1500"}, 1.5),
    ({"retry-after-ms": "0"}, 0.0),
    ({"x-ms-retry-after-ms": "250"}, 0.25),
    ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
    ({"retry-after-ms": "junk", "retry-after": "7"}, 7.0),
    ({"retry-after-ms": "nan", "x-ms-retry-after-ms": "250"}, 0.25),
    ({"retry-after": "7"}, 7.0),
    ({"retry-after": " 7 "}, 7.0),
    ({"retry-after": "7\x1f"}, 7.0),  # white space to `strip`, and none to `float`
    ({"retry-after-ms": "\x1c1500"}, 1.5),
    ({"retry-after": "0"}, 0.0),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after": "1e1"}, 10.0),
    ({"retry-after": "1e400"}, math.inf),
    ({"retry-after": "9" * 5000}, math.inf),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "-1"}, None),
    ({"retry-after": "+1"}, None),
    ({"retry-after": "1_0"}, None),
    ({"retry-after": "١"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "7, 8"}, None),
    # IMF-fixdate, RFC 850 and asctime: RFC 9110 section 5.6.7 asks for all three
    ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT", "date": DATE}, 30.0),
    ({"retry-after": "Thursday, 01-Jan-26 00:00:30 GMT", "date": DATE}, 30.0),
    ({"retry-after": "Thu Jan  1 00:00:30 2026", "date": DATE}, 30.0),
    ({"retry-after": "01 Jan 2026 00:00:30 -0000", "date": DATE}, 30.0),
    ({"retry-after": "Thu, 01 Jan 2026 01:00:30 +0100", "date": DATE}, 30.0),
    ({"retry-after": "Wed, 31 Dec 2025 23:59:00 GMT", "date": DATE}, 0.0),
    ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, 20.0),
    ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT", "date": "junk"}, 20.0),
    ({"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT", "date": "Thu, 01 Jan 1970 00:00:00 GMT"}, 30),
    ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT", "date": DATE}, 251635075199.0),
    ({"retry-after": "Thu, 01 Jan 99999 00:00:30 GMT", "date": DATE}, None),
    ({"retry-after": "Thu, 01 Jan 2026 00:00:30 +99999999999"}, None),
    ({"retry-after": "Thu, 41 Jan 2026 00:00:30 GMT"}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), ASKED)
def test_retry_after_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    """Milliseconds win over seconds and dates; a date counts from the answer's own; else None."""
    assert retry_after(headers, EPOCH_2026 + 10) == seconds


@given(st.text(max_size=60))
def test_retry_after_never_fails(value: str) -> None:
    """Whatever a server sends, the answer is a pause of 0 or more, or None."""
    headers = {"retry-after": value, "date": value, "retry-after-ms": value}

    seconds = retry_after(headers, 0.0)

    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("date", "seconds"), [(DATE, EPOCH_2026), ("", None), ("junk", None), ("Wed, 3", None)]
)
def test_server_time_is_the_answers_date(date: str, seconds: float | None) -> None:
    """Unix seconds, or None where there is no date."""
    assert server_time({"date": date}) == seconds
    assert server_time({}) is None


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [(None, False), (MAX_RETRY_AFTER, False), (MAX_RETRY_AFTER + 0.1, True), (math.inf, True)],
)
def test_too_long_a_pause_is_not_kept(seconds: float | None, verdict: bool) -> None:
    """Up to 120 seconds are waited; longer means give up."""
    assert is_too_long(seconds) is verdict


RETRYABLE = [
    (200, {}, None, False),
    (400, {}, None, False),
    (401, {}, None, False),
    (404, {}, None, False),
    (408, {}, None, True),
    (409, {}, None, True),
    (409, {}, "idempotency_key_reused", False),
    (409, {}, "stream_position_lost", False),
    (422, {}, None, False),
    (429, {}, "rate_limit_exceeded", True),
    (429, {}, "insufficient_quota", False),
    (500, {}, None, True),
    (503, {}, None, True),
    (529, {}, None, True),
    (503, {"x-should-retry": "false"}, None, False),
    (400, {"x-should-retry": "true"}, None, True),
    (400, {"x-should-retry": " TRUE "}, None, True),
    (429, {"x-should-retry": "true"}, "insufficient_quota", True),
    (503, {"x-should-retry": "maybe"}, None, True),
    (400, {"x-should-retry": ""}, None, False),
]


@pytest.mark.parametrize(("status", "headers", "code", "verdict"), RETRYABLE)
def test_what_may_succeed_later_is_retryable(
    status: int, headers: dict[str, str], code: str | None, verdict: bool
) -> None:
    """408, 409, 429 and 5xx, unless the code is final; `x-should-retry` wins over all."""
    assert is_retryable(status, headers, code) is verdict


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(200, False), (400, False), (408, True), (409, False), (429, False), (500, True), (503, True)],
)
def test_answers_that_leave_the_work_ambiguous(status: int, verdict: bool) -> None:
    """408 and 5xx do not say whether the work was done; 429 says it was not."""
    assert is_ambiguous(status) is verdict


@pytest.mark.parametrize(
    ("attempt", "asked", "chance", "seconds"),
    [
        (1, None, 0.0, 0.5),
        (2, None, 0.0, 1.0),
        (3, None, 0.0, 2.0),
        (5, None, 0.0, 8.0),
        (6, None, 0.0, 8.0),
        (10_000, None, 0.0, 8.0),
        (1, None, 1.0, 0.375),
        (1, None, 0.5, 0.4375),
        (1, 7.0, 1.0, 7.0),
        (9, 0.0, 0.0, 0.0),
    ],
)
def test_backoff_doubles_to_a_maximum(
    attempt: int, asked: float | None, chance: float, seconds: float
) -> None:
    """The official SDK's numbers: 0.5 s doubled up to 8 s, up to a quarter off; asked wins."""
    assert backoff(RetryPolicy(), attempt, asked, chance) == seconds


@pytest.mark.parametrize(
    ("asked", "initial", "seconds"),
    [(0.0, 0.5, 0.5), (0.0, 0.0, 0.05), (None, 0.0, 0.05), (3.0, 0.5, 3.0), (None, 0.5, 2.0)],
)
def test_backoff_of_a_patient_policy_is_never_nothing(
    asked: float | None, initial: float, seconds: float
) -> None:
    """A `Retry-After: 0` that is answered for minutes would be a flood."""
    assert backoff(RetryPolicy(patience=60.0, initial=initial), 3, asked, 0.0) == seconds


@pytest.mark.parametrize(
    ("policy", "attempt", "failing", "silent", "verdict"),
    [
        (RetryPolicy(), 2, 1e9, 1e9, False),
        (RetryPolicy(), 3, 0.0, 0.0, True),
        (RetryPolicy(max_retries=0, patience=60.0), 1, 0.0, 0.0, True),
        (RetryPolicy(patience=0.0), 1, 0.0, 0.0, True),
        (RetryPolicy(patience=60.0), 1000, 59.9, 59.9, False),
        (RetryPolicy(patience=60.0), 2, 60.0, 60.0, True),
        (RetryPolicy(patience=60.0), 1000, 599.9, 0.0, False),
        (RetryPolicy(patience=60.0), 1000, 600.0, 0.0, True),
        (RetryPolicy(patience=900.0), 1000, 899.0, 0.0, False),
        (RetryPolicy(patience=math.inf), 1000, 1e9, 1e9, False),
    ],
)
def test_attempts_or_patience_are_spent(
    policy: RetryPolicy, attempt: int, failing: float, silent: float, verdict: bool
) -> None:
    """The number of attempts counts, or the seconds of silence, and 600 s where 429s come."""
    assert is_spent(policy, attempt, failing, silent) is verdict


@given(
    st.integers(1, 2000),
    st.floats(0, 1),
    st.builds(
        RetryPolicy,
        initial=st.floats(0, 1e6),
        maximum=st.floats(0, 1e6),
        jitter=st.floats(0, 1),
    ),
)
def test_backoff_is_always_a_possible_pause(
    attempt: int, chance: float, policy: RetryPolicy
) -> None:
    """Never negative, never beyond the maximum, for any policy that can be made."""
    assert 0 <= backoff(policy, attempt, None, chance) <= policy.maximum


def test_budget_lets_twenty_retries_through() -> None:
    """Then it fails fast until calls succeed again."""
    budget = RetryBudget()

    permits = [budget.acquire() for _ in range(21)]

    assert permits == [True] * 20 + [False]
    assert budget.tokens == RETRY_BUDGET - 20 * RETRY_COST


def test_budget_is_filled_by_successes_up_to_its_size() -> None:
    """Five successes pay for one retry; a full bucket holds no more."""
    budget = RetryBudget(capacity=10, cost=5)
    budget.succeeded()
    assert budget.tokens == 10

    assert [budget.acquire(), budget.acquire(), budget.acquire()] == [True, True, False]
    for _ in range(4):
        budget.succeeded()
    assert not budget.acquire()
    budget.succeeded()
    assert budget.acquire()
