"""Training on attacked images: what is refused, what a batch becomes, and that it does what it is for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeclf.training.config import AdversarialConfig, load_config
from edgeclf.training.run import read_history, read_run
from edgeclf.training.train import resolve, train
from edgeclf_device.errors import UsageError

CNN = ["backbone=cnn", "image_size=16", "train.batch_size=8", "model.filters=4"]


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("tensorflow")
    return pytest.importorskip("keras")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "cw"}, "adversarial.method must be one of none, fgsm, pgd"),
        ({"epsilon": 0}, "adversarial.epsilon must be from 1 to 255"),
        ({"epsilon": 256}, "adversarial.epsilon must be from 1 to 255"),
        ({"steps": 0}, "adversarial.steps must be from 1"),
        ({"step_size": float("nan")}, "adversarial.step_size must be from 0 to 255"),
        ({"share": 0.0}, "adversarial.share must be above 0"),
    ],
)
def test_a_value_out_of_its_range_is_refused(values, message):
    with pytest.raises(UsageError, match=message):
        AdversarialConfig(**values)


def test_an_epsilon_as_a_share_of_one_is_refused():
    with pytest.raises(UsageError, match=r"adversarial.epsilon must be of type int, but it is 0.03"):
        load_config(None, ["adversarial.epsilon=0.03"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.epochs=3"], "the phase upper is trained on what the frozen blocks made .*train.fine_tune_from=all"),
        (["train.epochs=1"], "one epoch is the linear probe alone"),
    ],
)
def test_a_training_without_images_to_attack_is_refused(tmp_path, overrides, message):
    config = load_config(None, [f"data={json.dumps(str(tmp_path))}", "adversarial.method=fgsm", *overrides])
    with pytest.raises(UsageError, match=message):
        resolve(config)


def test_where_every_block_is_trained_pretrained_weights_may_be_hardened(tmp_path):
    resolve(
        load_config(
            None,
            [
                f"data={json.dumps(str(tmp_path))}",
                "adversarial.method=fgsm",
                "train.fine_tune_from=all",
                "train.epochs=2",
            ],
        )
    )


@pytest.mark.tensorflow
def test_a_share_of_a_batch_is_changed_wherever_it_lies_and_by_no_more_than_epsilon(keras):
    from edgeclf.training.adversarial import hardening

    image = keras.Input((4, 4, 1), dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 128)(image))
    model = keras.Model(image, keras.layers.Dense(2)(flat))
    model.compile("adam", loss=keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False)
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1)).astype(np.uint8)
    batch = images, np.eye(2, dtype=np.float32)[[0] * 10 + [1] * 10], np.arange(20, dtype=np.float32)
    config = load_config(None, ["adversarial.method=pgd", "adversarial.epsilon=3", "adversarial.share=0.25"])
    harden = hardening(model, config)
    hardened, targets, weights = harden(batch)
    assert targets is batch[1]
    assert weights is batch[2]
    distance = np.abs(hardened.astype(int) - images).max(axis=(1, 2, 3))
    assert np.count_nonzero(distance) == 5
    assert distance.max() == 3
    assert 0 < np.flatnonzero(distance).mean() < 19
    assert np.array_equal(harden(batch)[0], hardened)
    model.train_on_batch(*batch[:2])
    assert not np.array_equal(harden(batch)[0], hardened)


@pytest.mark.tensorflow
def test_epochs_are_judged_by_attacked_images(keras, image_folder, tmp_path):
    attack = ["adversarial.method=pgd", "adversarial.epsilon=60", "adversarial.steps=2", "confidence.temperature=false"]
    data = f"data={json.dumps(str(image_folder))}"
    run = train(load_config(None, [*CNN, *attack, data, "train.epochs=2"]), out=tmp_path / "run")
    assert run.config.adversarial.method == "pgd"
    best = min(row["val_loss"] for row in read_history(run))
    assert best > run.metrics["splits"]["val"]["log_loss"] + 0.1


@pytest.mark.slow
@pytest.mark.tensorflow
def test_jax_hardens_for_int8_too_and_the_command_has_an_option_for_it(image_folder, tmp_path):
    pytest.importorskip("jax")
    out = tmp_path / "run"
    command = [sys.executable, "-m", "edgeclf", "train", str(image_folder), "--out", str(out), "--epochs", "2", "--qat"]
    options = [item for one in [*CNN[1:], "train.qat_epochs=1"] for item in ("--set", one)]
    subprocess.run(
        [*command, "--backbone", "cnn", "--adversarial", "fgsm", *options],
        check=True,
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=Path(__file__).parents[2],
    )
    run = read_run(out)
    assert [row["phase"] for row in read_history(run)] == ["all", "qat"]
    assert (run.metrics["versions"]["backend"], run.config.adversarial.method) == ("jax", "fgsm")
