"""Paired figures against counting, brute force and properties that every interval must have."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclf.evaluation.paired import drop_interval_points, mcnemar_p, paired


@st.composite
def tables(draw, most=400):
    """(lost, gained, images)."""
    images = draw(st.integers(1, most))
    lost = draw(st.integers(0, images))
    return lost, draw(st.integers(0, images - lost)), images


@given(table=tables())
@settings(deadline=None)
def test_the_drop_lies_in_its_interval_and_the_interval_between_all_lost_and_all_gained(table):
    lost, gained, images = table
    low, high = drop_interval_points(lost, gained, images=images)
    assert -100 <= low <= 100 * (lost - gained) / images <= high <= 100


@given(table=tables())
@settings(deadline=None)
def test_models_that_change_places_have_the_mirrored_interval_and_the_same_p(table):
    lost, gained, images = table
    low, high = drop_interval_points(lost, gained, images=images)
    assert drop_interval_points(gained, lost, images=images) == (-high, -low)
    assert mcnemar_p(gained, lost) == pytest.approx(mcnemar_p(lost, gained))


@given(lost=st.integers(0, 60), gained=st.integers(0, 60))
@settings(deadline=None)
def test_mcnemars_p_is_the_sum_over_all_splits_as_unlikely(lost, gained):
    both = lost + gained
    unlikely = sum(comb(both, count) for count in range(both + 1) if comb(both, count) <= comb(both, lost))
    assert mcnemar_p(lost, gained) == pytest.approx(unlikely / 2**both)


@pytest.mark.parametrize(("lost", "gained", "images"), [(12, 5, 656), (3, 0, 656), (40, 10, 200), (200, 0, 200)])
def test_the_interval_is_that_of_drawn_resamples(lost, gained, images):
    shares = np.array([lost + 0.5, gained + 0.5, images - lost - gained + 1]) / (images + 2)
    drawn = np.random.default_rng(0).multinomial(images, shares, 200_000)
    expected = 100 * np.quantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975], method="inverted_cdf") / images
    # One image more or less: the drawn quantiles are not exact.
    assert drop_interval_points(lost, gained, images=images) == pytest.approx(expected, abs=100 / images + 1e-9)


@pytest.mark.parametrize(
    ("lost", "gained", "images", "low", "high"),
    [
        (0, 0, 656, -2, 2),  # that no image was lost of 656 does not promise that none ever is
        (3, 0, 656, 0, 7),
        (12, 5, 656, -1, 15),
        (0, 0, 18, -2, 2),
        (1, 0, 1, -1, 1),
        (1000, 0, 1000, 994, 1000),
    ],
)
def test_small_cases_in_images(lost, gained, images, low, high):
    found = drop_interval_points(lost, gained, images=images)
    assert found == pytest.approx((100 * low / images, 100 * high / images))


@pytest.mark.parametrize(("share_lost", "share_gained"), [(0.002, 0.0005), (0.005, 0.002), (0.02, 0.01), (0.1, 0.1)])
def test_the_interval_holds_the_true_drop_as_often_as_it_says(share_lost, share_gained):
    draw, images, covered = np.random.default_rng(1), 656, 0
    shares = [share_lost, share_gained, 1 - share_lost - share_gained]
    samples = draw.multinomial(images, shares, 2000)
    tables, counts = np.unique(samples[:, :2], axis=0, return_counts=True)
    for (lost, gained), count in zip(tables.tolist(), counts.tolist(), strict=True):
        low, high = drop_interval_points(lost, gained, images=images)
        covered += count * (low <= 100 * (share_lost - share_gained) <= high)
    assert covered / len(samples) >= 0.93


def test_a_large_split_takes_no_time_and_is_near_the_normal_interval():
    low, high = drop_interval_points(900, 700, images=100_000)
    spread = 1.96 * np.sqrt(1600 - 200**2 / 100_000) / 1000
    assert (low, high) == pytest.approx((0.2 - spread, 0.2 + spread), abs=0.003)


def test_lost_and_gained_images_are_counted():
    before = np.array([True, True, True, False, False, True])
    after = np.array([True, False, False, True, False, True])
    found = paired(before, after)
    assert (found.lost, found.gained, found.mcnemar_p) == (2, 1, 1.0)
    assert found.drop_interval_95 == drop_interval_points(2, 1, images=6)
