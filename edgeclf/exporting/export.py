"""The whole road from a run to a bundle: convert in a child process, quantize, measure, gate, write, verify."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.exporting import isolation
from edgeclf.exporting.child import ENVIRONMENT
from edgeclf.exporting.job import Job, Loaded
from edgeclf.exporting.measure import (
    certify,
    choose_golden_seed,
    golden_of,
    require_same_model,
    require_within,
    run_images,
)
from edgeclf.exporting.request import (
    CALIBRATION_IMAGES,
    FORMATS,
    MAX_DROP_POINTS,
    SCHEMES,
    TIMEOUT_S,
    Request,
    request,
    require_packages,
)
from edgeclf.exporting.run_subject import read_subject
from edgeclf.exporting.subject import Subject
from edgeclf.exporting.tensors import tensors_of
from edgeclf_calibration import bias_correction
from edgeclf_calibration.observe import anchored, observe
from edgeclf_calibration.onnx_int8 import optimised, quantize_onnx
from edgeclf_calibration.ranges import MinMax
from edgeclf_calibration.selection import choose
from edgeclf_device.artifact import write_artifact
from edgeclf_device.atomic import atomic_folder, require_empty
from edgeclf_device.bundle import Bundle, read_bundle, write_bundle_index
from edgeclf_device.manifest import Certificate, Container, Manifest, Scheme
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.verify import verify

_GOLDEN_SEEDS = tuple(range(16))
_PROBE_IMAGES = 8
_WORK = ".work"
_VERSIONS = ("edgeclf", "keras", "tensorflow", "tensorflow-cpu", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert")


@dataclass(frozen=True, kw_only=True)
class _Calibration:
    """The images that calibrate, anchored, and the record of their choice."""

    pixels: NDArray[np.uint8]
    record: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One export under way."""

    subject: Subject
    calibration: _Calibration | None
    work: Path
    asked: Request
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class _Artifact:
    """One artifact before it is written."""

    file: str
    model: bytes
    manifest: Manifest
    certificate: Certificate


def export(
    run: Path,
    out: Path,
    *,
    formats: Sequence[str] = FORMATS,
    schemes: Sequence[str] = SCHEMES,
    calibration_images: int = CALIBRATION_IMAGES,
    max_drop: float = MAX_DROP_POINTS,
    seed: int = 0,
    threads: int = 2,
    timeout_s: float = TIMEOUT_S,
    progress: Progress = no_progress,
) -> Bundle:
    """Make every combination of ``formats`` and ``schemes`` from a run, measure and verify each, and write a bundle.

    Two exports of one run give identical artifacts. ``out`` appears whole, at the end, or not at all.

    Args:
        run: folder of a training.
        out: folder of the bundle; new or empty.
        formats: ``tflite``, ``onnx``.
        schemes: ``fp32``, ``w8a8``.
        calibration_images: how many images of the training split calibrate w8a8; all where there are fewer.
        max_drop: points of accuracy that an artifact may lose against the Keras model on the test split.
        seed: of the choice of the calibration images.
        threads: how many to measure with.
        timeout_s: how long the conversion may take.
        progress: shows conversion, observation, measurement and verification.

    Returns:
        the bundle as written.

    Raises:
        UsageError: an unknown format or scheme, or ``out`` is not empty.
        DataError: the run's images are not where they were, or have changed.
        ModelError: the run is damaged or inconsistent, or a converter refuses the model.
        DependencyError: TensorFlow, a converter or an engine is not installed.
        SystemStateError: the disk is full, or the converter crashed, was killed or took too long.
        GateError: an artifact loses more than ``max_drop``.
    """
    asked = request(
        formats,
        schemes,
        calibration_images=calibration_images,
        max_drop_points=max_drop,
        seed=seed,
        threads=threads,
        timeout_s=timeout_s,
    )
    require_empty(out)
    require_packages(asked.formats)
    return export_subject(read_subject(run, progress=progress), out, asked, progress=progress)


def export_subject(subject: Subject, out: Path, asked: Request, *, progress: Progress = no_progress) -> Bundle:
    """As ``export``, for a model and images that are at hand."""
    calibration = _calibration(subject, asked) if "w8a8" in asked.schemes else None
    with atomic_folder(out) as folder:
        work = folder / _WORK
        work.mkdir()
        task = _Task(subject=subject, calibration=calibration, work=work, asked=asked, progress=progress)
        with contextlib.closing(_artifacts(task)) as made:
            artifacts = list(made)
        shutil.rmtree(work)
        require_within({artifact.file: artifact.certificate for artifact in artifacts})
        for artifact in artifacts:
            write_artifact(folder / artifact.file, artifact.model, artifact.manifest)
        write_bundle_index(folder, name=subject.name, files=[artifact.file for artifact in artifacts])
        verify(folder, progress=progress).raise_if_failed()
    return read_bundle(out)


