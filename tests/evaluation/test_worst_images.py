"""The search for images that deceive finds all that an exact solution says there are, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from edgeclf.evaluation.worst_images import to_logits, worst_images

pytestmark = pytest.mark.tensorflow

SHAPE = (4, 5, 3)


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("tensorflow")
    return pytest.importorskip("keras")


def classifier(keras, end, *, sharpness=1.0):
    """Linear in its pixels before its softmax, with weights of about one size so that rounding costs nothing."""
    image = keras.Input(SHAPE, dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 128, offset=-1)(image))
    dense = keras.layers.Dense(2, activation="softmax" if end == "dense" else None)
    scores = dense(flat)
    if end == "layer":
        scores = keras.layers.Softmax()(scores)
    elif end == "activation":
        scores = keras.layers.Activation("softmax")(scores)
    model = keras.Model(image, scores)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (60, 1))
    dense.set_weights([np.float32(sharpness * signs * [[1, -1]]), np.zeros(2, np.float32)])
    return model, sharpness * np.concatenate([signs, -signs], axis=1)


def judged(kernel, images):
    """Each image's class by an exact network, and how large an epsilon it withstands, from 20 to 235."""
    logits = (images.reshape(len(images), -1) / 128 - 1) @ kernel
    true = logits.argmax(axis=1)
    lead = np.abs(logits[:, 0] - logits[:, 1])
    return true, lead * 128 / np.abs(kernel[:, 0] - kernel[:, 1]).sum()


@pytest.mark.parametrize(("end", "sharpness"), [("layer", 1.0), ("dense", 100.0), ("activation", 100.0)])
def test_every_image_that_can_be_deceived_is_and_no_other(keras, end, sharpness):
    model, kernel = classifier(keras, end, sharpness=sharpness)
    images = np.random.default_rng(1).integers(20, 236, (150, *SHAPE)).astype(np.uint8)
    true, withstood = judged(kernel, images)
    assert 0.1 < (withstood < 4).mean() < 0.9
    for name, found in worst_images(model, images, true, classes=2, epsilons=[4], seed=0):
        assert np.array_equal(found.deceived, withstood < 4), name
        assert np.array_equal(found.deceived_in_float, withstood < 4), name
        given = np.asarray(model(found.images)).argmax(axis=1)
        assert np.array_equal(given != true, found.deceived)
        assert np.abs(found.images.astype(int) - images).max() == 4


def test_images_that_are_wrong_as_they_are_stay_so_and_are_not_touched(keras):
    model, kernel = classifier(keras, "layer")
    images = np.random.default_rng(1).integers(20, 236, (20, *SHAPE)).astype(np.uint8)
    true, _ = judged(kernel, images)
    for _, found in worst_images(model, images, 1 - true, classes=2, epsilons=[2, 4], seed=0):
        assert found.deceived.all()
        assert np.array_equal(found.images, images)


def test_a_network_that_ends_otherwise_is_attacked_by_the_logarithms_of_its_scores(keras):
    image = keras.Input(SHAPE, dtype="uint8")
    model = keras.Model(image, keras.layers.Dense(2, activation="sigmoid")(keras.layers.Flatten()(image)))
    images = np.random.default_rng(1).integers(0, 256, (3, *SHAPE)).astype(np.uint8)
    assert np.asarray(to_logits(model)(images)) == pytest.approx(np.log(np.maximum(np.asarray(model(images)), 1e-30)))
