"""The fp32 model of a subject, converted in a child process: what calibrations are chosen and tried on."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgeclf.exporting import isolation
from edgeclf.exporting.child import ENVIRONMENT
from edgeclf.exporting.job import Job
from edgeclf.exporting.preparation import job_of, yardstick_of
from edgeclf.exporting.request import Request
from edgeclf.exporting.subject import Subject
from edgeclf_device.manifest import Container
from edgeclf_device.progress import Progress, no_progress


def fp32_of(subject: Subject, container: Container, *, timeout_s: float, progress: Progress = no_progress) -> bytes:
    """Convert a subject's model.

    Args:
        subject: whose model.
        container: to convert to.
        timeout_s: how long that may take.
        progress: shows loading and converting.

    Raises:
        ModelError: the model is not the one that was trained, or the converter refuses it.
        DependencyError: TensorFlow or a converter is not installed.
        SystemStateError: the converter crashed, was killed or took too long.
    """
    asked = Request(formats=(container,), schemes=("fp32",))
    with tempfile.TemporaryDirectory(prefix="edgeclf-") as folder:
        work = Path(folder)
        path = work / "job.json"
        path.write_text(job_of(subject, asked, None, work).to_json(), encoding="utf-8")
        with isolation.child(
            "edgeclf.exporting.child", str(path), task="the converter", timeout_s=timeout_s, environment=ENVIRONMENT
        ) as lines:
            yardstick_of(subject, lines, progress)  # checks that the model is the one that was trained
            (answer,) = progress(lines, "Converting", 1)
        return Job.path_of(work, answer["converted"]).read_bytes()
