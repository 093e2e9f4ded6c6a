"""preprocess.toml: how images are prepared for a model that was trained elsewhere, and what it expects and answers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomllib

from edgeclf.exporting.convention import Convention
from edgeclf.exporting.untrusted import read_text
from edgeclf_device.errors import DataError, UsageError, first_line
from edgeclf_device.preprocess import PrepareSpec

CHANNELS = ("rgb", "bgr", "grey")
OUTPUTS = ("probabilities", "logits")

_SPEC = tuple(field.name for field in dataclasses.fields(PrepareSpec))
_VALUES = ("scale", "offset", "mean", "std")


def read_preprocess(path: Path) -> tuple[PrepareSpec, Convention]:
    """How to prepare images, and what the model makes of them.

    The fields of ``PrepareSpec``, of which ``channels`` may be ``bgr`` too; ``scale`` and ``offset``
    (``pixel * scale + offset``) or ``mean`` and ``std`` (``(pixel - mean) / std``) of pixels 0 to 255, each one number
    or one for each channel in the model's order; ``outputs``: ``probabilities`` or ``logits``.

    Raises:
        DataError: no such file, no TOML, an unknown, missing or contradictory field, or a value out of range.
    """
    try:
        given = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{path} must be TOML, but it is not: {first_line(error)}; see docs/how-to.") from error
    try:
        return _read(given)
    except (UsageError, TypeError) as error:
        raise DataError(f"{path}: {first_line(error)}") from error


def _read(given: Mapping[str, Any]) -> tuple[PrepareSpec, Convention]:
    unknown = sorted(set(given) - {*_SPEC, *_VALUES, "outputs"})
    if unknown:
        raise UsageError(f"The fields are {', '.join((*_SPEC, *_VALUES, 'outputs'))}, but {unknown[0]} is given.")
    missing = [side for side in ("height", "width", "channels") if side not in given]
    if missing:
        raise UsageError(f"{missing[0]} is needed, but it is not given.")
    channels = _among(given, "channels", CHANNELS)
    outputs = _among({"outputs": OUTPUTS[0], **given}, "outputs", OUTPUTS)
    fields = {name: given[name] for name in _SPEC if name in given}
    spec = PrepareSpec(**{**fields, "channels": "grey" if channels == "grey" else "rgb"})
    scale, offset = _values(given, spec.shape[2])
    return spec, Convention(scale=scale, offset=offset, bgr=channels == "bgr", logits=outputs == "logits")


def _values(given: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(scale, offset) of each channel."""
    named = {name for name in _VALUES if name in given}
    if named == {"mean", "std"}:
        mean, std = (_numbers(given, name, channels) for name in ("mean", "std"))
        scale = tuple(1 / one if one else math.inf for one in std)
        offset = tuple(-one * factor for one, factor in zip(mean, scale, strict=True))
    elif named == {"scale", "offset"}:
        scale, offset = (_numbers(given, name, channels) for name in ("scale", "offset"))
    else:
        received = f"{', '.join(sorted(named))} is given" if named else "none is given"
        raise UsageError(f"What the model makes of pixels needs scale and offset, or mean and std, but {received}.")
    if not all(0 < abs(one) <= 1 for one in scale):
        raise UsageError(
            f"scale must be above 0 and at most 1, and std at least 1, for pixels from 0 to 255, but scale comes to "
            f"{scale[0]:g}; multiply a mean and std that are meant for pixels from 0 to 1 by 255."
        )
    return scale, offset


def _numbers(given: Mapping[str, Any], name: str, channels: int) -> tuple[float, ...]:
    value = given[name]
    numbers = [value] * channels if not isinstance(value, list) else value
    finite = all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in numbers)
    if len(numbers) != channels or not finite:
        raise UsageError(f"{name} must be one finite number or {channels}, one for each channel, but it is {value!r}.")
    return tuple(float(one) for one in numbers)


def _among(given: Mapping[str, Any], name: str, words: tuple[str, ...]) -> str:
    if given[name] not in words:
        raise UsageError(f"{name} must be one of {', '.join(words)}, but it is {given[name]!r}.")
    return str(given[name])
