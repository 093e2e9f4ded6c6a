"""What can be evaluated, as one kind of thing: the Keras model of a run or a file, and artifacts on their engines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeclf.evaluation.confidence import reject_below
from edgeclf.evaluation.scores import Scores, engine_scores, read_keras
from edgeclf.training.run import MODEL, Run, read_run
from edgeclf_device.choice import runnable
from edgeclf_device.classifier import Classifier
from edgeclf_device.clips import Spec
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress

if TYPE_CHECKING:
    import keras

KERAS_SUFFIX = ".keras"


class Scoring(Protocol):
    """Runs prepared images, uint8 (N, H, W, C): float32 (N, classes)."""

    def __call__(self, pixels: NDArray[np.uint8], progress: Progress = no_progress) -> Scores:
        """Return the scores; each class between 0 and 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A model that is ready to run.

    Attributes:
        model: file name.
        engine: what executes it, with its version.
        labels: of its scores, in order.
        spec: how images are prepared for it.
        reject_below: the least score to be believed; None: any.
        scores: runs it.
        network: a Keras model, from uint8 images to scores; None for an artifact.
        weights_sha256: of the training's weights that it holds or was made from; empty: not known.
    """

    model: str
    engine: str
    labels: tuple[str, ...]
    spec: Spec
    reject_below: float | None
    scores: Scoring
    network: keras.Model | None = field(default=None, repr=False)
    weights_sha256: str = ""


def candidates(
    model: Path,
    *,
    labels: Path | None = None,
    preprocess: Path | None = None,
    engine: str | None = None,
    threads: int | None = None,
) -> Iterator[Candidate]:
    """Yield the models at ``model``, each to be used until the next one is asked for.

    Args:
        model: a run, a ``.keras`` file, an artifact, or a bundle: every artifact that can run here.
        labels, preprocess: of a ``.keras`` file: see ``edgeclf.exporting.file_subject.export_file``.
        engine, threads: what executes artifacts.

    Raises:
        UsageError: a ``.keras`` file without labels and preprocessing, or another model with them.
        DataError: the labels or the preprocessing can't be used.
        ModelError, DependencyError: the model can't be opened.
    """
    is_file = model.suffix == KERAS_SUFFIX
    if is_file and labels and preprocess:
        yield of_file(model, labels=labels, preprocess=preprocess)
        return
    if is_file or labels or preprocess:
        raise UsageError(
            f"Of a {KERAS_SUFFIX} file --labels and --preprocess must say what it does not hold, and other models hold "
            f"both, but {model} was given with {'some' if labels or preprocess else 'none'} of them; "
            f"{'give both' if is_file else 'leave them out'}."
        )
    if (model / MODEL).is_file():
        yield of_run(read_run(model))
        return
    for file in runnable(model, engine=engine)[0]:
        with Classifier.open(file, engine=engine, threads=threads) as classify:
            yield _of_artifact(file, classify)


def of_run(run: Run) -> Candidate:
    """The Keras model of a run.

    Raises:
        DependencyError: Keras is not installed.
        ModelError: the file is damaged, or holds code, which is never executed.
    """
    return _of_network(
        read_keras(run.model_path),
        model=run.model_path.name,
        labels=run.labels,
        spec=run.spec,
        threshold=reject_below(run.metrics),
        weights_sha256=str(run.metrics.get("weights_sha256", "")),
    )


def of_file(model: Path, *, labels: Path, preprocess: Path) -> Candidate:
    """A Keras model that was trained elsewhere; nothing in its file is executed.

    Raises:
        as ``candidates``.
    """
    from edgeclf.exporting.keras_given import from_pixels, load_keras
    from edgeclf.exporting.labels_file import read_labels
    from edgeclf.exporting.original import require_probabilities
    from edgeclf.exporting.preprocess_file import read_preprocess
    from edgeclf.training.backend import require_keras

    require_keras()
    names = read_labels(labels)
    spec, convention = read_preprocess(preprocess)
    network = from_pixels(load_keras(model), spec.shape, len(names), convention)
    made = _of_network(network, model=model.name, labels=names, spec=spec)
    require_probabilities(made.scores(np.zeros((1, *spec.shape), np.uint8)))
    return made


def _of_network(
    network: keras.Model,
    *,
    model: str,
    labels: tuple[str, ...],
    spec: Spec,
    threshold: float | None = None,
    weights_sha256: str = "",
) -> Candidate:
    from edgeclf.training.train import predictor

    predict = predictor(network)

    def scores(pixels: NDArray[np.uint8], progress: Progress = no_progress) -> Scores:
        return predict(pixels, np.arange(len(pixels)), progress)

    return Candidate(
        model=model,
        engine="keras",
        labels=labels,
        spec=spec,
        reject_below=threshold,
        scores=scores,
        network=network,
        weights_sha256=weights_sha256,
    )


def _of_artifact(file: Path, classify: Classifier) -> Candidate:
    manifest = classify.manifest
    tensors = (manifest.inputs[0], manifest.outputs[0])

    def scores(pixels: NDArray[np.uint8], progress: Progress = no_progress) -> Scores:
        running = f"Running {file.name}"
        return engine_scores(classify.engine, tensors, pixels, description=running, progress=progress)

    return Candidate(
        model=file.name,
        engine=f"{classify.engine.name} {classify.engine.version}",
        labels=classify.labels,
        spec=manifest.spec,
        reject_below=manifest.reject_below,
        scores=scores,
        weights_sha256=str(manifest.provenance.get("weights_sha256", "")),
    )
