"""Intervals of percentiles: they hold what they promise on times as a busy machine gives them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeclf_device.intervals import autocorrelation_time, percentile_interval

TIMES = arrays(np.int64, st.integers(2, 300), elements=st.integers(0, 10**10))


def alike(draw: np.random.Generator, count: int, correlation: float) -> np.ndarray:
    """Times of 5 ms, each like the one before (AR(1)), and one in two hundred takes five times as long."""
    shocks = draw.normal(0, np.sqrt(1 - correlation**2), count + 200)
    level = 0.0
    levels = np.empty(count + 200)
    for place, shock in enumerate(shocks):
        levels[place] = level = correlation * level + shock
    times = 5e6 * (1 + 0.03 * levels[200:])
    return (times * np.where(draw.random(count) < 0.005, 5, 1)).astype(np.int64)


@pytest.mark.parametrize("correlation", [0.0, 0.7])
@pytest.mark.parametrize("rank", [50, 90])
def test_the_interval_holds_the_percentile_as_often_as_it_says(correlation, rank):
    draw = np.random.default_rng(0)
    true = np.percentile(np.concatenate([alike(draw, 2000, correlation) for _ in range(100)]), rank)
    found = [percentile_interval(alike(draw, 600, correlation), rank) for _ in range(300)]
    held = np.mean([low <= true <= high for low, high in found])
    assert 0.91 <= held <= 0.99


def test_an_interval_that_takes_each_sample_for_a_new_one_would_hold_less_often():
    draw = np.random.default_rng(1)
    times = [alike(draw, 600, 0.7) for _ in range(50)]
    mixed = [draw.permutation(one) for one in times]
    width = [np.diff(percentile_interval(one, 50))[0] for one in times]
    assert np.median(width) > 1.5 * np.median([np.diff(percentile_interval(one, 50))[0] for one in mixed])


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_the_autocorrelation_time_is_that_of_the_process(correlation):
    draw = np.random.default_rng(2)
    found = [autocorrelation_time(alike(draw, 4000, correlation).clip(max=7_000_000) * 1.0) for _ in range(20)]
    # Of an AR(1) process it is (1 + r) / (1 - r); the long ones, which come alone, lower it.
    assert 0.3 * (1 + correlation) / (1 - correlation) <= np.mean(found) <= 1.2 * (1 + correlation) / (1 - correlation)


def test_too_few_samples_have_no_interval():
    times = np.arange(1000)
    assert percentile_interval(times[:5], 50) is None
    assert percentile_interval(np.random.default_rng(3).permutation(times), 99.9) is None
    assert percentile_interval(times[:1], 50) is None


def test_times_that_never_differ_have_an_interval_of_no_width():
    assert percentile_interval(np.full(100, 7), 50) == (7, 7)


@given(TIMES, st.sampled_from([50, 90, 99]))
def test_the_interval_holds_the_samples_own_percentile(times, rank):
    interval = percentile_interval(times, rank)
    if interval is not None:
        low, high = interval
        assert low <= np.percentile(times, rank, method="inverted_cdf") <= high
        assert {low, high} <= set(times.tolist())


@given(TIMES, st.integers(1, 1000))
def test_the_interval_is_in_the_units_of_the_samples(times, factor):
    interval = percentile_interval(times, 50)
    scaled = percentile_interval(times * factor, 50)
    assert scaled == (None if interval is None else tuple(factor * bound for bound in interval))


@given(TIMES)
def test_more_confidence_is_a_wider_interval(times):
    wide, narrow = (percentile_interval(times, 50, confidence=sure) for sure in (0.99, 0.95))
    if wide is not None:
        assert narrow is not None
        assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]
