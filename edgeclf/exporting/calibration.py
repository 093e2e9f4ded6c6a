"""Which images calibrate an export, and which choose between ways of quantizing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.exporting.fp32 import fp32_of
from edgeclf.exporting.pool import drawn, traces_of
from edgeclf.exporting.request import Request
from edgeclf.exporting.subject import Images, Subject
from edgeclf_calibration import bias_correction
from edgeclf_calibration.doubts import image_doubts
from edgeclf_calibration.observe import anchored
from edgeclf_calibration.onnx_int8 import optimised
from edgeclf_calibration.ranges import MinMax
from edgeclf_calibration.selection import LOOKING, choose
from edgeclf_calibration.traces import Traces
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress

TUNING_IMAGES = 400
"""At most; each way of quantizing runs on all of them."""

MIN_TUNING_IMAGES = 16


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Images that choose between ways of quantizing: uint8 (M, H, W, C), and class indices (M,) where there are any."""

    pixels: NDArray[np.uint8]
    true: NDArray[np.int64] | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The images that calibrate static schemes, anchored, the record of their choice, and what speaks against it."""

    pixels: NDArray[np.uint8]
    record: dict[str, Any]
    tuning: Tuning | None
    doubts: tuple[str, ...]


def choose_calibration(subject: Subject, asked: Request, progress: Progress = no_progress) -> Calibration:
    """Choose the images that calibrate the static schemes.

    A method that looks at the network is shown all of them, or ``pool.POOL_IMAGES``, by the fp32 .onnx model.

    Raises:
        UsageError: the subject has none; or the method looks at the network, but there is no way to its .onnx.
        DependencyError, ModelError, SystemStateError: as ``fp32_of``, of such a method.
    """
    images = subject.calibration
    if images is None:
        raise UsageError(
            f"{' and '.join(asked.calibrated)} must be calibrated with images, but {subject.name} has none; "
            "name a folder with --calibration, or ask for other schemes, such as --scheme fp32."
        )
    count = asked.calibration_images
    if asked.recover and subject.tuning is None:
        count = min(count, len(images) * 4 // 5)
    pool, traces = _looked_at(subject, images, asked, progress)
    selection = choose(
        pool.named(subject.labels),
        pool.digests,
        count=count,
        seed=asked.seed,
        method=asked.calibration_method,
        embeddings=None if traces is None else traces.embeddings,
        minima=None if traces is None else traces.minima,
        maxima=None if traces is None else traces.maxima,
    )
    chosen = pool.part(selection.indices)
    pixels = chosen.take(range(len(chosen)))
    record = selection.to_json(estimator=MinMax.name)
    return Calibration(
        pixels=anchored(pixels),
        record={**record, "source": images.split, "recovery": [bias_correction.NAME]},
        tuning=_tuning(subject, images, set(selection.digests), asked.seed),
        doubts=image_doubts(
            pixels,
            None if images.true is None else chosen.named(subject.labels),
            known=Counter(images.named(subject.labels)),
        ),
    )


def _looked_at(subject: Subject, images: Images, asked: Request, progress: Progress) -> tuple[Images, Traces | None]:
    """(the images to choose from, what a method that looks at the network needs of them)."""
    if asked.calibration_method not in LOOKING:
        return images, None
    if subject.kind == "tflite":
        raise UsageError(
            f"The method {asked.calibration_method} looks at the network as .onnx, but {subject.model.name} can't be "
            "made one; choose random or stratified, or give the .keras file or SavedModel."
        )
    pool, model = drawn(images), optimised(fp32_of(subject, "onnx", timeout_s=asked.timeout_s, progress=progress))
    embedded = asked.calibration_method == "k-center"
    return pool, traces_of(model, pool, with_embeddings=embedded, threads=asked.threads, progress=progress)


def _tuning(subject: Subject, images: Images, calibrating: set[str], seed: int) -> Tuning | None:
    """The subject's images to tune by, or some of those that do not calibrate; None where that leaves too few."""
    left = subject.tuning
    if left is None:
        left = images.part([place for place, digest in enumerate(images.digests) if digest not in calibrating])
    if len(left) < MIN_TUNING_IMAGES:
        return None
    places = choose(left.named(subject.labels), left.digests, count=TUNING_IMAGES, seed=seed).indices
    return Tuning(pixels=left.take(places), true=None if left.true is None else left.true[list(places)])
