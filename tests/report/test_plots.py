"""Plots stand alone and carry what they show as text."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from edgeclf.report import curves, plots
from edgeclf.report.artifacts import ArtifactRow

# Not of what tests of other files left open, which may be collected meanwhile.
NO_WARNINGS = pytest.mark.filterwarnings("error", "default::ResourceWarning")
LABELS = ["heil", "Riß <&> ☀ ひび割れ"]


def text_of(svg: str) -> str:
    return " ".join(ET.fromstring(svg).itertext())


def row(file: str, p50_ms: float, accuracy: float | None = 0.9) -> ArtifactRow:
    return ArtifactRow(
        file=file,
        size_bytes=4_000_000,
        accuracy=accuracy,
        drop_points=0.1,
        agreement=0.99,
        p50_ms=p50_ms,
        p90_ms=9,
        p99_ms=9,
    )


def drawn(classes: int, images: int = 200):
    draw = np.random.default_rng(0)
    true = draw.integers(0, classes, images)
    scores = draw.random((images, classes)) + 0.7 * np.eye(classes)[true]
    return true, (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


@NO_WARNINGS
def test_every_plot_is_well_formed_and_names_what_it_shows():
    history = [
        {"phase": phase, "loss": 0.5, "val_loss": 0.6, "accuracy": 0.8, "val_accuracy": 0.7, "learning_rate": 1e-3}
        for phase in ("probe", "upper", "upper", "all")
    ]
    assert "Riß <&> ☀ ひび割れ" in text_of(
        plots.class_balance(LABELS, {"train": [3, 4], "val": [1, 1], "test": [2, 0]})
    )
    loss, accuracy, rate = map(text_of, plots.learning_curves(history))
    assert all("validation" in text for text in (loss, accuracy))
    assert "learning rate" in rate
    assert all(text.split().count(phase) == 1 for text in (loss, accuracy, rate) for phase in ("probe", "upper", "all"))
    assert "predicted" in text_of(plots.confusion([[3, 1], [0, 0]], LABELS))
    assert "a-w8a8.tflite" in text_of(plots.artifacts([row("a-w8a8.tflite", 2.0), row("a-fp32.onnx", 4.0)]))
    assert "unmeasured" not in text_of(plots.artifacts([row("a.onnx", 2.0), row("unmeasured.onnx", 2.0, None)]))


@NO_WARNINGS
@pytest.mark.parametrize("plot", [curves.roc, curves.precision_recall])
def test_each_of_a_few_classes_has_a_curve_and_many_share_their_mean(plot):
    few, many = [f"_ü{number}" for number in range(10)], [f"ü{number}" for number in range(11)]
    assert all(label in text_of(plot(*drawn(10), few)) for label in few)
    shared = text_of(plot(*drawn(11), many))
    assert "mean of 11 classes" in shared
    assert "ü3" not in shared


@NO_WARNINGS
def test_classes_without_images_have_no_curve():
    true, scores = drawn(3)
    assert "none" not in text_of(curves.roc(true.clip(0, 1), scores, ["a", "b", "none"]))
    alone = np.zeros_like(true)
    for plot in (curves.roc, curves.precision_recall):
        assert "recall" in text_of(plot(alone, scores, ["a", "b", "c"]))


@NO_WARNINGS
@pytest.mark.parametrize("images", [1, 5, 200, 3000])
def test_confidence_is_drawn_for_few_and_for_many_images(images):
    true, scores = drawn(3, images)
    assert "now" not in text_of(curves.reliability_diagram(true, scores, None))
    assert "before" in text_of(curves.reliability_diagram(true, scores, scores))
    assert "score ≥ 0.100" in text_of(curves.coverage(true, scores, 0.1))
    assert "score" not in text_of(curves.coverage(true, scores, None))
    assert "score" not in text_of(curves.coverage(true, scores, 1.0))


def test_many_classes_are_drawn_without_their_names():
    labels = [f"ü{number}" for number in range(200)]
    assert "ü3" not in text_of(plots.class_balance(labels, {"train": [3] * 200}))
    assert "ü3" not in text_of(plots.confusion(np.eye(200, dtype=int).tolist(), labels))


def test_equal_input_gives_equal_pictures():
    rows = [row("a-w8a8.tflite", 2.0)]
    assert plots.artifacts(rows) == plots.artifacts(rows)
