"""Training as a function: a configuration becomes a run folder, whole or not at all."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.data import cache
from edgeclf.data.dataset import SPLIT_NAMES, Dataset
from edgeclf.data.splits import require_shares, split, write_splits
from edgeclf.evaluation.metrics import classification_metrics
from edgeclf.models import registry
from edgeclf.training import run as run_folder
from edgeclf.training.backend import require_keras, seed_everything
from edgeclf.training.config import TrainConfig, to_toml
from edgeclf.training.run import Run, read_run
from edgeclf_device.atomic import atomic_folder
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress

if TYPE_CHECKING:
    import keras

    from edgeclf.training.loop import EpochRecord

_PREDICT_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What a training found, before it is written down."""

    dataset: Dataset
    parts: tuple[str, ...]
    model: keras.Model
    history: Sequence[EpochRecord]
    scores: NDArray[np.float32]
    timings_s: dict[str, float]

    def rows(self, *parts: str) -> NDArray[np.int64]:
        """Return the indices of the items of ``parts``."""
        return np.flatnonzero(np.isin(self.parts, parts)).astype(np.int64)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class index of every item."""
        return np.array([item.label for item in self.dataset.items], np.int64)


def resolve(config: TrainConfig) -> TrainConfig:
    """Fill in what ``config`` leaves to the backbone and the data, and make ``data`` absolute.

    Raises:
        UsageError: unknown backbone, weights or block, or no data named.
    """
    if not config.data:
        raise UsageError("The configuration must name the data: a folder of images or a listing.")
    chosen = registry.backbone(config.backbone)
    data = Path(config.data).expanduser().absolute()
    lowest = config.train.fine_tune_from or chosen.fine_tune_from
    registry.require_weights(config.weights)
    if config.weights == "none":
        lowest = "all"
    if lowest != "all" and lowest not in chosen.freeze_points:
        raise UsageError(
            f"train.fine_tune_from must be all or one of {', '.join(chosen.freeze_points)}, but it is {lowest!r}."
        )
    resolved = dataclasses.replace(
        config,
        name=config.name or (data.stem if data.is_file() else data.name),
        data=str(data),
        image_size=config.image_size or chosen.image_size,
        train=dataclasses.replace(config.train, fine_tune_from=lowest),
    )
    require_shares(config.split.fractions)
    _ = resolved.spec  # refuses unknown channels and crops before any work is done
    return resolved


def train(config: TrainConfig, *, out: Path, strict: bool = False, progress: Progress = no_progress) -> Run:
    """Train a classifier on the images at ``config.data`` and write the run folder ``out``.

    ``out`` is new or empty; on any failure, Ctrl-C included, nothing is left of it. ``strict`` refuses unreadable
    images instead of leaving them out.

    Raises:
        UsageError: a bad configuration, or ``out`` is not empty.
        DataError: see ``edgeclf.data.dataset.read_dataset`` and ``edgeclf.data.splits.split``.
        DependencyError: Keras, its backend or the package with the weights is not installed.
        SystemStateError: the disk is full or can't be written.
    """
    config = resolve(config)
    require_keras()
    with atomic_folder(out) as folder:
        _write(folder, config, _trained(config, folder, strict=strict, progress=progress))
    return read_run(out)


def _trained(config: TrainConfig, scratch: Path, *, strict: bool, progress: Progress) -> _Outcome:
    from edgeclf.training.activations import TrainingImages
    from edgeclf.training.phases import fit

    clock = [time.perf_counter()]
    dataset, pixels = cache.load(Path(config.data), config.spec, strict=strict, progress=progress)
    parts = split(dataset, seed=config.seed, fractions=config.split.fractions)
    clock.append(time.perf_counter())
    seed_everything(config.seed, deterministic=config.train.deterministic)
    model = registry.build(
        config.backbone,
        image_size=config.image_size,
        channels=config.spec.shape[2],
        classes=len(dataset.labels),
        dropout=config.train.dropout,
        weights=config.weights,
    )
    images = TrainingImages(
        pixels=pixels,
        labels=np.array([item.label for item in dataset.items], np.int64),
        train=np.flatnonzero(np.equal(parts, "train")),
        val=np.flatnonzero(np.equal(parts, "val")),
        classes=len(dataset.labels),
    )
    history = fit(model, images, config, scratch=scratch, progress=progress)
    clock.append(time.perf_counter())
    judged = np.flatnonzero(np.isin(parts, ("val", "test")))
    scores = predict(model, pixels, judged, progress=progress)
    clock.append(time.perf_counter())
    timings_s = dict(zip(("data", "fit", "predict"), np.diff(clock).tolist(), strict=True))
    return _Outcome(dataset=dataset, parts=parts, model=model, history=history, scores=scores, timings_s=timings_s)


def predict(
    model: keras.Model, pixels: NDArray[np.uint8], rows: NDArray[np.int64], *, progress: Progress = no_progress
) -> NDArray[np.float32]:
    """Return the float32 (len(rows), classes) scores of ``model`` for ``pixels[rows]``, uint8 (N, H, W, C)."""
    import keras

    same = keras.Model(model.input, model.output)
    same.compile(jit_compile=False)
    starts = range(0, len(rows), _PREDICT_BATCH)
    batches = [
        np.asarray(same.predict_on_batch(pixels[rows[start : start + _PREDICT_BATCH]]), np.float32)
        for start in progress(starts, "predicting", len(starts))
    ]
    return np.concatenate(batches)


def weights_digest(model: keras.Model) -> str:
    """Return the SHA-256 of the weights' content (name, dtype, shape, bytes): a .keras file differs at every save."""
    digest = hashlib.sha256()
    for variable in model.weights:
        value = np.ascontiguousarray(variable.numpy())
        digest.update(json.dumps([variable.path, str(value.dtype), value.shape]).encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def data_digest(dataset: Dataset, parts: Sequence[str]) -> str:
    """Return the SHA-256 of what was learnt from: labels, and each image's digest, label and split in order."""
    rows = [(item.digest, item.label, part) for item, part in zip(dataset.items, parts, strict=True)]
    return hashlib.sha256(json.dumps([dataset.labels, rows]).encode()).hexdigest()


def _write(folder: Path, config: TrainConfig, outcome: _Outcome) -> None:
    model_path = folder / run_folder.MODEL
    outcome.model.save(model_path)
    (folder / run_folder.CONFIG).write_text(to_toml(config), encoding="utf-8")
    write_splits(folder / run_folder.SPLITS, outcome.dataset, outcome.parts)
    _write_history(folder / run_folder.HISTORY, outcome.history)
    rows = outcome.rows("val", "test")
    np.savez_compressed(
        folder / run_folder.PREDICTIONS,
        rows=rows,
        labels=outcome.labels[rows],
        scores=outcome.scores,
        digests=np.array([outcome.dataset.items[row].digest for row in rows]),
    )
    metrics = _metrics(outcome, hashlib.sha256(model_path.read_bytes()).hexdigest())
    text = json.dumps(metrics, indent=2, ensure_ascii=False)
    (folder / run_folder.METRICS).write_text(text + "\n", encoding="utf-8")


def _write_history(path: Path, history: Sequence[EpochRecord]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, [one.name for one in dataclasses.fields(history[0])], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(record) for record in history)
    path.write_text(text.getvalue(), encoding="utf-8")


def _metrics(outcome: _Outcome, model_sha256: str) -> dict[str, Any]:
    import keras

    dataset, rows = outcome.dataset, outcome.rows("val", "test")
    judged = np.array(outcome.parts)[rows]
    counts = Counter((part, item.label) for part, item in zip(outcome.parts, dataset.items, strict=True))
    return {
        "format": list(run_folder.FORMAT),
        "labels": list(dataset.labels),
        "images": {
            part: {label: counts[part, index] for index, label in enumerate(dataset.labels)} for part in SPLIT_NAMES
        },
        "rejected": [dataclasses.asdict(one) for one in dataset.rejected],
        "splits": {
            part: classification_metrics(
                outcome.labels[rows[judged == part]], outcome.scores[judged == part], dataset.labels
            )
            for part in ("val", "test")
            if part in outcome.parts
        },
        "timings_s": outcome.timings_s,
        "parameters": int(outcome.model.count_params()),
        "model_sha256": model_sha256,
        "weights_sha256": weights_digest(outcome.model),
        "data_sha256": data_digest(dataset, outcome.parts),
        "versions": {"keras": keras.__version__, "backend": keras.backend.backend(), "numpy": np.__version__},
    }
