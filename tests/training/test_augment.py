from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_image

from edgeclf.training.augment import Augmenter, preview_grid
from edgeclf.training.config import AugmentConfig
from edgeclf_device.errors import UsageError
from edgeclf_device.preprocess import PrepareSpec, prepare

NOTHING = {"flip_horizontal": False, "shift": 0.0, "brightness": 0.0, "contrast": 0.0}
EXAMPLES = {
    "flip_horizontal": True,
    "flip_vertical": True,
    "rotation": 20.0,
    "shift": 0.15,
    "zoom": 0.3,
    "crop": 0.4,
    "brightness": 0.2,
    "contrast": 0.4,
    "saturation": 0.6,
    "hue": 0.2,
    "rand_augment": 0.5,
    "motion_blur": 1.0,
    "low_light": 1.0,
    "noise": 1.0,
    "white_balance": 1.0,
    "jpeg": 1.0,
    "erasing": 0.7,
    "mixup": 1.0,
    "cutmix": 1.0,
}
"""A value of every key that shows what it does."""

QUICK = {**EXAMPLES, "rand_augment": 0.0}  # it takes seconds to compile

COLOURFUL = ("saturation", "hue", "white_balance")
REFERENCE = Path(__file__).parents[2] / "docs/reference"
COUNT, HEIGHT, WIDTH, CLASSES = 8, 24, 30, 4
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, HEIGHT, WIDTH, 3)).astype(np.uint8)
TARGETS = np.eye(CLASSES, dtype=np.float32)[np.arange(COUNT) % CLASSES]

tensorflow = pytest.mark.tensorflow
needs_jax = pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")


@pytest.fixture(scope="session", autouse=True)
def _quiet():
    if importlib.util.find_spec("tensorflow"):
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")  # many augmenters trace often


def only(**values) -> AugmentConfig:
    return AugmentConfig(**{**NOTHING, **values})


def augmenter(config: AugmentConfig, shape=(HEIGHT, WIDTH, 3), *, classes=CLASSES, seed=5) -> Augmenter:
    return Augmenter(config, shape=shape, classes=classes, seed=seed)


