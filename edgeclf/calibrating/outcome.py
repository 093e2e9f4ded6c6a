"""What a calibration study has found: its trials, their means over the seeds, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

FORMAT = (1, 0)
"""Major and minor of what ``to_json`` gives; fields may join in a minor one."""

TOLERANCE_POINTS = 0.2
"""Percentage points in which a choice may differ from a better one and still do as well."""

CHOSEN = 32
"""Images of a choice that is held against the most random ones."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One choice of calibration images.

    Attributes:
        method, images, seed: how they were chosen; ``seed`` is None where it has no say.
        accuracy: of the w8a8 model on the judging images, 0 to 1.
        agreement: share of the judging images with the label that the fp32 model gives them.
        range_difference: between the ranges of the first half of the images and of all, 0 to 1, mean over tensors.
        seconds: to calibrate like this: to show the network the images (a method that looks first: all it chooses
            from) and to quantize.
    """

    method: str
    images: int
    seed: int | None
    accuracy: float
    agreement: float
    range_difference: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The trials of one method with one number of images.

    Attributes:
        accuracy, agreement, range_difference, seconds: means over the trials, as in ``Trial``.
        accuracy_spread, agreement_spread: largest minus smallest; None where there is one trial.
    """

    method: str
    images: int
    trials: int
    accuracy: float
    accuracy_spread: float | None
    agreement: float
    agreement_spread: float | None
    range_difference: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Few chosen images against the most random ones, means over the seeds.

    Attributes:
        method, images: of the few.
        random_images: how many were drawn at random.
        accuracy_points, agreement_points: what the few have more, in percentage points.
        holds: whether neither is more than ``TOLERANCE_POINTS`` less.
    """

    method: str
    images: int
    random_images: int
    accuracy_points: float
    agreement_points: float

    @property
    def holds(self) -> bool:
        """Whether the few do as well, within ``TOLERANCE_POINTS``."""
        return min(self.accuracy_points, self.agreement_points) >= -TOLERANCE_POINTS - 1e-9


@dataclass(frozen=True, kw_only=True)
class Study:
    """All trials on one run.

    Attributes:
        name: of the model.
        estimator: of the ranges.
        engine: that judged, with its version.
        split, judged_images: what judged.
        pool_images: how many there were to choose from.
        reference_accuracy: of the fp32 .onnx model on the judging images.
        trials: by method, in the order in which methods were named, then by size, then by seed.
        seconds: the whole study took.
    """

    name: str
    estimator: str
    engine: str
    split: str
    judged_images: int
    pool_images: int
    reference_accuracy: float
    trials: tuple[Trial, ...]
    seconds: float

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The means over the seeds, in the order of the trials."""
        groups: dict[tuple[str, int], list[Trial]] = {}
        for trial in self.trials:
            groups.setdefault((trial.method, trial.images), []).append(trial)
        return tuple(_cell(group) for group in groups.values())

    @property
    def methods(self) -> tuple[str, ...]:
        """Those that were tried, in their order."""
        return tuple(dict.fromkeys(trial.method for trial in self.trials))

    @property
    def tolerance_points(self) -> float:
        """What counts as equal: ``TOLERANCE_POINTS``, or one judging image where that is more."""
        return max(TOLERANCE_POINTS, 100 / self.judged_images)

    def smallest(self, method: str) -> Cell | None:
        """The fewest images of ``method`` that do as well as the best of all cells, or None.

        As well: the mean agreement is at most the tolerance below the best, and the seeds are at most two tolerances
        apart.
        """
        best = max(cell.agreement for cell in self.cells)
        enough = (
            cell
            for cell in self.cells
            if cell.method == method
            and 100 * (best - cell.agreement) <= self.tolerance_points + 1e-9
            and 100 * (cell.agreement_spread or 0) <= 2 * self.tolerance_points + 1e-9
        )
        return min(enough, key=lambda cell: cell.images, default=None)

    @property
    def recommended(self) -> Cell | None:
        """The smallest of all methods; of equals the one of the method named first. None: no cell is steady enough."""
        of_methods = (self.smallest(method) for method in self.methods)
        return min((cell for cell in of_methods if cell), key=lambda cell: cell.images, default=None)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """``CHOSEN`` images of each other method against the most random ones; empty where there are not both."""
        cells = self.cells
        most = max((cell for cell in cells if cell.method == "random"), key=lambda cell: cell.images, default=None)
        if most is None or most.images <= CHOSEN:
            return ()
        return tuple(
            Comparison(
                method=cell.method,
                images=cell.images,
                random_images=most.images,
                accuracy_points=100 * (cell.accuracy - most.accuracy),
                agreement_points=100 * (cell.agreement - most.agreement),
            )
            for cell in cells
            if cell.images == CHOSEN and cell.method != "random"
        )

    def to_json(self) -> dict[str, Any]:
        """The object that ``edgeclf calibrate --study --json`` writes; see docs/reference/calibration-study.md."""
        chosen = self.recommended
        return {
            "format": list(FORMAT),
            **asdict(self),
            "tolerance_points": self.tolerance_points,
            "cells": [asdict(cell) for cell in self.cells],
            "smallest": {method: one.images for method in self.methods if (one := self.smallest(method))},
            "recommended": None if chosen is None else {"method": chosen.method, "images": chosen.images},
            "comparisons": [{**asdict(one), "holds": one.holds} for one in self.comparisons],
        }


def _cell(trials: Sequence[Trial]) -> Cell:
    accuracies, agreements = [trial.accuracy for trial in trials], [trial.agreement for trial in trials]
    several = len(trials) > 1
    return Cell(
        method=trials[0].method,
        images=trials[0].images,
        trials=len(trials),
        accuracy=fmean(accuracies),
        accuracy_spread=max(accuracies) - min(accuracies) if several else None,
        agreement=fmean(agreements),
        agreement_spread=max(agreements) - min(agreements) if several else None,
        range_difference=fmean(trial.range_difference for trial in trials),
        seconds=fmean(trial.seconds for trial in trials),
    )
