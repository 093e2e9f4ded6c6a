from __future__ import annotations

import numpy as np
import pytest

from edgeclf.models import registry
from edgeclf.models.folding import fold_batch_norm, restore_batch_norm

pytestmark = pytest.mark.tensorflow
FOLDED = [name for name, one in registry.BACKBONES.items() if name not in {"cnn", "vgg16"}]
QUICK = ("vit_tiny",)


def logits(keras, model, batch):
    return keras.Model(model.input, model.get_layer("logits").output).predict_on_batch(batch)


def difference(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in FOLDED])
def test_folding_the_upper_blocks_and_writing_them_back_changes_nothing(keras, build, images, name):
    overrides = ["model.depth=2", "model.width=12"] if name == "vit_tiny" else []
    model = build(name, *overrides)
    expected = logits(keras, model, images())
    blocks = list(registry.backbone(name).blocks)
    cut = registry.block_below(model, name, blocks[len(blocks) // 2]) if blocks else model.input
    upper = fold_batch_norm(cut, model.get_layer("logits").output)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in upper.layers)
    lower = fold_batch_norm(model.input, cut).predict_on_batch(images()) if blocks else images()
    assert difference(upper.predict_on_batch(lower), expected) < 1e-4
    restore_batch_norm(upper, model)
    assert difference(logits(keras, model, images()), expected) < 1e-4


def test_what_was_trained_while_folded_reaches_the_model_and_the_lower_blocks_stay(keras, build, images):
    name = "mobilenet_v3_small"
    model = build(name)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    cut = registry.block_below(model, name, "block_8")
    upper = fold_batch_norm(cut, model.get_layer("logits").output)
    for layer in upper.layers:
        layer.set_weights([weights * 1.1 + 0.01 for weights in layer.get_weights()])
    restore_batch_norm(upper, model)
    lower = keras.Model(model.input, cut).predict_on_batch(images())
    assert difference(logits(keras, model, images()), upper.predict_on_batch(lower)) < 1e-4
    changed = {
        layer.name
        for layer in model.layers
        if any(not np.array_equal(*pair) for pair in zip(before[layer.name], layer.get_weights(), strict=True))
    }
    assert {"expanded_conv_8_expand", "expanded_conv_8_expand_bn", "logits"} <= changed
    assert not changed & {"conv", "conv_bn", "expanded_conv_7_project_bn"}


def odd_network(keras):
    """BatchNorm in every place where it can and can't be folded, shared layers, operations and keyword arguments."""
    layers, ops = keras.layers, keras.ops
    image = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="first_kept")(image)
    x = layers.Conv2D(6, 3, padding="same", name="biased")(x)
    x = layers.BatchNormalization(center=False, name="no_beta_gone")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="double")(x)
    x = layers.BatchNormalization(scale=False, name="no_gamma_gone")(x, training=False)
    x = layers.Conv2D(6, 1, activation="relu", name="active")(x)
    x = layers.BatchNormalization(name="after_relu_kept")(x)
    read_twice = layers.Conv2D(6, 1, name="read_twice")(x)
    x = layers.BatchNormalization(name="read_twice_kept")(read_twice) * 0.5 + read_twice
    shared = layers.Conv2D(6, 1, name="shared")
    x = layers.Concatenate()([layers.BatchNormalization(name="shared_kept")(shared(x)), shared(x)])
    x = layers.MultiHeadAttention(2, 4, name="attention")(query=x, value=x)
    x = layers.Conv2D(5, 1, use_bias=False, name="plain")(ops.concatenate([x, ops.relu(x)], axis=-1))
    x = layers.BatchNormalization(name="plain_gone")(x)
    return keras.Model(image, x)


def test_batch_norm_is_folded_where_it_can_be_and_stays_frozen_where_not(keras, shaken):
    keras.utils.set_random_seed(0)
    model = shaken(odd_network(keras))
    batch = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    expected = model.predict_on_batch(batch)
    folded = fold_batch_norm(model.input, model.output)
    assert difference(folded.predict_on_batch(batch), expected) < 1e-5
    left = [layer for layer in folded.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.name for layer in left} == {layer.name for layer in model.layers if layer.name.endswith("_kept")}
    assert not any(layer.trainable for layer in left)
    for layer in folded.layers:
        layer.set_weights([weights * 1.1 for weights in layer.get_weights()])
    restore_batch_norm(folded, model)
    assert difference(model.predict_on_batch(batch), folded.predict_on_batch(batch)) < 1e-5
