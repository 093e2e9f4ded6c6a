from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeclf.training.config import load_config
from edgeclf.training.images import TrainingImages
from edgeclf.training.loop import _shuffled, judging_weights, training_weights
from edgeclf.training.phases import plan
from edgeclf.training.run import read_history, read_predictions, read_run
from edgeclf.training.train import calibrate, train
from edgeclf_device.errors import UsageError

CNN = ["backbone=cnn", "image_size=16", "train.batch_size=8", "train.epochs=3"]


def config(data: Path, *more: str):
    return load_config(None, [f"data={json.dumps(str(data))}", *CNN, *more])


def phases(*overrides: str) -> list[tuple[str, int]]:
    return [(phase.name, phase.epochs) for phase in plan(load_config(None, list(overrides)))]


def test_the_schedule_is_probe_then_upper_then_all_and_sums_to_the_epochs():
    assert phases("train.epochs=1") == [("probe", 1)]
    assert phases("train.epochs=8") == [("probe", 1), ("upper", 7)]
    assert phases("train.epochs=8", "train.all_epochs=3") == [("probe", 1), ("upper", 4), ("all", 3)]
    assert phases("train.epochs=4", "train.all_epochs=3") == [("probe", 1), ("all", 3)]
    assert phases("train.epochs=4", "train.fine_tune_from=all") == [("probe", 1), ("all", 3)]
    assert phases("train.epochs=4", "weights=none") == [("all", 4)]
    assert phases("backbone=cnn", "train.epochs=4") == [("all", 4)]


def test_each_phase_has_its_own_learning_rate():
    made = plan(
        load_config(
            None,
            ["train.all_epochs=2", "train.probe_learning_rate=3", "train.learning_rate=2", "train.all_learning_rate=1"],
        )
    )
    assert [phase.learning_rate for phase in made] == [3, 2, 1]


def imbalanced(weights: list[float] | None = None) -> TrainingImages:
    labels = np.array([0] * 90 + [1] * 10 + [0, 1])
    return TrainingImages(
        pixels=np.zeros((102, 2, 2, 3), np.uint8),
        labels=labels,
        weights=np.array(weights or [1] * 102, np.float32),
        train=np.arange(100),
        val=np.array([100, 101]),
        classes=2,
    )


def test_class_weights_give_each_class_the_same_say_and_keep_the_mean():
    images = imbalanced()
    fit = load_config(None, ["train.balance=weights"]).train
    weights = training_weights(images, images.train, fit)
    assert np.array_equal(weights, judging_weights(images, images.train, fit))
    assert weights[:90].sum() == pytest.approx(weights[90:].sum())
    assert weights.mean() == pytest.approx(1)
    assert training_weights(images, images.train, load_config(None).train) is None


def test_weights_of_the_listing_count():
    images = imbalanced([0.5] * 102)
    assert np.all(training_weights(images, images.val, load_config(None).train) == 0.5)


def test_balanced_sampling_draws_each_class_equally_often():
    images, chosen = imbalanced(), load_config(None, ["train.balance=sampling", "train.batch_size=10"])
    drawn = np.concatenate([rows for epoch in range(20) for rows in _shuffled(images, 10, chosen, epoch)])
    assert images.labels[images.train[drawn]].mean() == pytest.approx(0.5, abs=0.05)
    assert training_weights(images, images.train[drawn], chosen.train) is None  # or rare classes would count twice
    judged = judging_weights(images, images.train, chosen.train)
    assert judged[:90].sum() == pytest.approx(judged[90:].sum())


