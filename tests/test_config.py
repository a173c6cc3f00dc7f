"""Settings: numbers that no wait could be made of are refused, and keys are not shown."""

import math
from typing import Any

import pytest

from openai_runs.config import (
    Environment,
    PollPolicy,
    RateLimits,
    RetryPolicy,
    check_count,
    check_timeout,
    from_env,
)

GOOD: list[tuple[type, dict[str, float]]] = [
    (RetryPolicy, {}),
    (RetryPolicy, {"max_retries": 0}),
    (RetryPolicy, {"initial": 0, "maximum": 0, "jitter": 0}),
    (RetryPolicy, {"jitter": 1}),
    (RetryPolicy, {"patience": 0}),
    (RetryPolicy, {"patience": math.inf}),
    (PollPolicy, {}),
    (PollPolicy, {"initial": 0, "long_poll": 0, "max_outage": 0, "maximum": 0}),
    (PollPolicy, {"max_outage": math.inf}),
    (PollPolicy, {"factor": 1}),
    (RateLimits, {}),
    (RateLimits, {"requests_per_minute": 1, "tokens_per_minute": 1}),
]
BAD: list[tuple[type, str, float]] = [
    (RetryPolicy, "max_retries", -1),
    (RetryPolicy, "initial", -0.1),
    (RetryPolicy, "initial", math.nan),
    (RetryPolicy, "maximum", math.inf),
    (RetryPolicy, "jitter", 1.1),
    (RetryPolicy, "jitter", -0.1),
    (RetryPolicy, "jitter", math.nan),
    (RetryPolicy, "patience", -1),
    (RetryPolicy, "patience", math.nan),
    (PollPolicy, "initial", -1),
    (PollPolicy, "maximum", math.nan),
    (PollPolicy, "long_poll", math.inf),
    (PollPolicy, "max_outage", -1),
    (PollPolicy, "max_outage", math.nan),
    (PollPolicy, "jitter", 2),
    (PollPolicy, "factor", 0.9),
    (PollPolicy, "factor", math.nan),
    (PollPolicy, "factor", math.inf),
    (RateLimits, "requests_per_minute", 0),
    (RateLimits, "tokens_per_minute", -1),
]


@pytest.mark.parametrize(("policy", "values"), GOOD)
def test_policy_takes_what_makes_sense(policy: Any, values: dict[str, Any]) -> None:
    """Zero and the ends of each range are allowed, and kept."""
    made = policy(**values)

    assert {name: getattr(made, name) for name in values} == values


@pytest.mark.parametrize(("policy", "name", "value"), BAD)
def test_policy_refuses_what_does_not(policy: Any, name: str, value: float) -> None:
    """The error names the field and shows the value."""
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        policy(**{name: value})


@pytest.mark.parametrize("value", [1.5, "1000", True])
def test_limit_that_is_no_whole_number_is_refused(value: Any) -> None:
    """Half a request cannot be sent."""
    with pytest.raises(TypeError, match="requests_per_minute must be an integer or None"):
        RateLimits(requests_per_minute=value)


@pytest.mark.parametrize("policy", [RetryPolicy(), PollPolicy()])
def test_policy_is_frozen(policy: Any) -> None:
    """A policy can be shared freely."""
    with pytest.raises(AttributeError):
        policy.initial = 5


@pytest.mark.parametrize(
    ("value", "kept"), [(None, None), (1, 1.0), (0.001, 0.001), (math.inf,) * 2]
)
def test_timeout_is_a_positive_number_or_none(value: float | None, kept: float | None) -> None:
    """Whole numbers become floats; infinity is allowed, on purpose."""
    assert check_timeout("timeout", value) == kept


@pytest.mark.parametrize("value", [0, -1, math.nan, -math.inf])
def test_timeout_that_cannot_be_waited_is_refused(value: float) -> None:
    """The error names the argument."""
    with pytest.raises(ValueError, match="request_timeout must be more than 0"):
        check_timeout("request_timeout", value)


@pytest.mark.parametrize("value", ["60", True, [], 1j])
def test_timeout_of_another_kind_is_refused(value: Any) -> None:
    """A text or a flag is a mistake, not a number."""
    with pytest.raises(TypeError, match="timeout must be a number"):
        check_timeout("timeout", value)


def test_environment_is_read_by_the_official_names() -> None:
    """The four variables users of the official SDK have set already."""
    environ = {
        "OPENAI_BASE_URL": " http://127.0.0.1:8080/v1 ",
        "OPENAI_API_KEY": "sk-secret\n",
        "OPENAI_ORG_ID": "org-1",
        "OPENAI_PROJECT_ID": "proj-1",
        "OTHER": "x",
    }

    assert from_env(environ) == Environment(
        base_url="http://127.0.0.1:8080/v1",
        api_key="sk-secret",
        organization="org-1",
        project="proj-1",
    )


@pytest.mark.parametrize("environ", [{}, {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": "  "}])
def test_blank_variables_count_as_absent(environ: dict[str, str]) -> None:
    """An empty variable in a compose file is no key."""
    assert from_env(environ) == Environment()


def test_environment_does_not_show_the_key() -> None:
    """Neither repr nor rich's own way of printing has it; without a key it says so."""
    found = Environment(base_url="http://h", api_key="sk-secret")

    assert repr(found) == (
        "Environment(base_url='http://h', api_key='***', organization=None, project=None)"
    )
    assert ("api_key", "***") in found.__rich_repr__()
    assert "api_key=None" in repr(Environment())


@pytest.mark.parametrize("value", [1, 10**6])
def test_count_of_at_least_one_is_kept(value: int) -> None:
    """There is no upper bound."""
    assert check_count("concurrency", value) == value


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError), ("1", TypeError)],
)
def test_count_that_is_none_is_refused(value: object, error: type[Exception]) -> None:
    """The error names the option and shows the value."""
    with pytest.raises(error, match=rf"concurrency must be .*, got {value!r}"):
        check_count("concurrency", value)
