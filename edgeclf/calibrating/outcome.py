"""What a calibration study has found: its trials, their means over the seeds, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from edgeclf_calibration.doubts import FEW_IMAGES

FORMAT = (1, 0)
"""Major and minor of what ``to_json`` gives; fields may join in a minor one."""

TOLERANCE_POINTS = 0.2
"""Percentage points in which a choice may differ from a better one and still do as well."""

CHOSEN = FEW_IMAGES
"""Images of a choice that is held against the most random ones, and the fewest that are recommended."""

ONCE_IMAGES = 2
"""Judging images that what was tried once must keep more: no other seed tells its luck from its merit."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One choice of calibration images.

    Attributes:
        method, images, seed: how they were chosen; ``seed`` is None where it has no say.
        accuracy: of the w8a8 model on the judging images, 0 to 1; None: they have no labels.
        agreement: share of the judging images with the label that the fp32 model gives them.
        range_difference: between the ranges of the first half of the images and of all, 0 to 1, mean over tensors.
        seconds: to calibrate like this: to show the network the images (a method that looks first: all it chooses
            from) and to quantize.
    """

    method: str
    images: int
    seed: int | None
    accuracy: float | None
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
    accuracy: float | None
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
        accuracy_points, agreement_points: what the few have more, in percentage points; without labels there is no
            accuracy.
    """

    method: str
    images: int
    random_images: int
    accuracy_points: float | None
    agreement_points: float

    @property
    def holds(self) -> bool:
        """Whether neither is more than ``TOLERANCE_POINTS`` less."""
        found = (self.accuracy_points, self.agreement_points)
        return all(points is None or points >= -TOLERANCE_POINTS - 1e-9 for points in found)


@dataclass(frozen=True, kw_only=True)
class Study:
    """All trials on one run.

    Attributes:
        name: of the model.
        estimator: of the ranges.
        engine: that judged, with its version.
        split, judged_images: what judged.
        pool_images: how many there were to choose from.
        reference_accuracy: of the fp32 .onnx model on the judging images; None: they have no labels.
        trials: by method, in the order in which methods were named, then by size, then by seed.
        seconds: the whole study took.
    """

    name: str
    estimator: str
    engine: str
    split: str
    judged_images: int
    pool_images: int
    reference_accuracy: float | None
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

    @property
    def least_images(self) -> int:
        """The fewest that are recommended: ``CHOSEN``, or all where there are fewer or no more were tried."""
        return min(CHOSEN, max(trial.images for trial in self.trials))

    @property
    def once_points(self) -> float:
        """``ONCE_IMAGES`` in percentage points."""
        return 100 * ONCE_IMAGES / self.judged_images

    @property
    def best(self) -> float:
        """The best mean agreement that counts; see ``smallest``."""
        return max(cell.agreement for cell in self._counting)

    def smallest(self, method: str) -> Cell | None:
        """The fewest images of ``method`` that are enough, or None.

        Enough: at least ``least_images``; the mean agreement is at most the tolerance below the best; and the seeds
        are at most two tolerances apart, or twice as far as with the method's most images, where it is not for want of
        images. What was tried once counts, here and as the best, only where its agreement
        is at least ``once_points`` above the best of what was tried with several seeds, or where nothing was.
        """
        enough = (
            cell
            for cell in self._counting
            if cell.method == method
            and 100 * (self.best - cell.agreement) <= self.tolerance_points + 1e-9
            and 100 * (cell.agreement_spread or 0) <= self._steady_points(method) + 1e-9
        )
        return min(enough, key=lambda cell: cell.images, default=None)

    @property
    def recommended(self) -> Cell | None:
        """The smallest of all methods; of equals the one of the method named first. None: no cell is steady enough."""
        of_methods = (self.smallest(method) for method in self.methods)
        return min((cell for cell in of_methods if cell), key=lambda cell: cell.images, default=None)

    def _steady_points(self, method: str) -> float:
        most = max((cell for cell in self.cells if cell.method == method), key=lambda cell: cell.images)
        return 2 * max(self.tolerance_points, 100 * (most.agreement_spread or 0))

    @property
    def _counting(self) -> list[Cell]:
        cells = [cell for cell in self.cells if cell.images >= self.least_images]
        bar = max((cell.agreement for cell in cells if cell.trials > 1), default=-math.inf) + self.once_points / 100
        return [cell for cell in cells if cell.trials > 1 or cell.agreement >= bar - 1e-9]

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """``CHOSEN`` images of each method against the most random ones; empty where there are not both."""
        cells = self.cells
        most = max((cell for cell in cells if cell.method == "random"), key=lambda cell: cell.images, default=None)
        if most is None or most.images <= CHOSEN:
            return ()
        return tuple(
            Comparison(
                method=cell.method,
                images=cell.images,
                random_images=most.images,
                accuracy_points=None
                if cell.accuracy is None or most.accuracy is None
                else 100 * (cell.accuracy - most.accuracy),
                agreement_points=100 * (cell.agreement - most.agreement),
            )
            for cell in cells
            if cell.images == CHOSEN
        )

    def to_json(self) -> dict[str, Any]:
        """The object that ``edgeclf calibrate --study --json`` writes; see docs/reference/calibration-study.md."""
        chosen = self.recommended
        return {
            "format": list(FORMAT),
            **asdict(self),
            "tolerance_points": self.tolerance_points,
            "once_points": self.once_points,
            "least_images": self.least_images,
            "cells": [asdict(cell) for cell in self.cells],
            "smallest": {method: one.images for method in self.methods if (one := self.smallest(method))},
            "recommended": None if chosen is None else {"method": chosen.method, "images": chosen.images},
            "comparisons": [{**asdict(one), "holds": one.holds} for one in self.comparisons],
        }


def _cell(trials: Sequence[Trial]) -> Cell:
    accuracies = [trial.accuracy for trial in trials if trial.accuracy is not None]
    agreements, several = [trial.agreement for trial in trials], len(trials) > 1
    return Cell(
        method=trials[0].method,
        images=trials[0].images,
        trials=len(trials),
        accuracy=fmean(accuracies) if accuracies else None,
        accuracy_spread=max(accuracies) - min(accuracies) if accuracies and several else None,
        agreement=fmean(agreements),
        agreement_spread=max(agreements) - min(agreements) if several else None,
        range_difference=fmean(trial.range_difference for trial in trials),
        seconds=fmean(trial.seconds for trial in trials),
    )
