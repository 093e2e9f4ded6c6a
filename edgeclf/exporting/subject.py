"""What an export needs to know of its model, wherever the model comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.preprocess import PrepareSpec


@dataclass(frozen=True, kw_only=True)
class Images:
    """Some of the prepared images of a data set.

    Attributes:
        pixels: uint8 (M, H, W, C), of all images, normally mapped from disk.
        rows: (N,) which of them.
        true: (N,) class indices.
        digests: SHA-256 of each image's file.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    true: NDArray[np.int64]
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self.pixels[row] for row in self.rows)

    def take(self, places: tuple[int, ...]) -> NDArray[np.uint8]:
        """The images at ``places``, uint8 (len(places), H, W, C)."""
        return np.asarray(self.pixels[self.rows[list(places)]])


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained model and the images that calibrate and judge it.

    Attributes:
        name: begins the name of every artifact.
        keras_model: path of the ``.keras`` file.
        labels: of the model's outputs, in order.
        spec: preprocessing that the model was trained with.
        train: images to choose the calibration from.
        test: images that judge.
        judging_split: name of the split they are, normally ``test``, which was never trained or chosen on.
        reference: the Keras model's scores on ``test``, float32 (N, classes).
        provenance: digests and licences of what the model was made from.
    """

    name: str
    keras_model: Path
    labels: tuple[str, ...]
    spec: PrepareSpec
    train: Images
    test: Images
    judging_split: str
    reference: NDArray[np.float32]
    provenance: Mapping[str, Any]
