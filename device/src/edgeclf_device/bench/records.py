"""Files of measurements: what ``edgeclf bench --json`` writes, read again to compare with what is measured now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeclf_device.atomic import write_text
from edgeclf_device.bench.comparing import Comparison, comparison_from_json, unpaired_ratio
from edgeclf_device.bench.measurement import Measurement, measurement_from_json
from edgeclf_device.errors import DataError

FORMAT = (2, 1)
MACHINE = ("board", "cpu", "cores", "architecture", "governor")
"""Fields of the environment that must be alike, or the machines are compared instead of what ran on them."""

SUBJECT = ("host", "artifact", "height", "width", "engine", "threads", "scenario")
"""Fields by which a measurement finds its counterpart."""

CONDITIONS = ("engine", "threads", "options", "input", "scenario", "rate_fps")
"""Fields of the measurement itself that must be."""


def measurements_json(measurements: Sequence[Measurement], comparisons: Sequence[Comparison] = ()) -> dict[str, Any]:
    """The content of such a file."""
    return {
        "format": list(FORMAT),
        "measurements": [taken.to_json() for taken in measurements],
        "comparisons": [made.to_json() for made in comparisons],
    }


def write_measurements(path: Path, measurements: Sequence[Measurement], comparisons: Sequence[Comparison] = ()) -> None:
    """Write measurements and comparisons in one piece."""
    write_text(path, json.dumps(measurements_json(measurements, comparisons), ensure_ascii=False, indent=1) + "\n")


def read_measurements(path: Path) -> list[Measurement]:
    """The measurements in a file of ``bench --json``, of the host's form or of the device's.

    Raises:
        DataError: it is not there, or not such a file.
    """
    return _measurements(path, _content(path))


def read_comparison(path: Path) -> Comparison:
    """The comparison in a file of ``bench A B --json`` of the device.

    Raises:
        DataError: it is not there, or holds other than two measurements and their comparison.
    """
    value = _content(path)
    measurements, made = _measurements(path, value), value.get("comparisons")
    if len(measurements) != 2 or not isinstance(made, list) or len(made) != 1:
        raise DataError(f"{path} must hold two measurements and their comparison, but it does not; compare again.")
    try:
        return comparison_from_json(made[0], *measurements)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _content(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} must be a file that bench --json wrote, but it can't be read: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} must be a file that bench --json wrote, but it holds no object; measure again.")
    return value


def _measurements(path: Path, value: dict[str, Any]) -> list[Measurement]:
    try:
        return [measurement_from_json(one) for one in value.get("measurements", [value])]
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def compare_with(earlier: Sequence[Measurement], now: Measurement) -> Comparison:
    """Compare a new measurement with the one of the same host, file name, size, engine and threads in an earlier file.

    Raises:
        DataError: there is none, or it was taken on another machine or in another way.
    """
    same = [old for old in earlier if all(getattr(old, name) == getattr(now, name) for name in SUBJECT)]
    if not same:
        have = ", ".join(f"{old.artifact} ({old.engine} ×{old.threads})" for old in earlier) or "nothing"
        raise DataError(
            f"{now.artifact} ({now.engine} ×{now.threads}) has nothing to be compared with: the earlier file has "
            f"{have}; measure the same names with the same engine and threads."
        )
    (old,) = same[-1:]
    unlike = [
        f"{name} {getattr(before, name)!r} then and {getattr(after, name)!r} now"
        for names, before, after in (
            (MACHINE, old.environment, now.environment),
            (CONDITIONS, old, now),
        )
        for name in names
        if getattr(before, name) != getattr(after, name)
    ]
    if unlike:
        raise DataError(
            f"Measurements of {now.artifact} are compared only when taken alike, but they differ: {'; '.join(unlike)}. "
            "Measure both on one machine, in one way."
        )
    return unpaired_ratio(old, now)
