"""A run as a training leaves it, but for the network: the report does not open it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from edgeclf.evaluation.confidence import reject_threshold
from edgeclf.evaluation.metrics import classification_metrics
from edgeclf.report.pictures import Picture, Pictures, choose, write_pictures
from edgeclf.training.config import TrainConfig, to_toml
from edgeclf.training.run import read_run

PHASES = ("probe", "upper", "upper", "all")


def write_run(folder, *, labels=("heil", "Riß <&> ☀ ひび割れ"), per_class=30, parts=("val", "test"), **metrics):
    """Write a run of ``per_class`` images per class in each part; ``metrics`` are laid over those of metrics.json."""
    folder.mkdir()
    draw, classes = np.random.default_rng(0), len(labels)
    rows = [
        (f"{label}/{part} <{number}>.png", index, part)
        for part in ("train", *parts)
        for index, label in enumerate(labels)
        for number in range(per_class)
    ]
    split, true = np.array([row[2] for row in rows]), np.array([row[1] for row in rows])
    judged = np.flatnonzero(split != "train")
    logits = draw.normal(0, 1, (len(judged), classes)) + 3 * np.eye(classes)[true[judged]]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = scores.astype(np.float32)

    def of(part):
        chosen = split[judged] == part
        return true[judged][chosen], scores[chosen]

    (folder / "model.keras").write_bytes(b"not opened")
    (folder / "config.toml").write_text(to_toml(TrainConfig(name="klein", data="gone", licence="MIT")))
    with (folder / "splits.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [
                ("path", "label", "split", "sha256"),
                *((path, labels[index], part, f"{number:064x}") for number, (path, index, part) in enumerate(rows)),
            ]
        )
    with (folder / "history.csv").open("w", encoding="utf-8", newline="") as file:
        names = ("phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")
        csv.writer(file).writerows(
            [names, *((phase, epoch, 1 / epoch, 0.8, 0.6, 0.7, 1e-3, 2.5) for epoch, phase in enumerate(PHASES, 1))]
        )
    np.savez(
        folder / "predictions.npz", rows=judged, labels=true[judged], scores=scores, digests=np.full(len(judged), "0")
    )
    value = {
        "format": [1, 0],
        "labels": labels,
        "rejected": [{"path": "x <y>.png", "reason": "torn"}],
        "parameters": 1234567,
        "timings_s": {"fit": 12.3},
        "splits": {part: classification_metrics(*of(part), labels) for part in parts},
        "confidence": {"temperature": 1.5, "reject": reject_threshold(*of("val"), 0.95)},
        **metrics,
    }
    (folder / "metrics.json").write_text(json.dumps(value, allow_nan=False))
    judging = parts[-1]
    chosen = judged[split[judged] == judging][choose(*of(judging))]
    picture = {"image": jpeg(90), "overlay": jpeg(180)}
    gallery = tuple(Picture(row=int(row), **picture) for row in chosen)
    write_pictures(folder, Pictures(method="Grad-CAM", gallery=gallery, augmentation=jpeg(30)))
    return read_run(folder)


def jpeg(shade):
    import cv2

    return cv2.imencode(".jpg", np.full((8, 8, 3), shade, np.uint8))[1].tobytes()


@pytest.fixture
def made_run(tmp_path):
    """Write a run, see ``write_run``."""
    pytest.importorskip("cv2")
    return lambda **options: write_run(tmp_path / "run", **options)
