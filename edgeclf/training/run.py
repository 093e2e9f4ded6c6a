"""A run: the folder that a training leaves, and what later commands read from it."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.data.dataset import Item
from edgeclf.data.splits import SplitRow, read_splits
from edgeclf.training.config import TrainConfig, load_config
from edgeclf.training.kept import read_versioned
from edgeclf_device.clips import Spec
from edgeclf_device.errors import DataError, ModelError, UsageError

FORMAT = (1, 0)

MODEL = "model.keras"
CONFIG = "config.toml"
SPLITS = "splits.csv"
METRICS = "metrics.json"
HISTORY = "history.csv"
PREDICTIONS = "predictions.npz"

FILES = (MODEL, CONFIG, SPLITS, METRICS, HISTORY, PREDICTIONS)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished training, or a stock classifier as ``edgeclf.stock`` writes it, which has no images.

    Attributes:
        folder: where its files are.
        config: the resolved configuration; ``data`` is absolute, or empty where there are no images.
        labels: class names in the order of the model's scores.
        splits: every image with its label, its split and its SHA-256.
        metrics: the content of metrics.json.
    """

    folder: Path
    config: TrainConfig
    labels: tuple[str, ...]
    splits: tuple[SplitRow, ...]
    metrics: dict[str, Any]

    @property
    def model_path(self) -> Path:
        """The Keras model: uint8 (N, H, W, C) "image", of video (N, T, H, W, C), to float32 (N, classes) "scores"."""
        return self.folder / MODEL

    @property
    def spec(self) -> Spec:
        """The preprocessing that the model was trained with."""
        return self.config.spec

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config.name

    @property
    def has_images(self) -> bool:
        """Whether the run knows images it was trained and judged on; a stock classifier does not."""
        return bool(self.config.data)

    @property
    def judged(self) -> tuple[str, dict[str, Any]]:
        """(``test`` and its metrics, or ``val`` and its metrics where the data has no test part).

        Raises:
            DataError: the run has no images.
        """
        _require_images(self)
        part = "test" if "test" in self.metrics["splits"] else "val"
        return part, self.metrics["splits"][part]

    def files(self, part: str) -> tuple[Path, ...]:
        """The image files of ``train``, ``val`` or ``test``.

        Raises:
            DataError: the run has no images, or they are not there any more.
        """
        root = image_root(self)
        return tuple(root / item.path for item in items(self, (part,)))


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The Keras model's scores on the images that it was not fitted to.

    Attributes:
        rows: int64 (N,), indices into the run's ``splits``.
        labels: int64 (N,), true classes.
        scores: float32 (N, classes), softmax.
        digests: the N images' SHA-256.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    digests: tuple[str, ...]


def read_run(path: Path) -> Run:
    """Open the run at ``path``; the model itself is not loaded.

    Raises:
        UsageError: there is no such folder.
        ModelError: a file of the run is missing or damaged, or of a newer format.
    """
    if not path.is_dir():
        raise UsageError(f"A run is a folder made by edgeclf train, but {path} is not a folder.")
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise ModelError(f"{path} is not a complete run: {', '.join(missing)} is missing; train again.")
    metrics = _read_metrics(path / METRICS)
    try:
        config = load_config(path / CONFIG)
    except UsageError as error:
        raise ModelError(f"The configuration of the run {path} can't be used: {error}") from error
    return Run(
        folder=path,
        config=config,
        labels=tuple(metrics["labels"]),
        splits=read_splits(path / SPLITS) if config.data else (),
        metrics=metrics,
    )


def _read_metrics(path: Path) -> dict[str, Any]:
    def with_labels(metrics: dict[str, Any]) -> dict[str, Any]:
        return {**metrics, "labels": [str(label) for label in metrics["labels"]]}

    return read_versioned(path, with_labels, newest=FORMAT, remedy="train again")


def read_predictions(run: Run) -> Predictions:
    """Read predictions.npz.

    Raises:
        ModelError: it is damaged.
    """
    path = run.folder / PREDICTIONS
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Predictions(
                rows=arrays["rows"],
                labels=arrays["labels"],
                scores=arrays["scores"],
                digests=tuple(str(digest) for digest in arrays["digests"]),
            )
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ModelError(f"{path} is damaged ({error}); train again.") from error


def read_history(run: Run) -> list[dict[str, Any]]:
    """Read history.csv: per epoch its phase (a word), its number, and losses, accuracies, rate and seconds (numbers).

    Raises:
        ModelError: it is damaged.
    """
    path = run.folder / HISTORY
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        return [{name: value if name == "phase" else float(value) for name, value in row.items()} for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        raise ModelError(f"{path} is damaged ({error}); train again.") from error


def image_root(run: Run) -> Path:
    """Return the folder that the paths of the run's splits are relative to.

    Raises:
        DataError: the run has no images, or they are not there any more.
    """
    _require_images(run)
    data = Path(run.config.data)
    if not data.exists():
        raise DataError(
            f"This needs the images that the run was trained on, but {data} is not there any more; "
            f"put them back, or change data in {run.folder / CONFIG}."
        )
    return data if data.is_dir() else data.parent


def items(run: Run, splits: Collection[str]) -> tuple[Item, ...]:
    """Return the run's images of ``splits`` in the order of splits.csv, for ``edgeclf.data.cache.pixels``.

    Raises:
        DataError: the run has no images.
    """
    _require_images(run)
    index = {label: number for number, label in enumerate(run.labels)}
    return tuple(
        Item(path=row.path, label=index[row.label], digest=row.sha256, split=row.split)
        for row in run.splits
        if row.split in splits
    )


def _require_images(run: Run) -> None:
    if not run.has_images:
        raise DataError(
            f"This needs images, but {run.folder} is a stock classifier, which comes without any; "
            "name a folder of your own images instead."
        )
