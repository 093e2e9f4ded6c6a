"""What int8 costs in each layer of a run's network, when that layer alone is quantized: see ``sensitivity``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeclf.calibrating.ground import read_ground
from edgeclf.exporting.request import CALIBRATION_IMAGES, FORMATS, TIMEOUT_S
from edgeclf_calibration.ranges import MinMax
from edgeclf_calibration.selection import choose
from edgeclf_calibration.sensitivity import LayerError, sensitivity_onnx, sensitivity_tflite
from edgeclf_calibration.static import watch
from edgeclf_device.errors import UsageError
from edgeclf_device.manifest import Container
from edgeclf_device.progress import Progress, no_progress

FORMAT = (1, 0)
"""Major and minor of what ``to_json`` gives; fields may join in a minor one."""

IMAGES = 64
"""That each layer's error is measured on."""


@dataclass(frozen=True, kw_only=True)
class LayerErrors:
    """Every layer of a network, those that int8 hurts most first.

    Attributes:
        name: of the model.
        container: ``tflite`` or ``onnx``.
        estimator: of the ranges.
        calibration_images: that the ranges come from.
        split, images: what the errors were measured on, and how many.
        layers: the worst first.
        seconds: it all took.
    """

    name: str
    container: Container
    estimator: str
    calibration_images: int
    split: str
    images: int
    layers: tuple[LayerError, ...]
    seconds: float

    @property
    def shares(self) -> tuple[float, ...]:
        """What part of the multiply-accumulates each layer does, 0 to 1."""
        total = sum(one.layer.multiply_accumulates for one in self.layers)
        return tuple(one.layer.multiply_accumulates / max(1, total) for one in self.layers)

    @property
    def titles(self) -> tuple[str, ...]:
        """What each layer is called before people.

        A converter joins the names of what it melted into one layer, each with the folders of its model. Of these the
        first is taken, without the folders that all layers share.
        """
        paths = [one.layer.name.split(";")[0].split("/") for one in self.layers]
        while paths and all(len(path) > 1 and path[0] == paths[0][0] for path in paths):
            paths = [path[1:] for path in paths]
        return tuple("/".join(path) for path in paths)

    def to_json(self) -> dict[str, Any]:
        """The object that ``edgeclf calibrate --layers --json`` writes; see docs/reference/calibration-study.md."""
        return {
            "format": list(FORMAT),
            "name": self.name,
            "container": self.container,
            "estimator": self.estimator,
            "calibration_images": self.calibration_images,
            "split": self.split,
            "images": self.images,
            "seconds": self.seconds,
            "layers": [
                {**one.to_json(), "share": share, "refused": one.refused}
                for one, share in zip(self.layers, self.shares, strict=True)
            ],
        }


def layer_errors(
    run: Path,
    *,
    bundle: Path | None = None,
    data: Path | None = None,
    container: str | None = None,
    images: int = IMAGES,
    threads: int = 2,
    timeout_s: float = TIMEOUT_S,
    progress: Progress = no_progress,
) -> LayerErrors:
    """Calibrate as an export does, then quantize each layer alone and measure what that costs on other images.

    Weights are rounded to nearest; what an export does to recover accuracy is left out.

    Args:
        run: folder of a training, or a stock classifier, which needs ``data``.
        bundle: an export of that run with an fp32 model in it; None: convert, which needs TensorFlow.
        data: a folder of images or a listing, half to calibrate with and half to measure on, not the run's training
            and validation splits.
        container: ``tflite`` or ``onnx``; None: .tflite, whose layers have telling names, or what ``bundle`` holds.
        images: how many to measure on; all where there are fewer.
        threads: how many to compute with.
        timeout_s: how long the conversion may take.
        progress: shows conversion, observation and layers.

    Raises:
        UsageError: an unknown container; fewer than one image; or as ``read_ground``.
        DataError, ModelError, DependencyError, SystemStateError: as ``read_ground``, ``watch`` and ``sensitivity``.
    """
    if images < 1:
        raise UsageError(f"The errors of layers are measured on at least 1 image, but {images} were asked for.")
    begin = time.monotonic()
    ground = read_ground(
        run, bundle=bundle, data=data, containers=_containers(container), timeout_s=timeout_s, progress=progress
    )
    calibration, measured = (
        part.take(choose(part.named(ground.labels), part.digests, count=count, seed=0).indices)
        for part, count in ((ground.pool, CALIBRATION_IMAGES), (ground.judging, images))
    )
    watched = watch(ground.model, ground.container, calibration, threads=threads, progress=progress)
    measure = sensitivity_tflite if ground.container == "tflite" else sensitivity_onnx
    found = measure(watched.model, watched.ranges[MinMax.name], measured, threads=threads, progress=progress)
    return LayerErrors(
        name=ground.name,
        container=ground.container,
        estimator=MinMax.name,
        calibration_images=len(calibration),
        split=ground.judging.split,
        images=found.images,
        layers=found.layers,
        seconds=time.monotonic() - begin,
    )


def _containers(asked: str | None) -> Sequence[Container]:
    found = [one for one in FORMATS if asked in {None, one}]
    if not found:
        raise UsageError(f"The format must be one of {', '.join(FORMATS)}, but it is {asked!r}.")
    return found
