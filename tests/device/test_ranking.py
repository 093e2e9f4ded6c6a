"""What is decided on the engine's raw numbers is what the dequantized scores say, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeclf_device import Tensor, UsageError
from edgeclf_device.classifier import Reading, Result, score_table, scores_of
from edgeclf_device.quantization import Quantization
from edgeclf_device.ranking import allowed_places, best, highest

quantizations = st.builds(Quantization, scale=st.floats(1e-30, 1e30), zero_point=st.integers(-200, 300))


@st.composite
def outputs(draw):
    """An engine's output (1, classes) with its tensor; few different values, so that ties are common."""
    dtype = draw(st.sampled_from(["uint8", "int8", "int16", "float32", "float16"]))
    classes = draw(st.integers(1, 40))
    if dtype.startswith("float"):
        elements = st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, -3.0, float("inf"), float("-inf")])
        quantization = None
    else:
        limits = np.iinfo(dtype)
        elements = st.one_of(st.sampled_from([limits.min, limits.max, 0, 1, 2]), st.integers(limits.min, limits.max))
        quantization = draw(quantizations)
    row = draw(hnp.arrays(dtype, (1, classes), elements=elements))
    return row, Tensor(name="", dtype=dtype, shape=(1, classes), layout="NC", quantization=quantization)


@given(outputs(), st.integers(1, 45), st.data())
def test_decisions_on_raw_numbers_are_those_on_scores(drawn, k, data):
    output, tensor = drawn
    row, scores = output.reshape(-1), scores_of(output, tensor)
    classes = len(row)
    allowed = data.draw(st.none() | st.sets(st.integers(0, classes - 1), min_size=1).map(sorted).map(np.array))
    competing = np.arange(classes) if allowed is None else allowed
    expected = competing[np.argsort(-scores[competing], kind="stable")]
    assert best(row, allowed) == expected[0]
    assert highest(row, k, allowed).tolist() == expected[:k].tolist()
    table = score_table(tensor)
    if table is not None:
        assert [table[row.item(place)] for place in range(classes)] == scores.tolist()
    labels = tuple(f"class {place}" for place in range(classes))
    result = Result(
        label="",
        score=0,
        accepted=True,
        output=output,
        reading=Reading(labels=labels, quantization=tensor.quantization, allowed=allowed),
        spent_ns=(0, 0, 0),
    )
    assert result.top(k) == [(labels[place], float(scores[place])) for place in expected[:k]]
    assert np.array_equal(result.scores, scores)
    assert result.scores is result.scores
    assert result.scores.dtype == np.float32


@given(hnp.arrays("float32", st.integers(1, 30), elements=st.sampled_from([np.nan, 0.0, 0.5, 1.0])), st.integers(1, 30))
def test_what_is_no_number_comes_last(row, k):
    assert highest(row, k).tolist() == np.argsort(-row, kind="stable")[:k].tolist()


def test_a_table_is_for_quantized_bytes_alone():
    for dtype in ("uint8", "int8"):
        quantization = Quantization(scale=0.5, zero_point=3)
        tensor = Tensor(name="", dtype=dtype, shape=(1, 2), layout="NC", quantization=quantization)
        assert score_table(tensor)[np.iinfo(dtype).min] == (np.iinfo(dtype).min - 3) * 0.5
        assert score_table(tensor)[np.iinfo(dtype).max] == (np.iinfo(dtype).max - 3) * 0.5
    assert score_table(Tensor(name="", dtype="float32", shape=(1, 2), layout="NC")) is None


def test_allowed_labels_stand_in_the_order_of_the_model():
    assert allowed_places(["c", "a", "c"], ("a", "b", "c")).tolist() == [0, 2]


def test_an_unknown_label_is_refused_with_near_names():
    with pytest.raises(UsageError, match="near it: tabby cat"):
        allowed_places(["tabby"], ("dog", "tabby cat", "car"))
