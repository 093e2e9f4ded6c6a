"""Reads a run as the subject of an export: its model, the images that calibrate and judge it, and the kept scores."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.data.cache import pixels
from edgeclf.data.dataset import SPLIT_NAMES
from edgeclf.evaluation.confidence import reject_below
from edgeclf.exporting.given_images import halves, read_given, without
from edgeclf.exporting.subject import Images, Subject
from edgeclf.models.registry import backbone
from edgeclf.training.run import Run, image_root, items, read_predictions, read_run
from edgeclf_device.errors import ModelError
from edgeclf_device.manifest import canonical_json
from edgeclf_device.progress import Progress, no_progress

_WEIGHTS = ("imagenet", "none")
"""What ``weights`` may say but the path of a file."""


def read_subject(run_folder: Path, *, calibration: Path | None = None, progress: Progress = no_progress) -> Subject:
    """The run's model with the images that calibrate it and those that judge it.

    A run with images is calibrated on its training split and judged by its test split, or by its validation split
    where it has no other. A run without images, such as a stock classifier, takes both from ``calibration``: half of
    them, and the other half.

    Args:
        run_folder: the run.
        calibration: a folder of images or a listing to calibrate with, not with the training split.
        progress: shows the images as they are read and prepared.

    Raises:
        UsageError: there is no such folder.
        ModelError: the run is damaged, or its kept scores are of other images or labels.
        DataError: the images are not where they were, can't be read any more, or are too few.
    """
    run = read_run(run_folder)
    _check_model(run)
    train, tuning, judging = _images(run, calibration, progress)
    return Subject(
        name=run.name,
        model=run.model_path,
        labels=run.labels,
        spec=run.spec,
        calibration=train,
        tuning=tuning,
        judging=judging,
        reference=None if judging is None or not run.has_images else _reference(run, judging),
        reject_below=reject_below(run.metrics),
        provenance=_provenance(run),
    )


def _images(
    run: Run, calibration: Path | None, progress: Progress
) -> tuple[Images | None, Images | None, Images | None]:
    """(what to choose the calibration from, what to tune by, what judges)."""
    given = None if calibration is None else read_given(calibration, run.labels, run.spec, progress=progress)
    if not run.has_images:
        half, other = (None, None) if given is None else halves(given)
        return half, None, other
    train, tuning, judging = _own_images(run, progress)
    return (train if given is None else without(given, set(judging.digests))), tuning, judging


def _own_images(run: Run, progress: Progress) -> tuple[Images, Images | None, Images]:
    """(the training split, the validation split where it does not judge, the split that judges)."""
    everything = items(run, SPLIT_NAMES)
    prepared = pixels(everything, image_root(run), run.spec, progress=progress)
    splits = np.array([item.split for item in everything])
    images = Images(
        pixels=prepared,
        rows=np.arange(len(everything)),
        true=np.array([item.label for item in everything], np.int64),
        digests=tuple(item.digest for item in everything),
        split="",
    )
    parts = {part: images.part(np.flatnonzero(splits == part).tolist(), split=part) for part in SPLIT_NAMES}
    has_test = len(parts["test"]) > 0
    tuning = parts["val"] if has_test and len(parts["val"]) else None
    return parts["train"], tuning, parts["test" if has_test else "val"]


def _reference(run: Run, judging: Images) -> NDArray[np.float32]:
    """The Keras model's scores on ``judging``, from those that the training kept."""
    kept = read_predictions(run)
    if kept.scores.ndim != 2 or kept.scores.shape[1] != len(run.labels):
        raise ModelError(
            f"There are {len(run.labels)} labels but the scores kept in {run.folder} have shape {kept.scores.shape}; "
            "train again."
        )
    place = {int(row): number for number, row in enumerate(kept.rows)}
    missing = [int(row) for row in judging.rows if int(row) not in place]
    if missing:
        raise ModelError(
            f"{run.folder} must keep the model's scores on all {len(judging)} images that judge it, but "
            f"{len(missing)} are missing; train again."
        )
    chosen = [place[int(row)] for row in judging.rows]
    if tuple(kept.digests[one] for one in chosen) != judging.digests:
        raise ModelError(f"The scores kept in {run.folder} are of other images than its splits name; train again.")
    return np.asarray(kept.scores[chosen], np.float32)


def _provenance(run: Run) -> dict[str, Any]:
    """Digests of content: equal weights, images, splits and choices give equal ones wherever they lie."""
    config = {key: value for key, value in asdict(run.config).items() if key != "data"}
    if run.config.weights not in _WEIGHTS:
        config["weights"] = "file"
    unlabelled, teacher = (run.metrics.get(name) or {} for name in ("unlabelled", "teacher"))
    config["semi"]["unlabeled"] = unlabelled.get("sha256", "")
    config["distill"]["teacher"] = teacher.get("sha256", "")
    known: dict[str, Any] = {
        "backbone": run.config.backbone,
        "config_sha256": hashlib.sha256(canonical_json(config)).hexdigest(),
        "licences": _licences(run),
        "weights_sha256": _kept(run, "weights_sha256"),
    }
    if run.has_images:
        known |= {"data_images": len(run.splits), "data_sha256": _kept(run, "data_sha256")}
    if unlabelled:
        known |= {"unlabelled_images": unlabelled["images"], "unlabelled_sha256": unlabelled["sha256"]}
    if teacher:
        known |= {"teacher_sha256": teacher["sha256"]}
    return known


def _licences(run: Run) -> dict[str, str]:
    """What the artifact's user is bound by: the licences of the data and of the weights that the training began with.

    Nothing is known of the licence of a file of weights, of unlabelled images and of a teacher, and that is said.
    """
    known = {"data": run.config.licence}
    known |= {name: "unknown" for name in ("unlabelled", "teacher") if run.metrics.get(name)}
    if run.config.weights not in _WEIGHTS:
        known["weights"] = "unknown"
    elif run.config.weights == "imagenet":
        known["weights"] = backbone(run.config.backbone).weights_licence
    known |= run.metrics.get("licences", {})
    return {name: licence for name, licence in known.items() if licence}


def _check_model(run: Run) -> None:
    """Check that the model is the one that the kept scores come from."""
    found, expected = hashlib.sha256(run.model_path.read_bytes()).hexdigest(), _kept(run, "model_sha256")
    if found != expected:
        raise ModelError(
            f"{run.model_path} must have the SHA-256 {expected[:16]}… that its training kept, but has {found[:16]}…: "
            "it is damaged or was replaced; copy the whole run again, or train again."
        )


def _kept(run: Run, key: str) -> str:
    if not isinstance(run.metrics.get(key), str):
        raise ModelError(f"The metrics of the run {run.folder} lack {key}; train again.")
    return str(run.metrics[key])
