from __future__ import annotations

import sys

import numpy as np
import pytest

from edgeclf.models import registry, user_model
from edgeclf.models.architecture import Architecture, ModelConfig
from edgeclf.models.folding import fold_batch_norm
from edgeclf_device.errors import ModelError, UsageError

NETS = '''
import keras
from keras import layers, ops

def small(input_shape, classes):
    return keras.Sequential([
        keras.Input(input_shape),
        layers.Rescaling(1 / 128, offset=-127 / 128),
        layers.Conv2D(4, 3, activation="relu", name="_first"),
        layers.Flatten(),
        layers.Dense(classes, activation="softmax"),
    ])

def nested(input_shape, classes):
    """A frozen network inside, as transfer learning has it, with names that are ours, and operations."""
    inner_image = keras.Input((None, None, input_shape[-1]))
    x = layers.Conv2D(4, 3, use_bias=False, name="logits")(inner_image)
    x = layers.BatchNormalization(name="features")(x)
    x = keras.Sequential([layers.ReLU(), layers.Conv2D(6, 3, name="dropout")], name="tail")(x)
    base = keras.Model(inner_image, x, name="base")
    base.trainable = False
    image = keras.Input(input_shape, dtype="uint8")
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = base(x, training=False)
    x = ops.relu(x) * 2.0 + ops.sqrt(ops.relu(x) + 1.0)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(classes, name="last")(x)
    return keras.Model(image, layers.Activation("sigmoid" if classes == 1 else "softmax")(x))

def shared(input_shape, classes):
    """One layer called twice, logits out of a pooling, no scaling of the pixels."""
    image = keras.Input(input_shape)
    conv = layers.Conv2D(input_shape[-1], 3, padding="same")
    x = conv(conv(image))
    return keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(classes, 1)(x)))

def no_model(input_shape, classes):
    return 3

def too_many(input_shape, classes):
    image = keras.Input(input_shape)
    return keras.Model(image, layers.Dense(classes + 1)(layers.Flatten()(image)))

def two_outputs(input_shape, classes):
    image = keras.Input(input_shape)
    x = layers.Flatten()(image)
    return keras.Model(image, [layers.Dense(classes)(x), layers.Dense(classes)(x)])

def other_size(input_shape, classes):
    return keras.Sequential([keras.Input((99, 99, 3)), layers.Flatten(), layers.Dense(classes)])

def no_input(input_shape, classes):
    return keras.Sequential([layers.Flatten(), layers.Dense(classes)])

def broken(input_shape, classes):
    raise RuntimeError("no luck today")

def positional(shape, count):
    return None

@keras.saving.register_keras_serializable()
class Mine(layers.Layer):
    def call(self, x):
        return x

def custom_layer(input_shape, classes):
    return keras.Sequential([keras.Input(input_shape), Mine(), layers.Flatten(), layers.Dense(classes)])

def doubled(x):
    return 2 * x

def custom_activation(input_shape, classes):
    return keras.Sequential([keras.Input(input_shape), layers.Flatten(), layers.Dense(classes, activation=doubled)])

def lambda_layer(input_shape, classes):
    return keras.Sequential([keras.Input(input_shape), layers.Lambda(doubled), layers.Flatten(), layers.Dense(classes)])

def unnamed_function(input_shape, classes):
    activated = layers.Dense(classes, activation=lambda x: 2 * x)
    return keras.Sequential([keras.Input(input_shape), layers.Flatten(), activated])

class Subclass(keras.Model):
    def call(self, x):
        return x

def subclass(input_shape, classes):
    return Subclass()

def subclass_inside(input_shape, classes):
    image = keras.Input(input_shape)
    return keras.Model(image, layers.Dense(classes)(layers.Flatten()(Subclass()(image))))

not_callable = 3
'''


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(NETS, encoding="utf-8")
    (tmp_path / "bad_nets.py").write_text("import no_such_package_at_all", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in ("my_nets", "bad_nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def make(name, *, head="softmax", channels=3):
    classes = 2 if head == "sigmoid" else 3
    options = ModelConfig(head=head)
    architecture = Architecture(image_size=16, channels=channels, classes=classes, options=options)
    return registry.build(f"my_nets:{name}", architecture, weights="none")


def batch(channels=3):
    return np.random.default_rng(0).integers(0, 256, (4, 16, 16, channels)).astype(np.uint8)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_nets:small", "No module named 'no_such_nets'"),
        ("bad_nets:small", "no_such_package_at_all"),
        (":small", "module:function"),
        ("my_nets:", "module:function"),
        ("my_nets:large", "must have a function large"),
        ("my_nets:not_callable", "must have a function not_callable"),
        ("my_nets:positional", "must take the keyword arguments input_shape and classes"),
    ],
)
def test_a_function_that_is_not_there_is_refused_before_any_data_is_read(keras, name, message):
    with pytest.raises(UsageError, match=message):
        registry.require_weights(name, "none")


