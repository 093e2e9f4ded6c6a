"""Static int8 in both formats: watch an fp32 model at work on images, then write it with what was seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration import adaptive_rounding, bias_correction, equalization
from edgeclf_calibration._imports import import_onnx
from edgeclf_calibration.doubts import Stability, range_doubts, range_stability
from edgeclf_calibration.estimators import ESTIMATORS, sharing
from edgeclf_calibration.mixed_precision import Layer
from edgeclf_calibration.observe import anchored, observe
from edgeclf_calibration.observe_tflite import observe_tflite
from edgeclf_calibration.onnx_int8 import EXACT_INPUT_OPERATORS, nodes_in_float, onnx_layers, optimised, quantize_onnx
from edgeclf_calibration.ranges import FirstImages, MinMax, Observer, Range
from edgeclf_calibration.targets import DEFAULT, Target
from edgeclf_calibration.tflite_file import operators, read_file
from edgeclf_calibration.tflite_int8 import quantize_tflite, tensors_in_float, tflite_layers
from edgeclf_calibration.tflite_pixels import pixels_first
from edgeclf_calibration.weighted import (
    Change,
    Weighted,
    changed_onnx,
    changed_tflite,
    weighted_onnx,
    weighted_tflite,
)
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress

CONTAINERS = ("tflite", "onnx")
_GREY = 127


@dataclass(frozen=True, kw_only=True)
class Watched:
    """An fp32 model and what was seen of it; see ``watch``.

    Attributes:
        container: ``tflite`` or ``onnx``.
        model: fp32 bytes; not always those that were given, but tensors and layers are named as in these.
        equalized: whether its channels were equalized.
        ranges: by estimator, by tensor.
        means: of each tensor's channels.
        moments: of the layers' inputs, by place; None: not asked for.
        stability: of min-max ranges, between the first half of the images and all.
        doubts: what speaks against the ranges, in sentences; nothing where all is well.
        target: what the model is to run on; every .tflite model runs on all.
    """

    container: str
    model: bytes = field(repr=False)
    equalized: bool
    ranges: Mapping[str, Mapping[str, Range]] = field(repr=False)
    means: Mapping[str, NDArray[np.float64]] = field(repr=False)
    moments: Mapping[int, adaptive_rounding.Moments] | None = field(repr=False)
    stability: Stability
    doubts: tuple[str, ...]
    target: Target

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that can be left in float."""
        return tflite_layers(self.model) if self.container == "tflite" else onnx_layers(self.model)


