"""Measure two classifiers in turn, A B B A, so that whatever changes meanwhile touches both alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, cycle
from pathlib import Path
from time import monotonic_ns

import numpy as np

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
"""A block is so long, but of at least one frame; its first frame, which finds the other model's data in the caches, is
not counted."""

PRECISION = 0.005
"""Half of the ratio's 99 % interval: narrow enough to end at."""

SLICES = 20


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
    if seconds <= 0 or precision <= 0 or (frames is not None and not frames):
        raise UsageError(
            "compare needs seconds and precision above 0 and at least one frame, but got "
            f"{seconds}, {precision} and {'one' if frames is None else len(frames)} frames."
        )
    measured = [synthetic_frame()] if frames is None else list(frames)
    with (
        Classifier.open(base, engine=engine, threads=threads, options=options) as first,
        Classifier.open(other, engine=engine, threads=threads, options=options) as second,
    ):
        pair = (first, second)
        warmed = [warm_up(classify, cycle(measured), None) for classify in pair]
        environment = record_environment()
        sizes = [max(1, round(BLOCK_NS / float(np.median(taken)))) for taken in warmed]
        watch = Watch()
        samples: tuple[list[dict[str, int]], ...] = ([], [])
        blocks: list[list[float]] = []
        turn = cycle(measured)
        begin = monotonic_ns()
        title = f"Comparing {second.path.name} with {first.path.name}"
        for number in progress(_slices(blocks, precision), title, SLICES):
            end_ns = begin + round(seconds * 1e9 * (number + 1) / SLICES)
            while True:
                blocks.append([])
                for index in (0, 1, 1, 0):
                    sample(pair[index], next(turn))
                    taken = [sample(pair[index], next(turn)) for _ in range(sizes[index])]
                    samples[index].extend(taken)
                    blocks[-1].append(float(np.median([one["total"] for one in taken])))
                watch.look_if_due(monotonic_ns())
                if monotonic_ns() >= end_ns:
                    break
        wall_ns = monotonic_ns() - begin
        watch.close()
        measurements = [
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
            for classify, warmth, taken in zip(pair, warmed, samples, strict=True)
        ]
    ratios = round_ratios(np.array(blocks))
    return Comparison(
        base=measurements[0],
        other=measurements[1],
        ratio=float(np.median(ratios)),
        interval_95=ratio_interval(ratios, 0.95),
        interval_99=ratio_interval(ratios, VERDICT_CONFIDENCE),
        rounds=len(ratios),
    )


def _slices(blocks: Sequence[Sequence[float]], precision: float) -> Iterator[int]:
    """The numbers of the slices of time, until the ratio is known well enough: at least ``MIN_ROUNDS`` rounds."""
    for number in count():
        yield number
        if len(blocks) < MIN_ROUNDS:
            continue
        ends = ratio_interval(round_ratios(np.array(blocks)), VERDICT_CONFIDENCE)
        if number + 1 >= SLICES or (ends is not None and (ends[1] - ends[0]) / 2 <= precision):
            return
