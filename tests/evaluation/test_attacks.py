"""Attacks keep to their bounds and find what an exact solution says is the worst."""

from __future__ import annotations

import numpy as np
import pytest

from edgeclf.evaluation.attacks import attacked, fgsm, in_float, input_gradient, pgd, rounded
from edgeclf_device.errors import ModelError

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("tensorflow")
    return pytest.importorskip("keras")


def network(keras, logits=2, dtype="float32"):
    """Linear in its pixels, so that the worst image is known: every value moves against its weight."""
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 5, 3), dtype="uint8")
    values = keras.layers.Rescaling(1 / 128, offset=-1, dtype=dtype)(image)
    dense = keras.layers.Dense(logits, dtype=dtype)
    return keras.Model(image, dense(keras.layers.Flatten()(values))), dense


def images(low=0, high=256, count=6):
    return np.random.default_rng(0).integers(low, high, (count, 4, 5, 3)).astype(np.uint8)


def margins(dense, pixels, classes):
    """By how much the logit of each image's class leads, from float64 arithmetic."""
    kernel, bias = (np.float64(value) for value in dense.get_weights())
    logits = (pixels.reshape(len(pixels), -1) / 128 - 1) @ kernel + bias
    return (logits[:, 0] - logits[:, 1]) * np.where(classes == 0, 1, -1)


@pytest.mark.parametrize("attack", [fgsm(8), pgd(8, steps=10), pgd(8, steps=3, step=6.0)])
def test_a_linear_network_loses_epsilon_times_the_size_of_its_weights(keras, attack):
    model, dense = network(keras)
    plain, classes = images(20, 230), np.array([0, 1] * 3)
    moved = attacked(
        input_gradient(in_float(model)), plain, np.eye(2, dtype="float32")[classes], attack, np.random.default_rng(1)
    )
    assert moved.dtype == np.float32
    kernel = np.float64(dense.get_weights()[0])
    worst = 8 / 128 * np.abs(kernel[:, 0] - kernel[:, 1]).sum()
    assert margins(dense, plain, classes) - margins(dense, moved, classes) == pytest.approx(np.full(6, worst), rel=1e-4)


@pytest.mark.parametrize("attack", [fgsm(5), pgd(5, steps=4, step=3.3)])
def test_no_value_leaves_its_ball_or_the_256_values_whole_or_not(keras, attack):
    model, _ = network(keras)
    plain = images()
    plain[0], plain[1] = 0, 255
    moved = attacked(
        input_gradient(in_float(model)), plain, np.eye(2, dtype="float32")[[0, 1] * 3], attack, np.random.default_rng(1)
    )
    assert (np.abs(moved - plain) <= 5).all()
    assert 0 <= moved.min() <= moved.max() <= 255
    assert (moved != plain).mean() > 0.5
    whole = rounded(moved)
    assert whole.dtype == np.uint8
    assert np.abs(whole.astype(int) - plain).max() == 5


def test_one_logit_is_led_to_the_other_side(keras):
    model, _ = network(keras, logits=1)
    plain, targets = images(20, 230), np.eye(2, dtype="float32")[[0, 1] * 3]
    moved = attacked(input_gradient(in_float(model)), plain, targets, fgsm(3), np.random.default_rng(0))
    before, after = np.asarray(model(plain))[:, 0], np.asarray(model(rounded(moved)))[:, 0]
    assert np.all(np.sign(after - before) == [1, -1] * 3)


def test_a_gradient_is_that_of_the_weights_of_the_moment(keras):
    model, dense = network(keras)
    gradient, targets = input_gradient(in_float(model)), np.eye(2, dtype="float32")[[0, 1] * 3]
    first = gradient(images().astype("float32"), targets)
    dense.set_weights([-value for value in dense.get_weights()])
    assert np.sign(gradient(images().astype("float32"), targets)) == pytest.approx(-np.sign(first))


def test_a_network_in_half_precision_has_a_gradient_where_it_is_sure(keras):
    model, dense = network(keras, dtype="mixed_float16")
    dense.set_weights([dense.get_weights()[0], np.array([12.0, 0.0], np.float32)])
    gradient = input_gradient(in_float(model))(images().astype("float32"), np.eye(2, dtype="float32")[[0] * 6])
    assert (gradient != 0).all()


def test_a_network_without_a_gradient_is_refused(keras):
    image = keras.Input((4, 5, 3), dtype="uint8")
    whole = keras.layers.Rescaling(1 / 128)(keras.ops.cast(keras.ops.cast(image, "int32"), "float32"))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(whole)))
    with pytest.raises(ModelError, match="none reaches it"):
        input_gradient(in_float(model))(images().astype("float32"), np.eye(2, dtype="float32")[[0, 1] * 3])
