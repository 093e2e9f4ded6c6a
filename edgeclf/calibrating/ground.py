"""What calibrations of a run are tried on: its fp32 .onnx model, images to choose from, and images that judge."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeclf.data.dataset import SPLIT_NAMES
from edgeclf.exporting import isolation
from edgeclf.exporting.child import ENVIRONMENT
from edgeclf.exporting.job import Job
from edgeclf.exporting.preparation import job_of, yardstick_of
from edgeclf.exporting.request import Request, require_packages
from edgeclf.exporting.run_subject import read_subject
from edgeclf.exporting.subject import Images, Subject
from edgeclf.training.run import items, read_run
from edgeclf_calibration.onnx_int8 import optimised
from edgeclf_device.artifact import read_artifact
from edgeclf_device.bundle import read_bundle
from edgeclf_device.errors import DataError, ModelError, UsageError
from edgeclf_device.progress import Progress, no_progress

JUDGES = "val"
"""A choice is made on validation images; the test split is kept for what was chosen."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """One run, ready for its calibrations to be tried.

    Attributes:
        name: of the model.
        labels: of its outputs, in order.
        model: fp32 .onnx bytes, as ``optimised`` gives them.
        pool: the training split, to choose calibration images from.
        judging: the validation split.
    """

    name: str
    labels: tuple[str, ...]
    model: bytes
    pool: Images
    judging: Images


def read_ground(run: Path, *, bundle: Path | None, timeout_s: float, progress: Progress = no_progress) -> Ground:
    """Read a run and its images, and convert its model in a child process, or take the one in ``bundle``.

    Args:
        run: folder of a training.
        bundle: an export of that run with fp32 .onnx in it; None: convert, which needs TensorFlow.
        timeout_s: how long the conversion may take.
        progress: shows the images as they are prepared, and the conversion.

    Raises:
        UsageError: ``run`` is no folder, or the bundle has no fp32 .onnx.
        DataError: the run has no images, no validation images, or they are not where they were.
        ModelError: the run or the bundle is damaged, or the bundle is of another run.
        DependencyError: TensorFlow, onnx or onnxruntime is not installed.
        SystemStateError: the converter crashed, was killed or took too long.
    """
    if bundle is None:
        require_packages(("onnx",))
    subject = read_subject(run, progress=progress)
    if subject.calibration is None:
        raise DataError(
            f"Calibrations are tried on a run's own images, but {run} is a stock classifier, which has none; "
            "train on your images, or export with --calibration."
        )
    model = _converted(subject, timeout_s, progress) if bundle is None else _exported(subject, bundle)
    return Ground(
        name=subject.name,
        labels=subject.labels,
        model=optimised(model),
        pool=subject.calibration,
        judging=_judging(run, subject.calibration),
    )


def _judging(run: Path, pool: Images) -> Images:
    """The validation split; ``pool`` brings the pixels of every image of the run."""
    everything = items(read_run(run), SPLIT_NAMES)
    rows = [row for row, item in enumerate(everything) if item.split == JUDGES]
    if not rows:
        raise DataError(f"Calibrations are judged on validation images, but {run} has none; train again with some.")
    return Images(
        pixels=pool.pixels,
        rows=np.array(rows, np.int64),
        true=np.array([everything[row].label for row in rows], np.int64),
        digests=tuple(everything[row].digest for row in rows),
        split=JUDGES,
    )


def _converted(subject: Subject, timeout_s: float, progress: Progress) -> bytes:
    asked = Request(formats=("onnx",), schemes=("fp32",))
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


def _exported(subject: Subject, folder: Path) -> bytes:
    bundle = read_bundle(folder)
    found = [entry for entry in bundle.artifacts if (entry.container, entry.scheme) == ("onnx", "fp32")]
    if not found:
        files = ", ".join(entry.file for entry in bundle.artifacts)
        raise UsageError(
            f"Calibrations start from fp32 .onnx, but {folder} holds {files}; "
            "export it with --format onnx --scheme fp32, or leave --bundle out."
        )
    artifact = read_artifact(bundle.path(found[0]))
    expected, weights = (one.get("weights_sha256") for one in (subject.provenance, artifact.manifest.provenance))
    if weights != expected:
        raise ModelError(
            f"{bundle.path(found[0])} must hold the weights of the run ({str(expected)[:16]}…), but they are others "
            f"({str(weights)[:16]}…); name a bundle of this run, or leave --bundle out."
        )
    return artifact.model
