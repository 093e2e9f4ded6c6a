"""What speaks against the calibration that ``edgeclf export`` gives a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeclf.calibrating.ground import read_ground
from edgeclf.exporting.request import CALIBRATION_IMAGES, TIMEOUT_S
from edgeclf_calibration.doubts import image_doubts
from edgeclf_calibration.ranges import MinMax
from edgeclf_calibration.selection import choose
from edgeclf_calibration.static import watch
from edgeclf_device.progress import Progress, no_progress


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What an export would calibrate with, and what is to be said of it.

    Attributes:
        name: of the model.
        method, seed, images: how they are chosen.
        per_class: how many of each label.
        estimator: of the ranges.
        stability: of the ranges, between half of the images and all: one sentence.
        doubts: sentences; none where all is well.
    """

    name: str
    method: str
    seed: int
    images: int
    per_class: dict[str, int]
    estimator: str
    stability: str
    doubts: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The object that ``edgeclf calibrate --json`` writes without ``--study``."""
        return {"format": [1, 0], **asdict(self)}


def examine(
    run: Path,
    *,
    bundle: Path | None = None,
    data: Path | None = None,
    images: int = CALIBRATION_IMAGES,
    seed: int = 0,
    threads: int = 2,
    timeout_s: float = TIMEOUT_S,
    progress: Progress = no_progress,
) -> Examination:
    """Choose calibration images as an export does, observe their ranges, and say what speaks against both.

    Args:
        run: folder of a training, or a stock classifier, which needs ``data``.
        bundle: an export of that run with fp32 .onnx in it; None: convert, which needs TensorFlow.
        data: a folder of images or a listing, half of which calibrate; None: the run's training split.
        images, seed: as an export's.
        threads: how many to compute with.
        timeout_s: how long the conversion may take.
        progress: shows conversion and observation.

    Raises:
        UsageError, DataError, ModelError, DependencyError, SystemStateError: as ``read_ground`` and ``choose``.
    """
    ground = read_ground(run, bundle=bundle, data=data, timeout_s=timeout_s, progress=progress)
    labels = ground.pool.named(ground.labels)
    choice = choose(labels, ground.pool.digests, count=images, seed=seed)
    pixels = ground.pool.take(choice.indices)
    watched = watch(ground.model, ground.container, pixels, threads=threads, progress=progress)
    return Examination(
        name=ground.name,
        method=choice.method,
        seed=choice.seed,
        images=choice.count,
        per_class=dict(choice.per_class),
        estimator=MinMax.name,
        stability=watched.stability.summary,
        doubts=(
            *image_doubts(pixels, [labels[one] for one in choice.indices], known=Counter(labels)),
            *watched.doubts,
        ),
    )
