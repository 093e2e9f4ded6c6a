"""What the child process of an export is given, and what it says of the model before it converts it."""

from __future__ import annotations

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
from edgeclf_device.progress import Progress

_GOLDEN_SEEDS = tuple(range(16))
_PROBE_IMAGES = 8


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """What the original model says: of the images that judge, (N, classes), and which golden input it is surest of."""

    reference: NDArray[np.float32] | None
    golden_seed: int


def job_of(subject: Subject, asked: Request, calibrating: NDArray[np.uint8] | None, work: Path) -> Job:
    """What the child has to do in the folder ``work``; its input files are written there."""
    folder = work.absolute()
    pixels, probe, judging = (folder / f"{name}.npy" for name in ("calibration", "probe", "judging"))
    if calibrating is not None:
        np.save(pixels, calibrating)
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
