"""What the frozen lower blocks make of each view, computed once and kept on disk as float16.

Fine-tuning changes the upper blocks only, so the lower blocks' output for a given view never changes: with V views
per image the lower part runs V times per image, however many epochs follow. Epoch e shows image i its view
(e + i) mod V, so every epoch mixes all views. float16 keeps 11 bits of an activation, three more than int8 will.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.models.folding import fold_batch_norm
from edgeclf.training import augment
from edgeclf.training.config import AugmentConfig
from edgeclf_device.atomic import os_errors_explained
from edgeclf_device.progress import Progress

if TYPE_CHECKING:
    import keras

_BATCH = 32
_VIEW_AS_FLOAT16 = np.dtype(np.float16)


@dataclass(frozen=True, kw_only=True)
class TrainingImages:
    """The images of one training: pixels uint8 (N, H, W, C) of all, and which of them train and which validate."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    classes: int

    def one_hot(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 (len(indices), classes)."""
        return np.eye(self.classes, dtype=np.float32)[self.labels[indices]]


def lower_part(image: Any, activations: Any) -> keras.Model:
    """Return the frozen blocks, from the uint8 image to ``activations``, ready for ``predict_on_batch``."""
    model = fold_batch_norm(image, activations)
    model.compile(jit_compile=False)  # XLA's convolutions are 15 times slower on a CPU
    return model


def run_views(
    lower: keras.Model,
    images: TrainingImages,
    indices: NDArray[np.int64],
    numbers: Sequence[int],
    config: AugmentConfig,
    *,
    seed: int,
    into: NDArray[np.float16],
    progress: Progress,
) -> None:
    """Fill ``into``, float16 (views, len(indices), …), with the lower blocks' activations of every view wanted."""
    batches = [(row, start) for row in range(len(numbers)) for start in range(0, len(indices), _BATCH)]
    for row, start in progress(batches, "computing frozen blocks", len(batches)):
        chosen = indices[start : start + _BATCH]
        pictures = augment.views(
            images.pixels, config, seed=seed, indices=chosen, numbers=np.full(len(chosen), numbers[row])
        )
        into[row, start : start + len(chosen)] = np.asarray(lower.predict_on_batch(pictures))


@contextlib.contextmanager
def scratch_array(folder: Path, shape: tuple[int, ...]) -> Iterator[NDArray[np.float16]]:
    """Yield a writable float16 array on disk in ``folder``, removed at the end.

    Its room is claimed before it is mapped: on a full disk this fails, where a map would kill the process later.

    Raises:
        SystemStateError: there is not enough room.
    """
    size_bytes = int(np.prod(shape, dtype=np.int64)) * _VIEW_AS_FLOAT16.itemsize
    with os_errors_explained(folder), tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size_bytes)
        else:
            file.truncate(size_bytes)
        yield np.memmap(file, _VIEW_AS_FLOAT16, "r+", shape=shape)
