"""What calibrations of a run are tried on: its fp32 model, images to choose from, and images that judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeclf.data.dataset import SPLIT_NAMES
from edgeclf.exporting.fp32 import fp32_of
from edgeclf.exporting.given_images import halves, read_given
from edgeclf.exporting.request import require_packages
from edgeclf.exporting.run_subject import read_subject
from edgeclf.exporting.subject import Images, Subject
from edgeclf.training.run import items, read_run
from edgeclf_calibration.onnx_int8 import optimised
from edgeclf_device.artifact import read_artifact
from edgeclf_device.bundle import read_bundle
from edgeclf_device.errors import DataError, ModelError, UsageError
from edgeclf_device.manifest import Container
from edgeclf_device.progress import Progress, no_progress

JUDGES = "val"
"""A choice is made on validation images; the test split is kept for what was chosen."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """One run, ready for its calibrations to be tried.

    Attributes:
        name: of the model.
        labels: of its outputs, in order.
        container: ``tflite`` or ``onnx``.
        model: fp32 bytes, of .onnx as ``optimised`` gives them.
        pool: to choose calibration images from: the training split, or half of the images that were named.
        judging: the validation split, or the other half.
    """

    name: str
    labels: tuple[str, ...]
    container: Container
    model: bytes
    pool: Images
    judging: Images


def read_ground(
    run: Path,
    *,
    bundle: Path | None,
    data: Path | None = None,
    containers: Sequence[Container] = ("onnx",),
    timeout_s: float,
    progress: Progress = no_progress,
) -> Ground:
    """Read a run and images, and convert its model in a child process, or take the one in ``bundle``.

    Args:
        run: folder of a training, or a stock classifier.
        bundle: an export of that run with an fp32 model in it; None: convert, which needs TensorFlow.
        data: a folder of images or a listing, half to choose from and half to judge by; None: the run's own images.
        containers: of the model; the first that the bundle holds, or the first.
        timeout_s: how long the conversion may take.
        progress: shows the images as they are prepared, and the conversion.

    Raises:
        UsageError: ``run`` is no folder, or the bundle has no such fp32 model.
        DataError: the run has no images, no validation images, or they are not where they were; of ``data``, there
            are too few, or one can't be read.
        ModelError: the run or the bundle is damaged, or the bundle is of another run.
        DependencyError: TensorFlow, a converter or an engine is not installed.
        SystemStateError: the converter crashed, was killed or took too long.
    """
    if bundle is None:
        require_packages(containers[:1])
    subject = read_subject(run, progress=progress)
    pool, judging = _images(run, subject, data, progress)
    if bundle is None:
        container = containers[0]
        model = fp32_of(subject, container, timeout_s=timeout_s, progress=progress)
    else:
        container, model = _exported(subject, bundle, containers)
    return Ground(
        name=subject.name,
        labels=subject.labels,
        container=container,
        model=optimised(model) if container == "onnx" else model,
        pool=pool,
        judging=judging,
    )


def _images(run: Path, subject: Subject, data: Path | None, progress: Progress) -> tuple[Images, Images]:
    """(what to choose calibration images from, what judges)."""
    if data is not None:
        return halves(read_given(data, subject.labels, subject.spec, progress=progress))
    if subject.calibration is None:
        raise DataError(
            f"Calibrations are tried on a run's own images, but {run} is a stock classifier, which has none; "
            "name a folder of photos with --data."
        )
    return subject.calibration, _judging(run, subject.calibration)


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


def _exported(subject: Subject, folder: Path, containers: Sequence[Container]) -> tuple[Container, bytes]:
    bundle = read_bundle(folder)
    floats = {entry.container: bundle.path(entry) for entry in bundle.artifacts if entry.scheme == "fp32"}
    found = next((container for container in containers if container in floats), None)
    if found is None:
        files = ", ".join(entry.file for entry in bundle.artifacts)
        raise UsageError(
            f"This starts from fp32 {' or '.join(f'.{one}' for one in containers)}, but {folder} holds {files}; "
            f"export it with --format {containers[0]} --scheme fp32, or leave --bundle out."
        )
    artifact = read_artifact(floats[found])
    expected, weights = (one.get("weights_sha256") for one in (subject.provenance, artifact.manifest.provenance))
    if weights != expected:
        raise ModelError(
            f"{floats[found]} must hold the weights of the run ({str(expected)[:16]}…), but they are others "
            f"({str(weights)[:16]}…); name a bundle of this run, or leave --bundle out."
        )
    return found, artifact.model
