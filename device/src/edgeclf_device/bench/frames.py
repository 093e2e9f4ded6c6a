"""What is classified while measuring: frames of a source, decoded and held in memory, or a synthetic one."""

from __future__ import annotations

from itertools import islice
from time import monotonic_ns

import numpy as np

from edgeclf_device.classifier import Classifier
from edgeclf_device.errors import DataError
from edgeclf_device.golden import GENERATOR, golden_input
from edgeclf_device.preprocess import Image, PrepareSpec, prepare
from edgeclf_device.sources import Frame, open_source

SYNTHETIC_SIZE = (720, 1280)
SYNTHETIC = f"synthetic {GENERATOR} frame, 1280×720"
MAX_FRAMES = 32
"""Frames held in memory and measured in turn."""


def load_frames(spec: str, *, limit: int = MAX_FRAMES) -> tuple[list[Frame], str]:
    """(the first ``limit`` frames of a source, their description), decoded and held in memory.

    Raises:
        DataError: the source is not usable, or none of its frames is.
        DependencyError: it needs OpenCV, which is not installed.
    """
    with open_source(spec) as source:
        frames = list(islice(source, limit))
        if not frames:
            raise DataError(f"None of the images in {spec} can be read; the first: {source.rejected[0].reason}")
        return frames, f"{len(frames)} frames of {source.description}"


def input_of(classify: Classifier, frame: Frame) -> Image:
    """What a call of ``classify`` takes for ``frame``: its image, and of a video model a window of it over and over.

    A model takes the same time whatever the pixels are; a whole window is prepared for each call, where ``Stream``
    prepares only the frames since the decision before.
    """
    clip, image = classify.clip, frame.image
    return image if clip is None else np.broadcast_to(image, (clip.window, *image.shape))


def synthetic_frame() -> Frame:
    """The golden field of seed 0, enlarged to 1280×720 by ``prepare``: for where no real images are given."""
    small = golden_input(GENERATOR, 0, (90, 160, 3))
    height, width = SYNTHETIC_SIZE
    image = prepare(small, PrepareSpec(height=height, width=width))
    return Frame(image=image, color="rgb", index=0, name="synthetic", capture_ms=0.0, captured_ns=monotonic_ns())
