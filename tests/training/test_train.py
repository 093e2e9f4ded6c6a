from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeclf.data import cache
from edgeclf.training.config import TrainConfig, load_config
from edgeclf.training.run import (
    FILES,
    Run,
    image_root,
    items,
    read_history,
    read_predictions,
    read_run,
)
from edgeclf.training.train import resolve, train
from edgeclf_device.errors import DataError, ModelError, UsageError

pytestmark = pytest.mark.tensorflow

SMALL = ["image_size=32", "train.epochs=2", "train.batch_size=8", "augment.views=2", "train.fine_tune_from=block15"]
QUICK = ["backbone=cnn", "image_size=16", "train.batch_size=8"]


def config(data: Path, *more: str) -> TrainConfig:
    return load_config(None, [f"data={json.dumps(str(data))}", *SMALL, *more])


@pytest.fixture(scope="session")
def run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    pytest.importorskip("tensorflow")
    return train(config(image_folder), out=tmp_path_factory.mktemp("runs") / "first")


def test_a_run_is_complete_and_says_what_was_done(run, image_folder):
    assert sorted(path.name for path in run.folder.iterdir()) == sorted([*FILES, "pictures.json", "tensorboard"])
    assert run.labels == ("dünkel", "hell")
    assert Path(run.config.data) == image_folder
    assert run.name == image_folder.name
    assert run.metrics["model_sha256"] == hashlib.sha256(run.model_path.read_bytes()).hexdigest()
    assert run.metrics["rejected"][0]["path"] == "hell/kaputt.png"
    assert {part: sum(counts.values()) for part, counts in run.metrics["images"].items()} == {
        "train": 28,
        "val": 8,
        "test": 4,
    }


