"""The configuration of one training: every choice with its default, read from TOML and from ``key=value`` overrides.

The defaults are those of a backbone: ``edgeclf.models.registry`` says where one differs from ``TrainConfig()``.
"""

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

from edgeclf.models import registry
from edgeclf.models.architecture import ModelConfig
from edgeclf_device.clips import ClipSpec, Spec
from edgeclf_device.errors import UsageError
from edgeclf_device.preprocess import PrepareSpec

Config = TypeVar("Config")

BATCH_NORMS = ("frozen", "trained")
BALANCES = ("none", "weights", "sampling")
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
ATTACKS = ("none", "fgsm", "pgd")


class _Override(str):
    """The text of a ``--set``, whose meaning depends on the key: a name may look like a number."""

    __slots__ = ()


def _require(key: str, constraint: str, value: object, *, holds: bool) -> None:
    if not holds:
        raise UsageError(f"{key} must be {constraint}, but it is {value!r}.")


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Which frames of a video a network for clips sees; see ``edgeclf_device.clips.ClipSpec``.

    Attributes:
        window: frames that a decision sees; 1: single images.
        stride: ticks from one decision on a stream to the next.
        fps: ticks a second.
    """

    window: int = 1
    stride: int = 1
    fps: float = 8.0

    def __post_init__(self) -> None:
        _require("clip.window", "at least 1", self.window, holds=self.window >= 1)


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Shares of the images; they sum to 1. A listing's or folder's own splits come before them.

    Attributes:
        train, val, test: the shares.
        near_duplicates: keep images that look the same on one side, not only those of equal bytes.
    """

    train: float = 0.7
    val: float = 0.2
    test: float = 0.1
    near_duplicates: bool = True

    @property
    def fractions(self) -> tuple[float, float, float]:
        """The shares in the order train, val, test."""
        return self.train, self.val, self.test


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is varied between the views of a training image (``edgeclf.training.augment``).

    Attributes:
        views: how many views of each image are prepared where lower blocks are frozen; the first is the image itself.
        flip_horizontal, flip_vertical: whether the class survives a mirror image.
        rotation: largest angle, in degrees.
        shift: largest shift, as a share of the side.
        zoom: largest change of scale, as a share.
        crop: largest share of the side that a crop cuts away before it is resized.
        brightness: largest change, as a share of the full range.
        contrast: largest change of the spread about the mean, as a share of it.
        saturation, hue: largest changes of colour, as a share of the full range.
        rand_augment: magnitude of RandAugment (1909.13719), 0 to 1; 0: none.
        mixup, cutmix: parameter of the beta distribution (1710.09412, 1905.04899); 0: none.
        erasing: probability that a rectangle is erased (1708.04896).
        motion_blur, noise, jpeg, white_balance, low_light: probability of each fault of a camera.
    """

    views: int = 4
    flip_horizontal: bool = True
    flip_vertical: bool = False
    rotation: float = 0.0
    shift: float = 0.05
    zoom: float = 0.0
    crop: float = 0.0
    brightness: float = 0.075
    contrast: float = 0.15
    saturation: float = 0.0
    hue: float = 0.0
    rand_augment: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    erasing: float = 0.0
    motion_blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0
    white_balance: float = 0.0
    low_light: float = 0.0

    def __post_init__(self) -> None:
        _require("augment.views", "at least 1", self.views, holds=self.views >= 1)
        _require("augment.rotation", "from 0 to 180", self.rotation, holds=0 <= self.rotation <= 180)
        for name in ("shift", "zoom", "crop", "brightness", "contrast", "saturation", "hue"):
            _require(f"augment.{name}", "from 0 to below 1", getattr(self, name), holds=0 <= getattr(self, name) < 1)
        for name in ("rand_augment", "cutmix", "erasing", "motion_blur", "noise", "jpeg", "white_balance", "low_light"):
            _require(f"augment.{name}", "from 0 to 1", getattr(self, name), holds=0 <= getattr(self, name) <= 1)
        _require("augment.mixup", "from 0 to 10", self.mixup, holds=0 <= self.mixup <= 10)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How the weights are found.

    Attributes:
        epochs: passes of the training images through the network, over all phases. Where there are pretrained weights
            the first is the linear probe, the last ``all_epochs`` train every block, and those between train the
            blocks from ``fine_tune_from`` upwards.
        all_epochs: see there.
        qat: end with quantization-aware training (``edgeclf.training.qat``).
        qat_epochs: how many of the epochs that takes; at least one is left for what comes before it.
        qat_learning_rate: its peak; 0: a tenth of ``learning_rate``.
        fine_tune_from: lowest of the upper blocks; ``all``: every block.
        batch_size: images per step.
        probe_learning_rate, learning_rate, all_learning_rate: peaks of the three phases' cosine schedules. Random
            weights are trained in one phase, at ``learning_rate``.
        warm_up_epochs: of a phase, during which its learning rate rises.
        weight_decay: of AdamW.
        clip_norm: largest norm of a step's gradients; 0: any.
        label_smoothing: share of the target spread over all classes.
        ema: momentum of the moving average of the weights that is judged and kept; 0: the weights themselves.
        early_stopping: epochs without a better validation loss after which a phase ends; 0: never.
        batch_norm: ``frozen`` (pretrained statistics stay, folded into the convolutions meanwhile) or ``trained``.
        balance: ``none``, ``weights`` (rare classes weigh more) or ``sampling`` (rare classes are drawn more often).
        precision: ``auto`` (mixed on a GPU, float32 elsewhere), ``float32``, ``mixed_float16`` or ``mixed_bfloat16``.
        deterministic: make two trainings with equal seed and configuration give equal weights on one machine.
    """

    epochs: int = 8
    all_epochs: int = 0
    qat: bool = False
    qat_epochs: int = 2
    fine_tune_from: str = "block05"
    batch_size: int = 32
    probe_learning_rate: float = 1e-2
    learning_rate: float = 2e-4
    all_learning_rate: float = 5e-5
    qat_learning_rate: float = 0.0
    warm_up_epochs: float = 1.0
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    ema: float = 0.0
    early_stopping: int = 0
    batch_norm: str = "frozen"
    balance: str = "none"
    precision: str = "auto"
    deterministic: bool = True

    def __post_init__(self) -> None:
        def check(name: str, constraint: str, *, holds: bool) -> None:
            _require(f"train.{name}", constraint, getattr(self, name), holds=holds)

        for name in ("epochs", "qat_epochs", "batch_size"):
            check(name, "at least 1", holds=getattr(self, name) >= 1)
        for name in ("probe_learning_rate", "learning_rate", "all_learning_rate"):
            check(name, "above 0 and finite", holds=0 < getattr(self, name) < math.inf)
        for name in ("qat_learning_rate", "weight_decay", "warm_up_epochs", "clip_norm"):
            check(name, "at least 0 and finite", holds=0 <= getattr(self, name) < math.inf)
        for name in ("label_smoothing", "ema"):
            check(name, "from 0 to below 1", holds=0 <= getattr(self, name) < 1)
        check("all_epochs", "at least 0 and below train.epochs", holds=0 <= self.all_epochs < self.epochs)
        check("early_stopping", "at least 0", holds=self.early_stopping >= 0)
        for name, words in (("batch_norm", BATCH_NORMS), ("balance", BALANCES), ("precision", PRECISIONS)):
            check(name, f"one of {', '.join(words)}", holds=getattr(self, name) in words)


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """Training on attacked images (``edgeclf.training.adversarial``).

    Attributes:
        method: ``none``, ``fgsm`` (one step from a random start) or ``pgd``.
        epsilon: largest change of a pixel's value, which is 0 to 255.
        steps: of ``pgd``.
        step_size: change of a value in one step; 0: 1.25 epsilon with ``fgsm``, 2.5 epsilon / steps with ``pgd``.
        share: of the images of a batch that are attacked.
    """

    method: str = "none"
    epsilon: int = 8
    steps: int = 7
    step_size: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        def check(name: str, constraint: str, *, holds: bool) -> None:
            _require(f"adversarial.{name}", constraint, getattr(self, name), holds=holds)

        check("method", f"one of {', '.join(ATTACKS)}", holds=self.method in ATTACKS)
        check("epsilon", "from 1 to 255, in steps of a pixel's 256 values", holds=1 <= self.epsilon <= 255)
        check("steps", "from 1 to 1000", holds=1 <= self.steps <= 1000)
        check("step_size", "from 0 to 255", holds=0 <= self.step_size <= 255)
        check("share", "above 0 and at most 1", holds=0 < self.share <= 1)


