"""Measure a classifier stage by stage, after a warm-up.

``sample`` is one measured frame, so that two classifiers can also be measured in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, perf_counter_ns

from edgeclf_device.bench.frames import SYNTHETIC, synthetic_frame
from edgeclf_device.bench.measurement import STAGES, Measurement
from edgeclf_device.classifier import Classifier
from edgeclf_device.environment import record_environment
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.sources import Frame


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
            input=SYNTHETIC if frames is None else description,
            warmup=warmup,
            samples_ns={stage: [taken[stage] for taken in samples] for stage in STAGES},
            environment=environment,
        )


def sample(classify: Classifier, frame: Frame) -> dict[str, int]:
    """Classify one frame: nanoseconds for each stage of ``STAGES``."""
    begin = perf_counter_ns()
    result = classify(frame.image, color=frame.color)
    return {**result.timing_ns, "total": perf_counter_ns() - begin}


def _ticks(seconds: float) -> Iterator[None]:
    """One tick at once, then more until the time is over."""
    end = perf_counter() + seconds
    yield None
    while perf_counter() < end:
        yield None
