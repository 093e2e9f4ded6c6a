"""The images that calibration images are chosen from, and what a network shows of each of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeclf.exporting.subject import Images
from edgeclf_calibration.selection import choose
from edgeclf_calibration.traces import Traces, trace
from edgeclf_device.progress import Progress, no_progress

POOL_IMAGES = 2048
"""Of a larger pool this many are drawn at random: what is kept of them fits into 300 MB."""

_CHUNK_IMAGES = 128
"""Of the pool in memory at a time."""


def drawn(images: Images) -> Images:
    """At most ``POOL_IMAGES`` of the images, in their order."""
    return images.part(sorted(choose(None, images.digests, count=POOL_IMAGES, seed=0, method="random").indices))


def traces_of(
    model: bytes, pool: Images, *, with_embeddings: bool, threads: int, progress: Progress = no_progress
) -> Traces:
    """Show a network every image of ``pool`` once.

    Args:
        model: fp32 .onnx bytes; result of ``edgeclf_calibration.optimised``.
        pool: the images.
        with_embeddings: keep what k-center chooses by.
        threads: how many to compute with.
        progress: shows the images.

    Raises:
        ModelError, DependencyError: as ``trace``.
    """
    starts = range(0, len(pool), _CHUNK_IMAGES)
    return trace(
        model,
        _chunks(pool, progress(starts, "Observing the images to choose from", len(starts))),
        with_embeddings=with_embeddings,
        threads=threads,
    )


def _chunks(pool: Images, starts: Iterator[int]) -> Iterator[NDArray[np.uint8]]:
    return (pool.take(range(start, min(start + _CHUNK_IMAGES, len(pool)))) for start in starts)
