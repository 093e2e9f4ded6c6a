"""w8a8 for an export: the plain way first, and more only where it is asked for or the plain way loses too much.

What is tried is judged by images that neither calibrate nor judge the artifact; the gate itself comes later, on those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.exporting.calibration import Calibration
from edgeclf.exporting.request import Request
from edgeclf_calibration.answers import scores_of
from edgeclf_calibration.mixed_precision import int8_share
from edgeclf_calibration.recovery import Recovery, fall_back, plain, recover
from edgeclf_calibration.targets import DEFAULT
from edgeclf_device.errors import GateError, ModelError, UsageError
from edgeclf_device.manifest import Container
from edgeclf_device.progress import Progress

RECOVER_FROM = 0.5
"""Share of the gate from which recovery is tried: 400 tuning images tell a drop to half a point, so a model that loses
on them what the gate just allows would be refused by the images that judge it every other time."""

MAX_FLOAT = 0.5
"""Share of the layers that may stay in float: with more the model is hardly w8a8 any longer."""


def quantized(
    model: bytes, container: Container, calibration: Calibration, asked: Request, progress: Progress
) -> tuple[bytes, dict[str, Any], tuple[str, ...]]:
    """(the w8a8 model, how it was made for the calibration record, doubts about its ranges).

    Where the tuning images are labelled and the model loses more of their accuracy than half of what the gate allows,
    every way of recovery is tried; where it still loses more than the gate allows, the fewest layers are left in float
    with which it does not.

    Args:
        model: fp32 bytes.
        container: what they are.
        calibration: images to calibrate with, and to tune by.
        asked: whether to recover in any case, the gate, threads.
        progress: shows each step.

    Raises:
        UsageError: recovery is asked for, but there are no images to choose by.
        GateError: even with half of the layers in float it loses more; the message lists them.
        DependencyError, ModelError: as ``edgeclf_calibration.recovery``.
    """
    options: dict[str, Any] = {"threads": asked.threads, "progress": progress}
    target, tuning = asked.target or DEFAULT, calibration.tuning
    if asked.recover and tuning is None:
        raise UsageError(
            "Recovery is chosen on images that do not calibrate, but none are left; give more with --calibration."
        )
    if asked.recover and tuning is not None:
        found = recover(model, container, calibration.pixels, tuning.pixels, target=target, **options)
    else:
        found = plain(model, container, calibration.pixels, estimator=asked.estimator, target=target, **options)
    if tuning is None or tuning.true is None:
        return found.model, _record(found), found.watched.doubts
    measure = _Drop(model, container, tuning.pixels, tuning.true, asked.threads)
    drop = measure(found.model)
    if drop > RECOVER_FROM * asked.max_drop_points and not asked.recover:
        found = recover(model, container, calibration.pixels, tuning.pixels, target=target, **options)
        drop = measure(found.model)
    if drop <= asked.max_drop_points:
        return found.model, _record(found), found.watched.doubts
    layers = found.watched.layers
    allowed = int(MAX_FLOAT * len(layers))
    mixed = fall_back(found, tuning.pixels, measure, max_drop=asked.max_drop_points, max_layers=allowed, **options)
    if not mixed.best.holds:
        raise GateError(
            f"w8a8 .{container} may lose {asked.max_drop_points:g} points, but with {allowed} of {len(layers)} layers "
            f"in float it still loses {mixed.best.drop:.2f} on {len(tuning.pixels)} images that tune it; nothing was "
            f"written. The layers, the worst first: {', '.join(mixed.best.in_float)}. Leave w8a8 out, train with "
            "--qat, or allow more with --max-drop."
        )
    share = int8_share(layers, mixed.best.in_float)
    record = {**_record(found), "in_float": list(mixed.best.in_float), "int8_share": round(share, 4)}
    return mixed.model, record, found.watched.doubts


def beyond_plain(record: Mapping[str, Any]) -> list[str]:
    """Sentences on what ``quantized`` did beyond the plain way, from its record."""
    told = []
    if "attempts" in record:
        steps = " and ".join([f"{record['estimator']} ranges", *record["recovery"]])
        told.append(f"of {len(record['attempts'])} ways of quantizing, {steps} came nearest to the float model.")
    if "in_float" in record:
        told.append(
            f"{len(record['in_float'])} layers stay in float ({', '.join(record['in_float'])}); "
            f"{100 * record['int8_share']:.1f} % of the multiplications are in int8."
        )
    return told


def _record(found: Recovery) -> dict[str, Any]:
    record: dict[str, Any] = {"estimator": found.way.estimator, "recovery": found.way.steps}
    if found.attempts:
        record["attempts"] = [one.to_json() for one in found.attempts]
    if found.watched.container == "onnx":
        record["target"] = found.watched.target.name
    return record


class _Drop:
    """Points of accuracy that a quantized model loses against the float model on labelled images."""

    def __init__(
        self, model: bytes, container: str, pixels: NDArray[np.uint8], true: NDArray[np.int64], threads: int
    ) -> None:
        self._container, self._pixels, self._true, self._threads = container, pixels, true, threads
        self._right = self._count(model)

    def _count(self, model: bytes) -> int:
        scores = scores_of(model, self._container, self._pixels, threads=self._threads)
        return int((scores.argmax(axis=1) == self._true).sum())

    def __call__(self, model: bytes) -> float:
        try:
            right = self._count(model)
        except ModelError:  # an engine refuses some int8 layers, whose steps lie too far apart
            right = 0
        return 100 * (self._right - right) / len(self._true)
