"""What the child process of an export is given, and what it says of the model before it converts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.exporting.job import Job, Loaded
from edgeclf.exporting.measure import choose_golden_seed, require_same_model
from edgeclf.exporting.request import Request
from edgeclf.exporting.subject import Images, Subject
from edgeclf_calibration import bias_correction
from edgeclf_calibration.doubts import image_doubts
from edgeclf_calibration.observe import anchored
from edgeclf_calibration.ranges import MinMax
from edgeclf_calibration.selection import choose
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress

_GOLDEN_SEEDS = tuple(range(16))
_PROBE_IMAGES = 8


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


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """What the original model says: of the images that judge, (N, classes), and which golden input it is surest of."""

    reference: NDArray[np.float32] | None
    golden_seed: int


def choose_calibration(subject: Subject, asked: Request) -> Calibration:
    """Choose the images that calibrate the static schemes.

    Raises:
        UsageError: the subject has none.
    """
    images = subject.calibration
    if images is None:
        raise UsageError(
            f"{' and '.join(asked.calibrated)} must be calibrated with images, but {subject.name} has none; "
            "name a folder with --calibration, or ask for other schemes, such as --scheme fp32."
        )
    labels = [images.split] * len(images) if images.true is None else [subject.labels[one] for one in images.true]
    count = asked.calibration_images
    if asked.recover and subject.tuning is None:
        count = min(count, len(images) * 4 // 5)
    selection = choose(labels, images.digests, count=count, seed=asked.seed)
    pixels = images.take(selection.indices)
    chosen = None if images.true is None else [labels[place] for place in selection.indices]
    record = selection.to_json(estimator=MinMax.name)
    return Calibration(
        pixels=anchored(pixels),
        record={**record, "source": images.split, "recovery": [bias_correction.NAME]},
        tuning=_tuning(subject, images, set(selection.digests), asked.seed),
        doubts=image_doubts(pixels, chosen, known=Counter(labels)),
    )


def _tuning(subject: Subject, images: Images, calibrating: set[str], seed: int) -> Tuning | None:
    """The subject's images to tune by, or some of those that do not calibrate; None where that leaves too few."""
    left = subject.tuning
    if left is None:
        left = images.part([place for place, digest in enumerate(images.digests) if digest not in calibrating])
    if len(left) < MIN_TUNING_IMAGES:
        return None
    labels = [left.split] * len(left) if left.true is None else [subject.labels[one] for one in left.true]
    places = choose(labels, left.digests, count=TUNING_IMAGES, seed=seed).indices
    return Tuning(pixels=left.take(places), true=None if left.true is None else left.true[list(places)])


def job_of(subject: Subject, asked: Request, calibration: Calibration | None, work: Path) -> Job:
    """What the child has to do in the folder ``work``; its input files are written there."""
    folder = work.absolute()
    pixels, probe, judging = (folder / f"{name}.npy" for name in ("calibration", "probe", "judging"))
    if calibration is not None:
        np.save(pixels, calibration.pixels)
    if subject.judging is not None and subject.reference is not None:
        np.save(probe, subject.judging.take(range(min(_PROBE_IMAGES, len(subject.judging)))))
    elif subject.judging is not None:
        _save(judging, subject.judging)
    return Job(
        keras_model=str(subject.model.absolute()),
        kind=subject.kind,
        convention=subject.convention,
        folder=str(folder),
        shape=subject.spec.shape,
        classes=len(subject.labels),
        conversions=asked.conversions,
        calibration=str(pixels) if pixels.exists() else None,
        probe=str(probe) if probe.exists() else None,
        judging=str(judging) if judging.exists() else None,
        golden_seeds=_GOLDEN_SEEDS,
    )


def _save(path: Path, images: Images) -> None:
    """Write ``images`` as one .npy array, row by row: all of them may not fit into memory."""
    with path.open("wb") as file:
        shape = (len(images), *images.pixels.shape[1:])
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for image in images:
            file.write(image.tobytes())


def yardstick_of(subject: Subject, lines: Iterator[dict[str, Any]], progress: Progress) -> Yardstick:
    """Read what the child says of the model before it converts it.

    Raises:
        ModelError: the model is not the one whose scores the subject keeps.
        EdgeclfError: what the child sent as its error.
    """
    (first,) = progress(islice(lines, 1), "Loading the model", 1)
    loaded = Loaded(**first)
    reference = subject.reference
    if reference is not None:
        require_same_model(loaded.probe, reference, subject.model)
    elif subject.judging is not None:
        count = len(subject.judging)
        answers = progress(islice(lines, count), "Running the model", count)
        reference = np.array([answer["scores"] for answer in answers], np.float32)
    seed = choose_golden_seed(dict(zip(_GOLDEN_SEEDS, loaded.golden, strict=True)))
    return Yardstick(reference=reference, golden_seed=seed)