@dataclass(frozen=True, kw_only=True)
class SemiConfig:
    """What is learnt from images without labels (``edgeclf.training.semi``).

    Attributes:
        unlabeled: their folder; empty: there are none.
        ratio: how many of them come with each labelled image of a step.
        weight: of their loss, beside that of the labelled images.
        threshold: score that a label must reach to be learnt from, as a share of the highest that ``label_smoothing``
            lets a label have; a teacher's scores are all learnt from.
        rand_augment, erasing: of the strong view, as in ``AugmentConfig``; where that asks for more, that holds.
    """

    unlabeled: str = ""
    ratio: int = 4
    weight: float = 1.0
    threshold: float = 0.95
    rand_augment: float = 0.5
    erasing: float = 0.5

    def __post_init__(self) -> None:
        _require("semi.ratio", "from 1 to 64", self.ratio, holds=1 <= self.ratio <= 64)
        _require("semi.weight", "above 0 and finite", self.weight, holds=0 < self.weight < math.inf)
        for name in ("threshold", "rand_augment", "erasing"):
            _require(f"semi.{name}", "from 0 to 1", getattr(self, name), holds=0 <= getattr(self, name) <= 1)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """What is learnt from another model (``edgeclf.training.teacher``).

    Attributes:
        teacher: a run, a .keras file or an artifact; empty: there is none.
        share: of the loss that is the teacher's; the labels have the rest.
        temperature: that the teacher's and the student's logits are divided by (1503.02531).
    """

    teacher: str = ""
    share: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        _require("distill.share", "above 0 and below 1", self.share, holds=0 < self.share < 1)
        _require("distill.temperature", "from 1 to 100", self.temperature, holds=1 <= self.temperature <= 100)


