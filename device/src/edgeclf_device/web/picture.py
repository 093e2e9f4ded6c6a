"""A frame as the JPEG that the page shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeclf_device.images import blue_first, import_cv2
from edgeclf_device.preprocess import Color, Image

MAX_SIDE = 1280
QUALITY = 80


def encode(frame: Image, color: Color) -> bytes:
    """A JPEG of a frame, made smaller to at most ``MAX_SIDE`` a side; alpha is dropped.

    Args:
        frame: uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of any size and strides; never written to.
        color: order of its channels.
    """
    cv2 = import_cv2("The live page's picture")
    small = blue_first(cv2, _shrunk(cv2, np.ascontiguousarray(frame)), color)
    done, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise ValueError(f"OpenCV made no JPEG of a frame of shape {frame.shape}.")
    return bytes(jpeg)


def _shrunk(cv2: Any, frame: Image) -> Image:
    height, width = frame.shape[:2]
    factor = MAX_SIDE / max(height, width)
    if factor >= 1:
        return frame
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
