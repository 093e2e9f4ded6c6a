from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclf_device import UsageError
from edgeclf_device.classifier import Reading, Result
from edgeclf_device.hard_frames import CELLS, Hard, Limits, alike, displaced, look_of
from edgeclf_device.quantization import Quantization
from edgeclf_device.uncertainty import MEASURES, uncertainty

RNG = np.random.default_rng(3)


def result(scores, allowed=None, quantization=None):
    labels = tuple("abcdefgh"[: len(scores)])
    reading = Reading(labels=labels, quantization=quantization, allowed=allowed)
    output = np.asarray(scores, np.float32 if quantization is None else np.uint8)
    return Result(label="a", score=1.0, accepted=True, output=output, reading=reading, spent_ns=(1, 1, 1))


def scene(seed, shape=(96, 128, 3)):
    return np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)[: shape[0]]


def hard(unsure, look=None, size_bytes=10, name=None):
    look = RNG.integers(0, 256, CELLS * CELLS, np.uint8) if look is None else look
    return Hard(name=name or f"{unsure}", unsure=unsure, size_bytes=size_bytes, look=look)


# ---- how unsure


def test_the_three_measures_are_those_of_settles():
    scores = result([0.5, 0.3, 0.2])
    assert uncertainty(scores) == pytest.approx(1 - (0.5 - 0.3))
    assert uncertainty(scores, "least-confidence") == pytest.approx(0.5)
    entropy = -(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2)) / math.log(3)
    assert uncertainty(scores, "entropy") == pytest.approx(entropy)


@given(scores=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=8))
def test_every_measure_is_from_0_to_1_and_0_for_certainty(scores):
    certain = [0.0] * len(scores)
    certain[1] = 1.0
    for measure in MEASURES:
        assert 0 <= uncertainty(result(scores), measure) <= 1
        assert uncertainty(result(certain), measure) == 0


@pytest.mark.parametrize("measure", ["margin", "entropy"])
def test_equal_scores_are_a_guess(measure):
    assert uncertainty(result([0.25] * 4), measure) == pytest.approx(1)


def test_quantized_scores_count_as_what_they_stand_for():
    quantized = result([128, 64, 64], quantization=Quantization(scale=1 / 256, zero_point=0))
    assert uncertainty(quantized) == pytest.approx(0.75)


def test_only_labels_that_are_allowed_can_be_mistaken_for_each_other():
    scores = [0.9, 0.06, 0.04]
    assert uncertainty(result(scores)) == pytest.approx(0.16)
    assert uncertainty(result(scores, allowed=np.array([1, 2]))) == pytest.approx(0.98)
    assert uncertainty(result(scores, allowed=np.array([1]))) == 0


def test_scores_that_are_no_numbers_are_no_doubt():
    assert uncertainty(result([math.nan, 0.5])) == 0
    assert uncertainty(result([0.0, 0.0])) == 0


def test_2_an_unknown_measure():
    with pytest.raises(UsageError, match="must be one of margin, least-confidence, entropy, but it is 'variance'"):
        uncertainty(result([0.5, 0.5]), "variance")


# ---- what looks alike


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (7, 200), (64, 64), (481, 641)])
def test_every_frame_has_a_look(channels, size):
    shape = size if channels is None else (*size, channels)
    assert (look_of(np.full(shape, 77, np.uint8)) == 77).all()


def test_noise_and_exposure_leave_a_scene_alike_and_what_moves_does_not():
    still = scene(1).astype(int)
    noisy = np.clip(still + RNG.normal(0, 6, still.shape), 0, 255).astype(np.uint8)
    dimmer = np.clip(still * 0.95 - 6, 0, 255).astype(np.uint8)
    moved = scene(1).copy()
    moved[20:40, 30:50] = 255 - moved[20:40, 30:50]
    looks = [look_of(one) for one in (noisy, dimmer, moved, scene(2))]
    assert alike(look_of(scene(1)), looks).tolist() == [True, True, False, False]


# ---- what stays


def test_the_least_sure_stay_and_the_surest_goes_first():
    kept = [hard(0.5), hard(0.9), hard(0.3)]
    assert displaced(kept, hard(0.4), Limits(frames=4)) == []
    assert displaced(kept, hard(0.4), Limits(frames=3)) == [kept[2]]
    assert displaced(kept, hard(0.3), Limits(frames=3)) is None, "as sure as the surest"
    assert displaced(kept, hard(0.95), Limits(frames=1)) == [kept[2], kept[0], kept[1]]


def test_bytes_count_too():
    kept = [hard(0.5, size_bytes=40), hard(0.6, size_bytes=40), hard(0.7, size_bytes=10)]
    limits = Limits(size_bytes=100)
    assert displaced(kept, hard(0.9, size_bytes=10), limits) == []
    assert displaced(kept, hard(0.9, size_bytes=60), limits) == kept[:2]
    assert displaced(kept, hard(0.55, size_bytes=60), limits) is None
    assert displaced([], hard(0.9, size_bytes=101), limits) is None


def test_of_what_looks_alike_the_least_sure_stays_alone():
    look = look_of(scene(1))
    kept = [hard(0.5, look), hard(0.9)]
    assert displaced(kept, hard(0.6, look), Limits()) == [kept[0]]
    assert displaced(kept, hard(0.5, look), Limits()) is None
    assert displaced(kept, hard(0.4, look), Limits()) is None, "also where there is room"


@given(
    offered=st.lists(st.tuples(st.floats(0.1, 1), st.integers(1, 60)), max_size=30),
    frames=st.integers(1, 6),
    size_bytes=st.integers(1, 150),
)
def test_no_order_of_frames_breaks_a_limit_and_the_least_sure_that_fits_is_there(offered, frames, size_bytes):
    limits, kept = Limits(frames=frames, size_bytes=size_bytes), []
    looks = [np.full(CELLS * CELLS, 0, np.uint8) for _ in offered]
    for place, look in enumerate(looks):
        look[place * 4 : place * 4 + 4] = 200
    for (unsure, size), look in zip(offered, looks, strict=True):
        new = hard(unsure, look, size)
        gone = displaced(kept, new, limits)
        if gone is not None:
            kept = [one for one in kept if one not in gone] + [new]
        assert len(kept) <= frames
        assert sum(one.size_bytes for one in kept) <= size_bytes
    fitting = [unsure for unsure, size in offered if size <= size_bytes]
    assert max((one.unsure for one in kept), default=0) == max(fitting, default=0)


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"size_bytes": 0}, {"unsure": 1.5}, {"apart_ms": -1}])
def test_2_limits_out_of_range(wrong):
    with pytest.raises(UsageError):
        Limits(**wrong)
