"""Tries every way of writing a w8a8 model, and keeps the one that measurably answers most like the float model.

The ways: each of a few range estimators, weights rounded to nearest with corrected biases or adaptively; and the best
of these once more with equalized channels. They are compared on images that did not calibrate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration import adaptive_rounding, bias_correction, equalization
from edgeclf_calibration.answers import distance, same_labels, scores_of
from edgeclf_calibration.mixed_precision import MixedPrecision, mixed_precision
from edgeclf_calibration.ranges import MinMax
from edgeclf_calibration.sensitivity import sensitivity_onnx, sensitivity_tflite
from edgeclf_calibration.static import Watched, fitted, watch, with_ranges
from edgeclf_calibration.targets import DEFAULT, Target
from edgeclf_calibration.weighted import Change
from edgeclf_device.errors import DataError, ModelError
from edgeclf_device.progress import Progress, no_progress

ESTIMATORS_TRIED = ("min-max", "percentile", "mse")
"""Moving average and entropy were never the best in what was measured here (benchmarks/quantization.py)."""

SENSITIVITY_IMAGES = 32


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of writing a w8a8 model."""

    estimator: str = MinMax.name
    adaptive: bool = False
    equalized: bool = False

    @property
    def steps(self) -> list[str]:
        """Names of its steps, as they stand in the calibration record."""
        rounding = adaptive_rounding.NAME if self.adaptive else bias_correction.NAME
        return [equalization.NAME, rounding] if self.equalized else [rounding]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What a way gave on the images that did not calibrate.

    Attributes:
        way: which.
        distance: mean total variation from the float model's scores, 0 to 1.
        same_labels: share of images with the float model's label.
    """

    way: Way
    distance: float
    same_labels: float

    def to_json(self) -> dict[str, Any]:
        """For a record."""
        return {**asdict(self.way), "distance": self.distance, "same_labels": self.same_labels}


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """The best way found.

    Attributes:
        model: bytes of the w8a8 model.
        way: how it was written.
        attempts: every way tried, in order.
        watched, changes: what it was written from.
    """

    model: bytes = field(repr=False)
    way: Way
    attempts: tuple[Attempt, ...]
    watched: Watched = field(repr=False)
    changes: Mapping[int, Change] = field(repr=False)


def plain(
    model: bytes,
    container: str,
    pixels: NDArray[np.uint8],
    *,
    estimator: str = MinMax.name,
    target: Target = DEFAULT,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Recovery:
    """The plain way alone: weights rounded to nearest, biases corrected; see ``static.watch``."""
    way = Way(estimator=estimator)
    watched = watch(
        model, container, pixels, estimators=(estimator,), target=target, threads=threads, progress=progress
    )
    changes = fitted(watched, adaptive=way.adaptive)
    written = with_ranges(watched, changes, estimator=way.estimator)
    return Recovery(model=written, way=way, attempts=(), watched=watched, changes=changes)


def recover(
    model: bytes,
    container: str,
    pixels: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    *,
    target: Target = DEFAULT,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Recovery:
    """Try every way; keep that whose scores lie nearest to the float model's on ``held_out``, of equals the first.

    Args:
        model: fp32 .tflite or .onnx bytes, as ``static.watch`` takes them.
        container: ``tflite`` or ``onnx``.
        pixels: uint8 (N, H, W, C), prepared images to calibrate with.
        held_out: uint8 (M, H, W, C), others to choose by; no labels are needed.
        target: what the model is to run on.
        threads: how many to compute with.
        progress: shows images and ways.

    Raises:
        DataError: ``held_out`` is empty.
        DependencyError, ModelError: as ``static.watch`` and ``static.written``.
    """
    if len(held_out) == 0:
        raise DataError("Recovery is chosen on images that did not calibrate, but there are none; give some.")
    reference = scores_of(model, container, held_out, threads=threads)
    seen = partial(watch, model, container, pixels, target=target, threads=threads, progress=progress)

    def written(tried: tuple[Watched, Mapping[int, Change], Way]) -> tuple[Attempt, Recovery]:
        watched, changes, way = tried
        quantized = with_ranges(watched, changes, estimator=way.estimator)
        attempt = _attempt(way, partial(scores_of, quantized, container, held_out, threads=threads), reference)
        return attempt, Recovery(model=quantized, way=way, attempts=(), watched=watched, changes=changes)

    ways = progress(map(written, _ways(seen)), "Trying ways to quantize", 2 * len(ESTIMATORS_TRIED))
    made = list(ways)
    nearest = min(made, key=lambda one: one[0].distance)[1].way
    made.append(written(_equalized(seen, nearest)))
    _, best = min(made, key=lambda one: one[0].distance)
    return replace(best, attempts=tuple(attempt for attempt, _ in made))


def _attempt(way: Way, score: Callable[[], NDArray[np.float32]], reference: NDArray[np.float32]) -> Attempt:
    try:
        scores = score()
    except ModelError:  # an engine refuses some int8 layers, whose steps lie too far apart
        return Attempt(way=way, distance=1.0, same_labels=0.0)
    return Attempt(way=way, distance=distance(scores, reference), same_labels=same_labels(scores, reference))


def _ways(seen: Callable[..., Watched]) -> Iterator[tuple[Watched, Mapping[int, Change], Way]]:
    """Every estimator with both ways of rounding."""
    watched = seen(estimators=ESTIMATORS_TRIED, with_moments=True)
    for adaptive in (False, True):
        changes = fitted(watched, adaptive=adaptive)
        for estimator in ESTIMATORS_TRIED:
            yield watched, changes, Way(estimator=estimator, adaptive=adaptive)


def _equalized(seen: Callable[..., Watched], way: Way) -> tuple[Watched, Mapping[int, Change], Way]:
    watched = seen(estimators=(way.estimator,), equalize=True, with_moments=way.adaptive)
    return watched, fitted(watched, adaptive=way.adaptive), replace(way, equalized=True)


def fall_back(
    found: Recovery,
    images: NDArray[np.uint8],
    measure: Callable[[bytes], float],
    *,
    max_drop: float,
    max_layers: int | None = None,
    threads: int = 1,
    progress: Progress = no_progress,
) -> MixedPrecision:
    """Leave the fewest layers of a w8a8 model in float with which ``measure`` gives at most ``max_drop``.

    Args:
        found: the w8a8 model.
        images: uint8 (M, H, W, C); the first ``SENSITIVITY_IMAGES`` order the layers by how much each alone loses.
        measure: see ``mixed_precision``.
        max_drop, max_layers: likewise.
        threads: how many to compute with.
        progress: shows layers and measurements.

    Raises:
        DataError: there is no image.
        DependencyError, ModelError: as ``sensitivity_tflite`` and ``sensitivity_onnx``.
    """
    ranges, some = found.watched.ranges[found.way.estimator], images[:SENSITIVITY_IMAGES]
    options: dict[str, Any] = {"threads": threads, "progress": progress}
    if found.watched.container == "tflite":
        order = sensitivity_tflite(found.watched.model, ranges, some, **options)
    else:
        order = sensitivity_onnx(found.watched.model, ranges, some, target=found.watched.target, **options)
    write = partial(with_ranges, found.watched, found.changes, estimator=found.way.estimator)
    return mixed_precision(write, order.names, measure, max_drop=max_drop, max_layers=max_layers, progress=progress)
