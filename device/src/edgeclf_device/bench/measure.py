"""Measure a classifier stage by stage: after a warm-up, until the median is known well enough or the time is over.

``sample`` is one measured frame, so that two classifiers can also be measured in turn (``compare``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from time import monotonic_ns, perf_counter, perf_counter_ns, sleep
from typing import Any

import numpy as np

from edgeclf_device.bench.cold_start import ColdStart, cold_start
from edgeclf_device.bench.conditions import Watch
from edgeclf_device.bench.energy import metered
from edgeclf_device.bench.frames import SYNTHETIC, input_of, synthetic_frame
from edgeclf_device.bench.measurement import Measurement, Scenario
from edgeclf_device.bench.steady import MIN_BLOCKS, steady
from edgeclf_device.bench.validity import judge
from edgeclf_device.classifier import Classifier
from edgeclf_device.engines import NO_OPTIONS
from edgeclf_device.environment import record_environment
from edgeclf_device.errors import UsageError
from edgeclf_device.intervals import percentile_interval
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.sources import Frame

SLICES = 20
"""Steps of the progress bar, after each of which the median's interval is looked at."""

PRECISION = 0.01
"""Half of the median's 95 % interval, as a share of the median: narrow enough to end at."""

MIN_SECONDS = 1.0
"""A measurement is at least so long, or the clock's and other programs' slower changes would not show in it."""

MIN_SAMPLES = 30
COLD_STARTS = 3
"""Processes that the command lines start for the time to the first label."""

WARM_UP_SECONDS = (0.5, 5.0)
"""The shortest and the longest warm-up."""

WARM_UP_FRAMES = 2 * MIN_BLOCKS
"""Looked at together: fewer show no change."""

_SPIN_NS = 200_000
"""Sleeping is not more exact than this: the rest is waited for."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        seconds: how long to take samples, at most.
        iterations: how many samples to take; overrides ``seconds`` and ``precision``.
        precision: ends earlier, once half of the median's 95 % interval is at most this share of the median.
        warmup: frames classified before the first sample; None: until their times are steady.
        cold_starts: new processes to start first.
    """

    seconds: float = 10.0
    iterations: int | None = None
    precision: float = PRECISION
    warmup: int | None = None
    cold_starts: int = 0

    def __post_init__(self) -> None:
        least = {"iterations": 1, "warmup": 0, "cold_starts": 0}
        wrong = [name for name, low in least.items() if (given := getattr(self, name)) is not None and given < low]
        wrong += [name for name in ("seconds", "precision") if getattr(self, name) <= 0]
        if wrong:
            raise UsageError(
                "bench needs seconds and precision above 0, iterations of at least 1, warmup and cold_starts of at "
                f"least 0, but got {', '.join(f'{name} {getattr(self, name)}' for name in wrong)}."
            )


DEFAULT_PLAN = Plan()


def bench(
    path: Path,
    *,
    engine: str | None = None,
    threads: int | None = None,
    options: Mapping[str, str] = NO_OPTIONS,
    frames: Sequence[Frame] | None = None,
    description: str = "frames of the caller",
    scenario: Scenario = "single-stream",
    rate_fps: float | None = None,
    plan: Plan = DEFAULT_PLAN,
    progress: Progress = no_progress,
) -> Measurement:
    """Measure an artifact, or the best one of a bundle.

    Args:
        path: an artifact or a bundle.
        engine, threads, options: see ``Classifier.open``.
        frames: measured in turn; None takes one synthetic frame of 1280×720.
        description: of ``frames``, for the record.
        scenario, rate_fps: see ``Measurement``; ``fixed-rate`` needs the rate.
        plan: how much is measured.
        progress: shows the samples as they are taken.

    Raises:
        UsageError: no frames, or a fixed rate that is not above 0.
        ModelError, DependencyError: see ``Classifier.open``.
        SystemStateError: a process for a cold start fails.
    """
    if frames is not None and not frames:
        raise UsageError("bench needs at least one frame, but got no frames.")
    if (scenario == "fixed-rate") != (rate_fps is not None) or (rate_fps is not None and rate_fps <= 0):
        raise UsageError(
            f"A fixed rate needs rate_fps above 0, and nothing else has one, but {scenario} got {rate_fps}."
        )
    with Classifier.open(path, engine=engine, threads=threads, options=options) as classify:
        started = [] if plan.cold_starts == 0 else list(_started(classify, options, plan.cold_starts, progress))
        measured = [synthetic_frame()] if frames is None else list(frames)
        turn = cycle(measured)
        warmed = warm_up(classify, turn, plan.warmup)
        environment = record_environment()
        take = _taker(classify, turn, len(measured), scenario, rate_fps)
        watch = Watch()
        with metered() as meter:

            def take_and_look() -> Iterator[dict[str, int]]:
                yield from take()
                watch.look_if_due(monotonic_ns())
                meter.tick()

            begin = monotonic_ns()
            samples = list(_taken(take_and_look, plan, progress, f"Measuring {classify.path.name}"))
            wall_ns = monotonic_ns() - begin
        watch.close()
        columns = {stage: [one[stage] for one in samples] for stage in samples[0]}
        if frames is not None:
            columns["capture"] = [round(frame.capture_ms * 1e6) for frame in frames]
        return Measurement(
            **subject(classify, options),
            input=SYNTHETIC if frames is None else description,
            scenario=scenario,
            rate_fps=rate_fps,
            warmup=len(warmed),
            steady=steady(np.array(warmed)) if plan.warmup is None else True,
            wall_ns=wall_ns,
            samples_ns=columns,
            cold_starts=tuple(started),
            energy=meter.energy,
            conditions=watch.looks,
            doubts=judge(watch.looks, np.array(columns["total"])),
            environment=environment,
        )


