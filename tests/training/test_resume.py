from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeclf.training.config import load_config
from edgeclf.training.journal import CHECKPOINT, folder_of, read_checkpoint
from edgeclf.training.run import read_history, read_run
from edgeclf.training.train import train
from edgeclf_device.errors import ModelError, UsageError

pytestmark = pytest.mark.tensorflow

NETWORKS = {
    "cnn": [
        "backbone=cnn",
        "image_size=16",
        "train.epochs=5",
        "train.batch_size=4",
        "model.dropout=0.3",
        "model.batch_norm=true",
        "train.ema=0.9",
        "augment.rotation=10",
    ],
    "pretrained": [
        "image_size=32",
        "train.epochs=5",
        "train.all_epochs=2",
        "train.batch_size=8",
        "augment.views=2",
        "train.fine_tune_from=block15",
    ],
}

CHILD = """
import json, sys
from pathlib import Path
from edgeclf.training.config import load_config
from edgeclf.training.train import train

def progress(items, description, total=None):
    for number, item in enumerate(items):
        print(f"{description}: {number}", flush=True)
        yield item

out, *overrides = sys.argv[1:]
train(load_config(None, overrides), out=Path(out), progress=progress)
"""


def overrides(data: Path, network: str) -> list[str]:
    return [f"data={json.dumps(str(data))}", *NETWORKS[network]]


def start(data: Path, out: Path, network: str) -> subprocess.Popen[str]:
    """A training in a process of its own, which says what it is at."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(out), *overrides(data, network)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize(
    ("network", "killed_in"),
    [
        ("cnn", "training (all), epoch 3: 3"),
        pytest.param("pretrained", "training (upper), epoch 3: 1", marks=pytest.mark.slow),
        pytest.param("pretrained", "training (all), epoch 5: 1", marks=pytest.mark.slow),
    ],
)
def test_a_training_killed_in_mid_epoch_ends_like_an_unbroken_one(image_folder, tmp_path, network, killed_in):
    pytest.importorskip("tensorflow")
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    child = start(image_folder, broken, network)
    for line in child.stdout:
        if line.startswith(killed_in):
            child.send_signal(signal.SIGKILL)
            break
    assert child.wait(60) == -signal.SIGKILL
    assert not broken.exists()
    done = len(read_checkpoint(folder_of(broken) / CHECKPOINT).history)
    told = []

    def progress(items, description, total=None):
        told.append(description)
        yield from items

    training = load_config(None, overrides(image_folder, network))
    train(training, out=broken, resume=True, progress=progress)
    assert not [line for line in told if line.endswith(f"epoch {done}")]
    assert [line for line in told if line.endswith(f"epoch {done + 1}")]
    train(training, out=unbroken)
    expected, found = read_run(unbroken), read_run(broken)
    assert [row["epoch"] for row in read_history(found)] == [row["epoch"] for row in read_history(expected)]
    for part in ("val", "test"):
        for name in ("accuracy", "f1_macro"):
            assert found.metrics["splits"][part][name] == pytest.approx(
                expected.metrics["splits"][part][name], abs=1e-3
            )
    assert [row["val_loss"] for row in read_history(found)] == pytest.approx(
        [row["val_loss"] for row in read_history(expected)], abs=1e-3
    )
    assert found.metrics["weights_sha256"] == expected.metrics["weights_sha256"]
    assert not folder_of(broken).exists()
    assert list((broken / "tensorboard").iterdir())


@pytest.fixture(scope="module")
def interrupted(image_folder, tmp_path_factory) -> Path:
    """Where a run would be whose training was interrupted."""
    pytest.importorskip("tensorflow")
    out = tmp_path_factory.mktemp("interrupted") / "run"

    def progress(items, description, total=None):
        if "epoch 2" in description:
            raise KeyboardInterrupt
        yield from items

    with pytest.raises(KeyboardInterrupt):
        train(config(image_folder), out=out, progress=progress)
    return out


def config(data: Path, *more: str):
    return load_config(None, [*overrides(data, "cnn"), *more])


def test_an_interrupted_training_is_not_lost_by_beginning_anew(image_folder, interrupted):
    with pytest.raises(UsageError, match=r"holds an interrupted training; add --resume"):
        train(config(image_folder), out=interrupted)
    assert (folder_of(interrupted) / CHECKPOINT).is_file()


def test_another_configuration_does_not_go_on(image_folder, interrupted):
    with pytest.raises(UsageError, match="another configuration"):
        train(config(image_folder, "train.learning_rate=0.5"), out=interrupted, resume=True)


def test_there_must_be_something_to_resume(image_folder, tmp_path):
    with pytest.raises(UsageError, match="nothing to resume"):
        train(config(image_folder), out=tmp_path / "run", resume=True)


def test_a_run_that_was_finished_meanwhile_is_taken_as_it_is(image_folder, tmp_path):
    pytest.importorskip("tensorflow")
    made = train(config(image_folder), out=tmp_path / "run")
    assert train(config(image_folder), out=tmp_path / "run", resume=True).metrics == made.metrics
    with pytest.raises(UsageError, match="finished run of another configuration"):
        train(config(image_folder, "seed=9"), out=tmp_path / "run", resume=True)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x00" * 100])
def test_a_damaged_checkpoint_is_refused(tmp_path, content):
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(ModelError, match="is damaged"):
        read_checkpoint(tmp_path / CHECKPOINT)