def watch(
    model: bytes,
    container: str,
    pixels: NDArray[np.uint8],
    *,
    estimators: Sequence[str] = (MinMax.name,),
    equalize: bool = False,
    with_moments: bool = False,
    target: Target = DEFAULT,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Watched:
    """Run an fp32 model on ``pixels`` and keep what quantizing it needs.

    The pixels themselves keep the range 0 to 255, whatever the images show and an estimator thinks of it.

    Args:
        model: fp32 .tflite or .onnx bytes: one uint8 input (1, H, W, C), or a float32 one that holds 0 to 255.
        container: ``tflite`` or ``onnx``.
        pixels: uint8 (N, H, W, C), prepared calibration images.
        estimators: some of ``ESTIMATORS``.
        equalize: scale channels first, see ``equalization``; runs the model on the images once more.
        with_moments: keep what adaptive rounding needs.
        target: what the model is to run on.
        threads: how many to run the model with.
        progress: shows one step for each image.

    Raises:
        UsageError: there is no such estimator or container.
        DependencyError: an engine or onnx is not installed.
        DataError: ``pixels`` is of another kind, or without images.
        ModelError: the model does not run, or gives NaN or infinity.
    """
    unknown = [name for name in estimators if name not in ESTIMATORS]
    if unknown or not estimators:
        raise UsageError(f"An estimator must be one of {', '.join(ESTIMATORS)}, but {unknown or 'none'} was named.")
    if container not in CONTAINERS:
        raise UsageError(f"The container must be {' or '.join(CONTAINERS)}, but it is {container!r}.")
    images = anchored(pixels)
    ready = optimised(model) if container == "onnx" else model

    def show(shown: NDArray[np.uint8], *observers: Observer) -> None:
        run = observe if container == "onnx" else observe_tflite
        seen = progress if len(shown) > 1 else no_progress
        run(ready, shown, *observers, threads=threads, progress=seen)

    if equalize:
        peaks = equalization.ChannelPeaks(container)
        show(images, peaks)
        ready = _changed(ready, container, equalization.equalized(_weighted(ready, container), peaks.peaks))
    seen, watching = sharing(estimators)
    whole, half, exact, grey = MinMax(), MinMax(), MinMax(), MinMax()
    means = bias_correction.ChannelMeans(axis=1 if container == "onnx" else -1)
    moments = adaptive_rounding.InputMoments(_weighted(ready, container), container) if with_moments else None
    first_half = FirstImages((len(images) + 1) // 2, half)
    show(images, *watching, whole, first_half, means, *(() if moments is None else (moments,)))
    show(images[:1], exact)
    blank = np.full_like(images[:1], _GREY)
    show(anchored(blank), grey)
    show(blank, grey)
    of_pixels = _computed_from_pixels(ready, container)
    anchors = {name: one for name, one in exact.ranges().items() if name in of_pixels}
    return Watched(
        container=container,
        model=ready,
        equalized=equalize,
        ranges={name: one.ranges() | anchors for name, one in seen.items()},
        means=means.means(),
        moments=None if moments is None else moments.moments(),
        target=target,
        stability=range_stability(whole.ranges(), half.ranges()),
        doubts=range_doubts(whole.ranges(), half=half.ranges(), synthetic=grey.ranges()),
    )


def written(
    watched: Watched, *, estimator: str = MinMax.name, adaptive: bool = False, in_float: Collection[str] = ()
) -> bytes:
    """The w8a8 model; equal arguments give equal bytes.

    Args:
        watched: what ``watch`` made.
        estimator: one of those that it was asked for.
        adaptive: round weights adaptively, see ``adaptive_rounding``, not to nearest with corrected biases.
        in_float: names of ``Watched.layers`` that stay in float32.

    Returns:
        bytes with a uint8 input; .tflite has a uint8 output, .onnx a float32 one.

    Raises:
        UsageError: the estimator or the moments were not asked for; ``in_float`` names what is no layer.
        DependencyError: a quantizer is not installed.
        ModelError: the model can't be quantized.
    """
    return with_ranges(watched, fitted(watched, adaptive=adaptive), estimator=estimator, in_float=in_float)


def fitted(watched: Watched, *, adaptive: bool) -> dict[int, Change]:
    """Weights and biases made ready for rounding to nearest, by ``Weighted.place``: see ``written``."""
    limit = watched.target.weight_limit if watched.container == "onnx" else 127
    layers = _weighted(watched.model, watched.container)
    if not adaptive:
        return bias_correction.corrections(layers, watched.means, limit=limit)
    if watched.moments is None:
        raise UsageError("The model was watched without its inputs' moments; ask for them in watch().")
    return {
        layer.place: adaptive_rounding.adaptively_rounded(layer, watched.moments[layer.place], limit=limit)
        for layer in layers
        if layer.place in watched.moments
    }


def with_ranges(
    watched: Watched, changes: Mapping[int, Change], *, estimator: str, in_float: Collection[str] = ()
) -> bytes:
    """The w8a8 model with the ``fitted`` changes, but for layers in float: see ``written``."""
    if estimator not in watched.ranges:
        raise UsageError(f"The model was watched without the estimator {estimator}; ask for it in watch().")
    whole = {layer.place for layer in _weighted(watched.model, watched.container) if layer.output in in_float}
    kept = {place: change for place, change in changes.items() if place not in whole}
    ready, ranges = _changed(watched.model, watched.container, kept), watched.ranges[estimator]
    if watched.container == "tflite":
        return pixels_first(quantize_tflite(ready, ranges, in_float=in_float))
    return quantize_onnx(ready, ranges, in_float=in_float, target=watched.target)


def quantize(
    model: bytes,
    container: str,
    pixels: NDArray[np.uint8],
    *,
    estimator: str = MinMax.name,
    target: Target = DEFAULT,
    threads: int = 1,
    progress: Progress = no_progress,
) -> bytes:
    """``watch`` and ``written`` in one, with their arguments and errors; biases are corrected."""
    watched = watch(
        model, container, pixels, estimators=(estimator,), target=target, threads=threads, progress=progress
    )
    return written(watched, estimator=estimator)


def _weighted(model: bytes, container: str) -> tuple[Weighted, ...]:
    return weighted_onnx(model) if container == "onnx" else weighted_tflite(model)


def _changed(model: bytes, container: str, changes: Mapping[int, Change]) -> bytes:
    return changed_onnx(model, changes) if container == "onnx" else changed_tflite(model, changes)


def _computed_from_pixels(model: bytes, container: str) -> set[str]:
    """The tensors between the pixels and the first layer, the pixels among them."""
    if container == "tflite":
        file = read_file(model)
        (graph,) = file.subgraphs
        return {*tensors_in_float(operators(file)), *(graph.tensors[index].name.decode() for index in graph.inputs)}
    proto = import_onnx().load_from_string(model)
    exact = set(nodes_in_float(proto))
    before = [node for node in proto.graph.node if node.name in exact and node.op_type in EXACT_INPUT_OPERATORS]
    return {name for node in before for name in node.output} | {value.name for value in proto.graph.input}