def keys(count: int) -> list[tuple[int, int]]:
    return [(number // 3, number % 3) for number in range(count)]


def ramp(count: int, side: int = 40) -> np.ndarray:
    """Images that are brighter by 4 with each pixel to the right: what happens to the geometry shows as a slope."""
    row = 40 + 4 * np.arange(side)
    return np.broadcast_to(row[None, None, :, None], (count, side, side, 1)).astype(np.uint8)


def slopes(image: np.ndarray) -> tuple[float, float]:
    """Downward and to the right, in ramp pixels per pixel, in the middle of the image."""
    middle = image[10:30, 10:30, 0].astype(float) / 4
    down, right = np.gradient(middle)
    return float(down.mean()), float(right.mean())


@tensorflow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("key", EXAMPLES)
def test_every_key_varies_and_keeps_shape_type_and_the_arguments(key, channels):
    if channels == 1 and key in COLOURFUL:
        pytest.skip("needs colours")
    images = np.ascontiguousarray(IMAGES[..., :channels])
    before, wanted = images.copy(), TARGETS.copy()
    varied, targets = augmenter(only(**{key: EXAMPLES[key]}), images.shape[1:])(images, TARGETS, key=(0, 3))
    assert varied.shape == images.shape
    assert varied.dtype == np.uint8
    assert not np.array_equal(varied, images)
    assert targets.shape == TARGETS.shape
    assert targets.dtype == np.float32
    assert np.array_equal(targets, TARGETS) == (key not in {"mixup", "cutmix"})
    assert np.array_equal(images, before)
    assert np.array_equal(TARGETS, wanted)


@tensorflow
def test_with_nothing_switched_on_the_arguments_come_back():
    images, targets = augmenter(only())(IMAGES, TARGETS, key=(1, 2))
    assert images is IMAGES
    assert targets is TARGETS


@tensorflow
def test_a_variation_depends_on_config_seed_key_and_images_alone():
    config = AugmentConfig(**{**QUICK, "noise": 0.5})
    first, second, other_seed = augmenter(config), augmenter(config), augmenter(config, seed=6)
    forwards = [first(IMAGES, TARGETS, key=key) for key in keys(4)]
    first(IMAGES[:3], TARGETS[:3], key=(9, 9))
    with ThreadPoolExecutor(1) as pool:
        backwards = list(pool.map(lambda key: second(IMAGES, TARGETS, key=key), keys(4)[::-1]))[::-1]
    for (images, targets), (again, targets_again) in zip(forwards, backwards, strict=True):
        assert np.array_equal(images, again)
        assert np.array_equal(targets, targets_again)
    assert len({images.tobytes() for images, _ in forwards}) == 4
    assert not np.array_equal(forwards[0][0], other_seed(IMAGES, TARGETS, key=(0, 0))[0])


@tensorflow
def test_the_precision_of_the_training_changes_nothing():
    import keras

    config = AugmentConfig(**QUICK)
    plain = augmenter(config)(IMAGES, TARGETS, key=(1, 1))
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        mixed = augmenter(config)(IMAGES, TARGETS, key=(1, 1))
    finally:
        keras.config.set_dtype_policy(before)
    assert np.array_equal(plain[0], mixed[0])
    assert np.array_equal(plain[1], mixed[1])


@tensorflow
def test_a_flip_only_mirrors_and_each_mirror_image_comes():
    vary = augmenter(only(flip_horizontal=True, flip_vertical=True))
    image = IMAGES[0]
    allowed = {mirror.tobytes() for mirror in (image, image[:, ::-1], image[::-1], image[::-1, ::-1])}
    seen = {one.tobytes() for key in keys(6) for one in vary(np.stack([image] * COUNT), TARGETS, key=key)[0]}
    assert seen == allowed


@tensorflow
@settings(max_examples=10, deadline=None)
@given(key=st.tuples(st.integers(0, 1 << 31), st.integers(0, 1 << 31)))
def test_a_shift_is_by_whole_pixels_no_further_than_asked_and_repeats_the_edge(key):
    moved = shifting()(IMAGES, TARGETS, key=key)[0]
    rows, columns = np.arange(HEIGHT), np.arange(WIDTH)
    for image, result in zip(IMAGES, moved, strict=True):
        assert any(
            np.array_equal(
                result, image[np.clip(rows - down, 0, HEIGHT - 1)][:, np.clip(columns - right, 0, WIDTH - 1)]
            )
            for down in range(-2, 3)
            for right in range(-3, 4)
        )


@functools.cache
def shifting() -> Augmenter:
    return augmenter(only(shift=0.1))


@tensorflow
def test_a_rotation_turns_both_ways_no_further_than_asked_about_the_middle():
    images = ramp(16)
    turned = augmenter(only(rotation=30.0), images.shape[1:], classes=1)(images, np.ones((16, 1), "f4"), key=(0, 0))[0]
    angles = [np.degrees(np.arctan2(*slopes(image))) for image in turned]
    assert -31 < min(angles) < -10
    assert 10 < max(angles) < 31
    assert all(np.hypot(*slopes(image)) == pytest.approx(1, abs=0.03) for image in turned)
    assert np.abs(turned[:, 19:21, 19:21].mean(axis=(1, 2, 3)) - images[:, 19:21, 19:21].mean()).max() < 1


@tensorflow
def test_a_zoom_changes_the_scale_both_ways_no_more_than_asked_about_the_middle():
    images = ramp(16)
    scaled = augmenter(only(zoom=0.2), images.shape[1:], classes=1)(images, np.ones((16, 1), "f4"), key=(0, 0))[0]
    scales = [slopes(image)[1] for image in scaled]
    assert 0.79 < min(scales) < 0.95
    assert 1.05 < max(scales) < 1.21
    assert np.abs(scaled[:, 19:21, 19:21].mean(axis=(1, 2, 3)) - images[:, 19:21, 19:21].mean()).max() < 1


@tensorflow
def test_a_crop_enlarges_a_part_of_each_image_and_shows_nothing_from_outside():
    images = ramp(16)
    cropped = augmenter(only(crop=0.5), images.shape[1:], classes=1)(images, np.ones((16, 1), "f4"), key=(0, 0))[0]
    sides = [slopes(image)[1] for image in cropped]
    assert 0.49 < min(sides) < 0.75 < max(sides) <= 1.01
    assert len(set(np.round(sides, 2))) > 8
    first, last = cropped[:, 0, 0, 0], cropped[:, 0, -1, 0]
    assert first.std() > 5  # each lies elsewhere
    for side, left, right in zip(sides, first, last, strict=True):
        assert (int(right) - int(left)) / 4 == pytest.approx(39 * side, abs=1)  # no edge is repeated


@tensorflow
def test_brightness_and_contrast_change_both_ways_no_more_than_asked():
    images = np.clip(128 + 40 * np.random.default_rng(1).standard_normal((32, 20, 20, 1)), 20, 235).astype(np.uint8)
    ones = np.ones((32, 1), np.float32)
    bright = augmenter(only(brightness=0.05), images.shape[1:], classes=1)(images, ones, key=(0, 0))[0].astype(float)
    changes = (bright - images).mean(axis=(1, 2, 3))
    assert -13 < changes.min() < -5
    assert 5 < changes.max() < 13
    spread = augmenter(only(contrast=0.15), images.shape[1:], classes=1)(images, ones, key=(0, 0))[0].astype(float)
    ratios = spread.std(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3))
    assert 0.84 < ratios.min() < 0.95
    assert 1.05 < ratios.max() < 1.16
    assert np.abs((spread - images).mean(axis=(1, 2, 3))).max() < 1


@tensorflow
def test_saturation_changes_both_ways_and_leaves_grey_grey():
    colour = np.broadcast_to(np.array([180, 140, 120], np.uint8), (32, 8, 8, 3))
    grey = np.full((1, 8, 8, 3), 90, np.uint8)
    images = np.concatenate([colour, grey])
    varied = augmenter(only(saturation=0.4), images.shape[1:], classes=1)(images, np.ones((33, 1), "f4"), key=(0, 0))[0]
    assert np.array_equal(varied[-1:], grey)
    ranges = np.ptp(varied[:-1, 0, 0].astype(int), axis=1)
    assert ranges.min() < 45
    assert ranges.max() > 75
    assert (varied[:-1, ..., 0] == 180).all()


@tensorflow
def test_hue_turns_both_ways_and_keeps_lightness():
    images = np.broadcast_to(np.array([200, 100, 100], np.uint8), (32, 8, 8, 3))
    varied = augmenter(only(hue=0.2), images.shape[1:], classes=1)(images, np.ones((32, 1), "f4"), key=(0, 0))[0]
    hues = cv2.cvtColor(varied[:, :1, 0], cv2.COLOR_RGB2HSV)[:, 0, 0].astype(int)
    turns = np.where(hues > 90, hues - 180, hues) * 2
    assert -37 <= turns.min() < -10
    assert 10 < turns.max() <= 37
    assert (varied.max(axis=-1) == 200).all()


@tensorflow
def test_the_defaults_are_mild():
    photo = prepare(load_sample_image("china.jpg"), PrepareSpec(height=64, width=64))
    images = np.stack([photo] * 32)
    varied = augmenter(AugmentConfig(), photo.shape, classes=1)(images, np.ones((32, 1), "f4"), key=(0, 0))[0]
    changes = varied.mean(axis=(1, 2, 3)) - photo.mean()
    assert 5 < np.abs(changes).max() < 24
    assert np.abs(varied.std(axis=(1, 2, 3)) / photo.std() - 1).max() < 0.25


@tensorflow
def test_rand_augment_is_stronger_the_higher_its_magnitude():
    photo = prepare(load_sample_image("china.jpg"), PrepareSpec(height=32, width=32))
    images = np.stack([photo] * 4)

    def change(magnitude: float) -> float:
        vary = augmenter(only(rand_augment=magnitude), photo.shape, classes=1)
        varied = np.stack([vary(images, np.ones((4, 1), "f4"), key=key)[0] for key in keys(12)])
        return float(np.abs(varied.astype(int) - photo).mean())

    assert 1 < change(0.1) < 0.6 * change(0.9)


@tensorflow
@settings(max_examples=10, deadline=None)
@given(key=st.tuples(st.integers(0, 1000), st.integers(0, 1000)))
def test_mixed_targets_sum_to_one_and_say_what_is_in_the_image(key):
    values = np.array([0, 60, 130, 250], np.float32)
    images = np.broadcast_to((TARGETS @ values).astype(np.uint8)[:, None, None, None], IMAGES.shape)
    for vary, tolerance in zip(mixers(), (0.51, 250 * 2 * (HEIGHT + WIDTH) / (HEIGHT * WIDTH) / 2), strict=True):
        mixed, targets = vary(images, TARGETS, key=key)
        assert np.abs(targets.sum(axis=1) - 1).max() < 1e-6
        assert targets.min() >= 0
        assert np.abs(mixed.mean(axis=(1, 2, 3)) - targets @ values).max() < tolerance


@functools.cache
def mixers() -> list[Augmenter]:
    return [augmenter(config) for config in (only(mixup=0.8), only(cutmix=1.0))]


@tensorflow
def test_mixup_and_cutmix_share_the_batches():
    both = augmenter(only(mixup=1.0, cutmix=1.0))
    values = np.array([0, 60, 130, 250], np.float32)
    images = np.broadcast_to((TARGETS @ values).astype(np.uint8)[:, None, None, None], IMAGES.shape)
    blended = [bool((np.ptp(both(images, TARGETS, key=key)[0], axis=(1, 2, 3)) == 0).all()) for key in keys(16)]
    assert 3 <= sum(blended) <= 13


@tensorflow
def test_erasing_hides_a_rectangle_as_often_as_asked():
    images = np.zeros((200, 16, 16, 1), np.uint8)
    erased = augmenter(only(erasing=0.3), images.shape[1:], classes=1)(images, np.ones((200, 1), "f4"), key=(0, 0))[0]
    assert set(np.unique(erased)) == {0, 128}
    touched = [image[..., 0] for image in erased if image.any()]
    assert 40 <= len(touched) <= 80
    for image in touched:
        rows, columns = np.nonzero(image.any(axis=1))[0], np.nonzero(image.any(axis=0))[0]
        assert image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


@tensorflow
@pytest.mark.parametrize("key", COLOURFUL)
def test_colours_of_grey_images_are_refused_by_name(key):
    with pytest.raises(UsageError, match=rf"augment\.{key} needs images of 3 channels.*set augment\.{key}=0"):
        augmenter(only(**{key: EXAMPLES[key]}), (HEIGHT, WIDTH, 1))


@tensorflow
@tensorflow
def test_tensorflow_traces_once_for_all_batch_sizes():
    vary = augmenter(AugmentConfig(**QUICK))
    for count in (COUNT, 3, 1):
        vary(IMAGES[:count], TARGETS[:count], key=(0, count))
    assert vary._first._run.experimental_get_tracing_count() == 1


@tensorflow
def test_a_preview_shows_each_image_plain_and_then_varied():
    grid = preview_grid(IMAGES[:3], np.array([7, 2, 7]), AugmentConfig(), seed=1, columns=4)
    assert grid.shape == (3 * (HEIGHT + 2), 4 * (WIDTH + 2), 3)
    assert grid.dtype == np.uint8
    tiles = grid.reshape(3, HEIGHT + 2, 4, WIDTH + 2, 3).swapaxes(1, 2)[:, :, 1:-1, 1:-1]
    assert np.array_equal(tiles[:, 0], IMAGES[:3])
    assert all(not np.array_equal(tile, IMAGES[row]) for row in range(3) for tile in tiles[row, 1:])


@tensorflow
def test_a_preview_of_mixed_grey_images_shows_the_shares_of_the_classes():
    grid = preview_grid(IMAGES[:2, ..., :1], np.array([0, 1]), only(mixup=1.0), seed=1, columns=6)
    bars = grid.reshape(2, -1, 6, WIDTH + 2, 3)[:, -2, :, 1:-1]
    first, second = (bars[row, 0, 0] for row in (0, 1))
    assert (bars[0, 0] == first).all()
    assert (bars[1, 0] == second).all()
    assert not np.array_equal(first, second)
    shares = (bars == first).all(axis=-1).mean(axis=-1)
    assert ((shares + (bars == second).all(axis=-1).mean(axis=-1)) == 1).all()
    assert any(0 < share < 1 for share in shares.flat)


TWICE = """
import json, sys
import numpy as np
settings = json.loads(sys.argv[1])
compiled = []
if settings["jax"]:
    from jax import monitoring
    monitoring.register_event_duration_secs_listener(
        lambda name, _seconds, **_: compiled.append(name) if "backend_compile" in name else None
    )
else:
    import tensorflow as tf
    tf.config.experimental.enable_op_determinism()
from edgeclf.training.augment import Augmenter
from edgeclf.training.config import AugmentConfig
images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
targets = np.eye(4, dtype=np.float32)
results, counts = {}, []
vary = Augmenter(AugmentConfig(**settings["config"]), shape=(16, 16, 3), classes=4, seed=1)
for key in ((0, 0), (0, 1), (0, 2), (0, 1), (0, 0)):
    before = len(compiled)
    batch = b"".join(part.tobytes() for part in vary(images, targets, key=key))
    counts.append(len(compiled) - before)
    assert results.setdefault(key, batch) == batch
assert len(set(results.values())) == 3
print(json.dumps(counts))
"""


def twice(**settings) -> list[int]:
    """Run ``TWICE`` in a process of its own; how often each of its batches had something compiled under JAX."""
    environment = {**os.environ, "KERAS_BACKEND": "jax" if settings["jax"] else "tensorflow"}
    done = subprocess.run(
        [sys.executable, "-c", TWICE, json.dumps(settings)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@tensorflow
def test_everything_repeats_itself_where_tensorflow_is_to_be_deterministic():
    twice(jax=False, config={**EXAMPLES, "mixup": 0.0})


@needs_jax
def test_under_jax_it_repeats_itself_and_compiles_two_functions_once_per_batch_size():
    assert twice(jax=True, config={"erasing": 0.5, "noise": 0.5}) == [2, 0, 0, 0, 0]


@needs_jax
@pytest.mark.slow
def test_under_jax_everything_repeats_itself():
    assert twice(jax=True, config={**EXAMPLES, "mixup": 0.0}) == [2, 0, 0, 0, 0]


def test_the_reference_names_every_key_with_its_default():
    page = (REFERENCE / "augmentation.md").read_text("utf-8")
    rows = re.findall(r"^\| `augment\.(\w+)` \| (\S+) \|", page, re.MULTILINE)
    defaults = {one.name: json.dumps(one.default) for one in fields(AugmentConfig)}
    assert dict(rows) == defaults
    assert EXAMPLES.keys() == defaults.keys() - {"views"}


@tensorflow
def test_the_picture_of_the_reference_is_there(refresh_golden):
    path = REFERENCE / "augmentation.jpg"
    if refresh_golden:
        cv2.imwrite(str(path), reference_picture()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    picture = cv2.imread(str(path))
    assert picture is not None
    assert path.stat().st_size < 300_000


PICTURE_SEED = 18  # with which every key shows


def reference_picture(*, side: int = 96, columns: int = 5) -> np.ndarray:
    """Every key on a photo of scikit-learn, in two columns of rows: the plain photo and what the key makes of it."""
    spec = PrepareSpec(height=side, width=side, crop="center")
    photos = np.stack([prepare(load_sample_image(name), spec) for name in ("china.jpg", "flower.jpg", "flower.jpg")])
    rows = []
    for key, value in EXAMPLES.items():
        grid = preview_grid(photos, np.array([0, 1, 1]), only(**{key: value}), seed=PICTURE_SEED, columns=columns)
        row = np.full((side + 12, 120 + grid.shape[1], 3), 255, np.uint8)
        row[: len(grid) // 3, 120:] = grid[: len(grid) // 3]
        for line, text in enumerate((key, str(value))):
            cv2.putText(row, text, (4, 46 + 18 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.44, (0, 0, 0), 1, cv2.LINE_AA)
        rows.append(row)
    half = -(-len(rows) // 2)
    rows += [np.full_like(rows[0], 255)] * (2 * half - len(rows))
    return np.hstack([np.vstack(rows[:half]), np.vstack(rows[half:])])