def test_the_history_names_each_phase_and_epoch(run):
    history = read_history(run)
    assert [(row["phase"], row["epoch"]) for row in history] == [("probe", 1), ("upper", 2)]
    assert history[0]["val_accuracy"] >= 0.75
    with (run.folder / "history.csv").open(encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert header[2:] == [
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "learning_rate",
        "seconds",
        "waiting",
        "accepted",
    ]


def test_the_weights_of_the_best_validation_loss_are_kept(image_folder, tmp_path):
    # A rate so high that the second epoch spoils what the first has learnt.
    overrides = [*QUICK, "train.epochs=2", "train.learning_rate=0.01", "model.batch_norm=false", "seed=1"]
    overrides.append("confidence.temperature=false")
    run = train(load_config(None, [f"data={json.dumps(str(image_folder))}", *overrides]), out=tmp_path / "run")
    best, last = read_history(run)
    assert best["val_loss"] < last["val_loss"]
    assert run.metrics["splits"]["val"]["accuracy"] == pytest.approx(best["val_accuracy"])
    predictions = read_predictions(run)
    chosen = [run.splits[row].split == "val" for row in predictions.rows]
    scores, labels = predictions.scores[chosen], predictions.labels[chosen]
    smoothed = 0.9 * np.eye(2)[labels] + 0.05
    assert -(smoothed * np.log(scores)).sum(axis=1).mean() == pytest.approx(best["val_loss"], rel=1e-2)


def test_the_saved_model_gives_the_saved_predictions(run):
    import keras

    predictions = read_predictions(run)
    chosen = items(run, ("val", "test"))
    assert predictions.digests == tuple(item.digest for item in chosen)
    assert [item.label for item in chosen] == predictions.labels.tolist()
    pixels = cache.pixels(chosen, image_root(run), run.spec)
    model = keras.models.load_model(run.model_path)
    assert model.input.dtype == "uint8"
    assert [model.input.name, model.output_names] == ["image", ["scores"]]
    assert np.abs(model.predict_on_batch(pixels) - predictions.scores).max() < 1e-6


def test_the_same_seed_gives_identical_weights_and_splits(run, tmp_path):
    again = train(run.config, out=tmp_path / "again")
    assert again.metrics["weights_sha256"] == run.metrics["weights_sha256"]
    assert again.metrics["data_sha256"] == run.metrics["data_sha256"]
    assert again.splits == run.splits
    assert np.array_equal(read_predictions(again).scores, read_predictions(run).scores)


@pytest.mark.slow
def test_one_epoch_is_the_probe_alone(image_folder, tmp_path):
    run = train(config(image_folder, "train.epochs=1"), out=tmp_path / "run")
    assert [row["phase"] for row in read_history(run)] == ["probe"]


@pytest.mark.slow
def test_random_weights_train_every_block_in_one_epoch(image_folder, tmp_path):
    run = train(config(image_folder, "train.epochs=1", "weights=none", "channels=grey"), out=tmp_path / "run")
    assert [row["phase"] for row in read_history(run)] == ["all"]
    assert run.config.train.fine_tune_from == "all"


@pytest.mark.slow
def test_pretrained_weights_can_be_fine_tuned_in_every_block(image_folder, tmp_path):
    run = train(config(image_folder, "train.fine_tune_from=all"), out=tmp_path / "run")
    assert [row["phase"] for row in read_history(run)] == ["probe", "all"]


def test_an_output_folder_with_something_in_it_is_refused(image_folder, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="new or empty"):
        train(config(image_folder), out=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_strict_refuses_the_unreadable_image_and_leaves_nothing(image_folder, tmp_path):
    with pytest.raises(DataError, match=r"kaputt\.png"):
        train(config(image_folder), out=tmp_path / "run", strict=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("override", ["backbone=alexnet", "weights=x", "train.fine_tune_from=block99", "crop=round"])
def test_a_choice_that_is_not_there_is_refused_before_any_work(image_folder, override):
    with pytest.raises(UsageError):
        resolve(config(image_folder, override))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_of_a_run_is_named(run, tmp_path, name):
    broken = tmp_path / "run"
    shutil.copytree(run.folder, broken)
    (broken / name).unlink()
    with pytest.raises(ModelError, match=name):
        read_run(broken)


@pytest.mark.parametrize("name", ["config.toml", "splits.csv", "metrics.json"])
def test_a_damaged_file_of_a_run_is_named(run, tmp_path, name):
    broken = tmp_path / "run"
    shutil.copytree(run.folder, broken)
    (broken / name).write_bytes(b"\xff{")
    with pytest.raises(ModelError, match=name):
        read_run(broken)


def test_a_run_of_a_newer_format_is_refused_with_the_remedy(run, tmp_path):
    newer = tmp_path / "run"
    shutil.copytree(run.folder, newer)
    (newer / "metrics.json").write_text(json.dumps({**run.metrics, "format": [2, 0]}), encoding="utf-8")
    with pytest.raises(ModelError, match="update edgeclf"):
        read_run(newer)


def test_training_data_that_is_gone_is_explained(run, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(run.folder, moved)
    text = (moved / "config.toml").read_text(encoding="utf-8")
    (moved / "config.toml").write_text(text.replace(run.config.data, str(tmp_path / "gone")), encoding="utf-8")
    with pytest.raises(DataError, match=r"gone is not there.*config\.toml"):
        image_root(read_run(moved))


def test_ctrl_c_leaves_the_checkpoint_and_nothing_else(image_folder, tmp_path):
    code = """
import sys
from pathlib import Path
from edgeclf.training.config import load_config
from edgeclf.training.train import train

def progress(items, description, total=None):
    print(description, flush=True)
    yield from items

train(load_config(None, sys.argv[2:]), out=Path(sys.argv[1]) / "run", progress=progress)
"""
    overrides = [f"data={json.dumps(str(image_folder))}", *QUICK, "train.epochs=500"]
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    for line in child.stdout:
        if line.startswith("training (all), epoch 3"):
            break
    assert list(tmp_path.iterdir())
    child.send_signal(signal.SIGINT)
    assert child.wait(60) != 0
    assert [path.name for path in tmp_path.iterdir()] == ["run.unfinished"]
