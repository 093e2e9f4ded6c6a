"""Plots stand alone and carry what they show as text."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from edgeclf.report import plots
from edgeclf.report.report import ArtifactRow

LABELS = ["heil", "Riß <&> ☀ ひび割れ"]


def text_of(svg: str) -> str:
    return " ".join(ET.fromstring(svg).itertext())


def row(file: str, p50_ms: float) -> ArtifactRow:
    return ArtifactRow(
        file=file,
        size_bytes=4_000_000,
        accuracy=0.9,
        drop_points=0.1,
        agreement=0.99,
        p50_ms=p50_ms,
        p90_ms=9,
        p99_ms=9,
    )


@pytest.mark.filterwarnings("error")
def test_every_plot_is_well_formed_and_names_what_it_shows():
    history = [
        {"phase": phase, "loss": 0.5, "val_loss": 0.6, "accuracy": 0.8, "val_accuracy": 0.7}
        for phase in ("probe", "fine-tune", "fine-tune")
    ]
    assert "Riß <&> ☀ ひび割れ" in text_of(
        plots.class_balance(LABELS, {"train": [3, 4], "val": [1, 1], "test": [2, 0]})
    )
    assert "validation" in text_of(plots.learning_curves(history))
    assert "predicted" in text_of(plots.confusion([[3, 1], [0, 0]], LABELS))
    assert "a-w8a8.tflite" in text_of(plots.artifacts([row("a-w8a8.tflite", 2.0), row("a-fp32.onnx", 4.0)]))


def test_equal_input_gives_equal_pictures():
    rows = [row("a-w8a8.tflite", 2.0)]
    assert plots.artifacts(rows) == plots.artifacts(rows)
