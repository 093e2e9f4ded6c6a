from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeclf_device import ModelError, Quantization
from edgeclf_device.quantization import dequantize, quantize

DTYPES = ("uint8", "int8", "int16")
scales = st.floats(1e-6, 1e3)
dtypes = st.sampled_from(DTYPES)


@st.composite
def quantizations(draw):
    dtype = draw(dtypes)
    limits = np.iinfo(dtype)
    return dtype, Quantization(scale=draw(scales), zero_point=draw(st.integers(int(limits.min), int(limits.max))))


@given(quantizations(), st.data())
def test_every_integer_comes_back_from_its_real_number(pair, data):
    dtype, quantization = pair
    values = data.draw(arrays(dtype, 20))
    assert np.array_equal(quantize(dequantize(values, quantization), quantization, dtype), values)


@given(quantizations(), arrays(np.float64, 20, elements=st.floats(-1e6, 1e6)))
def test_a_number_within_the_range_moves_by_half_a_step_at_most(pair, values):
    dtype, quantization = pair
    limits = np.iinfo(dtype)
    low = (limits.min - quantization.zero_point) * quantization.scale
    high = (limits.max - quantization.zero_point) * quantization.scale
    inside = np.clip(values, low, high)
    back = dequantize(quantize(inside, quantization, dtype), quantization)
    assert np.all(np.abs(back - inside) <= quantization.scale / 2 + 1e-6 * np.abs(inside))


@given(quantizations(), arrays(np.float64, 20, elements=st.floats(-1e9, 1e9)))
def test_quantizing_saturates_and_never_wraps(pair, values):
    dtype, quantization = pair
    order = np.argsort(values)
    quantized = quantize(values, quantization, dtype).astype(np.int64)[order]
    assert np.all(np.diff(quantized) >= 0)


def test_halves_are_rounded_to_even():
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5])
    assert quantize(values, Quantization(scale=1.0, zero_point=0), "int8").tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "x", None])
def test_a_scale_that_is_not_positive_and_finite_is_refused(scale):
    with pytest.raises(ModelError):
        Quantization.from_json({"scale": scale, "zero_point": 0})


def test_a_quantization_survives_its_json():
    quantization = Quantization(scale=0.1, zero_point=-3)
    assert Quantization.from_json(quantization.to_json()) == quantization
