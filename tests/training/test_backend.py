from __future__ import annotations

import pytest

from edgeclf.training.backend import require_keras
from edgeclf.training.config import load_config
from edgeclf.training.train import resolve
from edgeclf_device.errors import UsageError


def test_a_backend_that_nothing_was_tried_with_is_refused_wherever_it_is_set(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(UsageError, match="one of tensorflow, jax, but it is 'torch'"):
        require_keras()
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text('{"backend": "numpy"}')
    with pytest.raises(UsageError, match="but it is 'numpy'"):
        require_keras()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=vit_tiny", "image_size=60"], "multiple of model.patch_size"),
        (["backbone=mobilenet_v2", "weights=none", "image_size=24"], "at least 32"),
        (["channels=grey", "augment.hue=0.1"], "augment.hue needs images of 3 channels"),
        (["channels=blue"], "channels"),
    ],
)
def test_what_can_not_be_trained_is_refused_before_any_image_is_read(overrides, message):
    with pytest.raises(UsageError, match=message):
        resolve(load_config(None, ["data=no such folder", *overrides]))
