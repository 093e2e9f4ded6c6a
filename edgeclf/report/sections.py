"""What the sections of the report say: from the files of a run to plain values and pictures for the template."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.data.dataset import SPLIT_NAMES
from edgeclf.evaluation.confidence import accepted, expected_calibration_error, uncalibrated
from edgeclf.evaluation.robustness_result import conditions, read_robustness
from edgeclf.report import curves, plots
from edgeclf.report.pictures import read_pictures
from edgeclf.report.robustness_plot import robustness_plot
from edgeclf.training.run import Run, read_history, read_predictions
from edgeclf_device.certificate import ChangedImage, Changes
from edgeclf_device.errors import ModelError

CONFUSED_PAIRS = 10
LISTED = 50


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The part of the data that judges the model, and what the model says of it.

    Attributes:
        part: ``test``, or ``val`` where there is none.
        metrics: of metrics.json.
        rows: int64 (N,), indices into the run's ``splits``.
        true: int64 (N,), class indices.
        scores: float32 (N, classes).
    """

    part: str
    metrics: dict[str, Any]
    rows: NDArray[np.int64]
    true: NDArray[np.int64]
    scores: NDArray[np.float32]


def judged(run: Run) -> Judged:
    """Read what judges ``run``.

    Raises:
        DataError: the run has no images.
        ModelError: its predictions are damaged, or of other images.
    """
    part, metrics = run.judged
    kept = read_predictions(run)
    if len(kept.rows) and not 0 <= kept.rows.min() <= kept.rows.max() < len(run.splits):
        raise ModelError(f"The scores kept in {run.folder} are of other images than its splits name; train again.")
    chosen = np.array([run.splits[row].split == part for row in kept.rows], bool)
    return Judged(
        part=part, metrics=metrics, rows=kept.rows[chosen], true=kept.labels[chosen], scores=kept.scores[chosen]
    )


def data_section(run: Run) -> dict[str, Any]:
    """Images per class and split, what was left out, and what the data report found."""
    counted = Counter((row.split, row.label) for row in run.splits)
    counts = {split: [counted[split, label] for label in run.labels] for split in SPLIT_NAMES}
    found: Mapping[str, Any] = run.metrics.get("data") or {}
    unused = [f"{one['path']}: {one['reason']}" for one in run.metrics["rejected"]]
    counted_in_all = found.get("counts", {})
    sizes = [f"{name}: {width}×{height}" for name, (height, width) in found.get("sizes", {}).items()]
    findings = [
        ("files that could not be used", unused, len(unused)),
        ("sizes in pixels", sizes, len(sizes)),
        *((name, [_words(one) for one in found[name]], count) for name, count in counted_in_all.items()),
    ]
    return {
        "counts": counts,
        "images": sum(map(sum, counts.values())),
        "class_balance": plots.class_balance(run.labels, counts),
        "notes": [str(note) for note in found.get("notes", ())],
        "findings": [_finding(title, lines, count) for title, lines, count in findings if lines],
        "licence": run.config.licence,
    }


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(one)}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _finding(title: str, lines: Sequence[str], count: int) -> dict[str, Any]:
    """``lines`` may be the first of ``count``."""
    shown = lines[:LISTED]
    return {
        "title": title.replace("_", " ").capitalize(),
        "count": count,
        "lines": shown,
        "more": count - len(shown),
    }


def training_section(run: Run) -> dict[str, Any]:
    """The learning curves, and what was learnt from besides the labels."""
    history = read_history(run)
    return {
        "unlabelled": run.metrics.get("unlabelled"),
        "teacher": run.metrics.get("teacher"),
        "distill": run.config.distill,
        "accepted": history[-1].get("accepted", 0.0),
        "curves": plots.learning_curves(history),
        "epochs": len(history),
        "seconds": round(sum(run.metrics["timings_s"].values())),
    }


def accuracy_section(run: Run, found: Judged) -> dict[str, Any]:
    """Confusions, ROC, precision and recall."""
    return {
        "confusion": plots.confusion(found.metrics["confusion_matrix"], run.labels),
        "confused": confused_pairs(found.metrics["confusion_matrix"], run.labels),
        "roc": curves.roc(found.true, found.scores, run.labels),
        "precision_recall": curves.precision_recall(found.true, found.scores, run.labels),
    }


