from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclf.training.config import TrainConfig, load_config, to_toml
from edgeclf_device.errors import UsageError


def test_defaults_hold_where_nothing_is_said():
    assert load_config() == TrainConfig()


def test_a_file_is_laid_over_the_defaults_and_overrides_over_the_file(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("seed = 4\n[train]\nepochs = 3\ndropout = 0\n[split]\ntrain = 0.5\nval = 0.25\ntest = 0.25\n")
    config = load_config(file, ["train.epochs=9", "crop=center", "augment.flip_vertical = true"])
    assert (config.seed, config.train.epochs, config.train.dropout) == (4, 9, 0.0)
    assert (config.crop, config.augment.flip_vertical) == ("center", True)
    assert config.split.fractions == (0.5, 0.25, 0.25)


def test_overrides_are_laid_over_a_base():
    base = dataclasses.replace(TrainConfig(), name="solar", seed=3)
    assert load_config(None, ["seed=5"], base=base) == dataclasses.replace(base, seed=5)


@given(name=st.text(st.characters(exclude_categories=["Cs"])), seed=st.integers(0, 2**32 - 1), share=st.floats(0, 0.99))
def test_what_is_written_reads_back_equal(tmp_path_factory, name, seed, share):
    config = load_config(None, [f"train.dropout={share!r}", f"seed={seed}"])
    config = dataclasses.replace(config, name=name, data='C:\\daten\\"ü"')
    file = tmp_path_factory.getbasetemp() / "roundtrip.toml"
    file.write_text(to_toml(config), encoding="utf-8", newline="")
    assert load_config(file) == config


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.epoch=3", "train.epochs"),
        ("epochs=3", "train.epochs"),
        ("backbon=x", "backbone"),
        ("augment.flip=true", "augment.flip_vertical"),
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
