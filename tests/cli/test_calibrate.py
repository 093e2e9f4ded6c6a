"""`edgeclf calibrate` as a user meets it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeclf.exporting.export import export
from edgeclf.training.config import load_config
from edgeclf.training.train import train

EDGECLF = [sys.executable, "-m", "edgeclf"]


@pytest.fixture(scope="module")
def edgeclf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("Ort")
    environment = {**os.environ, "EDGECLF_CACHE": str(folder / "cache"), "COLUMNS": "100"}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*EDGECLF, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300, check=False
        )

    run.folder = folder
    return run


@pytest.fixture(scope="module")
def run(edgeclf) -> Path:
    import cv2

    pytest.importorskip("tensorflow")
    draw = np.random.default_rng(0)
    for label, base in (("hell", 130), ("dunkel", 0)):
        (edgeclf.folder / "bilder" / label).mkdir(parents=True)
        for number in range(30):
            pixels = (draw.integers(0, 100, (40, 50, 3)) + base).astype(np.uint8)
            cv2.imencode(".png", pixels)[1].tofile(edgeclf.folder / "bilder" / label / f"ü {number}.png")
    data = json.dumps(str(edgeclf.folder / "bilder"))
    overrides = [f"data={data}", "backbone=cnn", "image_size=32", "train.epochs=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECLF_CACHE", str(edgeclf.folder / "cache"))
        made = train(load_config(None, overrides), out=edgeclf.folder / "run")
        export(made.folder, edgeclf.folder / "bundle", schemes=("fp32",), max_drop=100)
    # What `--format onnx` would have made, without another half minute of it.
    bundle, alone = edgeclf.folder / "bundle", edgeclf.folder / "onnx"
    index = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    index["artifacts"] = [one for one in index["artifacts"] if one["container"] == "onnx"]
    alone.mkdir()
    shutil.copy(bundle / index["artifacts"][0]["file"], alone)
    (alone / "bundle.json").write_text(json.dumps(index), encoding="utf-8")
    return edgeclf.folder / "run"


@pytest.mark.tensorflow
def test_a_study_of_a_bundle_writes_table_json_and_plot_and_says_what_it_recommends(edgeclf, run):
    done = edgeclf("calibrate", "run", "--study", "--bundle", "bundle", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((edgeclf.folder / "out.json").read_text(encoding="utf-8"))
    sizes = sorted({trial["images"] for trial in found["trials"]})
    assert sizes == [8, 16, 32, found["pool_images"]]
    assert (edgeclf.folder / "out.png").read_bytes().startswith(b"\x89PNG")
    assert f"32 k-center against {found['pool_images']} random images" in done.stdout
    assert "Recommended: " in done.stdout


@pytest.mark.tensorflow
def test_the_run_itself_gives_the_same_study_as_its_bundle(edgeclf, run):
    for more, file in (["--bundle", "bundle"], "a.json"), ([], "b.json"):
        done = edgeclf("calibrate", "run", "--study", "--method", "extreme", *more, "--json", file)
        assert done.returncode == 0, done.stderr
    a, b = (json.loads((edgeclf.folder / file).read_text(encoding="utf-8")) for file in ("a.json", "b.json"))
    for made in (*a["trials"], *b["trials"]):
        del made["seconds"]
    assert a["trials"] == b["trials"]


@pytest.mark.tensorflow
def test_without_a_study_the_doubts_about_the_calibration_are_said(edgeclf, run):
    done = edgeclf("calibrate", "run", "--bundle", "bundle", "--json", "doubts.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((edgeclf.folder / "doubts.json").read_text(encoding="utf-8"))
    assert f"{found['images']} calibration images, stratified, seed 0: dunkel" in done.stdout
    for doubt in found["doubts"] or ["Nothing speaks against"]:
        assert doubt in done.stdout


@pytest.mark.tensorflow
def test_a_bundle_without_fp32_onnx_is_refused_with_the_remedy(edgeclf, run):
    index = json.loads((edgeclf.folder / "onnx" / "bundle.json").read_text(encoding="utf-8"))
    (edgeclf.folder / "other").mkdir()
    index["artifacts"][0] |= {"scheme": "fp16"}
    (edgeclf.folder / "other" / "bundle.json").write_text(json.dumps(index), encoding="utf-8")
    done = edgeclf("calibrate", "run", "--bundle", "other")
    assert done.returncode == 2
    assert "--format onnx --scheme fp32" in done.stderr


@pytest.mark.tensorflow
def test_photos_without_labels_are_halved_and_judge_by_agreement(edgeclf, run):
    shutil.copytree(edgeclf.folder / "bilder", edgeclf.folder / "fotos" / "alle")
    done = edgeclf("calibrate", "run", "--study", "--bundle", "bundle", "--data", "fotos", "--json", "fotos.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((edgeclf.folder / "fotos.json").read_text(encoding="utf-8"))
    assert (found["pool_images"], found["judged_images"], found["split"]) == (30, 30, "unlabelled")
    assert found["reference_accuracy"] is None
    assert {trial["method"] for trial in found["trials"]} == {"random", "k-center", "extreme"}
    assert "accuracy  spread" not in done.stdout
    doubts = edgeclf("calibrate", "run", "--bundle", "bundle", "--data", "fotos")
    assert "30 calibration images, stratified, seed 0: given 30" in doubts.stdout


@pytest.mark.tensorflow
@pytest.mark.parametrize(("bundle", "container"), [("bundle", "tflite"), ("onnx", "onnx")])
def test_layers_come_worst_first_as_table_json_and_plot(edgeclf, run, bundle, container):
    pytest.importorskip("ai_edge_quantizer")
    done = edgeclf("calibrate", "run", "--layers", "--bundle", bundle, "--images", 5, "--json", f"{bundle}-layers.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((edgeclf.folder / f"{bundle}-layers.json").read_text(encoding="utf-8"))
    assert (found["container"], found["images"], found["split"]) == (container, 5, "val")
    divergences = [layer["divergence_nats"] for layer in found["layers"]]
    assert divergences == sorted(divergences, reverse=True)
    places = [done.stdout.index(f"{value:.2g}") for value in (divergences[0], divergences[-1])]
    assert places == sorted(places)
    assert (edgeclf.folder / f"{bundle}-layers.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.tensorflow
def test_the_run_itself_has_the_same_layers_as_its_bundle(edgeclf, run):
    pytest.importorskip("ai_edge_quantizer")
    for more, file in (["--bundle", "bundle"], "c.json"), ([], "d.json"):
        done = edgeclf("calibrate", "run", "--layers", "--images", 3, *more, "--json", file)
        assert done.returncode == 0, done.stderr
    c, d = (json.loads((edgeclf.folder / file).read_text(encoding="utf-8")) for file in ("c.json", "d.json"))
    assert c["layers"] == d["layers"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--method", "random"], "Without --study there is no --method"),
        (["--layers", "--estimator", "mse"], "Without --study there is no --estimator"),
        (["--study", "--images", 3, "--format", "onnx"], "Without --layers there is no --images and --format"),
        (["--study", "--layers"], "both were asked for"),
    ],
)
def test_options_are_refused_without_what_they_belong_to(edgeclf, options, word):
    done = edgeclf("calibrate", "run", *options)
    assert done.returncode == 2
    assert word in done.stderr


def test_a_run_that_is_not_there_is_a_usage_error(edgeclf):
    done = edgeclf("calibrate", "nowhere", "--study")
    assert done.returncode == 2
    assert "nowhere is not a folder" in done.stderr
