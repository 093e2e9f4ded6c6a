"""The report of a run with its artifacts' measured time beside their accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeclf.report.report import ArtifactRow, artifact_rows, conditions, write_report
from edgeclf.training.run import Run, image_root, items
from edgeclf_device.bench import Measurement, bench
from edgeclf_device.bundle import Bundle
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.sources import Frame, open_frames

FRAMES = 32
"""Test images that every artifact is measured on."""


def judged_frames(run: Run) -> list[Frame]:
    """The first test images of a run (validation images where it has no test part), decoded.

    Raises:
        DataError: the images are not where they were, or can't be read any more.
    """
    chosen = items(run, ("test",)) or items(run, ("val",))
    root = image_root(run)
    with open_frames([root / item.path for item in chosen[:FRAMES]]) as source:
        return list(source)


def measured_report(
    run: Run, bundle: Bundle, frames: Sequence[Frame] | None = None, *, progress: Progress = no_progress
) -> tuple[list[ArtifactRow], str, Path]:
    """Measure every artifact of ``bundle`` with one thread and write the run's report.

    ``frames`` default to ``judged_frames(run)``.

    Returns:
        The rows of the artifacts, one sentence on how their times were taken, and the report's path.
    """
    frames = judged_frames(run) if frames is None else frames
    measurements: list[Measurement] = [
        bench(
            bundle.path(entry),
            frames=frames,
            description=f"{len(frames)} test images",
            threads=1,
            progress=progress,
        )
        for entry in bundle.artifacts
    ]
    rows, latency = artifact_rows(bundle, measurements), conditions(measurements)
    return rows, latency, write_report(run, artifacts=rows, latency_conditions=latency)
