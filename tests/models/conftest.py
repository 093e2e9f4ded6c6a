"""Networks with random weights that no layer's rounding can hide in."""

from __future__ import annotations

import numpy as np
import pytest

from edgeclf.models import registry
from edgeclf.models.architecture import Architecture
from edgeclf.training.config import load_config


@pytest.fixture(scope="session")
def keras():
    return pytest.importorskip("keras")


@pytest.fixture(scope="session")
def build(keras, shaken):
    """Build a backbone with the options of its defaults, and BatchNorm statistics as after a training."""

    def make(name, *overrides, size=32, channels=3, classes=3, weights="none"):
        options = load_config(None, [f"backbone={name}", *overrides]).model
        keras.utils.set_random_seed(0)
        architecture = Architecture(image_size=size, channels=channels, classes=classes, options=options)
        model = registry.build(name, architecture, weights=weights)
        return shaken(model) if weights == "none" else model

    return make


@pytest.fixture(scope="session")
def shaken(keras):
    """Give every BatchNorm of a model statistics and factors of its own."""

    def shake(model):
        rng = np.random.default_rng(0)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                shape = layer.moving_mean.shape
                layer.moving_mean.assign(rng.normal(0, 0.3, shape))
                layer.moving_variance.assign(rng.uniform(0.5, 2, shape))
                for variable, values in (
                    (layer.gamma, rng.uniform(0.5, 1.5, shape)),
                    (layer.beta, rng.normal(0, 1, shape)),
                ):
                    if variable is not None:
                        variable.assign(values)
        return model

    return shake


@pytest.fixture
def images():
    def make(size=32, channels=3, count=2):
        return np.random.default_rng(1).integers(0, 256, (count, size, size, channels)).astype(np.uint8)

    return make
