"""The whole road from a run to a bundle: convert in a child process, quantize, measure, gate, write, verify."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from edgeclf.exporting import isolation
from edgeclf.exporting.c_header import c_header as c_header_of
from edgeclf.exporting.calibration import Calibration, choose_calibration
from edgeclf.exporting.child import ENVIRONMENT
from edgeclf.exporting.job import Job
from edgeclf.exporting.measure import certify, golden_of, require_within, run_images
from edgeclf.exporting.preparation import Yardstick, job_of, yardstick_of
from edgeclf.exporting.request import (
    STATIC,
    Options,
    Request,
    conversion_of,
    request,
    require_packages,
    source_of,
)
from edgeclf.exporting.run_subject import read_subject
from edgeclf.exporting.static_int8 import beyond_plain, quantized
from edgeclf.exporting.subject import Images, Subject
from edgeclf.exporting.tensors import tensors_of
from edgeclf.exporting.tflite_metadata import with_metadata
from edgeclf_calibration.onnx_batch import dynamic_batch as batched
from edgeclf_calibration.onnx_weights import half_precision, quantize_weights
from edgeclf_device.artifact import write_artifact
from edgeclf_device.atomic import atomic_folder, require_empty, write_text
from edgeclf_device.bundle import Bundle, read_bundle, write_bundle_index
from edgeclf_device.certificate import Certificate
from edgeclf_device.clips import frame_of
from edgeclf_device.errors import UsageError
from edgeclf_device.manifest import Container, Manifest, Scheme
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.verify import verify

Tell = Callable[[str], object]
_WORK = ".work"
_VERSIONS = ("edgeclf", "keras", "tensorflow", "tensorflow-cpu", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert")


def silent(_sentence: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One export under way."""

    subject: Subject
    calibration: Calibration | None
    work: Path
    asked: Request
    tell: Tell
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class _Model:
    """One model as it was made, and how, where that is not the same for every artifact."""

    container: Container
    scheme: Scheme
    content: bytes
    made: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Artifact:
    """One artifact before it is written."""

    file: str
    model: bytes
    manifest: Manifest


def export(
    run: Path,
    out: Path,
    *,
    calibration: Path | None = None,
    tell: Tell = silent,
    progress: Progress = no_progress,
    **options: Unpack[Options],
) -> Bundle:
    """Make every combination of formats and schemes from a run, measure and verify each, and write a bundle.

    Two exports of one run give identical artifacts. ``out`` appears whole, at the end, or not at all.

    A run without images of its own, such as a stock classifier, is calibrated on half of the images of
    ``calibration`` and judged on the other half. Without labels the agreement with the Keras model is measured but no
    accuracy, so no gate is applied; without images neither w8a8 nor w8a16 can be made. ``ungated`` says so of a
    bundle.

    Args:
        run: folder of a training.
        out: folder of the bundle; new or empty.
        calibration: a folder of images or a listing to calibrate with, not with the run's training split.
        tell: is given each sentence that speaks against the calibration, and what was done beyond the plain way.
        progress: shows conversion, observation, measurement and verification.
        options: what to make, and how.

    Returns:
        the bundle as written.

    Raises:
        UsageError: an option that can't be, or does not go with another; images are lacking; ``out`` is not empty.
        DataError: the images are not where they were, have changed, can't be read or are too few.
        ModelError: the run is damaged or inconsistent, or a converter refuses the model.
        DependencyError: TensorFlow, a converter or an engine is not installed.
        SystemStateError: the disk is full, or the converter crashed, was killed or took too long.
        GateError: an artifact loses more than ``max_drop``.
    """
    asked = request(**options)
    require_empty(out)
    require_packages(asked.formats)
    subject = read_subject(run, calibration=calibration, progress=progress)
    return export_subject(subject, out, asked, tell=tell, progress=progress)


def export_subject(
    subject: Subject, out: Path, asked: Request, *, tell: Tell = silent, progress: Progress = no_progress
) -> Bundle:
    """As ``export``, for a model and images that are at hand."""
    if subject.clip is not None:
        _require_for_clips(asked)
    calibration = choose_calibration(subject, asked, progress) if asked.calibrated else None
    for doubt in () if calibration is None else calibration.doubts:
        tell(doubt)
    with atomic_folder(out) as folder:
        work = folder / _WORK
        work.mkdir()
        task = _Task(subject=subject, calibration=calibration, work=work, asked=asked, tell=tell, progress=progress)
        with contextlib.closing(_artifacts(task)) as made:
            artifacts = list(made)
        shutil.rmtree(work)
        require_within({one.file: one.manifest.certificate for one in artifacts if one.manifest.certificate})
        for artifact in artifacts:
            write_artifact(folder / artifact.file, artifact.model, artifact.manifest)
            if asked.c_header and (artifact.manifest.container, artifact.manifest.scheme) == ("tflite", "w8a8"):
                path = (folder / artifact.file).with_suffix(".h")
                write_text(path, c_header_of(artifact.model, artifact.manifest))
        write_bundle_index(folder, name=subject.name, files=[artifact.file for artifact in artifacts])
        verify(folder, progress=progress).raise_if_failed()
    return read_bundle(out)


