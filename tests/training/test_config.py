from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclf.training.config import SplitConfig, TrainConfig, load_config, to_toml
from edgeclf.training.train import resolve
from edgeclf_device.errors import UsageError


def test_defaults_hold_where_nothing_is_said():
    assert load_config() == TrainConfig()


def test_a_file_is_laid_over_the_defaults_and_overrides_over_the_file(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(
        "seed = 4\n[train]\nepochs = 3\n[model]\ndropout = 0\n[split]\ntrain = 0.5\nval = 0.25\ntest = 0.25\n"
    )
    config = load_config(file, ["train.epochs=9", "crop=center", "augment.flip_vertical = true"])
    assert (config.seed, config.train.epochs, config.model.dropout) == (4, 9, 0.0)
    assert (config.crop, config.augment.flip_vertical) == ("center", True)
    assert config.split.fractions == (0.5, 0.25, 0.25)


def test_a_backbone_brings_its_own_defaults_wherever_it_is_named(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('backbone = "cnn"\n[train]\nepochs = 3\n')
    config = load_config(file, ["image_size=40"])
    assert (config.weights, config.train.epochs, config.image_size) == ("none", 3, 40)
    assert load_config(None, ["weights=none", "backbone=efficientnet_lite0"]).image_size == 224
    assert load_config(None, ['backbone="cnn"']) == load_config(None, ["backbone=cnn"])
    with pytest.raises(UsageError, match="backbone must be"):
        load_config(None, ["backbone=alexnet"])
    file.write_text("backbone = 3\n")
    with pytest.raises(UsageError, match="backbone must be of type str"):
        load_config(file)


@given(text=st.text(st.characters(exclude_categories=["Cs"])), seed=st.integers(0, 2**32 - 1), share=st.floats(0, 0.99))
def test_what_is_written_reads_back_equal(tmp_path_factory, text, seed, share):
    config = load_config(None, [f"model.dropout={share!r}", f"seed={seed}"])
    config = dataclasses.replace(config, licence=text, name="Prüfung 1.0", data='C:\\daten\\"ü"')
    file = tmp_path_factory.getbasetemp() / "roundtrip.toml"
    file.write_text(to_toml(config), encoding="utf-8", newline="")
    assert load_config(file) == config


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.epoch=3", "train.epochs"),
        ("epochs=3", "train.epochs"),
        ("backbon=x", "backbone"),
        ("augment.flip=true", "augment.flip_horizontal"),
        ("image-size=64", "image_size"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(override, nearest):
    with pytest.raises(UsageError, match=f"nearest is '{nearest}'"):
        load_config(None, [override])


@pytest.mark.parametrize(
    "override",
    [
        "train.epochs=many",
        "train.epochs=0",
        "train.epochs=2.5",
        "train=3",
        "train.deterministic=1",
        "seed=-1",
        "image_size=7",
        "augment.shift=1.5",
        "augment.jpeg=2",
        "augment.cutmix=1.5",
        "train.all_epochs=8",
        "train.balance=yes",
        "train.ema=1",
        "model.head=tanh",
        "model.width=100",
        "confidence.accept_accuracy=7",
        "train.learning_rate=0",
        "justaword",
        "=3",
    ],
)
def test_a_wrong_value_is_refused(override):
    with pytest.raises(UsageError):
        load_config(None, [override])


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("[train\n")
    with pytest.raises(UsageError, match="not TOML"):
        load_config(file)
    with pytest.raises(UsageError, match="can't be read"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize("override", ["name=a/b", "name=..", "name=.hidden", "train.learning_rate=inf"])
def test_a_value_that_would_fail_only_at_the_end_is_refused_at_once(override):
    with pytest.raises(UsageError):
        load_config(overrides=[override])


@pytest.mark.parametrize("name", ["1.10", "2026-01-01", "true", "plain words"])
def test_a_name_that_looks_like_something_else_is_kept_as_written(name):
    assert load_config(overrides=[f"name={name}"]).name == name


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.1), (float("nan"), 0.5, 0.5), (1.0, 0.0, 0.0)])
def test_shares_that_are_none_are_refused_before_any_work(shares):
    config = TrainConfig(data="x", split=SplitConfig(train=shares[0], val=shares[1], test=shares[2]))
    with pytest.raises(UsageError, match="sum to 1"):
        resolve(config)
