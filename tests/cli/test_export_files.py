"""`edgeclf export FILE`, as a user meets it: in a process of its own, judged by exit code and words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MODELS = Path(__file__).parents[1] / "device" / "models"


@pytest.fixture
def export(tmp_path):
    """Runs `edgeclf export` in a folder with two models, their labels, a preprocessing and photos."""
    import cv2

    for suffix in ("tflite", "onnx"):
        shutil.copy(MODELS / f"fp32.{suffix}", tmp_path / f"mein netz.{suffix}")
    (tmp_path / "labels.txt").write_text("grün\nrot\nblau\ngelb\n", encoding="utf-8")
    (tmp_path / "p.toml").write_text('height = 16\nwidth = 20\nchannels = "rgb"\nscale = 1\noffset = 0\n')
    (tmp_path / "photos").mkdir()
    draw = np.random.default_rng(1)
    for number in range(24):
        pixels = cv2.resize(draw.integers(0, 256, (4, 5, 3)).astype(np.uint8), (40, 32))
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), pixels)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edgeclf", "export", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "EDGECLF_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"},
            cwd=tmp_path,
            check=False,
        )

    return run


GIVEN = ["--out", "bundle", "--labels", "labels.txt", "--preprocess", "p.toml"]


@pytest.mark.parametrize("container", ["tflite", "onnx"])
def test_a_model_of_anybodys_becomes_a_bundle_that_classifies(container, export, tmp_path):
    done = export(f"mein netz.{container}", *GIVEN, "--calibration", "photos")
    assert done.returncode == 0, done.stderr
    assert f"mein-netz-w8a8.{container}" in done.stdout
    assert "--max-drop 1 was not applied" in done.stderr
    made = sorted(path.name for path in (tmp_path / "bundle").iterdir())
    assert made == ["bundle.json", f"mein-netz-fp32.{container}", f"mein-netz-w8a8.{container}"]
    command = [sys.executable, "-m", "edgeclf", "classify", "bundle", "--source", "photos", "--max-frames", "1"]
    classified = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert classified.returncode == 0, classified.stderr
    assert any(label in classified.stdout for label in ("grün", "rot", "blau", "gelb"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["mein netz.onnx", "--out", "bundle"], 2, "needs --labels and --preprocess"),
        (["mein netz.onnx", *GIVEN[:4]], 2, "was given with --labels; add what is missing"),
        (["photos", *GIVEN], 2, "photos is none"),
        (["mein netz.onnx", *GIVEN, "--format", "tflite"], 2, "From a .onnx file only .onnx artifacts are made"),
        (["mein netz.tflite", *GIVEN, "--scheme", "fp16"], 2, "give the .keras file or SavedModel"),
        (["mein netz.tflite", *GIVEN[:-1], "labels.txt", "--scheme", "fp32"], 3, "labels.txt must be TOML"),
        (["mein netz.tflite", *GIVEN[:3], "p.toml", *GIVEN[4:], "--scheme", "fp32"], 4, "5 labels but the model has 4"),
        (["nothing.onnx", *GIVEN, "--scheme", "fp32"], 4, "nothing.onnx can't be read"),
    ],
)
def test_each_refusal_has_its_exit_code_and_its_words_and_writes_nothing(arguments, code, words, export, tmp_path):
    done = export(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "bundle").exists()
    assert not list(tmp_path.glob(".bundle*"))
