"""Measure two classifiers in turn, A B B A B A A B, so that whatever changes meanwhile touches both alike."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from itertools import count, cycle
from pathlib import Path
from time import monotonic_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.bench.comparing import (
    MIN_ROUNDS,
    ORDER,
    VERDICT_CONFIDENCE,
    Comparison,
    ratio_interval,
    round_ratios,
)
from edgeclf_device.bench.conditions import Watch
from edgeclf_device.bench.frames import SYNTHETIC, synthetic_frame
from edgeclf_device.bench.measure import sample, subject, warm_up
from edgeclf_device.bench.measurement import Measurement
from edgeclf_device.bench.steady import steady
from edgeclf_device.bench.validity import judge
from edgeclf_device.classifier import Classifier
from edgeclf_device.engines import NO_OPTIONS
from edgeclf_device.environment import record_environment
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.sources import Frame

BLOCK_NS = 25_000_000
"""A block is so long, but of at least one frame."""


PRECISION = 0.005
"""Half of the ratio's 99 % interval: narrow enough to end at."""

ROUNDS_EACH = 2
REOPENED_FRAMES = 10
"""Frames before the first round after both were opened anew."""

SLICES = 20

Opener = Callable[[], Classifier]

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
    ways: dict[str, Any] = {"engine": engine, "threads": threads, "options": options}
    return compare_openers(
        (lambda: Classifier.open(base, **ways), lambda: Classifier.open(other, **ways)),
        options=options,
        frames=frames,
        description=description,
        seconds=seconds,
        precision=precision,
        progress=progress,
    )


def compare_openers(
    openers: tuple[Opener, Opener],
    *,
    options: Mapping[str, str] = NO_OPTIONS,
    frames: Sequence[Frame] | None = None,
    description: str = "frames of the caller",
    seconds: float = 20.0,
    precision: float = PRECISION,
    progress: Progress = no_progress,
) -> Comparison:
    """Compare what two functions open, the base first; see ``compare``. ``options`` are for the record."""
    if seconds <= 0 or precision <= 0 or (frames is not None and not frames):
        raise UsageError(
            "compare needs seconds and precision above 0 and at least one frame, but got "
            f"{seconds}, {precision} and {'one' if frames is None else len(frames)} frames."
        )
    turn = cycle([synthetic_frame()] if frames is None else frames)
    warmed, subjects = [], []
    for opener in openers:
        with opener() as classify:
            warmed.append(warm_up(classify, turn, None))
            subjects.append(subject(classify, options))
    sizes = [max(1, round(BLOCK_NS / float(np.median(taken)))) for taken in warmed]
    environment, watch = record_environment(), Watch()
    begin = monotonic_ns()
    rounds: list[Round] = []
    title = f"Comparing {subjects[1]['artifact']} with {subjects[0]['artifact']}"
    with contextlib.closing(_rounds(openers, turn, sizes)) as taking:
        for number in progress(_slices(rounds, precision), title, SLICES):
            end_ns = begin + round(seconds * 1e9 * (number + 1) / SLICES)
            while True:
                rounds.append(next(taking))
                watch.look_if_due(monotonic_ns())
                if monotonic_ns() >= end_ns:
                    break
    watch.close()
    measurements = []
    for index, (told, warmth) in enumerate(zip(subjects, warmed, strict=True)):
        taken = [one for blocks in rounds for place, block in blocks if place == index for one in block]
        measurements.append(
            Measurement(
                **told,
                input=SYNTHETIC if frames is None else description,
                scenario="single-stream",
                rate_fps=None,
                warmup=len(warmth),
                steady=steady(np.array(warmth)),
                wall_ns=sum(one["total"] for one in taken),
                samples_ns={stage: [one[stage] for one in taken] for stage in taken[0]},
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


def _rounds(
    openers: tuple[Opener, Opener], turn: Iterator[Frame], sizes: Sequence[int]
) -> Generator[Round, None, None]:
    """Rounds without end. Both are opened anew for every few of them, now the one first and now the other.

    Where a model comes to lie in memory decides over some tenths of a percent of its time, or more (Mytkowicz et al.,
    "Producing Wrong Data Without Doing Anything Obviously Wrong!", 2009): whoever opens once compares places.
    """
    for number in count():
        with contextlib.ExitStack() as stack:
            pair: dict[int, Classifier] = {}
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                pair[index] = stack.enter_context(openers[index]())
            for classify in pair.values():
                warm_up(classify, turn, REOPENED_FRAMES)
            for _ in range(ROUNDS_EACH):
                yield [(index, _block(pair[index], turn, sizes[index])) for index in ORDER]


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