def test_plain_shuffling_shows_each_image_once_and_differs_by_epoch():
    images, chosen = imbalanced(), load_config(None, ["train.batch_size=10"])
    first, second = (np.concatenate(_shuffled(images, 10, chosen, epoch)) for epoch in (1, 2))
    assert sorted(first) == list(range(100))
    assert not np.array_equal(first, second)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "more",
    [
        ["model.head=sigmoid"],
        ["channels=grey", "model.dropout=0.2", "model.batch_norm=true"],
        ["train.precision=mixed_bfloat16", "train.ema=0.5", "model.hidden=8"],
        ["train.precision=mixed_float16"],
        ["augment.mixup=0.2", "train.balance=sampling", "model.head=sigmoid"],
    ],
    ids=lambda more: more[0],
)
def test_every_kind_of_training_learns_two_easy_classes(image_folder, tmp_path, more):
    pytest.importorskip("tensorflow")
    import keras

    run = train(config(image_folder, "train.epochs=12", "train.learning_rate=0.003", *more), out=tmp_path / "run")
    assert run.metrics["splits"]["val"]["accuracy"] >= 0.75
    model = keras.models.load_model(run.model_path)
    assert {variable.dtype for variable in model.weights} == {"float32"}
    assert model.output.shape[-1] == 2
    assert all(0 <= row["waiting"] <= 1 for row in read_history(run))
    scores = read_predictions(run).scores
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)


@pytest.mark.tensorflow
def test_early_stopping_ends_a_training_that_gets_no_better(image_folder, tmp_path):
    pytest.importorskip("tensorflow")
    more = ["train.epochs=60", "train.learning_rate=1e-9", "train.early_stopping=2", "augment.views=1"]
    run = train(config(image_folder, *more), out=tmp_path / "run")
    assert len(read_history(run)) < 60


@pytest.mark.tensorflow
def test_the_temperature_is_folded_into_the_logits_and_changes_no_label():
    pytest.importorskip("tensorflow")
    import keras

    draw = np.random.default_rng(0)
    true = draw.integers(0, 3, 400)
    logits = (8 * np.eye(3)[true] + 9 * draw.normal(size=(400, 3))).astype(np.float32)
    image = keras.Input((3,))
    model = keras.Model(image, keras.layers.Softmax(name="scores")(keras.layers.Dense(3, name="logits")(image)))
    model.get_layer("logits").set_weights([np.eye(3), np.zeros(3)])
    chosen = load_config(None).confidence
    record, scores = calibrate(model, logits, true, val=np.arange(400) < 200, config=chosen)
    assert record["temperature"] > 1.5
    assert record["val_ece_after"] < record["val_ece_before"]
    assert np.abs(model.predict_on_batch(logits) - scores).max() < 1e-5
    assert np.array_equal(scores.argmax(1), logits.argmax(1))


def test_a_sigmoid_head_for_three_classes_is_refused():
    from edgeclf.models.architecture import Architecture, ModelConfig

    with pytest.raises(UsageError, match="exactly two classes"):
        Architecture(image_size=16, channels=3, classes=3, options=ModelConfig(head="sigmoid"))


@pytest.mark.tensorflow
@pytest.mark.slow
def test_jax_trains_the_same_way_and_tensorflow_exports_it_with_equal_predictions(image_folder, tmp_path):
    pytest.importorskip("tensorflow")
    pytest.importorskip("jax")
    import keras

    from edgeclf.data import cache
    from edgeclf.exporting.export import export
    from edgeclf.training.run import image_root, items
    from edgeclf_device.classifier import Classifier

    code = "import sys; from edgeclf.cli import main; main()"
    # What augmentation costs JAX to compile is paid in its own tests.
    plain = ["augment.flip_horizontal=false", "augment.shift=0", "augment.brightness=0", "augment.contrast=0"]
    chosen = [*CNN, "model.batch_norm=true", "train.epochs=6", *plain]
    overrides = [part for one in chosen for part in ("--set", one)]
    done = subprocess.run(
        [sys.executable, "-c", code, "train", str(image_folder), "--out", str(tmp_path / "run"), *overrides],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "run")
    assert run.metrics["versions"]["backend"] == "jax"
    assert run.metrics["splits"]["val"]["accuracy"] >= 0.75
    assert keras.backend.backend() == "tensorflow"
    kept = read_predictions(run)
    pixels = cache.pixels(items(run, ("val", "test")), image_root(run), run.spec)
    loaded = keras.models.load_model(run.model_path)
    assert np.abs(loaded.predict_on_batch(pixels) - kept.scores).max() <= 1e-5
    bundle = export(run.folder, tmp_path / "bundle", schemes=("fp32",))
    for entry in bundle.artifacts:
        with Classifier.open(bundle.path(entry)) as classify:
            scores = np.stack([classify(image).scores for image in pixels])
        assert np.abs(scores - kept.scores).max() <= 1e-5