@dataclass(frozen=True, kw_only=True)
class ConfidenceConfig:
    """What the validation images teach about the scores.

    Attributes:
        temperature: scale the logits so that a score is the probability of being right (1706.04599).
        accept_accuracy: the reject threshold is the lowest score from which so large a share is right; 0: no threshold.
    """

    temperature: bool = True
    accept_accuracy: float = 0.95

    def __post_init__(self) -> None:
        _require(
            "confidence.accept_accuracy", "from 0 to 1", self.accept_accuracy, holds=0 <= self.accept_accuracy <= 1
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a training gives; the defaults are those of the backbone ``efficientnet_lite0``.

    Attributes:
        name: of the model; empty: the name of the data's folder.
        data: folder of images, or listing.
        licence: of the data, to be stated in every artifact; empty: unknown.
        seed: of the split, the weights, the order of the images and the augmentation.
        backbone: see ``edgeclf.models.registry``; ``module:function`` names a function of the user's.
        weights: ``imagenet``, ``none`` or a file.
        image_size: side of the square the model sees, in pixels.
        channels, crop, crop_fraction: see ``edgeclf_device.preprocess.PrepareSpec``.
    """

    name: str = ""
    data: str = ""
    licence: str = ""
    seed: int = 0
    backbone: str = "efficientnet_lite0"
    weights: str = "imagenet"
    image_size: int = 224
    channels: str = "rgb"
    crop: str = "stretch"
    crop_fraction: float = 1.0
    clip: ClipConfig = field(default_factory=ClipConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: FitConfig = field(default_factory=FitConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    semi: SemiConfig = field(default_factory=SemiConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)

    def __post_init__(self) -> None:
        _require("seed", "from 0 to 2^32 - 1", self.seed, holds=0 <= self.seed < 1 << 32)
        plain = self.name == Path(self.name).name and not self.name.startswith(".") and self.name.isprintable()
        _require("name", "a plain file name without / that does not begin with a dot", self.name, holds=plain)
        _require("image_size", "from 8 to 4096", self.image_size, holds=8 <= self.image_size <= 4096)

    @property
    def two_part_targets(self) -> bool:
        """Whether models teach beside the labels: a teacher, or on unlabelled images the network itself."""
        return bool(self.distill.teacher or self.semi.unlabeled)

    @property
    def spec(self) -> Spec:
        """The preprocessing, and of a network for clips the window too."""
        frame = PrepareSpec(
            height=self.image_size,
            width=self.image_size,
            channels=self.channels,  # type: ignore[arg-type]  # PrepareSpec refuses any other word itself
            crop=self.crop,  # type: ignore[arg-type]
            crop_fraction=self.crop_fraction,
        )
        if self.clip.window == 1:
            return frame
        return ClipSpec(frame=frame, window=self.clip.window, stride=self.clip.stride, fps=self.clip.fps)


def load_config(file: Path | None = None, overrides: Sequence[str] = ()) -> TrainConfig:
    """Lay a TOML file and then ``a.b=v`` overrides over the defaults of the backbone that they name.

    A value of an override is TOML where it can be read as such, and otherwise a word: ``crop=center`` is fine.

    Raises:
        UsageError: no such file, no TOML, an unknown key (the nearest valid one is named), an unknown backbone, or a
            wrong value.
    """
    layers = [_read(file)] if file is not None else []
    layers += [_parsed(override) for override in overrides]
    named = next((layer["backbone"] for layer in reversed(layers) if "backbone" in layer), TrainConfig.backbone)
    backbone = _typed("backbone", str, named)
    config = TrainConfig()
    for layer in [*map(_parsed, registry.backbone(backbone).defaults), *layers]:
        config = _merged(config, layer, prefix="")
    return config


def _parsed(override: str) -> dict[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"An override must be key=value, such as train.epochs=3, but {override!r} was given.")
    return _nested(key.strip().split("."), _Override(value.strip()))


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
    if beginning := [key for key in known if key.startswith(name)]:
        return beginning[0]
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
