"""What a training found, and how it is written down as a run."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.data.dataset import SPLIT_NAMES, Dataset
from edgeclf.data.report import DataReport
from edgeclf.data.splits import write_splits
from edgeclf.evaluation.metrics import classification_metrics
from edgeclf.training import run as run_folder
from edgeclf.training.config import TrainConfig, to_toml
from edgeclf.training.journal import EpochRecord
from edgeclf.training.qat import QAT

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a training found, before it is written down.

    ``further`` is what metrics.json says of unlabelled images and a teacher.
    """

    dataset: Dataset
    parts: tuple[str, ...]
    model: keras.Model
    history: Sequence[EpochRecord]
    scores: NDArray[np.float32]
    confidence: dict[str, Any]
    data: DataReport
    further: dict[str, Any] = field(default_factory=dict)
    timings_s: dict[str, float]

    def rows(self, *parts: str) -> NDArray[np.int64]:
        """Return the indices of the items of ``parts``."""
        return np.flatnonzero(np.isin(self.parts, parts)).astype(np.int64)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class index of every item."""
        return np.array([item.label for item in self.dataset.items], np.int64)


def weights_digest(model: keras.Model) -> str:
    """Return the SHA-256 of the weights' content (name, dtype, shape, bytes): a .keras file differs at every save."""
    digest = hashlib.sha256()
    for variable in model.weights:
        value = np.ascontiguousarray(variable.numpy())
        digest.update(json.dumps([variable.path, str(value.dtype), value.shape]).encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def data_digest(dataset: Dataset, parts: Sequence[str]) -> str:
    """Return the SHA-256 of what was learnt from: labels, and each image's digest, label, split and weight."""
    rows = [
        # An image that counts as usual is digested as before there were weights.
        (item.digest, item.label, part, *((item.weight,) if item.weight != 1 else ()))
        for item, part in zip(dataset.items, parts, strict=True)
    ]
    return hashlib.sha256(json.dumps([dataset.labels, rows]).encode()).hexdigest()


def write_outcome(folder: Path, config: TrainConfig, outcome: Outcome) -> None:
    """Write the files of a run into ``folder``."""
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


def _metrics(outcome: Outcome, model_sha256: str) -> dict[str, Any]:
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
        "data": outcome.data.to_json(),
        **outcome.further,
        "confidence": outcome.confidence,
        "quantization_aware": any(record.phase == QAT for record in outcome.history),
        "timings_s": outcome.timings_s,
        "parameters": int(outcome.model.count_params()),
        "model_sha256": model_sha256,
        "weights_sha256": weights_digest(outcome.model),
        "data_sha256": data_digest(dataset, outcome.parts),
        "versions": {"keras": keras.__version__, "backend": keras.backend.backend(), "numpy": np.__version__},
    }
