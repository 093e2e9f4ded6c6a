"""Measure a classifier stage by stage: raw nanosecond samples after a warm-up, with the environment beside them.

Measuring only: ``environment`` records the machine, ``text`` renders. ``sample`` is one measured frame, so that two
classifiers can also be measured in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from time import monotonic_ns, perf_counter, perf_counter_ns
from typing import Any

import numpy as np

from edgeclf_device.classifier import Classifier
from edgeclf_device.environment import Environment, record_environment
from edgeclf_device.errors import DataError, UsageError
from edgeclf_device.golden import GENERATOR, golden_input
from edgeclf_device.intervals import percentile_interval
from edgeclf_device.preprocess import PrepareSpec, prepare
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.sources import Frame, open_source

FORMAT = (1, 1)
STAGES = ("prepare", "infer", "decide", "total")
PERCENTILES = (50, 90, 99, 99.9)
SYNTHETIC_SIZE = (720, 1280)
MAX_FRAMES = 32
"""Frames held in memory and measured in turn."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The samples of one artifact on one engine, and what they were taken with.

    Attributes:
        artifact: file name; ``artifact_sha256`` is of its model bytes.
        scheme, container, artifact_bytes: of that file.
        engine, engine_version, threads: what executed it.
        input: which frames, for people.
        warmup: number of frames classified before the first sample.
        samples_ns: nanoseconds of every sample, in the order taken, for each stage of ``STAGES``.
        environment: the machine, recorded before the first sample.
    """

    artifact: str
    artifact_sha256: str
    artifact_bytes: int
    scheme: str
    container: str
    engine: str
    engine_version: str
    threads: int
    input: str
    warmup: int
    samples_ns: dict[str, list[int]]
    environment: Environment

    def percentiles_ms(self, stage: str) -> dict[str, float]:
        """p50, p90, p99 and p99.9 of a stage in milliseconds, by the nearest-rank method: each is a sample."""
        values = np.percentile(self.samples_ns[stage], PERCENTILES, method="inverted_cdf")
        return {f"p{rank}": float(value) / 1e6 for rank, value in zip(PERCENTILES, values, strict=True)}

    def intervals_ms(self, stage: str) -> dict[str, tuple[float, float] | None]:
        """The 95 % interval of each percentile in milliseconds; None where there are too few samples to have one."""
        samples = np.array(self.samples_ns[stage], np.int64)
        found = {f"p{rank}": percentile_interval(samples, rank) for rank in PERCENTILES}
        return {name: None if ends is None else (ends[0] / 1e6, ends[1] / 1e6) for name, ends in found.items()}

    def to_json(self) -> dict[str, Any]:
        """The measurement as ``bench --json`` writes it: raw samples included."""
        return {
            "format": list(FORMAT),
            **{key: value for key, value in vars(self).items() if key not in ("environment", "samples_ns")},
            "environment": self.environment.to_json(),
            "summary_ms": {stage: self.percentiles_ms(stage) for stage in STAGES},
            "interval_95_ms": {stage: self.intervals_ms(stage) for stage in STAGES},
            "samples_ns": self.samples_ns,
        }


def bench(
    path: Path,
    *,
    engine: str | None = None,
    threads: int | None = None,
    frames: Sequence[Frame] | None = None,
    description: str = "frames of the caller",
    seconds: float = 3.0,
    iterations: int | None = None,
    warmup: int = 20,
    progress: Progress = no_progress,
) -> Measurement:
    """Measure an artifact, or the best one of a bundle.

    Args:
        path: an artifact or a bundle.
        engine: see ``Classifier.open``.
        threads: see ``Classifier.open``.
        frames: measured in turn; None takes one synthetic frame of 1280×720.
        description: of ``frames``, for the record.
        seconds: how long to take samples, at least one.
        iterations: how many samples to take; overrides ``seconds``.
        warmup: frames classified before the first sample.
        progress: shows the samples as they are taken.

    Raises:
        UsageError: no frames, or a number that must be positive is not.
        ModelError, DependencyError: see ``Classifier.open``.
    """
    if seconds <= 0 or warmup < 0 or (iterations is not None and iterations < 1) or (frames is not None and not frames):
        raise UsageError(
            "bench needs seconds above 0, warmup of at least 0, iterations of at least 1 and at least one frame, but "
            f"got {seconds}, {warmup}, {iterations} and {'no' if frames is None else len(frames)} frames."
        )
    with Classifier.open(path, engine=engine, threads=threads) as classify:
        measured = [synthetic_frame()] if frames is None else list(frames)
        turn = cycle(measured)
        for frame in islice(turn, warmup):
            sample(classify, frame)
        environment = record_environment()
        ticks = _ticks(seconds) if iterations is None else range(iterations)
        samples = [sample(classify, next(turn)) for _ in progress(ticks, f"Measuring {classify.path.name}", iterations)]
        return Measurement(
            artifact=classify.path.name,
            artifact_sha256=classify.artifact.digest,
            artifact_bytes=classify.path.stat().st_size,
            scheme=classify.manifest.scheme,
            container=classify.manifest.container,
            engine=classify.engine.name,
            engine_version=classify.engine.version,
            threads=classify.threads,
            input=f"synthetic {GENERATOR} frame, 1280×720" if frames is None else description,
            warmup=warmup,
            samples_ns={stage: [taken[stage] for taken in samples] for stage in STAGES},
            environment=environment,
        )


def sample(classify: Classifier, frame: Frame) -> dict[str, int]:
    """Classify one frame: nanoseconds for each stage of ``STAGES``."""
    begin = perf_counter_ns()
    result = classify(frame.image, color=frame.color)
    return {**result.timing_ns, "total": perf_counter_ns() - begin}


def load_frames(spec: str, *, limit: int = MAX_FRAMES) -> tuple[list[Frame], str]:
    """(the first ``limit`` frames of a source, their description), decoded and held in memory.

    Raises:
        DataError: the source is not usable, or none of its frames is.
        DependencyError: it needs OpenCV, which is not installed.
    """
    with open_source(spec) as source:
        frames = list(islice(source, limit))
        if not frames:
            raise DataError(f"None of the images in {spec} can be read; the first: {source.rejected[0].reason}")
        return frames, f"{len(frames)} frames of {source.description}"


def synthetic_frame() -> Frame:
    """The golden field of seed 0, enlarged to 1280×720 by ``prepare``: for where no real images are given."""
    small = golden_input(GENERATOR, 0, (90, 160, 3))
    height, width = SYNTHETIC_SIZE
    image = prepare(small, PrepareSpec(height=height, width=width))
    return Frame(image=image, color="rgb", index=0, name="synthetic", capture_ms=0.0, captured_ns=monotonic_ns())


def _ticks(seconds: float) -> Iterator[None]:
    """One tick at once, then more until the time is over."""
    end = perf_counter() + seconds
    yield None
    while perf_counter() < end:
        yield None
