"""Measure two classifiers in turn, A B B A, so that whatever changes meanwhile touches both alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, cycle
from pathlib import Path
from time import monotonic_ns

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.bench.comparing import MIN_ROUNDS, VERDICT_CONFIDENCE, Comparison, ratio_interval, round_ratios
from edgeclf_device.bench.conditions import Watch
from edgeclf_device.bench.frames import SYNTHETIC, synthetic_frame
from edgeclf_device.bench.measure import sample, subject, warm_up
from edgeclf_device.bench.measurement import STAGES, Measurement
from edgeclf_device.bench.steady import steady
from edgeclf_device.bench.validity import judge
from edgeclf_device.classifier import Classifier
from edgeclf_device.engines import NO_OPTIONS
from edgeclf_device.environment import record_environment
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.sources import Frame

BLOCK_NS = 50_000_000
"""A block is so long, but of at least one frame."""

ORDER = (0, 1, 1, 0)

PRECISION = 0.005
"""Half of the ratio's 99 % interval: narrow enough to end at."""

SLICES = 20

Round = list[tuple[int, list[dict[str, int]]]]
"""Blocks of samples, each with the number of its classifier."""


def compare(
    base: Path,
    other: Path,
    *,
    engine: str | None = None,
    threads: int | None = None,
    options: Mapping[str, str] = NO_OPTIONS,
    frames: Sequence[Frame] | None = None,
    description: str = "frames of the caller",
    seconds: float = 20.0,
    precision: float = PRECISION,
    progress: Progress = no_progress,
) -> Comparison:
    """Compare two artifacts, or the best ones of two bundles.

    Args:
        base, other: what is compared; may be the same.
        engine, threads, options: see ``Classifier.open``; of both.
        frames: measured in turn; None takes one synthetic frame of 1280×720.
        description: of ``frames``, for the record.
        seconds: how long to measure both together, at most; longer where that gives too few rounds.
        precision: ends earlier, once half of the ratio's 99 % interval is at most this.
        progress: shows the rounds.

    Raises:
        UsageError: no frames, or a number that is not above 0.
        ModelError, DependencyError: see ``Classifier.open``.
    """
    with (
        Classifier.open(base, engine=engine, threads=threads, options=options) as first,
        Classifier.open(other, engine=engine, threads=threads, options=options) as second,
    ):
        return compare_opened(
            (first, second),
            options=options,
            frames=frames,
            description=description,
            seconds=seconds,
            precision=precision,
            progress=progress,
        )


def compare_opened(
    pair: tuple[Classifier, Classifier],
    *,
    options: Mapping[str, str] = NO_OPTIONS,
    frames: Sequence[Frame] | None = None,
    description: str = "frames of the caller",
    seconds: float = 20.0,
    precision: float = PRECISION,
    progress: Progress = no_progress,
) -> Comparison:
    """Compare two open classifiers, the first one being the base; see ``compare``. ``options`` are for the record."""
    if seconds <= 0 or precision <= 0 or (frames is not None and not frames):
        raise UsageError(
            "compare needs seconds and precision above 0 and at least one frame, but got "
            f"{seconds}, {precision} and {'one' if frames is None else len(frames)} frames."
        )
    measured = [synthetic_frame()] if frames is None else list(frames)
    warmed = [warm_up(classify, cycle(measured), None) for classify in pair]
    sizes = [max(1, round(BLOCK_NS / float(np.median(taken)))) for taken in warmed]
    environment, watch = record_environment(), Watch()
    begin = monotonic_ns()
    rounds: list[Round] = []
    title = f"Comparing {pair[1].path.name} with {pair[0].path.name}"
    turn = cycle(measured)
    for number in progress(_slices(rounds, precision), title, SLICES):
        end_ns = begin + round(seconds * 1e9 * (number + 1) / SLICES)
        while True:
            rounds.append([(index, _block(pair[index], turn, sizes[index])) for index in ORDER])
            watch.look_if_due(monotonic_ns())
            if monotonic_ns() >= end_ns:
                break
    wall_ns = monotonic_ns() - begin
    watch.close()
    measurements = []
    for index, (classify, warmth) in enumerate(zip(pair, warmed, strict=True)):
        taken = [one for blocks in rounds for place, block in blocks if place == index for one in block]
        measurements.append(
            Measurement(
                **subject(classify, options),
                input=SYNTHETIC if frames is None else description,
                scenario="single-stream",
                rate_fps=None,
                warmup=len(warmth),
                steady=steady(np.array(warmth)),
                wall_ns=wall_ns,
                samples_ns={stage: [one[stage] for one in taken] for stage in STAGES},
                cold_starts=(),
                energy=None,
                conditions=watch.looks,
                doubts=judge(watch.looks, np.array([one["total"] for one in taken])),
                environment=environment,
            )
        )
    ratios = _ratios(rounds)
    return Comparison(
        base=measurements[0],
        other=measurements[1],
        ratio=float(np.median(ratios)),
        interval_95=ratio_interval(ratios, 0.95),
        interval_99=ratio_interval(ratios, VERDICT_CONFIDENCE),
        rounds=len(ratios),
    )


def _block(classify: Classifier, turn: Iterator[Frame], frames: int) -> list[dict[str, int]]:
    """The samples of a block; its first frame finds the other model's data in the caches, and is not counted."""
    sample(classify, next(turn))
    return [sample(classify, next(turn)) for _ in range(frames)]


def _ratios(rounds: Sequence[Round]) -> NDArray[np.float64]:
    """The ratio of each round, by the medians of its blocks."""
    medians = [[float(np.median([one["total"] for one in block])) for _, block in blocks] for blocks in rounds]
    return round_ratios(np.array(medians))


def _slices(rounds: Sequence[Round], precision: float) -> Iterator[int]:
    """The numbers of the slices of time, until the ratio is known well enough: at least ``MIN_ROUNDS`` rounds."""
    for number in count():
        yield number
        if len(rounds) < MIN_ROUNDS:
            continue
        ends = ratio_interval(_ratios(rounds), VERDICT_CONFIDENCE)
        if number + 1 >= SLICES or (ends is not None and (ends[1] - ends[0]) / 2 <= precision):
            return
