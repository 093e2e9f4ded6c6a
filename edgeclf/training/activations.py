"""What the frozen lower blocks make of each view, computed once and kept on disk as float16.

Training the upper blocks leaves the lower ones as they are, so their output for a given view never changes: with V
views per image the lower part runs V times per image, however many epochs follow. Epoch e shows image i its view
(e + i) mod V, so every epoch mixes all views; view 0 is the image itself. float16 keeps 11 bits of an activation,
three more than int8 will.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.training.augment import Augmenter
from edgeclf.training.images import TrainingImages
from edgeclf_device.errors import SystemStateError
from edgeclf_device.progress import Progress

if TYPE_CHECKING:
    import keras

_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class CachedViews:
    """Activations of the training images' views and of the validation images.

    Attributes:
        train: float16 (views, N, …).
        targets: float32 (views, N, target_width): a view may mix classes.
        val: float32 (M, …).
    """

    train: NDArray[np.float16]
    targets: NDArray[np.float32]
    val: NDArray[np.float32]

    def batch(self, epoch: int, _step: int, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The inputs of the upper blocks and the targets of one step."""
        view = (epoch + rows) % len(self.train)
        return self.train[view, rows].astype(np.float32), self.targets[view, rows]


@contextlib.contextmanager
def cached_views(
    lower: keras.Model,
    images: TrainingImages,
    augmenter: Augmenter,
    *,
    views: int,
    scratch: Path,
    progress: Progress,
) -> Iterator[CachedViews]:
    """Yield what ``lower``, compiled, makes of ``views`` views of each training image and of the validation images.

    Raises:
        SystemStateError: ``scratch`` has not enough room.
    """
    shape = tuple(lower.output.shape[1:])
    targets = np.empty((views, len(images.train), images.target_width), np.float32)
    with (
        _scratch_array(scratch, (views, len(images.train), *shape)) as train,
        _scratch_array(scratch, (1, len(images.val), *shape)) as val,
    ):
        batches = [(view, at) for view in range(views) for at in range(0, len(images.train), _BATCH)]
        for view, at in progress(batches, "computing frozen blocks", len(batches)):
            chosen = images.train[at : at + _BATCH]
            pixels, wanted = images.pixels[chosen], images.targets(chosen)
            if view > 0:
                pixels, wanted = augmenter(pixels, wanted, key=(view, at))
            train[view, at : at + len(chosen)] = np.asarray(lower.predict_on_batch(pixels))
            targets[view, at : at + len(chosen)] = wanted
        for at in range(0, len(images.val), _BATCH):
            chosen = images.val[at : at + _BATCH]
            val[0, at : at + len(chosen)] = np.asarray(lower.predict_on_batch(images.pixels[chosen]))
        yield CachedViews(train=train, targets=targets, val=val[0].astype(np.float32))


@contextlib.contextmanager
def _scratch_array(folder: Path, shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    """Yield a writable float16 array on disk in ``folder``, removed at the end.

    Its room is claimed before it is mapped: on a full disk this fails, where a map would kill the process later.
    """
    size_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(np.float16).itemsize
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            else:
                file.truncate(size_bytes)
            yield np.memmap(file, np.float16, "r+", shape=shape)
    except OSError as error:
        if isinstance(error, SystemStateError):
            raise
        raise SystemStateError(
            f"{folder} needs room for {size_bytes / 1e9:.1f} GB of the frozen blocks' output, but there is not enough "
            f"({error.strerror or error}); free space, lower augment.views, or freeze other blocks with "
            "train.fine_tune_from."
        ) from error
