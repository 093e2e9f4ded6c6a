"""What a run keeps to be looked at is chosen well, drawn, written and read back."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclf.report.pictures import PICTURES, SIDE_PIXELS, choose, read_pictures, take_pictures, write_pictures
from edgeclf.training.config import TrainConfig
from edgeclf_device import ModelError

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")


@given(seed=st.integers(0, 1000), images=st.integers(0, 80), right=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_surest_errors_come_first_and_then_the_least_sure_of_the_right_ones(seed, images, right):
    draw = np.random.default_rng(seed)
    scores = draw.dirichlet(np.ones(3), images).astype(np.float32).reshape(images, 3)
    true = np.where(draw.random(images) < right, scores.argmax(axis=1), draw.integers(0, 3, images))
    chosen = choose(true, scores)
    hit, confidence = scores.argmax(axis=1) == true, scores.max(axis=1)
    wrong = int((~hit[chosen]).sum())
    assert len(chosen) == len(set(chosen)) == min(24, images)
    assert not hit[chosen[:wrong]].any()
    assert hit[chosen[wrong:]].all()
    assert wrong >= min((~hit).sum(), 16)
    assert len(chosen) - wrong >= min(hit.sum(), 8)
    assert sorted(confidence[chosen[:wrong]], reverse=True) == confidence[chosen[:wrong]].tolist()
    assert sorted(confidence[~hit], reverse=True)[:wrong] == confidence[chosen[:wrong]].tolist()
    assert sorted(confidence[hit])[: len(chosen) - wrong] == confidence[chosen[wrong:]].tolist()


@pytest.mark.tensorflow
@pytest.mark.parametrize(("channels", "size"), [(1, 16), (3, 300)])
@pytest.mark.parametrize("convolutional", [True, False])
def test_pictures_are_taken_written_and_read_back(channels, size, convolutional, tmp_path):
    pytest.importorskip(BACKEND)
    cv2 = pytest.importorskip("cv2")
    keras = pytest.importorskip("keras")
    layers = keras.layers
    image = keras.Input((size, size, channels), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255, name="rescale")(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 4, 4)(x)) if convolutional else layers.Flatten()(x)
    model = keras.Model(image, layers.Softmax(name="scores")(layers.Dense(2, name="logits")(x)))
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (30, size, size, channels), dtype=np.uint8)
    labels, judged = np.arange(30) % 2, np.arange(20, 30)
    config = TrainConfig(image_size=size, channels="grey" if channels == 1 else "rgb")
    taken = take_pictures(
        model,
        pixels,
        labels=labels,
        train=np.arange(20),
        judged=judged,
        scores=draw.dirichlet(np.ones(2), 10).astype(np.float32),
        config=config,
    )
    write_pictures(tmp_path, taken)
    assert read_pictures(tmp_path) == taken
    assert taken.method == ("Grad-CAM" if convolutional else "")
    assert sorted(one.row for one in taken.gallery) == judged.tolist()
    for one in taken.gallery:
        assert cv2.imdecode(np.frombuffer(one.image, np.uint8), 1).shape == (SIDE_PIXELS, SIDE_PIXELS, 3)
        assert (one.overlay is not None) is convolutional
    assert cv2.imdecode(np.frombuffer(taken.augmentation, np.uint8), 1).shape[1] == 900


def test_no_pictures_are_none(tmp_path):
    assert read_pictures(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": [2, 0]}', '{"format": [1, 0], "method": "", "augmentation": "§", "gallery": []}'],
)
def test_damaged_pictures_are_refused(content, tmp_path):
    (tmp_path / PICTURES).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=PICTURES):
        read_pictures(tmp_path)


def test_unknown_fields_of_a_newer_minor_format_are_ignored(tmp_path):
    value = {"format": [1, 9], "method": "Grad-CAM", "augmentation": "", "gallery": [], "more": 1}
    (tmp_path / PICTURES).write_text(json.dumps(value))
    assert read_pictures(tmp_path).method == "Grad-CAM"
