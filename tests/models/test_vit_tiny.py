from __future__ import annotations

import numpy as np
import pytest

from edgeclf.models.vit_tiny import attention_maps
from edgeclf_device.errors import UsageError

pytestmark = pytest.mark.tensorflow
SMALL = ("model.depth=2", "model.width=12", "model.attention_heads=3")


def test_the_attention_of_each_block_can_be_reached_also_after_loading(keras, build, images, tmp_path):
    model = build("vit_tiny", *SMALL)
    model.save(tmp_path / "model.keras")
    for one in (model, keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)):
        maps = attention_maps(one)
        assert [tensor.shape for tensor in maps] == [(None, 3, 16, 16)] * 2
        values = keras.Model(one.input, maps).predict_on_batch(images())
        assert all(np.allclose(value.sum(axis=3), 1, atol=1e-5) for value in values)
        assert not np.allclose(values[0], 1 / 16, atol=1e-2)
    assert attention_maps(build("cnn")) == []


def test_every_token_sees_every_other_and_knows_its_place(keras, build, images):
    model = build("vit_tiny", *SMALL)
    tokens = keras.Model(model.input, model.get_layer("block01_add").output)
    image = images(count=1)
    changed = image.copy()
    changed[0, :8, :8] ^= 255
    assert np.abs(tokens.predict_on_batch(changed) - tokens.predict_on_batch(image))[0, -1, -1].max() > 1e-5
    moved = np.roll(image, 8, axis=2)
    features = keras.Model(model.input, model.get_layer("features").output)
    assert np.abs(features.predict_on_batch(moved) - features.predict_on_batch(image)).max() > 1e-3


def test_an_image_of_no_whole_number_of_patches_is_refused(build):
    with pytest.raises(UsageError, match="must be a multiple"):
        build("vit_tiny", "model.patch_size=5")
