"""Measuring a bundle's artifacts on the images that judged them, for the report and the tables."""

from __future__ import annotations

from collections.abc import Sequence

from edgeclf.report.artifacts import ArtifactRow, artifact_rows, conditions
from edgeclf.training.run import Run
from edgeclf_device.bench import Measurement, Plan, bench
from edgeclf_device.bundle import Bundle
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.sources import Frame, open_frames

FRAMES = 32
"""Test images that every artifact is measured on."""
GLANCE = Plan(seconds=3.0)
"""Enough for a column of a table; ``edgeclf bench`` measures until it can say how sure it is."""


def judged_frames(run: Run) -> list[Frame]:
    """The first test images of a run (validation images where it has no test part), decoded.

    Raises:
        DataError: the images are not where they were, or can't be read any more.
    """
    with open_frames(run.files(run.judged[0])[:FRAMES]) as source:
        return list(source)


def measured(
    run: Run | None, bundle: Bundle, frames: Sequence[Frame] | None = None, *, progress: Progress = no_progress
) -> tuple[list[ArtifactRow], str]:
    """Measure every artifact of ``bundle`` with one thread.

    ``frames`` default to ``judged_frames(run)``, and without a run or images in it to the synthetic frame of ``bench``.

    Returns:
        The rows of the artifacts, and one sentence on how their times were taken.
    """
    part = run.judged[0] if run is not None and run.has_images else ""
    if frames is None and run is not None and part:
        frames = judged_frames(run)
    description = "" if frames is None else f"{len(frames)} {part} images"
    measurements: list[Measurement] = [
        bench(
            bundle.path(entry),
            frames=frames,
            description=description,
            threads=1,
            plan=GLANCE,
            progress=progress,
        )
        for entry in bundle.artifacts
    ]
    return artifact_rows(bundle, measurements), conditions(measurements)
