"""Another way of resizing crops, fills and colours as the contract says: only the resizing is another."""

from __future__ import annotations

import numpy as np
import pytest

from edgeclf.evaluation.faults import _Judged, _resized
from edgeclf_device.preprocess import PrepareSpec, prepare


@pytest.mark.parametrize("name", ["nearest neighbour", "averaging areas", "plain linear"])
@pytest.mark.parametrize("channels", ["rgb", "grey"])
@pytest.mark.parametrize(
    "crop", [{"crop": "stretch"}, {"crop": "center"}, {"crop": "center", "crop_fraction": 0.5}, {"crop": "letterbox"}]
)
@pytest.mark.parametrize("shape", [(48, 96, 3), (96, 48, 3)])
def test_another_way_of_resizing_crops_and_fills_as_the_contract_says(shape, crop, channels, name):
    """Of areas of one colour, ways of resizing differ at borders alone; what is cropped has its own colour."""
    image = np.zeros(shape, np.uint8)
    image[: shape[0] // 2] = (200, 30, 90)
    image[shape[0] // 2 :] = (10, 120, 240)
    margin = image if shape[0] > shape[1] else image.swapaxes(0, 1)
    margin[:24] = (255, 255, 0)
    spec = PrepareSpec(height=24, width=24, channels=channels, **crop)
    found = _resized(_Judged(decoded=[image], pixels=None, keras=None), spec, name)[0]
    expected = prepare(image, spec, backend="numpy")
    assert found.shape == expected.shape
    assert np.mean(np.any(found != expected, axis=2)) < 0.2
