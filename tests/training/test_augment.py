from __future__ import annotations

import numpy as np
import pytest

from edgeclf.evaluation.metrics import classification_metrics, confusion_matrix
from edgeclf.training import augment
from edgeclf.training.config import AugmentConfig

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 24, 30, 3)).astype(np.uint8)


def test_view_zero_is_the_image_itself():
    view = augment.view(IMAGES[0], AugmentConfig(), seed=1, index=0, number=0)
    assert np.array_equal(view, IMAGES[0])


def test_a_view_depends_on_seed_image_and_number_alone():
    config = AugmentConfig(flip_vertical=True)
    together = augment.views(IMAGES, config, seed=3, indices=np.array([4, 2, 2]), numbers=np.array([1, 1, 2]))
    assert np.array_equal(together[1], augment.view(IMAGES[2], config, seed=3, index=2, number=1))
    assert not np.array_equal(together[1], together[2])
    assert not np.array_equal(together[1], augment.view(IMAGES[2], config, seed=4, index=2, number=1))


@pytest.mark.parametrize(("horizontal", "vertical", "expected"), [(0, 0, 1), (1, 0, 2), (0, 1, 2), (1, 1, 4)])
def test_the_allowed_mirror_images_take_turns(horizontal, vertical, expected):
    config = AugmentConfig(
        shift=0, brightness=0, contrast=0, flip_horizontal=bool(horizontal), flip_vertical=bool(vertical)
    )
    views = [augment.view(IMAGES[0], config, seed=0, index=0, number=number).tobytes() for number in range(8)]
    assert len(set(views)) == expected
    assert views[:4] == views[4:]


def test_a_shift_repeats_the_edge_and_moves_no_further_than_asked():
    config = AugmentConfig(shift=0.1, brightness=0, contrast=0, flip_horizontal=False)
    for number in range(1, 20):
        moved = augment.view(IMAGES[0], config, seed=0, index=0, number=number)
        assert any(
            np.array_equal(moved[3:-3, 3:-3], IMAGES[0][3 - down : 21 - down, 3 - right : 27 - right])
            for down in range(-2, 3)
            for right in range(-3, 4)
        )


def test_brightness_moves_the_mean_by_no_more_than_asked():
    config = AugmentConfig(shift=0, brightness=0.1, contrast=0, flip_horizontal=False)
    image = np.full((8, 8, 1), 100, np.uint8)
    means = [augment.view(image, config, seed=0, index=0, number=number).mean() for number in range(1, 60)]
    assert 74 <= min(means) < 85
    assert 115 < max(means) <= 126


def test_metrics_count_right():
    true = np.array([0, 0, 0, 1, 1, 2])
    scores = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 1, 0]]
    assert confusion_matrix(true, scores.argmax(1), 3).tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    metrics = classification_metrics(true, scores, ("a", "b", "c"))
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["per_class"]["a"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "images": 3})
    assert metrics["per_class"]["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "images": 1}
    assert metrics["f1_macro"] == pytest.approx((2 / 3 + 0.8 + 0) / 3)
