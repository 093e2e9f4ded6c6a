"""What can be chosen of an engine changes how it calculates, never what the model is."""

from __future__ import annotations

import numpy as np
import pytest

from edgeclf_device.engines import OPTIONS, chosen_options, open_engine
from edgeclf_device.errors import UsageError
from edgeclf_device.golden import GENERATOR, golden_input


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (f"{scheme}.{container}", option, value)
        for container, engine in (("tflite", "litert"), ("onnx", "onnxruntime"))
        for option, values in OPTIONS[engine].items()
        for value in values
        for scheme in ("fp32", "w8a8")
    ],
)
def test_every_value_of_every_option_gives_the_scores_of_the_default(tiny, kind, option, value):
    tiny.need_engine(kind)
    container, model = kind.split(".")[1], tiny.model(kind)
    image = golden_input(GENERATOR, 3, (1, *tiny.shape))
    expected = open_engine(model, container).run(image).astype(np.float64)
    found = open_engine(model, container, options={option: value}).run(image)
    assert np.abs(found - expected).max() <= (1 if kind.startswith("w8a8") else 1e-6)


def test_the_kernels_are_really_exchanged(tiny):
    """Otherwise an option that reaches nobody would pass: LiteRT sums floats in another order without XNNPACK."""
    tiny.need_engine("fp32.tflite")
    images = [golden_input(GENERATOR, seed, (1, *tiny.shape)) for seed in range(20)]
    engines = [
        open_engine(tiny.model("fp32.tflite"), "tflite", options={"kernels": one}) for one in ("xnnpack", "reference")
    ]
    assert any((engines[0].run(image) != engines[1].run(image)).any() for image in images)


@pytest.mark.parametrize("options", [{"kernels": "fast"}, {"optimization": "all"}, {"": ""}])
def test_an_unknown_option_is_refused_with_those_there_are(options):
    with pytest.raises(UsageError, match="kernels = xnnpack, builtin, reference"):
        chosen_options("litert", options)


def test_what_is_not_chosen_has_its_default():
    assert chosen_options("onnxruntime", {}) == {"optimization": "all"}
    assert chosen_options("litert", {"kernels": "builtin"}) == {"kernels": "builtin"}