def test_a_backbone_is_looked_up_without_importing_the_users_module():
    assert registry.backbone("my_nets:small").blocks == {}
    assert "my_nets" not in sys.modules


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_model", "must return a keras.Model, but it returned int"),
        ("subclass", "Subclass is a class of its own"),
        ("subclass_inside", "Subclass"),
        ("no_input", "knows its input"),
        ("two_outputs", "1 and 2"),
        ("too_many", r"must give \(3,\).*gives \(4,\)"),
        ("other_size", r"must take images \(16, 16, 3\), but it takes \(99, 99, 3\)"),
        ("broken", "RuntimeError: no luck today"),
        ("custom_layer", "Custom>Mine"),
        ("custom_activation", "doubled"),
        ("lambda_layer", "Lambda"),
        ("unnamed_function", "opened again"),
    ],
)
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_a_model_that_can_not_be_used_is_refused_with_the_reason(name, message):
    with pytest.raises(ModelError, match=message):
        make(name)


@pytest.mark.tensorflow
def test_a_rescaling_and_a_softmax_of_the_users_become_ours(keras):
    model = make("small")
    assert [layer.name for layer in model.layers] == [
        "image", "rescale", "first", "flatten", "logits", "scores",
    ]  # fmt: skip
    assert (model.layers[1].scale, model.layers[1].offset) == (1 / 128, -127 / 128)
    assert model.get_layer("logits").activation is keras.activations.linear
    assert model.predict_on_batch(batch()).sum(axis=1) == pytest.approx(1)


@pytest.mark.tensorflow
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_networks_inside_are_flattened_and_compute_what_they_did(keras, monkeypatch, head):
    given = user_model.function("my_nets:nested")((16, 16, 3), 1 if head == "sigmoid" else 3)
    monkeypatch.setattr(sys.modules["my_nets"], "nested", lambda input_shape, classes: given)
    model = make("nested", head=head)
    assert not [layer for layer in model.layers if isinstance(layer, keras.Model)]
    assert (model.layers[1].name, model.layers[1].scale, model.layers[1].offset) == ("rescale", 1.0, 0.0)
    assert type(model.get_layer("logits")).__name__ == "Dense"
    assert not model.get_layer("logits_1").trainable
    expected = given.predict_on_batch(batch())
    found = model.predict_on_batch(batch())
    assert found[:, -expected.shape[1] :] == pytest.approx(expected, abs=1e-5)
    (batch_norm,) = (layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    before = batch_norm.get_weights()
    model(batch(), training=True)
    assert all(np.array_equal(*pair) for pair in zip(before, batch_norm.get_weights(), strict=True))
    folded = fold_batch_norm(model.input, model.output)
    assert not [layer for layer in folded.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert folded.predict_on_batch(batch()) == pytest.approx(found, abs=1e-5)


@pytest.mark.tensorflow
def test_a_layer_that_is_called_twice_keeps_one_set_of_weights():
    model = make("shared", channels=1)
    assert len([layer for layer in model.layers if type(layer).__name__ == "Conv2D"]) == 2
    assert type(model.get_layer("logits")).__name__ == "Identity"
    assert model.predict_on_batch(batch(1)).shape == (4, 3)


@pytest.mark.tensorflow
def test_the_saved_model_opens_where_the_users_module_is_not(keras, monkeypatch, tmp_path_factory):
    model = make("nested")
    path = tmp_path_factory.mktemp("elsewhere") / "model.keras"
    model.save(path)
    monkeypatch.chdir(path.parent)
    monkeypatch.setitem(sys.modules, "my_nets", None)  # importing it fails
    loaded = keras.saving.load_model(path, safe_mode=True)
    assert np.array_equal(loaded.predict_on_batch(batch()), model.predict_on_batch(batch()))
