from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclf_calibration.doubts import FEW_IMAGES, SAME_RANGE, UNSTABLE, image_doubts, range_doubts, range_stability
from edgeclf_calibration.ranges import MinMax, Range
from edgeclf_calibration.selection import choose
from edgeclf_device.errors import UsageError

SIDE = 64


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """uint8 (108, 64, 64, 3) of two real photos, different ones."""
    return np.stack(
        [
            photo[top : top + SIDE, left : left + SIDE]
            for photo in pytest.importorskip("sklearn.datasets").load_sample_images().images
            for top in range(0, photo.shape[0] - SIDE, SIDE)
            for left in range(0, photo.shape[1] - SIDE, SIDE)
        ]
    )


@pytest.fixture(scope="module")
def wide(crops) -> np.ndarray:
    """The 40 crops that show most."""
    return crops[np.argsort(-crops.std(axis=(1, 2)).max(axis=1))[:40]]


def test_good_images_raise_no_doubt(wide):
    labels = ["a", "b"] * 20
    assert image_doubts(wide, labels, known={"a": 500, "b": 700}) == ()
    assert image_doubts(wide, None, known={}) == ()


def test_too_few_images_are_doubted_and_copies_do_not_count(wide):
    assert image_doubts(wide[:FEW_IMAGES], None, known={}) == ()
    (few,) = image_doubts(wide[: FEW_IMAGES - 1], None, known={})
    assert f"has {FEW_IMAGES - 1} different images" in few
    few, copies = image_doubts(np.concatenate([wide[:20]] * 3), None, known={})
    assert "has 20 different images" in few
    assert copies.startswith("40 of 60 calibration images are copies")


def test_one_copy_is_named(wide):
    (copies,) = image_doubts(np.concatenate([wide, wide[:1]]), None, known={})
    assert copies.startswith("1 of 41 ")


def test_frames_of_a_covered_lens_are_doubted_in_the_dark_and_in_grey_and_in_one_colour(wide):
    rng = np.random.default_rng(0)
    for level, black in (([0, 0, 0], 30), ([128, 128, 128], 0), ([200, 30, 30], 0)):
        frames = np.clip(np.rint(rng.normal(level, 2, (30, SIDE, SIDE, 3))), 0, 255).astype(np.uint8)
        (flat,) = image_doubts(np.concatenate([frames, wide[:29]]), None, known={})
        assert flat.startswith(f"30 of 59 calibration images are nearly constant, {black} of them black")
        assert image_doubts(np.concatenate([frames, wide[:30]]), None, known={}) == ()


def test_real_photos_are_not_called_flat(crops):
    assert image_doubts(crops, None, known={}) == ()


def test_missing_classes_are_named_where_there_was_room_for_them(wide):
    known = {"a": 90, "b": 90, "c": 3, "never": 0}
    (missing,) = image_doubts(wide, ["a", "b"] * 20, known=known)
    assert missing.startswith("1 of 4 classes have no calibration image: c;")
    many = {f"{n:03}": 10 for n in range(100)}
    assert image_doubts(wide, [f"{n:03}" for n in range(40)], known=many) == ()
    (missing,) = image_doubts(wide, ["a", "b"] * 20, known={**known, **dict.fromkeys("defghi", 1)})
    assert "c, d, e, f, g and 2 more" in missing


def test_a_class_far_from_its_share_is_named_with_both_shares(wide):
    (biased,) = image_doubts(wide, ["rare"] * 20 + ["usual"] * 20, known={"rare": 50, "usual": 950})
    assert biased.startswith("1 of 2 classes")
    assert "rare (50.0 % instead of 5.0 %)" in biased
    (biased,) = image_doubts(wide, ["b"] + ["a"] * 39, known={"a": 600, "b": 400})
    assert "b (2.5 % instead of 40.0 %)" in biased


@given(st.lists(st.integers(1, 400), min_size=2, max_size=12), st.integers(10, 30), st.integers(0, 3))
def test_a_stratified_choice_with_room_is_never_called_biased(sizes, per_class, seed):
    labels = [f"class{n}" for n, size in enumerate(sizes) for _ in range(size)]
    known = {f"class{n}": size for n, size in enumerate(sizes)}
    chosen = choose(labels, [str(n) for n in range(len(labels))], count=per_class * len(sizes), seed=seed)
    pixels = np.zeros((chosen.count, 1, 1, 1), np.uint8)
    assert not [one for one in image_doubts(pixels, [labels[n] for n in chosen.indices], known=known) if "class" in one]


