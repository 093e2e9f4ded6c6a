"""Reads a run as the subject of an export: its model, its images and the scores its training kept."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.data.cache import pixels
from edgeclf.data.dataset import SPLIT_NAMES
from edgeclf.exporting.subject import Images, Subject
from edgeclf.models.registry import backbone
from edgeclf.training.run import Run, image_root, items, read_predictions, read_run
from edgeclf_device.errors import ModelError
from edgeclf_device.manifest import canonical_json
from edgeclf_device.progress import Progress, no_progress


def read_subject(run_folder: Path, *, progress: Progress = no_progress) -> Subject:
    """The run's model with its training images to calibrate on and its test images to judge by.

    A run without a test split is judged by its validation split, and the certificate says so.

    Raises:
        UsageError: there is no such folder.
        ModelError: the run is damaged, or its kept scores are of other images or labels.
        DataError: the images are not where they were, or can't be read any more.
    """
    run = read_run(run_folder)
    _check_model(run)
    everything = items(run, SPLIT_NAMES)
    prepared = pixels(everything, image_root(run), run.spec, progress=progress)
    split = np.array([item.split for item in everything])
    judging = "test" if "test" in split else "val"
    test = _images(run, prepared, np.flatnonzero(split == judging))
    return Subject(
        name=run.name,
        keras_model=run.model_path,
        labels=run.labels,
        spec=run.spec,
        train=_images(run, prepared, np.flatnonzero(split == "train")),
        test=test,
        judging_split=judging,
        reference=_reference(run, test),
        provenance=_provenance(run),
    )


def _images(run: Run, prepared: NDArray[np.uint8], rows: NDArray[np.int64]) -> Images:
    index = {label: number for number, label in enumerate(run.labels)}
    return Images(
        pixels=prepared,
        rows=rows,
        true=np.array([index[run.splits[row].label] for row in rows], np.int64),
        digests=tuple(run.splits[row].sha256 for row in rows),
    )


def _reference(run: Run, test: Images) -> NDArray[np.float32]:
    """The Keras model's scores on ``test``, from those that the training kept."""
    kept = read_predictions(run)
    if kept.scores.ndim != 2 or kept.scores.shape[1] != len(run.labels):
        raise ModelError(
            f"There are {len(run.labels)} labels but the scores kept in {run.folder} have shape {kept.scores.shape}; "
            "train again."
        )
    place = {int(row): number for number, row in enumerate(kept.rows)}
    missing = [int(row) for row in test.rows if int(row) not in place]
    if missing:
        raise ModelError(
            f"{run.folder} must keep the model's scores on all {len(test)} images that judge it, but "
            f"{len(missing)} are missing; train again."
        )
    chosen = [place[int(row)] for row in test.rows]
    if tuple(kept.digests[one] for one in chosen) != test.digests:
        raise ModelError(f"The scores kept in {run.folder} are of other images than its splits name; train again.")
    return np.asarray(kept.scores[chosen], np.float32)


def _provenance(run: Run) -> dict[str, Any]:
    """Digests of content: equal weights, images, splits and choices give equal ones wherever they lie."""
    config = {key: value for key, value in asdict(run.config).items() if key != "data"}
    return {
        "backbone": run.config.backbone,
        "config_sha256": hashlib.sha256(canonical_json(config)).hexdigest(),
        "data_images": len(run.splits),
        "data_sha256": _kept(run, "data_sha256"),
        "licences": _licences(run),
        "weights_sha256": _kept(run, "weights_sha256"),
    }


def _licences(run: Run) -> dict[str, str]:
    """What the artifact's user is bound by, where it is known: of the data, and of pretrained weights."""
    known = {"data": run.config.licence}
    if run.config.weights == "imagenet":
        known["weights"] = backbone(run.config.backbone).weights_licence
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
