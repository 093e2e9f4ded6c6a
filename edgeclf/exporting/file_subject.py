"""Exports a model that was trained elsewhere: a ``.keras`` file, a SavedModel, an fp32 ``.tflite`` or ``.onnx``."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Unpack

from edgeclf.exporting.convention import KINDS, Kind
from edgeclf.exporting.export import Tell, export_subject, silent
from edgeclf.exporting.given_images import halves, read_given
from edgeclf.exporting.labels_file import read_labels
from edgeclf.exporting.preprocess_file import read_preprocess
from edgeclf.exporting.request import (
    Options,
    formats_of,
    request,
    require_convertible,
    require_packages,
)
from edgeclf.exporting.subject import Images, Subject
from edgeclf.exporting.untrusted import check_keras_file, check_saved_model, read_bytes
from edgeclf_device.atomic import require_empty
from edgeclf_device.bundle import Bundle
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress


def export_file(
    model: Path,
    out: Path,
    *,
    labels: Path,
    preprocess: Path,
    calibration: Path | None = None,
    tell: Tell = silent,
    progress: Progress = no_progress,
    **options: Unpack[Options],
) -> Bundle:
    """As ``edgeclf.exporting.export.export``, from a model that was trained elsewhere.

    Nothing that came with a file is executed but the graph of a SavedModel. No TensorFlow is needed for ``.tflite``
    and ``.onnx``. The artifacts are measured against the given model itself, on half of the images of ``calibration``.

    Args:
        model: a ``.keras`` file, the folder of a SavedModel, an fp32 ``.tflite`` or an fp32 ``.onnx``.
        out: folder of the bundle; new or empty.
        labels: a file with one label a line, of the model's outputs in their order.
        preprocess: a TOML file; see ``edgeclf.exporting.preprocess_file``.
        calibration: a folder of images or a listing, to calibrate with one half and judge by the other.
        tell, progress, options: as for a run; of a .tflite or .onnx file only its own format can be made.

    Returns:
        the bundle as written.

    Raises:
        UsageError: as for a run; or ``model`` is none of these kinds, or a combination can't be made from it.
        DataError: the labels, the preprocessing or the images can't be used.
        ModelError: the model is damaged, holds foreign code, or does not fit the labels or the preprocessing.
        DependencyError, SystemStateError, GateError: as for a run.
    """
    kind = kind_of(model)
    asked = request(formats_of(kind), **options)
    require_convertible(asked, kind)
    require_empty(out)
    require_packages(asked.formats, kind)
    subject = read_file_subject(model, labels=labels, preprocess=preprocess, calibration=calibration, progress=progress)
    return export_subject(subject, out, asked, tell=tell, progress=progress)


def is_model(path: Path) -> bool:
    """Whether ``path`` names a model that was trained elsewhere, not a run."""
    return path.suffix.removeprefix(".") in KINDS or (path / "saved_model.pb").exists()


def kind_of(path: Path) -> Kind:
    """What kind of model ``path`` is, by its name, or by what a folder holds.

    Raises:
        UsageError: none that can be exported.
    """
    kind = next((kind for kind in KINDS if path.suffix == f".{kind}" and kind != "saved_model"), None)
    if kind is None and (path / "saved_model.pb").exists():
        return "saved_model"
    if kind is None:
        raise UsageError(
            f"The model must be a .keras, .tflite or .onnx file or the folder of a SavedModel, but {path} is none; "
            "convert it to one of these, or name a run without --labels and --preprocess."
        )
    return kind


def read_file_subject(
    model: Path, *, labels: Path, preprocess: Path, calibration: Path | None = None, progress: Progress = no_progress
) -> Subject:
    """The model with its labels and the images that calibrate and judge it. The model itself is not opened yet.

    Raises:
        as ``export_file``.
    """
    kind = kind_of(model)
    digest = _digest(model, kind)
    names = read_labels(labels)
    spec, convention = read_preprocess(preprocess)
    train: Images | None = None
    judging: Images | None = None
    if calibration is not None:
        train, judging = halves(read_given(calibration, names, spec, progress=progress))
    return Subject(
        name=re.sub(r"[^\w.-]+", "-", model.stem if kind != "saved_model" else model.resolve().name).strip(".-")
        or "model",
        model=model,
        labels=names,
        spec=spec,
        calibration=train,
        tuning=None,
        judging=judging,
        reference=None,
        reject_below=None,
        provenance={"source": kind, "source_sha256": digest, "convention": asdict(convention)},
        kind=kind,
        convention=convention,
    )


def _digest(model: Path, kind: Kind) -> str:
    """SHA-256 of the model's file, or of a folder's files with their names; what is unfit is refused first."""
    if kind == "keras":
        check_keras_file(model)
    if kind != "saved_model":
        return hashlib.sha256(read_bytes(model)).hexdigest()
    check_saved_model(model)
    total = hashlib.sha256()
    for file in sorted(model.rglob("*")):
        if file.is_file():
            total.update(f"{file.relative_to(model).as_posix()}\0{file.stat().st_size}\0".encode())
            total.update(file.read_bytes())
    return total.hexdigest()
