from __future__ import annotations

import json
import math
from collections.abc import Collection
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclf_calibration import Layer, int8_share, mixed_precision
from edgeclf_calibration.mixed_precision import MAX_TRIALS
from edgeclf_device.errors import UsageError


def quantize(*, in_float: Collection[str]) -> bytes:
    return json.dumps(list(in_float)).encode()


def drop(costs: dict[str, float], model: bytes) -> float:
    """Every layer in int8 costs something."""
    return sum(cost for name, cost in costs.items() if name not in json.loads(model))


COSTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(0, 20), max_size=MAX_TRIALS + 1)


@given(COSTS, st.integers(0, 60))
def test_no_layer_in_float_is_one_too_many_and_the_bound_holds(costs, max_drop):
    found = mixed_precision(quantize, list(costs), partial(drop, costs), max_drop=max_drop)
    assert found.best.holds
    assert found.best.drop == drop(costs, found.model) <= max_drop
    for name in found.best.in_float:
        assert drop(costs, quantize(in_float=set(found.best.in_float) - {name})) > max_drop
    assert len(found.trials) <= 3 + math.log2(max(1, len(costs))) + MAX_TRIALS
    assert len({trial.in_float for trial in found.trials}) == len(found.trials)


@given(st.integers(0, 14), st.integers(1, 15))
def test_a_single_fragile_layer_is_found_wherever_its_sensitivity_put_it(place, more):
    layers = [f"layer{number}" for number in range(place + more)]
    costs = dict.fromkeys(layers, 0.1) | {f"layer{place}": 30.0}
    found = mixed_precision(quantize, layers, partial(drop, costs), max_drop=3.0)
    assert found.best.in_float == (f"layer{place}",)
    assert json.loads(found.model) == [f"layer{place}"]


@given(st.integers(18, 100), st.data())
def test_the_right_count_is_bisected_where_the_order_is_right(layers, data):
    needed = data.draw(st.integers(1, layers))
    names = [f"{number}" for number in range(layers)]
    costs = dict.fromkeys(names[:needed], 2.0)
    found = mixed_precision(quantize, names, partial(drop, costs), max_drop=1.0)
    assert found.best.in_float == tuple(names[:needed])
    assert len(found.trials) <= 3 + math.log2(layers) + MAX_TRIALS


def test_int8_that_is_good_enough_is_measured_once():
    found = mixed_precision(quantize, ["a", "b"], lambda model: 0.4, max_drop=0.5)
    assert found.best.in_float == ()
    assert len(found.trials) == 1


@pytest.mark.parametrize(("max_layers", "kept"), [(None, ("a", "b", "c")), (2, ("a", "b")), (0, ())])
def test_a_bound_out_of_reach_is_told_with_the_layers_that_were_left_in_float(max_layers, kept):
    found = mixed_precision(quantize, ["a", "b", "c"], lambda model: 7.0, max_drop=1.0, max_layers=max_layers)
    assert not found.best.holds
    assert (found.best.in_float, found.best.drop) == (kept, 7.0)
    assert json.loads(found.model) == list(kept)
    assert json.loads(json.dumps(found.to_json()))["holds"] is False


def test_a_drop_that_is_no_number_is_not_within_the_bound():
    assert not mixed_precision(quantize, ["a"], lambda model: math.nan, max_drop=1.0).best.holds


def test_fewer_than_no_layers_are_refused():
    with pytest.raises(UsageError, match="-1"):
        mixed_precision(quantize, ["a"], lambda model: 0.0, max_drop=1.0, max_layers=-1)


def test_every_measurement_is_one_step_of_progress():
    seen = []

    def progress(items, description, total=None):
        for item in items:
            seen.append(description)
            yield item

    found = mixed_precision(quantize, list("abcdefgh"), lambda model: b"c" not in model, max_drop=0, progress=progress)
    assert found.best.in_float == ("c",)
    assert len(seen) == len(found.trials)


@given(st.lists(st.integers(0, 10**9), max_size=8), st.data())
def test_the_int8_share_is_what_the_layers_in_float_leave(counts, data):
    layers = [Layer(name=str(place), kind="Conv", multiply_accumulates=one) for place, one in enumerate(counts)]
    kept = data.draw(st.sets(st.sampled_from([one.name for one in layers]))) if layers else set()
    rest = sum(one.multiply_accumulates for one in layers if one.name not in kept)
    expected = rest / sum(counts) if sum(counts) else 1.0
    assert int8_share(layers, kept) == pytest.approx(expected)
    with pytest.raises(UsageError, match="'none'"):
        int8_share(layers, ["none"])