def confused_pairs(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> list[tuple[str, str, int]]:
    """The most frequent confusions: (true label, label given, images), the most frequent first."""
    pairs = [
        (labels[true], labels[given], count)
        for true, row in enumerate(matrix)
        for given, count in enumerate(row)
        if count and true != given
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:CONFUSED_PAIRS]


def confidence_section(run: Run, found: Judged) -> dict[str, Any]:
    """How far scores can be trusted, and what the reject threshold accepts."""
    kept: Mapping[str, Any] = run.metrics.get("confidence") or {}
    temperature, reject = float(kept.get("temperature", 1)), kept.get("reject")
    before = uncalibrated(found.scores, temperature) if temperature != 1 else None
    threshold = None if reject is None else float(reject["threshold"])
    return {
        "temperature": temperature,
        "ece": expected_calibration_error(found.true, found.scores),
        "ece_before": None if before is None else expected_calibration_error(found.true, before),
        "reject": reject,
        "accept_accuracy": run.config.confidence.accept_accuracy,
        "accepted": None if threshold is None else accepted(found.true, found.scores, threshold),
        "reliability": curves.reliability_diagram(found.true, found.scores, before),
        "coverage": curves.coverage(found.true, found.scores, threshold),
    }


def gallery_section(run: Run, found: Judged) -> dict[str, Any]:
    """Single images with what the model says of them; ``kept`` is False where the run keeps no pictures.

    Raises:
        ModelError: the pictures are damaged, or of other images than the predictions.
    """
    pictures = read_pictures(run.folder)
    if pictures is None:
        return {"kept": False, "method": "", "augmentation": None, "cards": []}
    place = {int(row): number for number, row in enumerate(found.rows)}
    if any(one.row not in place for one in pictures.gallery):
        raise ModelError(f"The pictures kept in {run.folder} are of other images than judge the model; train again.")
    cards = []
    for one in pictures.gallery:
        number = place[one.row]
        predicted = int(found.scores[number].argmax())
        cards.append(
            {
                "file": run.splits[one.row].path,
                "true": run.labels[found.true[number]],
                "predicted": run.labels[predicted],
                "right": predicted == found.true[number],
                "confidence": float(found.scores[number, predicted]),
                "image": _data_uri(one.image),
                "overlay": None if one.overlay is None else _data_uri(one.overlay),
            }
        )
    return {
        "kept": True,
        "method": pictures.method,
        "augmentation": _data_uri(pictures.augmentation),
        "cards": cards,
    }


def robustness_section(run: Run) -> dict[str, Any] | None:
    """What corruptions and attacks left of the accuracy; None where the run keeps nothing of it.

    Raises:
        ModelError: what it keeps is damaged.
    """
    made = read_robustness(run)
    if made is None:
        return None
    return {
        "plot": robustness_plot(made),
        "models": [one.model for one in made.models],
        "rows": list(conditions(made)),
        "images": made.images,
        "split": made.split,
        "data": made.data,
        "attacked": any(one.attacks for one in made.models),
    }


def changes_section(run: Run, changes: Mapping[str, Changes]) -> dict[str, Any]:
    """Images that an artifact gives another label than the Keras model: counted per class, and shown.

    ``changes`` maps the artifacts' files to what their certificates say. A picture is shown where the gallery has it.

    Raises:
        ModelError: the pictures are damaged.
    """
    pictures = read_pictures(run.folder)
    image_of = {run.splits[one.row].sha256: one.image for one in (pictures.gallery if pictures else ())}
    path_of = {row.sha256: row.path for row in run.splits}
    found: dict[str, dict[str, ChangedImage]] = {}
    for file, one in changes.items():
        for image in one.listed:
            found.setdefault(image.sha256, {})[file] = image
    cards = [
        {
            "file": path_of.get(digest, digest),
            "image": _data_uri(image_of[digest]) if digest in image_of else None,
            **_changed_labels(run.labels, found[digest]),
        }
        for digest in sorted(found, key=lambda digest: -len(found[digest]))
    ]
    return {
        "totals": {file: one.images for file, one in changes.items()},
        "per_class": _changed_classes(run.labels, list(changes.values())),
        "cards": cards[:LISTED],
        "complete": len(cards) <= LISTED and all(one.images == len(one.listed) for one in changes.values()),
    }


def _changed_labels(labels: Sequence[str], given: Mapping[str, ChangedImage]) -> dict[str, Any]:
    """What is true of one image, what the Keras model says, and which artifacts say what; ``given`` is by file."""
    first = next(iter(given.values()))
    after: dict[str, list[str]] = {}
    for file, image in given.items():
        after.setdefault(labels[image.after], []).append(file)
    return {"true": None if first.true is None else labels[first.true], "before": labels[first.before], "after": after}


def _changed_classes(labels: Sequence[str], changes: Sequence[Changes]) -> list[tuple[str, int, list[int]]]:
    """(label, images that the Keras model gives it, how many each artifact changed), where any did, the most first."""
    rows = [
        (label, changes[0].per_class[place][0], [one.per_class[place][1] for one in changes])
        for place, label in enumerate(labels if changes else ())
    ]
    return sorted((row for row in rows if any(row[2])), key=lambda row: -sum(row[2]))[:LISTED]


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
