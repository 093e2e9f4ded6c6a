from __future__ import annotations

import numpy as np
import pytest

from edgeclf_device.errors import ModelError

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def earlier(build, tmp_path_factory):
    """A trained network of three classes, and its file."""
    model = build("cnn", "model.filters=4")
    model.get_layer("hidden").set_weights([weights + 1 for weights in model.get_layer("hidden").get_weights()])
    path = tmp_path_factory.mktemp("run") / "model.keras"
    model.save(path)
    return model, path


def test_every_layer_but_the_head_takes_the_weights_of_an_earlier_run(build, earlier):
    model, path = earlier
    later = build("cnn", "model.filters=4", classes=5, weights=str(path))
    for name in ("block1_conv", "block2_conv", "block2_bn"):
        for one, other in zip(model.get_layer(name).get_weights(), later.get_layer(name).get_weights(), strict=True):
            assert np.array_equal(one, other)
    assert not np.array_equal(*(one.get_layer("hidden").get_weights()[0] for one in (model, later)))


def test_a_file_of_another_backbone_is_refused(build, earlier):
    with pytest.raises(ModelError, match="only 0 of"):
        build("vit_tiny", "model.depth=1", weights=str(earlier[1]))
    with pytest.raises(ModelError, match="only 0 of 4"):
        build("cnn", "model.filters=8", weights=str(earlier[1]))


def test_a_network_that_scales_its_pixels_otherwise_is_refused(keras, build, tmp_path):
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, name="rescale")(image)
    keras.Model(image, keras.layers.Conv2D(4, 3, name="block1_conv")(x)).save(tmp_path / "other.keras")
    with pytest.raises(ModelError, match=r"\(0\.0078125, -0\.9921875\).*but has \(0\.0039"):
        build("cnn", weights=str(tmp_path / "other.keras"))
    keras.Model(image, keras.layers.Conv2D(4, 3, name="block1_conv")(image)).save(tmp_path / "bare.keras")
    with pytest.raises(ModelError, match="no such layer"):
        build("cnn", weights=str(tmp_path / "bare.keras"))


def test_a_damaged_file_and_one_with_code_are_refused_and_the_code_never_runs(keras, build, tmp_path):
    (tmp_path / "damaged.keras").write_bytes(b"PK\x03\x04 and then nothing")
    trap = tmp_path / "ran"
    path = str(trap)
    image = keras.Input((32, 32, 3))
    layer = keras.layers.Lambda(lambda x: (open(path, "w").close(), x)[1], output_shape=(32, 32, 3))  # noqa: PTH123
    keras.Model(image, layer(image)).save(tmp_path / "code.keras")
    trap.unlink(missing_ok=True)
    for name in ("damaged.keras", "code.keras"):
        with pytest.raises(ModelError, match="can't be loaded"):
            build("cnn", weights=str(tmp_path / name))
    assert not trap.exists()