def _require_for_clips(asked: Request) -> None:
    """Check that nothing is asked for that only a model of single images can be.

    Raises:
        UsageError: something is.
    """
    for option, is_on in (("--c-header", asked.c_header), ("--dynamic-batch", asked.dynamic_batch)):
        if is_on:
            raise UsageError(f"{option} is for models of single images, but this one sees clips; leave it out.")


def _artifacts(task: _Task) -> Generator[_Artifact]:
    """Each artifact, measured while the child converts the next."""
    calibrating = None if task.calibration is None else task.calibration.pixels
    job = job_of(task.subject, task.asked, calibrating, task.work)
    path = task.work / "job.json"
    path.write_text(job.to_json(), encoding="utf-8")
    with isolation.child(
        "edgeclf.exporting.child",
        str(path),
        task="the converter",
        timeout_s=task.asked.timeout_s,
        environment=ENVIRONMENT,
    ) as lines:
        yardstick = yardstick_of(task.subject, lines, task.progress)
        for answer in task.progress(lines, "Converting", len(job.conversions)):
            for model in _models(task, answer["converted"]):
                yield _measured(task, model, yardstick)


def _models(task: _Task, conversion: str) -> Iterator[_Model]:
    """The models that one conversion gives: itself, and what is made of it here."""
    converted = Job.path_of(task.work, conversion).read_bytes()
    container, converted_to = conversion_of(conversion)
    for scheme in task.asked.schemes:
        if source_of(container, scheme) == conversion:
            content, made = (converted, {}) if scheme == converted_to else _made(converted, container, scheme, task)
            if container == "tflite" and task.subject.clip is None:  # other tools have no word for clips
                content = _described(content, task.subject)
            elif task.asked.dynamic_batch:
                content = batched(content)
            yield _Model(container=container, scheme=scheme, content=content, made=made)


def _made(model: bytes, container: Container, scheme: Scheme, task: _Task) -> tuple[bytes, Mapping[str, Any]]:
    """Another scheme of a float model, without its framework, and how it was made."""
    if scheme == "fp16":
        return half_precision(model), {}
    if scheme == "w8a32":
        return quantize_weights(model), {}
    if task.calibration is None:
        raise UsageError(f"{scheme} must be calibrated with images, but there are none; ask for another scheme.")
    content, made, doubts = quantized(model, container, task.calibration, task.asked, task.progress)
    for sentence in (*doubts, *beyond_plain(made)):
        task.tell(f"{scheme} .{container}: {sentence}")
    return content, made


def _described(model: bytes, subject: Subject) -> bytes:
    """The .tflite model with what other tools read of it."""
    licences = "; ".join(f"{what}: {licence}" for what, licence in subject.provenance.get("licences", {}).items())
    return with_metadata(
        model,
        name=subject.name,
        description=f"Tells {len(subject.labels)} classes of images apart.",
        licence=licences or None,
    )


def _measured(task: _Task, made: _Model, yardstick: Yardstick) -> _Artifact:
    """Run the model on the golden input and on the images that judge, and describe it."""
    subject = task.subject
    container, scheme, model = made.container, made.scheme, made.content
    spec = subject.spec
    tensors = tensors_of(model, container, scheme, clip=subject.clip, in_float=made.made.get("in_float", ()))
    calibration = task.calibration if scheme in STATIC else None
    manifest = Manifest(
        name=subject.name,
        container=container,
        scheme=scheme,
        labels=subject.labels,
        preprocessing=frame_of(spec),
        inputs=tensors[:1],
        outputs=tensors[1:],
        golden=golden_of(model, container, scheme, tensors, spec, seed=yardstick.golden_seed),
        calibration=None if calibration is None else {**calibration.record, **made.made},
        provenance={**subject.provenance, "versions": _versions()},
        reject_below=subject.reject_below,
    )
    file = f"{subject.name}-{scheme}.{container}"
    if subject.judging is not None and yardstick.reference is not None:
        certificate = _judged(task, model, manifest, subject.judging, yardstick.reference)
        manifest = replace(manifest, certificate=certificate)
    return _Artifact(file=file, model=model, manifest=manifest)


def _judged(
    task: _Task, model: bytes, manifest: Manifest, judging: Images, reference: NDArray[np.float32]
) -> Certificate:
    scores, engine = run_images(
        model,
        manifest.container,
        (manifest.inputs[0], manifest.outputs[0]),
        judging,
        threads=task.asked.threads,
        description=f"Measuring {manifest.scheme} .{manifest.container}",
        progress=task.progress,
    )
    return certify(
        scores,
        reference,
        judging.true,
        split=judging.split,
        max_drop_points=task.asked.max_drop_points,
        engine=engine,
        digests=judging.digests,
    )


def _versions() -> dict[str, str]:
    """Versions of the packages that had a part in the result."""
    return {package: version(package) for package in _VERSIONS if _is_installed(package)}


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
