"""Corruptions: the same for every model, worse with each severity, and what their names say."""

from __future__ import annotations

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from edgeclf.evaluation.corruptions import CORRUPTIONS, SEVERITIES, applicable, corrupted  # noqa: E402

DRAW = np.random.default_rng(0)
PHOTOS = np.stack([cv2.GaussianBlur(DRAW.integers(0, 256, (64, 48, 3)).astype(np.uint8), (0, 0), 2) for _ in range(6)])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_is_further_from_the_plain_image(name):
    made = [corrupted(PHOTOS, name, severity, seed=0) for severity in SEVERITIES]
    assert all((one.shape, one.dtype) == (PHOTOS.shape, PHOTOS.dtype) for one in made)
    distances = [np.abs(one.astype(int) - PHOTOS).mean() for one in made]
    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_becomes_of_an_image_follows_from_the_seed_and_not_from_its_neighbours(name):
    whole = corrupted(PHOTOS, name, 2, seed=3)
    assert np.array_equal(whole[:2], corrupted(PHOTOS[:2], name, 2, seed=3))
    others = np.concatenate([PHOTOS[:2], 255 - PHOTOS[2:]])
    assert np.array_equal(whole[:2], corrupted(others, name, 2, seed=3)[:2])
    if name != "jpeg":
        assert not np.array_equal(whole, corrupted(PHOTOS, name, 2, seed=4))


def test_grey_images_suffer_all_but_a_wrong_white_balance():
    assert set(applicable(3)) - set(applicable(1)) == {"white_balance"}
    for name in applicable(1):
        assert corrupted(PHOTOS[..., :1], name, 3, seed=0).shape == (6, 64, 48, 1)


def test_a_shift_moves_the_whole_picture_and_repeats_its_edge():
    steps = np.arange(100, dtype=np.uint8)
    image = np.broadcast_to(
        np.stack([steps[:, None] + 0 * steps, steps + 0 * steps[:, None]], axis=-1), (1, 100, 100, 2)
    )
    moved = corrupted(np.concatenate([image, image[..., :1]], axis=-1), "shift", 3, seed=1)[0]
    rows, columns = moved[50, 50, :2].astype(int) - 50
    assert 19 <= np.hypot(rows, columns) <= 21
    assert np.array_equal(moved[:, 0, 0], np.clip(np.arange(100) + rows, 0, 99))


def test_the_smallest_images_are_blurred_too():
    point = np.zeros((1, 8, 8, 1), np.uint8)
    point[0, 4, 4] = 255
    assert corrupted(point, "motion_blur", 1, seed=0)[0, 4, 4, 0] < 200
