from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgeclf_calibration.estimators import ESTIMATORS, Entropy, MeanSquaredError, Percentile
from edgeclf_calibration.histograms import CHUNK_VALUES, Histogram, Histograms
from edgeclf_calibration.ranges import MinMax, Range
from edgeclf_device.errors import UsageError
from edgeclf_device.quantization import Quantization, dequantize, quantize

any_float = st.floats(width=32, allow_nan=False, allow_infinity=False)
usual_float = st.floats(-100, 100, width=32)
streams = st.lists(
    arrays(np.float32, array_shapes(max_dims=2, max_side=20), elements=any_float | usual_float), min_size=1, max_size=4
)
EXTREMES = {
    "nothing but zeros": [0.0, -0.0, 0.0],
    "one value": [7.0],
    "one negative value": [-7.0] * 4,
    "denormals": [1e-45, -1e-45, 1e-39],
    "all of float32": [-3.4028235e38, 3.4028235e38, 1e-45, 1.0],
    "an outlier": [*np.linspace(-1, 1, 1000), 1e30],
    "all negative": np.linspace(-9, -2, 1000),
}


def histogram_of(values: np.ndarray) -> Histogram:
    histograms = Histograms()
    histograms.update({"t": values})
    return histograms["t"]


def range_of(estimator, values: np.ndarray) -> Range:
    estimator.update({"t": values.astype(np.float32)})
    return estimator.ranges()["t"]


def squared_error(values: np.ndarray, low: float, high: float) -> float:
    """What quantizing to uint8 really costs."""
    scale = (high - low) / 255
    quantization = Quantization(scale=scale, zero_point=int(np.rint(-low / scale)))
    back = dequantize(quantize(values, quantization, np.uint8), quantization)
    return float(np.mean((back.astype(np.float64) - values) ** 2))


@given(streams)
def test_every_value_is_counted_once_in_its_bin_and_the_order_of_images_is_nothing(stream):
    forth, back = Histograms(), Histograms()
    for values in stream:
        forth.update({"t": values})
    for values in reversed(stream):
        back.update({"t": values})
    there, here = forth["t"], back["t"]
    for name in ("lows", "highs", "counts"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))
    everything = np.concatenate([values.ravel() for values in stream]).astype(np.float64)
    assert there.seen == here.seen == Range(low=everything.min(), high=everything.max())
    # A bin holds its edge that is nearer to zero. A value of -0.0 counts below zero, one of 0.0 above it.
    column, below = everything[:, np.newaxis], np.signbit(everything)[:, np.newaxis]
    within = np.where(
        below,
        (there.lows < column) & (column <= there.highs) & (there.highs <= 0),
        (there.lows <= column) & (column < there.highs) & (there.lows >= 0),
    )
    np.testing.assert_array_equal(within.sum(axis=0), there.counts)


@given(streams)
def test_bins_ascend_without_overlap_and_are_narrow_for_their_values(stream):
    bins = histogram_of(np.concatenate([values.ravel() for values in stream]))
    assert (bins.highs > bins.lows).all()
    assert (bins.lows[1:] >= bins.highs[:-1]).all()
    largest = np.maximum(np.abs(bins.lows), np.abs(bins.highs))
    normal = largest > 2.0**-125
    assert ((bins.highs - bins.lows)[normal] <= largest[normal] / 128).all()