def _calibration(subject: Subject, asked: Request) -> _Calibration:
    labels = [subject.labels[index] for index in subject.train.true]
    selection = choose(labels, subject.train.digests, count=asked.calibration_images, seed=asked.seed)
    pixels = anchored(subject.train.take(selection.indices))
    record = {**selection.to_json(estimator=MinMax.name), "recovery": [bias_correction.NAME]}
    return _Calibration(pixels=pixels, record=record)


def _artifacts(task: _Task) -> Generator[_Artifact]:
    """Each artifact, measured while the child converts the next."""
    job = _job(task)
    path = task.work / "job.json"
    path.write_text(job.to_json(), encoding="utf-8")
    with isolation.child(
        "edgeclf.exporting.child",
        str(path),
        task="the converter",
        timeout_s=task.asked.timeout_s,
        environment=ENVIRONMENT,
    ) as lines:
        answers = task.progress(lines, "Converting", 1 + len(job.conversions))
        loaded = Loaded(**next(answers))
        require_same_model(loaded.probe, task.subject.reference, task.subject.keras_model)
        seed = choose_golden_seed(dict(zip(_GOLDEN_SEEDS, loaded.golden, strict=True)))
        for answer in answers:
            for container, scheme, model in _models(task, answer["converted"]):
                yield _measured(task, container, scheme, model, golden_seed=seed)


def _job(task: _Task) -> Job:
    """What the child has to do; its input files are written."""
    subject, folder = task.subject, task.work.absolute()
    pixels, probe = folder / "calibration.npy", folder / "probe.npy"
    if task.calibration is not None:
        np.save(pixels, task.calibration.pixels)
    np.save(probe, subject.test.take(tuple(range(min(_PROBE_IMAGES, len(subject.test))))))
    return Job(
        keras_model=str(subject.keras_model.absolute()),
        folder=str(folder),
        shape=subject.spec.shape,
        classes=len(subject.labels),
        conversions=task.asked.conversions,
        calibration=None if task.calibration is None else str(pixels),
        probe=str(probe),
        golden_seeds=_GOLDEN_SEEDS,
    )


def _models(task: _Task, conversion: str) -> Iterator[tuple[Container, Scheme, bytes]]:
    """The models that one conversion gives: itself where it was asked for, and w8a8 ONNX from fp32 ONNX."""
    model = Job.path_of(task.work, conversion).read_bytes()
    if conversion == "tflite-w8a8":
        yield "tflite", "w8a8", model
    elif conversion == "tflite-fp32":
        yield "tflite", "fp32", model
    else:
        if "fp32" in task.asked.schemes:
            yield "onnx", "fp32", model
        if task.calibration is not None:
            yield "onnx", "w8a8", _quantized(model, task.calibration.pixels, task)


def _quantized(model: bytes, pixels: NDArray[np.uint8], task: _Task) -> bytes:
    ready, estimator, means = optimised(model), MinMax(), bias_correction.ChannelMeans()
    observe(ready, pixels, estimator, means, threads=task.asked.threads, progress=task.progress)
    return quantize_onnx(bias_correction.corrected(ready, means.means()), estimator.ranges())


def _measured(task: _Task, container: Container, scheme: Scheme, model: bytes, *, golden_seed: int) -> _Artifact:
    """Run the model on the test split and the golden input, and describe it."""
    subject, asked = task.subject, task.asked
    file = f"{subject.name}-{scheme}.{container}"
    tensors = tensors_of(model, container, scheme)
    scores, engine = run_images(
        model,
        container,
        tensors,
        subject.test,
        threads=asked.threads,
        description=f"Measuring {file}",
        progress=task.progress,
    )
    certificate = certify(
        scores,
        subject.reference,
        subject.test.true,
        split=subject.judging_split,
        max_drop_points=asked.max_drop_points,
        engine=engine,
    )
    calibration = task.calibration if scheme == "w8a8" else None
    manifest = Manifest(
        name=subject.name,
        container=container,
        scheme=scheme,
        labels=subject.labels,
        preprocessing=subject.spec,
        inputs=tensors[:1],
        outputs=tensors[1:],
        golden=golden_of(model, container, scheme, tensors, subject.spec, seed=golden_seed),
        certificate=certificate,
        calibration=None if calibration is None else calibration.record,
        provenance={**subject.provenance, "versions": _versions()},
    )
    return _Artifact(file=file, model=model, manifest=manifest, certificate=certificate)


def _versions() -> dict[str, str]:
    """Versions of the packages that had a part in the result."""
    return {package: version(package) for package in _VERSIONS if _is_installed(package)}


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
