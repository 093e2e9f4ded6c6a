"""The configuration of one training: every choice with its default, read from TOML and from ``key=value`` overrides."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tomllib

from edgeclf_device.errors import UsageError
from edgeclf_device.preprocess import PrepareSpec

Config = TypeVar("Config")


class _Override(str):
    """The text of a ``--set``, whose meaning depends on the key: a name may look like a number."""

    __slots__ = ()


def _require(key: str, constraint: str, value: object, *, holds: bool) -> None:
    if not holds:
        raise UsageError(f"{key} must be {constraint}, but it is {value!r}.")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Shares of the images; they sum to 1. A listing's own splits come before them."""

    train: float = 0.7
    val: float = 0.2
    test: float = 0.1

    @property
    def fractions(self) -> tuple[float, float, float]:
        """The shares in the order train, val, test."""
        return self.train, self.val, self.test


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is varied between the views of a training image (``edgeclf.training.augment``).

    Attributes:
        views: how many views of each image are prepared; the first is the image itself.
        flip_horizontal, flip_vertical: whether the class survives a mirror image.
        shift: largest shift, as a share of the side.
        brightness: largest change, as a share of the full range.
        contrast: largest change of the spread about the mean, as a share of it.
    """

    views: int = 4
    flip_horizontal: bool = True
    flip_vertical: bool = False
    shift: float = 0.05
    brightness: float = 0.075
    contrast: float = 0.15

    def __post_init__(self) -> None:
        _require("augment.views", "at least 1", self.views, holds=self.views >= 1)
        for name in ("shift", "brightness", "contrast"):
            _require(f"augment.{name}", "from 0 to below 1", getattr(self, name), holds=0 <= getattr(self, name) < 1)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How the weights are found.

    Attributes:
        epochs: passes of the training images through the network, over all phases: the first is the linear probe
            (where there are pretrained weights), the others are fine-tuning.
        fine_tune_from: lowest block that fine-tuning changes; empty: the backbone's own choice, ``all``: every block.
        batch_size: images per step.
        learning_rate: peak of fine-tuning's cosine schedule, reached after one epoch.
        weight_decay: of AdamW, in fine-tuning.
        label_smoothing: share of the target spread over all classes.
        dropout: share of the features dropped before the head.
        deterministic: make two trainings with equal seed and configuration give equal weights on one machine.
    """

    epochs: int = 8
    fine_tune_from: str = ""
    batch_size: int = 32
    learning_rate: float = 2e-4
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    dropout: float = 0.3
    deterministic: bool = True

    def __post_init__(self) -> None:
        _require("train.epochs", "at least 1", self.epochs, holds=self.epochs >= 1)
        _require("train.batch_size", "at least 1", self.batch_size, holds=self.batch_size >= 1)
        _require(
            "train.learning_rate", "above 0 and finite", self.learning_rate, holds=0 < self.learning_rate < math.inf
        )
        _require(
            "train.weight_decay", "at least 0 and finite", self.weight_decay, holds=0 <= self.weight_decay < math.inf
        )
        for name in ("label_smoothing", "dropout"):
            _require(f"train.{name}", "from 0 to below 1", getattr(self, name), holds=0 <= getattr(self, name) < 1)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a training gives, with the defaults of ``edgeclf train``.

    Attributes:
        name: of the model; empty: the name of the data's folder.
        data: folder of images, or listing.
        licence: of the data, to be stated in every artifact; empty: unknown.
        seed: of the split, the weights, the order of the images and the augmentation.
        backbone: see ``edgeclf.models.registry``.
        weights: ``imagenet`` or ``none``.
        image_size: side of the square the model sees, in pixels; 0: the backbone's own.
        channels, crop, crop_fraction: see ``edgeclf_device.preprocess.PrepareSpec``.
    """

    name: str = ""
    data: str = ""
    licence: str = ""
    seed: int = 0
    backbone: str = "efficientnet_lite0"
    weights: str = "imagenet"
    image_size: int = 0
    channels: str = "rgb"
    crop: str = "stretch"
    crop_fraction: float = 1.0
    split: SplitConfig = field(default_factory=SplitConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        _require("seed", "from 0 to 2^32 - 1", self.seed, holds=0 <= self.seed < 1 << 32)
        plain = self.name == Path(self.name).name and not self.name.startswith(".") and self.name.isprintable()
        _require("name", "a plain file name without / that does not begin with a dot", self.name, holds=plain)
        small_enough = self.image_size == 0 or 32 <= self.image_size <= 4096
        _require("image_size", "0 (the backbone's own) or from 32 to 4096", self.image_size, holds=small_enough)

    @property
    def spec(self) -> PrepareSpec:
        """The preprocessing; ``image_size`` must have been resolved."""
        return PrepareSpec(
            height=self.image_size,
            width=self.image_size,
            channels=self.channels,  # type: ignore[arg-type]  # PrepareSpec refuses any other word itself
            crop=self.crop,  # type: ignore[arg-type]
            crop_fraction=self.crop_fraction,
        )


def load_config(
    file: Path | None = None, overrides: Sequence[str] = (), *, base: TrainConfig | None = None
) -> TrainConfig:
    """Lay a TOML file and then ``a.b=v`` overrides over ``base`` (default: ``TrainConfig()``).

    A value of an override is TOML where it can be read as such, and otherwise a word: ``crop=center`` is fine.

    Raises:
        UsageError: no such file, no TOML, an unknown key (the nearest valid one is named), or a wrong value.
    """
    config = base or TrainConfig()
    if file is not None:
        config = _merged(config, _read(file), prefix="")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"An override must be key=value, such as train.epochs=3, but {override!r} was given.")
        config = _merged(config, _nested(key.strip().split("."), _Override(value.strip())), prefix="")
    return config


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The configuration {file} can't be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"The configuration {file} is not TOML: {error}.") from error


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return {**value}


def _merged(config: Config, values: Mapping[str, Any], *, prefix: str) -> Config:
    """Return ``config`` with ``values`` laid over it, checking names and types."""
    hints = get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in hints:
            raise UsageError(f"There is no configuration key {name!r}; the nearest is {_nearest(name)!r}.")
        current = getattr(config, key)
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                raise UsageError(f"{name} must be a table, but it is {value!r}.")
            changes[key] = _merged(current, value, prefix=f"{name}.")
        else:
            changes[key] = _typed(name, hints[key], value)
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]  # a dataclass by construction


def _typed(name: str, wanted: type, value: Any) -> Any:
    if isinstance(value, _Override):
        parsed = _value(value)
        value = str(value) if wanted is str and type(parsed) is not str else parsed
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise UsageError(f"{name} must be of type {wanted.__name__}, but it is {value!r}.")
    return value


def _nearest(name: str) -> str:
    known = [key for key, _ in _flat(TrainConfig())]
    by_last_part = {key.rpartition(".")[2]: key for key in reversed(known)}
    if found := difflib.get_close_matches(name, known, n=1, cutoff=0.6):
        return found[0]
    if found := difflib.get_close_matches(name.rpartition(".")[2], by_last_part, n=1, cutoff=0.6):
        return by_last_part[found[0]]
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for one in fields(config):
        value = getattr(config, one.name)
        if is_dataclass(value):
            yield from _flat(value, f"{prefix}{one.name}.")
        else:
            yield f"{prefix}{one.name}", value


def to_toml(config: TrainConfig) -> str:
    """Write ``config`` as TOML that ``load_config`` reads back to an equal value."""
    tables: dict[str, list[str]] = {}
    for key, value in _flat(config):
        table, _, name = key.rpartition(".")
        # JSON's notation of booleans, numbers and strings is TOML's too, but for the one character DEL.
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        tables.setdefault(table, []).append(f"{name} = {text}")
    return "\n\n".join("\n".join([f"[{table}]", *lines] if table else lines) for table, lines in tables.items()) + "\n"