def test_a_tensor_of_many_chunks_in_any_layout_is_counted_whole():
    values = np.random.default_rng(0).normal(size=(5, CHUNK_VALUES // 2 + 3)).astype(np.float32)
    bins, turned = histogram_of(values), histogram_of(values.T)
    assert bins.counts.sum() == values.size
    np.testing.assert_array_equal(bins.counts, turned.counts)
    within = (bins.lows > 0.5) & (bins.highs <= 1)
    assert bins.counts[within].sum() == np.count_nonzero((values >= bins.lows[within][0]) & (values < 1))


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("case", EXTREMES)
# Not of what tests of other files left open, which may be collected meanwhile.
@pytest.mark.filterwarnings("error", "default::ResourceWarning")
def test_every_estimator_gives_a_finite_range_within_what_was_seen_or_zero(name, case):
    values = np.array(EXTREMES[case], np.float32)
    estimator = ESTIMATORS[name]()
    estimator.update({"t": values, "empty": np.zeros((0, 4), np.float32)})
    assert estimator.name == name
    assert list(estimator.ranges()) == ["t"]
    found = estimator.ranges()["t"]
    assert np.isfinite([found.low, found.high]).all()
    assert min(0.0, values.min()) <= found.low <= found.high <= max(0.0, values.max())


@given(streams)
def test_entropy_and_squared_error_give_ordered_ranges_that_hold_zero_for_any_values(stream):
    histograms = Histograms()
    for values in stream:
        histograms.update({"t": values})
    for estimator in (Entropy(histograms), MeanSquaredError(histograms)):
        found = estimator.ranges()["t"]
        assert min(0.0, histograms["t"].seen.low) <= found.low <= 0 <= found.high <= max(0.0, histograms["t"].seen.high)


@given(streams, st.floats(0, 0.49))
def test_a_percentile_clips_what_it_may_and_is_within_one_bin_of_the_sorted_values(stream, tail):
    everything = np.sort(np.concatenate([values.ravel() for values in stream]))
    found = range_of(Percentile(tail=tail), everything)
    clipped = int(tail * everything.size)
    low, high = float(everything[clipped]), float(everything[-1 - clipped])
    assert found.low <= low <= found.low + abs(low) / 64 + 1e-38
    assert found.high - abs(high) / 64 - 1e-38 <= high <= found.high


def test_a_percentile_is_that_of_numpy_on_many_values():
    values = np.random.default_rng(1).normal(2, 3, 300_000).astype(np.float32)
    found = range_of(Percentile(tail=0.001), values)
    assert [found.low, found.high] == pytest.approx(np.percentile(values, [0.1, 99.9]), rel=1 / 100)


@pytest.mark.parametrize("tail", [-0.1, 0.5, 99.99, np.nan])
def test_a_percentile_beyond_the_median_is_refused(tail):
    with pytest.raises(UsageError, match=r"0 to below 0\.5"):
        Percentile(tail=tail)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["normal", "laplace", "rectified", "clipped", "outliers"])
def test_the_squared_error_is_that_of_the_best_range_found_by_brute_force(kind, seed):
    rng = np.random.default_rng(seed)
    values = {
        "normal": lambda: rng.normal(rng.normal(), 1, 4000),
        "laplace": lambda: rng.laplace(rng.normal(), 1, 4000),
        "rectified": lambda: np.maximum(rng.standard_t(4, 4000), 0),
        "clipped": lambda: np.clip(rng.normal(0, 3, 4000), 0, 6),
        "outliers": lambda: np.append(rng.normal(0, 1, 4000), [30.0, -40.0]),
    }[kind]().astype(np.float32)
    found = range_of(MeanSquaredError(), values)
    ends = np.linspace(1, 0.05, 39)
    lows, highs = min(0.0, float(values.min())) * ends, max(0.0, float(values.max())) * ends
    best = min(squared_error(values, low, high) for low in np.unique(lows) for high in np.unique(highs))
    assert squared_error(values, found.low, found.high) <= 1.05 * best


def test_the_squared_error_clips_a_normal_tensor_at_the_optimum_of_the_literature():
    values = np.random.default_rng(0).normal(size=1_000_000)
    found = range_of(MeanSquaredError(), values)
    assert [-found.low, found.high] == pytest.approx([3.92, 3.92], rel=0.02)  # Banner et al. (2019), 8 bits


@pytest.mark.parametrize("one_sided", [False, True])
def test_entropy_gives_up_an_outlier_in_a_million_however_far_it_is(one_sided):
    values = np.random.default_rng(0).normal(size=1_000_000)
    values = np.maximum(values, 0) if one_sided else values
    for outlier in (100.0, 1e30):
        found = range_of(Entropy(), np.append(values, outlier))
        assert 3.5 < found.high < 5
        assert found.low == 0 if one_sided else -5 < found.low < -3.5


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 1), (-3, 0), (2, 5)])
def test_entropy_leaves_a_uniform_tensor_as_it_is(low, high):
    values = np.random.default_rng(0).uniform(low, high, 300_000)
    found = range_of(Entropy(), values)
    assert [found.low, found.high] == pytest.approx([min(low, 0), max(high, 0)], rel=0.01, abs=1e-9)


def test_the_searched_ranges_keep_the_many_values_at_a_rectifiers_ends():
    values = np.clip(np.random.default_rng(0).normal(0, 3, 200_000), 0, 6)
    assert range_of(Entropy(), values) == range_of(MeanSquaredError(), values) == Range(low=0.0, high=6.0)


def test_a_mirrored_tensor_has_the_mirrored_range():
    values = np.random.default_rng(3).laplace(0.5, 1, 100_000)
    for kind in (Percentile, Entropy):
        there, mirrored = range_of(kind(), np.maximum(values, 0)), range_of(kind(), np.minimum(-values, 0))
        assert (there.low, there.high) == (-mirrored.high, -mirrored.low)


def test_estimators_can_share_what_one_observer_counted():
    values = np.random.default_rng(0).normal(size=(4, 9000)).astype(np.float32)
    histograms, alone = Histograms(), {kind: kind() for kind in (Percentile, Entropy, MeanSquaredError)}
    for image in values:
        for observer in (histograms, *alone.values()):
            observer.update({"t": image})
    for kind, estimator in alone.items():
        assert kind(histograms).ranges() == estimator.ranges()


def test_without_a_share_to_clip_the_percentile_is_the_range():
    values = np.random.default_rng(0).normal(size=5000)
    assert range_of(Percentile(tail=0), values) == range_of(MinMax(), values)
