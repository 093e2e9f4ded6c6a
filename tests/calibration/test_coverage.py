from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeclf_calibration.coverage import RARE, Extremes, farthest_first, widest_first

SIDE = 32
points = st.integers(1, 9).flatmap(lambda n: arrays(np.float32, (n, 2), elements=st.integers(-9, 9)))


def radius(rows: np.ndarray, chosen) -> float:
    """Largest distance of a row to its nearest chosen one."""
    wide = rows.astype(np.float64)
    return float(np.sqrt(((wide[:, np.newaxis] - wide[list(chosen)]) ** 2).sum(axis=2)).min(axis=1).max())


@given(points, st.integers(1, 9))
def test_no_point_is_more_than_twice_as_far_from_the_centers_as_with_the_best_ones(rows, count):
    count = min(count, len(rows))
    chosen = farthest_first(rows, count)
    assert len(set(chosen)) == count
    best = min(radius(rows, some) for some in combinations(range(len(rows)), count))
    assert radius(rows, chosen) <= 2 * best + 1e-6


def test_the_first_center_is_nearest_the_mean_and_each_further_one_farthest_from_those_before():
    digits = pytest.importorskip("sklearn.datasets").load_digits().data.astype(np.float32)
    chosen = farthest_first(digits, 40)
    from_mean = np.linalg.norm(digits.astype(np.float64) - digits.mean(axis=0), axis=1)
    assert from_mean[chosen[0]] == pytest.approx(from_mean.min())
    for place in range(1, 40):
        gaps = np.linalg.norm(digits[:, np.newaxis] - digits[chosen[:place]], axis=2).min(axis=1)
        assert gaps[chosen[place]] == gaps.max()


def test_32_centers_of_the_digits_cover_them_better_than_any_of_20_random_choices():
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    rows = digits.data.astype(np.float32)
    chosen = farthest_first(rows, 32)
    random = [np.random.default_rng(seed).permutation(len(rows))[:32] for seed in range(20)]
    assert radius(rows, chosen) < 0.96 * min(radius(rows, some) for some in random)
    assert set(digits.target[chosen]) == set(range(10))


def test_more_points_than_a_block_holds_give_the_distances_of_all():
    rows = np.zeros((2500, 3), np.float32)
    rows[[700, 1500, 2499]] = [[4, 0, 0], [0, 5, 0], [0, 0, 6]]
    assert farthest_first(rows, 4) == [0, 2499, 1500, 700]


def crops_through_filters() -> tuple[np.ndarray, np.ndarray]:
    """Minima and maxima (crops, filters) of a fixed layer of 24 random 5×5×3 filters over 266 crops of real photos."""
    filters = np.random.default_rng(3).normal(0, 1, (24, 5, 5, 3)) / 255
    extremes = Extremes()
    for photo in pytest.importorskip("sklearn.datasets").load_sample_images().images:
        for top in range(0, photo.shape[0] - SIDE, SIDE):
            for left in range(0, photo.shape[1] - SIDE, SIDE):
                crop = photo[top : top + SIDE, left : left + SIDE].astype(np.float64)
                windows = np.lib.stride_tricks.sliding_window_view(crop, (5, 5, 3))[::3, ::3, 0]
                layer = np.einsum("yxhwc,fhwc->fyx", windows, filters)
                extremes.update({"empty": np.zeros(0), **{f"filter{n}": values for n, values in enumerate(layer)}})
    return extremes.minima(), extremes.maxima()


@pytest.fixture(scope="module")
def real():
    return crops_through_filters()


def covered(minima: np.ndarray, maxima: np.ndarray, chosen) -> float:
    """Mean over the tensors of the share of all images' range that the chosen ones have."""
    full = maxima.max(axis=0) - minima.min(axis=0)
    chosen = list(chosen)
    return float(((maxima[chosen].max(axis=0) - minima[chosen].min(axis=0)) / full).mean())


def test_8_extreme_crops_of_photos_have_more_of_the_ranges_than_any_of_20_choices_of_32_at_random(real):
    minima, maxima = real
    assert minima.shape == maxima.shape == (494, 24)
    random = [np.random.default_rng(seed).permutation(len(minima))[:32] for seed in range(20)]
    best = max(covered(minima, maxima, some) for some in random)
    assert covered(minima, maxima, widest_first(minima, maxima, 8)) > best


def test_as_many_extreme_crops_as_there_are_ends_have_the_whole_ranges(real):
    minima, maxima = real
    assert covered(minima, maxima, widest_first(minima, maxima, 2 * minima.shape[1])) == 1


def test_an_absurd_image_is_chosen_but_hides_nothing_else(real):
    minima, maxima = (side[::8] for side in real)
    sane = covered(minima, maxima, widest_first(minima, maxima, 8))
    for columns in (slice(None), slice(0, 12)):
        high, low = (np.concatenate([side, side[:1]]) for side in (maxima, minima))
        high[-1, columns] = 1e9
        low[-1, columns] = -1e9
        chosen = widest_first(low, high, 9)
        assert chosen[0] == len(minima)
        assert covered(minima, maxima, chosen[1:]) > 0.97 * sane


def test_a_tensor_that_only_a_rare_image_excites_is_not_overlooked():
    minima, maxima = np.zeros((1000, 2), np.float32), np.zeros((1000, 2), np.float32)
    maxima[:, 0] = np.linspace(1, 2, 1000)
    maxima[3, 1] = 1e-3
    minima[500, 0] = -0.4
    assert widest_first(minima, maxima, 3) == [3, 999, 500]
    assert 1000 * RARE > 1


def test_when_the_ranges_are_covered_the_walk_begins_again_with_the_next_in_line():
    maxima = np.array([[1], [9], [3], [8], [2], [9.5]], np.float32)
    assert widest_first(np.zeros_like(maxima), maxima, 6) == [5, 1, 3, 2, 4, 0]


@given(
    st.integers(1, 7).flatmap(
        lambda n: st.tuples(*(arrays(np.float32, (n, 3), elements=st.integers(0, 6)) for _ in range(2)))
    ),
    st.integers(1, 4),
)
def test_the_cover_is_at_least_what_greedy_choice_promises_of_the_best_one(sides, count):
    minima, maxima = -sides[0], sides[1]
    count = min(count, len(minima))
    chosen = widest_first(minima, maxima, count)
    assert len(set(chosen)) == count
    # The worth of a set, written anew: how far it reaches beyond the least image, in widths of each range.
    high = np.sort(maxima, axis=0)[int(np.floor((1 - RARE) * (len(maxima) - 1)))]
    low = np.sort(minima, axis=0)[int(np.ceil(RARE * (len(minima) - 1)))]
    widths = np.where(high > low, high - low, np.maximum(maxima.max(axis=0) - minima.min(axis=0), 1e-9))

    def worth(some):
        some = list(some)
        up, down = maxima[some].max(axis=0) - maxima.min(axis=0), minima.max(axis=0) - minima[some].min(axis=0)
        return float(((up + down) / widths).sum())

    best = max(worth(some) for some in combinations(range(len(minima)), count))
    assert worth(chosen) >= (1 - 1 / np.e) * best - 1e-5