def test_chance_alone_is_seldom_called_bias():
    labels = [str(digit) for digit in pytest.importorskip("sklearn.datasets").load_digits().target]
    known = {label: labels.count(label) for label in sorted(set(labels))}
    digests = [str(n) for n in range(len(labels))]
    alarms = 0
    for seed in range(200):
        chosen = choose(labels, digests, count=64, seed=seed, method="random")
        pixels = np.zeros((64, 1, 1, 1), np.uint8)
        doubts = image_doubts(pixels, [labels[n] for n in chosen.indices], known=known)
        alarms += any("share" in one for one in doubts)
    assert alarms <= 2


@pytest.mark.parametrize("labels", [["a"] * 39, ["a"] * 39 + ["stranger"], ["a"] * 39 + ["never"]])
def test_labels_that_do_not_fit_the_images_or_the_known_classes_are_refused(wide, labels):
    with pytest.raises(UsageError, match="Each of the 40 images needs a label that is known"):
        image_doubts(wide, labels, known={"a": 10, "never": 0})


ranges = st.tuples(st.floats(-1e6, 1e6, width=32), st.floats(0, 1e6, width=32)).map(
    lambda pair: Range(low=pair[0], high=pair[0] + pair[1])
)


@given(ranges, ranges, st.floats(1e-3, 1e3))
def test_the_difference_lies_between_0_and_1_and_knows_neither_order_nor_unit(a, b, unit):
    there = range_stability({"t": a}, {"t": b}).differences["t"]
    assert 0 <= there <= 1
    assert (there == 0) == (a == b)
    assert there == range_stability({"t": b}, {"t": a}).differences["t"]
    c, d = (Range(low=one.low * unit, high=one.high * unit) for one in (a, b))
    assert range_stability({"t": c}, {"t": d}).mean == pytest.approx(there, abs=1e-6)


def test_the_difference_is_the_part_of_the_hull_that_one_lacks():
    a = {"same": Range(low=-1, high=1), "half": Range(low=0, high=4), "apart": Range(low=0, high=1)}
    b = {"same": Range(low=-1, high=1), "half": Range(low=0, high=2), "apart": Range(low=2, high=3)}
    stability = range_stability(a, b)
    assert stability.differences == {"apart": 1.0, "half": 0.5, "same": 0.0}
    assert stability.mean == 0.5
    assert stability.worst == "apart"
    assert stability.summary == "The ranges of 3 tensors differ by 50.0 % on average and by 100.0 % at most (apart)."


def test_ranges_of_different_tensors_are_not_compared():
    one = Range(low=0, high=1)
    with pytest.raises(UsageError, match=r"2 and 1 .*: b; take both from one model"):
        range_stability({"a": one, "b": one}, {"a": one})
    with pytest.raises(UsageError, match="0 and 0"):
        range_stability({}, {})


def gradients(pixels: np.ndarray) -> dict[str, Range]:
    """Ranges of a tiny layer: what the pixels are, and how they change to the right and downwards."""
    estimator = MinMax()
    for image in pixels.astype(np.float32):
        estimator.update({"x": np.diff(image, axis=1), "y": np.diff(image, axis=0), "pixels": image})
    return estimator.ranges()


def test_images_that_reach_the_model_have_an_effect_and_constant_ones_are_found_out(wide):
    grey = gradients(np.full((1, SIDE, SIDE, 3), 128, np.uint8))
    assert range_doubts(gradients(wide), half=gradients(wide[::2]), synthetic=grey) == ()
    (none,) = range_doubts(grey, half=grey, synthetic=grey)
    assert "have no effect" in none


def test_a_single_tensor_that_differs_by_a_step_is_an_effect():
    base = {"a": Range(low=0, high=1), "b": Range(low=0, high=1)}
    for share, doubts in ((SAME_RANGE / 2, 1), (SAME_RANGE * 2, 0)):
        other = {**base, "b": Range(low=0, high=1 - share)}
        assert len(range_doubts(other, half=other, synthetic=base)) == doubts


def test_ranges_that_still_grow_are_doubted_with_the_tensor_that_grows_most(wide):
    dim = gradients(wide // 2)
    (growing,) = range_doubts(gradients(wide), half=dim, synthetic=gradients(wide[:1] * 0))
    assert growing.startswith("The ranges still grow with the images")
    stability = range_stability(gradients(wide), dim)
    assert stability.mean > UNSTABLE
    assert stability.worst in growing
