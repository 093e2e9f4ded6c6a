"""A teacher: another model, whose scores the student learns beside the labels (Hinton et al. 2015, 1503.02531).

It sees every image once, unvaried and prepared as it was trained with, so that its size, colours and engine may be
others than the student's. Its labels are matched by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.data import cache
from edgeclf.data.dataset import Dataset
from edgeclf.evaluation.scores import engine_scores, keras_scores
from edgeclf.exporting.untrusted import check_keras_file
from edgeclf.training.run import METRICS, MODEL, read_run
from edgeclf_device.bundle import INDEX
from edgeclf_device.classifier import Classifier
from edgeclf_device.clips import Spec
from edgeclf_device.errors import DataError, ModelError, UsageError, first_line
from edgeclf_device.progress import Progress, no_progress

KERAS = ".keras"
ARTIFACTS = (".tflite", ".onnx")

_LEAST = 1e-7
"""Score below which a float32 softmax says nothing any more."""
_ROUNDING = 0.05
"""How far the scores of an image may be from a sum of 1: those of an int8 model are rounded."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A model that was opened and found whole.

    Attributes:
        path: of the file that gives scores.
        labels: in the order of its scores; None where the file has none.
        spec: its preprocessing; None where the file has none, and takes what the student takes.
        digest: SHA-256 of the model.
    """

    path: Path
    labels: tuple[str, ...] | None
    spec: Spec | None
    digest: str

    def to_json(self) -> dict[str, Any]:
        """What metrics.json says of it."""
        return {"kind": self.path.suffix.removeprefix("."), "sha256": self.digest}


def find_teacher(path: Path) -> Path:
    """The file that gives the scores of the teacher at ``path``: in a run its model.

    Raises:
        UsageError: nothing is there, or it is none of the kinds.
    """
    kinds = f"a run, a {KERAS} file or an artifact ({', '.join(ARTIFACTS)})"
    if not path.exists():
        raise UsageError(f"The teacher must be {kinds}, but {path} does not exist; name an existing one.")
    if (path / INDEX).is_file():
        raise UsageError(f"The teacher must be {kinds}, but {path} is a bundle; name one of its artifacts.")
    if path.is_dir() and not (path / MODEL).is_file():
        raise UsageError(f"The teacher must be {kinds}, but the folder {path} has no {MODEL}; name another.")
    file = path / MODEL if path.is_dir() else path
    if file.suffix not in (KERAS, *ARTIFACTS):
        raise UsageError(f"The teacher must be {kinds}, but {path} is none of them; name another.")
    return file


def open_teacher(path: Path) -> Teacher:
    """Open the teacher at ``path``: a run, a ``.keras`` file or an artifact. No code in it is executed.

    Raises:
        UsageError: see ``find_teacher``.
        ModelError: it is damaged, holds code, or a .tflite or .onnx file is no artifact.
        DependencyError: no engine that executes it is installed.
    """
    file = find_teacher(path)
    if file.suffix in ARTIFACTS:
        with Classifier.open(file) as classify:
            manifest = classify.manifest
            return Teacher(
                path=file, labels=manifest.labels, spec=manifest.preprocessing, digest=classify.artifact.digest
            )
    check_keras_file(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if file.name == MODEL and file.with_name(METRICS).is_file():
        run = read_run(file.parent)
        if run.metrics.get("model_sha256") != digest:
            raise ModelError(
                f"{file} is not the model that its run was finished with: it is damaged or was replaced; copy the "
                "whole run again, or train it again."
            )
        return Teacher(path=file, labels=run.labels, spec=run.spec, digest=digest)
    return Teacher(path=file, labels=None, spec=None, digest=digest)


def order_of(teacher: Teacher, labels: Sequence[str]) -> list[int]:
    """Where each of ``labels`` stands among the teacher's scores.

    Raises:
        DataError: the teacher knows others.
    """
    if teacher.labels is None:
        return list(range(len(labels)))
    missing = [label for label in labels if label not in teacher.labels]
    further = [label for label in teacher.labels if label not in labels]
    if missing or further:
        told = [f"lacks {', '.join(missing)}"] if missing else []
        told += [f"also knows {', '.join(further)}"] if further else []
        raise DataError(
            f"A teacher must know the labels of the data, in any order, but {teacher.path} {' and '.join(told)}; train "
            "it on the same classes, or rename the folders."
        )
    return [teacher.labels.index(label) for label in labels]


def soft_targets(
    teacher: Teacher,
    dataset: Dataset,
    labels: Sequence[str],
    *,
    spec: Spec,
    temperature: float,
    progress: Progress = no_progress,
) -> NDArray[np.float32]:
    """What ``teacher`` says of every item of ``dataset`` at ``temperature``: float32 (N, classes), rows sum to 1.

    The softmax of logits divided by a temperature is the softmax of the logits to the power of its inverse, over the
    sum; so scores are enough, and every kind of file may teach.

    Args:
        teacher: see ``open_teacher``.
        dataset: with digests, and readable items alone.
        labels: the order of the classes.
        spec: the student's preprocessing, for a teacher that states none.
        temperature: at least 1.
        progress: shows the images.

    Raises:
        DataError: the teacher knows other labels.
        ModelError: it takes other images or gives no scores of these classes.
    """
    order = order_of(teacher, labels)
    pixels = cache.pixels(dataset.items, dataset.root, teacher.spec or spec, progress=progress)
    scores, least = _scores(teacher, pixels, len(labels), progress)
    if not np.all(np.isfinite(scores)) or scores.min() < 0 or np.abs(scores.sum(axis=1) - 1).max() > _ROUNDING:
        raise ModelError(
            f"A teacher must give probabilities, which sum to 1, but {teacher.path} gives scores from "
            f"{scores.min():.3g} to {scores.max():.3g}; add a softmax to it."
        )
    softened = np.maximum(scores[:, order], least) ** (1 / temperature)
    return np.asarray(softened / softened.sum(axis=1, keepdims=True), np.float32)


def _scores(
    teacher: Teacher, pixels: NDArray[np.uint8], classes: int, progress: Progress
) -> tuple[NDArray[np.float32], float]:
    """Scores of prepared images, (N, classes), and the least that can be told from 0."""
    if teacher.path.suffix in ARTIFACTS:
        with Classifier.open(teacher.path) as classify:
            output = classify.manifest.outputs[0]
            tensors = (classify.manifest.inputs[0], output)
            scores = engine_scores(
                classify.engine, tensors, pixels, description="asking the teacher", progress=progress
            )
        return scores, output.quantization.scale / 2 if output.quantization else _LEAST
    if teacher.spec is None:
        _require_fits(teacher.path, pixels.shape[1:], classes)
    return keras_scores(teacher.path, pixels, progress=progress), _LEAST


def _require_fits(path: Path, shape: tuple[int, ...], classes: int) -> None:
    """Check that a Keras model of which nothing is known takes the student's pixels and gives as many scores."""
    import keras

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        takes, gives = (model.input.dtype, tuple(model.input.shape[1:])), tuple(model.output.shape[1:])
    except Exception as error:  # Keras raises whatever the damaged part caused
        raise ModelError(f"{path} can't be loaded as a Keras model ({first_line(error)}); save it again.") from error
    if takes != ("uint8", shape):
        raise ModelError(
            f"A teacher without a run beside it must take the student's images, uint8 {shape}, but {path} takes "
            f"{takes[0]} {takes[1]}; name its run, or export it (edgeclf export FILE --labels F --preprocess F) and "
            "name an artifact, so that its own preprocessing is known."
        )
    if gives != (classes,):
        raise ModelError(f"The data has {classes} labels, but the teacher {path} gives scores {gives}; name another.")
