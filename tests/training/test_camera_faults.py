from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclf.training import camera_faults
from edgeclf.training.camera_faults import FAULTS, add_camera_faults
from edgeclf.training.config import AugmentConfig

PHOTO = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 48, 3)).astype(np.uint8), (0, 0), 1)


def flat(value: int, channels: int = 3) -> np.ndarray:
    return np.full((64, 64, channels), value, np.uint8)


def sharpness(image: np.ndarray) -> float:
    return float(cv2.Laplacian(image, cv2.CV_64F).var())


def draws(count: int):
    return [np.random.default_rng(number) for number in range(count)]


@settings(max_examples=25, deadline=None)
@given(
    key=st.sampled_from(sorted(FAULTS)),
    side=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    grey=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
def test_a_fault_keeps_shape_and_type_and_is_a_function_of_its_draw(key, side, grey, seed):
    channels = 1 if grey and key != "white_balance" else 3
    image = np.random.default_rng(seed).integers(0, 256, (*side, channels)).astype(np.uint8)
    before = image.copy()
    faulty = FAULTS[key](image, np.random.default_rng(seed))
    assert faulty.shape == image.shape
    assert faulty.dtype == np.uint8
    assert np.array_equal(image, before)
    assert np.array_equal(faulty, FAULTS[key](image, np.random.default_rng(seed)))


def test_motion_blur_takes_sharpness_away_and_keeps_the_mean():
    for draw in draws(8):
        blurred = camera_faults.motion_blur(PHOTO, draw)
        assert sharpness(blurred) < 0.8 * sharpness(PHOTO)
        assert abs(blurred.mean() - PHOTO.mean()) < 2


def test_motion_blur_smears_along_one_line():
    point = np.zeros((63, 63, 1), np.uint8)
    point[31, 31] = 255
    for draw in draws(8):
        y, x = np.nonzero(camera_faults.motion_blur(point, draw)[..., 0])
        variances = np.linalg.eigvalsh(np.cov(x, y))
        assert variances[0] < 0.7
        assert variances[1] > variances[0]


def test_low_light_darkens_by_one_to_three_stops():
    for draw in draws(8):
        dark = camera_faults.low_light(flat(200), draw)
        light = camera_faults._LIGHT[dark].mean() / camera_faults._LIGHT[200]
        assert 1 / 8.5 < light < 1 / 1.9


def test_noise_spreads_and_keeps_the_light():
    for draw in draws(8):
        noisy = camera_faults.noise(flat(128), draw)
        assert noisy.std() > 0.5
        assert camera_faults._LIGHT[noisy].mean() == pytest.approx(camera_faults._LIGHT[128], rel=0.05)


def test_noise_of_more_light_is_larger_in_light():
    for seed in range(5):
        dim, bright = (
            camera_faults._LIGHT[camera_faults.noise(flat(value), np.random.default_rng(seed))].std()
            for value in (60, 180)
        )
        assert bright > 1.2 * dim


def test_white_balance_moves_red_and_blue_apart():
    moved = [camera_faults.white_balance(flat(128), draw).reshape(-1, 3)[0].astype(int) - 128 for draw in draws(20)]
    assert all(red * blue <= 0 for red, _, blue in moved)
    assert {np.sign(red) for red, _, _ in moved} >= {-1, 1}
    assert max(abs(red) for red, _, _ in moved) > 5
    assert all(abs(change) <= 22 for colours in moved for change in colours)


def test_jpeg_hardly_changes_what_is_flat_and_changes_texture():
    for draw in draws(5):
        assert np.abs(camera_faults.jpeg(flat(90), draw).astype(int) - 90).max() <= 2
    texture = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert np.abs(camera_faults.jpeg(texture, np.random.default_rng(0)).astype(int) - texture).mean() > 5


def test_jpeg_keeps_red_red():
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 200
    assert np.abs(camera_faults.jpeg(red, np.random.default_rng(0)).astype(int) - red).max() < 12


def test_every_value_survives_its_way_to_light_and_back():
    values = np.arange(256)
    assert np.array_equal(camera_faults._encoded(camera_faults._LIGHT[values]), values)


def test_the_faults_of_an_image_do_not_depend_on_its_neighbours():
    config = AugmentConfig(motion_blur=0.5, noise=0.5, jpeg=0.5, white_balance=0.5, low_light=0.5)
    images = np.stack([PHOTO] * 4)
    others = np.stack([flat(0)[:, :48], PHOTO, flat(9)[:, :48], PHOTO])
    first, second = (add_camera_faults(batch, config, entropy=(1, 2)) for batch in (images, others))
    assert np.array_equal(first[[1, 3]], second[[1, 3]])
    assert not np.array_equal(first, add_camera_faults(images, config, entropy=(1, 3)))


def test_faults_are_as_frequent_as_asked():
    images = np.stack([flat(100, 1)] * 200)
    assert add_camera_faults(images, AugmentConfig(), entropy=(0,)) is images
    noisy = add_camera_faults(images, AugmentConfig(noise=0.3), entropy=(0,))
    assert 40 <= sum(image.std() > 0 for image in noisy) <= 80
