"""What a training learns from besides the labels: images without labels, and a teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeclf.data.dataset import Dataset
from edgeclf.data.unlabelled import UnlabelledImages, read_unlabelled, require_folder
from edgeclf.training.config import TrainConfig
from edgeclf.training.images import TrainingImages, Unlabelled
from edgeclf.training.phases import PROBE, plan
from edgeclf.training.teacher import Teacher, find_teacher, open_teacher, order_of, soft_targets
from edgeclf_device.clips import frame_of
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress


@dataclass(frozen=True, kw_only=True)
class Further:
    """The unlabelled images and the teacher of a training, None where there are none."""

    unlabelled: UnlabelledImages | None
    teacher: Teacher | None

    def lines(self) -> list[str]:
        """What there is to say of them."""
        lines = [] if self.unlabelled is None else self.unlabelled.lines()
        if self.teacher is not None:
            lines.append(f"taught by {self.teacher.path}")
            if self.teacher.labels is None:
                lines.append("note: the teacher names no labels; its scores are taken to be in the order above.")
        return lines

    def to_json(self) -> dict[str, Any]:
        """What metrics.json says of them; empty where there are none."""
        return {name: one.to_json() for name in ("unlabelled", "teacher") if (one := getattr(self, name)) is not None}


def require_further(config: TrainConfig) -> TrainConfig:
    """Make the paths of what is named absolute, and check what can be checked before any work.

    Raises:
        UsageError: there is no such teacher, or no phase learns from unlabelled images.
        DataError: there is no such folder.
    """
    semi, distill = config.semi, config.distill
    if distill.teacher:
        teacher = Path(distill.teacher).expanduser().absolute()
        find_teacher(teacher)
        distill = dataclasses.replace(distill, teacher=str(teacher))
    if semi.unlabeled:
        folder = Path(semi.unlabeled).expanduser().absolute()
        require_folder(folder)
        semi = dataclasses.replace(semi, unlabeled=str(folder))
        if all(phase.name == PROBE for phase in plan(config)):
            raise UsageError(
                f"Unlabelled images are learnt from after the linear probe, so train.epochs must be at least 2, but it "
                f"is {config.train.epochs}; give more --epochs."
            )
    return dataclasses.replace(config, semi=semi, distill=distill)


def gather(
    config: TrainConfig,
    teacher: Teacher | None,
    dataset: Dataset,
    parts: Sequence[str],
    *,
    strict: bool,
    progress: Progress = no_progress,
) -> Further:
    """Read the unlabelled images that ``config`` names, and check that the ``teacher`` suits the labels.

    Raises:
        DataError: see ``read_unlabelled``, or the teacher knows other labels.
        SystemStateError: the pixel cache can't be written.
    """
    if teacher is not None:
        order_of(teacher, dataset.labels)
    unlabelled = None
    if config.semi.unlabeled:
        folder = Path(config.semi.unlabeled)
        unlabelled = read_unlabelled(
            folder, frame_of(config.spec), beside=dataset, parts=parts, strict=strict, progress=progress
        )
    return Further(unlabelled=unlabelled, teacher=teacher)


def named_teacher(config: TrainConfig) -> Teacher | None:
    """Open the teacher that ``config`` names.

    Raises:
        UsageError, ModelError, DependencyError: see ``open_teacher``.
    """
    return open_teacher(Path(config.distill.teacher)) if config.distill.teacher else None


def with_further(
    images: TrainingImages, further: Further, dataset: Dataset, config: TrainConfig, *, progress: Progress
) -> TrainingImages:
    """``images``, of ``dataset``, with the unlabelled ones and what the teacher says of both.

    Raises:
        ModelError: the teacher takes other images, or gives no scores of these classes.
    """

    def soft(of: Dataset) -> Any:
        if further.teacher is None:
            return None
        temperature = config.distill.temperature
        return soft_targets(
            further.teacher, of, dataset.labels, spec=config.spec, temperature=temperature, progress=progress
        )

    found = further.unlabelled
    unlabelled = None if found is None else Unlabelled(pixels=found.pixels, rows=found.rows, soft=soft(found.dataset))
    share = 0.0 if further.teacher is None else config.distill.share
    return dataclasses.replace(images, unlabelled=unlabelled, soft=soft(dataset), share=share)