def _started(classify: Classifier, options: Mapping[str, str], count: int, progress: Progress) -> Iterator[ColdStart]:
    """So many new processes, one after the other."""
    for _ in progress(range(count), f"Starting {classify.path.name}", count):
        yield cold_start(classify.path, engine=classify.engine.name, threads=classify.threads, options=options)


def sample(classify: Classifier, frame: Frame) -> dict[str, int]:
    """Classify one frame: nanoseconds for each stage of ``STAGES``, and of ``transfer`` where the engine has such."""
    begin = perf_counter_ns()
    result = classify(input_of(classify, frame), color=frame.color)
    taken = {**result.timing_ns, "total": perf_counter_ns() - begin}
    transfer = classify.engine.transfer_ns
    return taken if transfer is None else {**taken, "transfer": transfer}


def warm_up(classify: Classifier, turn: Iterator[Frame], frames: int | None) -> list[int]:
    """The nanoseconds of the frames classified until these take no other time than before; or of so many frames."""
    if frames is not None:
        return [sample(classify, frame)["total"] for frame in islice(turn, frames)]
    begin, (shortest, longest) = perf_counter(), WARM_UP_SECONDS
    taken: list[int] = []
    while True:
        taken.append(sample(classify, next(turn))["total"])
        spent = perf_counter() - begin
        if spent >= longest:
            return taken
        if spent >= shortest and len(taken) % WARM_UP_FRAMES == 0 and steady(np.array(taken)):
            return taken


def subject(classify: Classifier, options: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a ``Measurement`` that say what was measured."""
    certificate, pixels = classify.manifest.certificate, classify.manifest.preprocessing
    accuracy = None if certificate is None else certificate.accuracy
    return {
        "artifact": classify.path.name,
        "artifact_sha256": classify.artifact.digest,
        "artifact_bytes": classify.path.stat().st_size,
        "scheme": classify.manifest.scheme,
        "container": classify.manifest.container,
        "accuracy": accuracy,
        "accuracy_images": None if certificate is None or accuracy is None else certificate.images,
        "height": pixels.height,
        "width": pixels.width,
        "engine": classify.engine.name,
        "engine_version": classify.engine.version,
        "options": dict(options),
        "threads": classify.threads,
    }


Take = Callable[[], Iterable[dict[str, int]]]
"""Gives the next samples: one, or those of all frames of a call."""


def _taker(
    classify: Classifier, turn: Iterator[Frame], frames: int, scenario: Scenario, rate_fps: float | None
) -> Take:
    if scenario == "single-stream":
        return lambda: (sample(classify, next(turn)),)
    if scenario == "offline":
        return lambda: _offline(classify, list(islice(turn, frames)))
    assert rate_fps is not None  # noqa: S101 - checked where it was given
    schedule = _Schedule(period_ns=1e9 / rate_fps)
    return lambda: (schedule.sample(classify, next(turn)),)


def _offline(classify: Classifier, frames: Sequence[Frame]) -> Iterator[dict[str, int]]:
    """All frames in one call of ``many``: each one's share of it."""
    begin = perf_counter_ns()
    results = classify.many([input_of(classify, frame) for frame in frames], color=frames[0].color)
    share = (perf_counter_ns() - begin) // len(frames)
    return ({**result.timing_ns, "total": share} for result in results)


class _Schedule:
    """Frames that come at a fixed rate, whether the last one is done or not.

    A frame that has to wait has its waiting counted (latency), so that one slow frame is seen by all those behind it:
    what leaves this out is known as coordinated omission (Tene, "How NOT to Measure Latency", 2013).
    """

    def __init__(self, *, period_ns: float) -> None:
        self._period_ns = period_ns
        self._begin_ns = perf_counter_ns()
        self._number = 0

    def sample(self, classify: Classifier, frame: Frame) -> dict[str, int]:
        """Wait until the next frame comes, unless it is there already, and classify it."""
        due = self._begin_ns + round(self._number * self._period_ns)
        self._number += 1
        left = due - perf_counter_ns()
        if left > _SPIN_NS:
            sleep((left - _SPIN_NS) / 1e9)
        while perf_counter_ns() < due:
            pass
        taken = sample(classify, frame)
        return {**taken, "latency": perf_counter_ns() - due}


def _taken(take: Take, plan: Plan, progress: Progress, title: str) -> Iterator[dict[str, int]]:
    """Samples until there are enough."""
    totals: list[int] = []
    if plan.iterations is not None:
        for number in progress(range(plan.iterations), title, plan.iterations):
            if number == len(totals):
                for one in islice(take(), plan.iterations - number):
                    totals.append(one["total"])
                    yield one
        return
    begin = perf_counter()
    for number in progress(_slices(totals, plan, begin), title, SLICES):
        end = begin + plan.seconds * (number + 1) / SLICES
        while True:
            for one in take():
                totals.append(one["total"])
                yield one
            if perf_counter() >= end:
                break


def _slices(totals: Sequence[int], plan: Plan, begin: float) -> Iterator[int]:
    """The numbers of the slices of time, until the median of ``totals`` is known well enough."""
    for number in range(SLICES):
        yield number
        if perf_counter() - begin >= MIN_SECONDS and _precise(totals, plan.precision):
            return


def _precise(totals: Sequence[int], precision: float) -> bool:
    if len(totals) < MIN_SAMPLES:
        return False
    taken = np.array(totals)
    ends = percentile_interval(taken, 50)
    return ends is not None and (ends[1] - ends[0]) / 2 <= precision * np.median(taken)
