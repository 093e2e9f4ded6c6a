from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgeclf_calibration.estimators import ESTIMATORS
from edgeclf_calibration.ranges import MinMax, MovingAverage, Range
from edgeclf_device.errors import ModelError

finite = st.floats(-1e6, 1e6, width=32)
tensors = st.lists(arrays(np.float32, array_shapes(max_dims=3, max_side=5), elements=finite), min_size=1, max_size=6)


@given(tensors)
def test_a_stream_has_the_range_of_all_its_values_in_any_order(stream):
    forth, back = MinMax(), MinMax()
    for values in stream:
        forth.update({"t": values})
    for values in reversed(stream):
        back.update({"t": values})
    everything = np.concatenate([values.ravel() for values in stream])
    expected = Range(low=float(everything.min()), high=float(everything.max()))
    assert forth.ranges() == back.ranges() == {"t": expected}


@pytest.mark.parametrize("kind", [MinMax, MovingAverage])
def test_tensors_are_kept_apart_and_empty_ones_are_passed_over(kind):
    estimator = kind()
    estimator.update({"a": np.array([1.0, -2.0], np.float32), "b": np.zeros((0, 3), np.float32)})
    estimator.update({"c": np.array(7.0, np.float32)})
    assert estimator.ranges() == {"a": Range(low=-2.0, high=1.0), "c": Range(low=7.0, high=7.0)}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_by_the_name_of_its_tensor(name, bad):
    with pytest.raises(ModelError, match=r"'block3/out'.*diverged"):
        ESTIMATORS[name]().update({"block3/out": np.array([0.0, bad], np.float32)})


def test_a_value_beyond_float32_is_refused_as_infinite():
    with pytest.raises(ModelError, match="infinity"):
        MinMax().update({"t": np.array([1e39])})


@given(tensors)
def test_the_moving_average_of_a_few_images_is_the_mean_of_their_extremes(stream):
    estimator = MovingAverage()
    for values in stream:
        estimator.update({"t": values})
    found = estimator.ranges()["t"]
    assert found.low <= found.high
    assert found.low == pytest.approx(np.mean([values.min() for values in stream], dtype=float), abs=1e-6)
    assert found.high == pytest.approx(np.mean([values.max() for values in stream], dtype=float), abs=1e-6)


def test_after_a_hundred_images_the_moving_average_forgets_the_old_ones_exponentially():
    estimator = MovingAverage()
    for value in [1.0] * 100 + [0.0] * 100:
        estimator.update({"t": np.array([value], np.float32)})
    assert estimator.ranges()["t"].high == pytest.approx(0.99**100)
