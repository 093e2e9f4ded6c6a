"""Evaluate a model on labelled images: a run, a .keras file, an artifact, or all of a bundle's that can run here."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.data import cache
from edgeclf.data.dataset import SPLIT_NAMES, Dataset, Rejected
from edgeclf.evaluation.candidates import Candidate, candidates
from edgeclf.evaluation.confidence import accepted
from edgeclf.evaluation.metrics import classification_metrics
from edgeclf.training.run import MODEL, Run, image_root, items, read_run
from edgeclf_device.clips import Spec
from edgeclf_device.errors import DataError, UsageError
from edgeclf_device.progress import Progress, no_progress


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How one model did.

    Attributes:
        model: file name.
        engine: what executed it, with its version.
        split: part of the data, or ``all``.
        metrics: see ``classification_metrics``; with ``accepted`` (``confidence.accepted``), None where the model has
            no reject threshold.
        rejected: images that could not be read.
    """

    model: str
    engine: str
    split: str
    metrics: dict[str, Any]
    rejected: tuple[Rejected, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object that ``evaluate --json`` writes for one model."""
        return asdict(self)


def evaluate(
    model: Path,
    data: Path,
    *,
    split: str | None = None,
    labels: Path | None = None,
    preprocess: Path | None = None,
    engine: str | None = None,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> tuple[Evaluation, ...]:
    """Evaluate ``model`` on ``data``.

    Args:
        model: a run folder, a ``.keras`` file, an artifact or a bundle folder.
        data: a folder or a listing, as a training takes them, or a run folder, whose own split is then used.
        split: ``train``, ``val`` or ``test``; by default ``test`` where the data is split, or ``val`` where it has no
            test part, otherwise all images.
        labels, preprocess: of a ``.keras`` file, as ``export_file`` takes them.
        engine, threads: what executes artifacts.

    Returns:
        One evaluation for each model file.

    Raises:
        DataError: no such images, or a class the model does not know; labels or preprocessing that can't be used.
        UsageError: ``split`` of data that has none; labels and preprocessing missing, or not needed.
        ModelError, DependencyError: the model can't be opened.
    """
    # The artifacts of a bundle share one preprocessing: its images are listed, digested and mapped once.
    images = functools.cache(lambda spec: images_of(data, spec, split, progress))
    made = []
    for one in candidates(model, labels=labels, preprocess=preprocess, engine=engine, threads=threads):
        dataset, pixels, part = images(one.spec)
        figures = _figures(class_indices(dataset, one.labels), one.scores(pixels, progress), one)
        made.append(
            Evaluation(model=one.model, engine=one.engine, split=part, metrics=figures, rejected=dataset.rejected)
        )
    return tuple(made)


def _figures(true: NDArray[np.int64], scores: NDArray[np.float32], model: Candidate) -> dict[str, Any]:
    threshold = model.reject_below
    believed = None if threshold is None else {"threshold": threshold, **accepted(true, scores, threshold)}
    return {**classification_metrics(true, scores, model.labels), "accepted": believed}


def images_of(data: Path, spec: Spec, split: str | None, progress: Progress) -> tuple[Dataset, NDArray[np.uint8], str]:
    """The images asked for with their pixels, uint8 (N, *spec.shape), and the name of the part of the data they are.

    Raises:
        DataError, UsageError: see ``evaluate``.
    """
    if (data / MODEL).is_file():
        dataset, pixels = _images_of(read_run(data), spec, progress)
    else:
        dataset, pixels = cache.load(data, spec, for_training=False, progress=progress)
    parts = {item.split for item in dataset.items} - {None}
    if split is None and not parts:
        return dataset, pixels, "all"
    wanted = split or ("test" if "test" in parts or "val" not in parts else "val")
    rows = [row for row, item in enumerate(dataset.items) if item.split == wanted]
    if not rows:
        raise UsageError(
            f"{data} has no images in the split {wanted!r}; "
            + (f"it has {', '.join(sorted(map(str, parts)))}." if parts else "leave --split out, or name a run.")
        )
    return replace(dataset, items=tuple(dataset.items[row] for row in rows)), pixels[rows], wanted


def _images_of(run: Run, spec: Spec, progress: Progress) -> tuple[Dataset, NDArray[np.uint8]]:
    root, chosen = image_root(run), items(run, SPLIT_NAMES)
    dataset = Dataset(root=root, labels=run.labels, items=chosen)
    return dataset, cache.pixels(chosen, root, spec, progress=progress)


def class_indices(dataset: Dataset, labels: Sequence[str]) -> NDArray[np.int64]:
    """The class of each image as a model with ``labels`` counts them.

    Raises:
        DataError: the model does not know a class.
    """
    unknown = [label for label in dataset.labels if label not in labels]
    if unknown:
        raise DataError(
            f"The model knows {len(labels)} classes ({_shortened(labels)}), but the data also has "
            f"{_shortened(unknown)}; rename or remove those folders."
        )
    place = np.array([list(labels).index(label) for label in dataset.labels])
    return place[[item.label for item in dataset.items]].astype(np.int64)


def _shortened(names: Sequence[str]) -> str:
    return textwrap.shorten(", ".join(names), width=200, placeholder=" …")
