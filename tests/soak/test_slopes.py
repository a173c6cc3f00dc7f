"""The slopes of the soak: by how much a figure grows in an hour."""

from __future__ import annotations

import random

import pytest

from tests.soak.slopes import HOUR, Limit, judge, slope, table, thinned

FLAT = [(at * 10.0, 7.0) for at in range(100)]
RISING = [(at * 10.0, 5.0 + at / 360) for at in range(100)]
STEP = [(at * 10.0, 5.0 if at < 20 else 9.0) for at in range(100)]
OUTLIERS = [(at, value + 1000 * (number % 4 == 0)) for number, (at, value) in enumerate(RISING)]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        pytest.param([], 0.0, id="none"),
        pytest.param([(5.0, 3.0)], 0.0, id="one"),
        pytest.param([(5.0, 3.0), (5.0, 4.0)], 0.0, id="one-moment"),
        pytest.param([(0.0, 3.0), (HOUR, 5.0)], 2.0, id="two"),
        pytest.param(FLAT, 0.0, id="flat"),
        pytest.param(RISING, 1.0, id="rising"),
        pytest.param([(at, -value) for at, value in RISING], -1.0, id="falling"),
        pytest.param(RISING[::-1], 1.0, id="any-order"),
        pytest.param(STEP, 0.0, id="one-early-step"),
    ],
)
def test_slope_is_that_of_most_pairs(points: list[tuple[float, float]], expected: float) -> None:
    """The median of the slopes of all pairs, per hour."""
    assert slope(points) == pytest.approx(expected, abs=1e-9)


def test_strange_samples_do_not_bend_the_slope() -> None:
    """With a fourth of the samples far off, the sign and the size of the slope stay."""
    shuffled = [(at, value + random.Random(at).choice([0, 0, 0, 50])) for at, value in RISING]

    assert slope(shuffled) == pytest.approx(1.0, abs=3)
    assert slope([(at, value) for at, value in OUTLIERS if value < 1000]) == pytest.approx(1.0)


def test_many_samples_are_thinned() -> None:
    """A slope takes the square of the samples, so that a long soak gives no more than 400."""
    points = [(float(at), float(at)) for at in range(10_001)]

    assert len(thinned(points)) <= 400
    assert thinned(points)[0] == (0.0, 0.0)
    assert thinned(points[:400]) == points[:400]
    assert slope(points) == pytest.approx(HOUR)


@pytest.mark.parametrize(
    ("grows", "noise", "holds"),
    [(1.1, 0.0, True), (0.9, 0.0, False), (0.9, 0.3, True)],
    ids=["within", "beyond", "noise"],
)
def test_row_holds_within_its_limit(grows: float, noise: float, holds: bool) -> None:
    """A figure may grow by its limit in an hour, or by the noise in all; the table says so."""
    row = judge(Limit("rss", grows, noise, 0.5, "halves"), RISING)

    assert row.holds is holds
    assert (row.least, row.most) == (5.0, 5.0 + 99 / 360)
    shown = table([row]).splitlines()[-1]
    assert shown.startswith("| rss, halves | 10.1 | 10.5 | 10.0 | 10.6 | +2.00 |")
    assert shown.endswith(f"| {'yes' if holds else 'NO'} |")


def test_figure_without_samples_is_an_error() -> None:
    """A figure that was never sampled is not one that holds."""
    with pytest.raises(ValueError, match="no sample of rss"):
        judge(Limit("rss", 1, 1), [])
