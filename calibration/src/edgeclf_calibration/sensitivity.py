"""What int8 costs in each layer: only that layer is quantized, all others compute in float.

Its own error is the ratio of signal to quantization noise (SQNR) of what the layer gives; what that does to the
network's answer is the Kullback-Leibler divergence of the scores and the share of images that change their label.
Sources: Lin, Talathi, Annapureddy, "Fixed Point Quantization of Deep Convolutional Networks" (2016), section 3, for
SQNR; Cai, Yao, Dong, Gholami, Mahoney, Keutzer, "ZeroQ: A Novel Zero Shot Quantization Framework" (2020), section 3.2,
for the divergence when one layer alone is quantized.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration._imports import import_onnx
from edgeclf_calibration.mixed_precision import Layer
from edgeclf_calibration.onnx_int8 import onnx_layers, quantize_onnx
from edgeclf_calibration.ranges import Range
from edgeclf_calibration.targets import DEFAULT, Target
from edgeclf_calibration.tflite_file import operators, packed, read_file
from edgeclf_calibration.tflite_int8 import quantize_tflite, tflite_layers
from edgeclf_device.engines import NO_OPTIONS, chosen_options
from edgeclf_device.engines.onnxruntime import open_session
from edgeclf_device.errors import DataError, ModelError, first_line
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.quantization import Quantization, dequantize


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """What happens when this layer alone is quantized.

    A layer that the engine refuses in int8 counts as wrong beyond all measure: minus infinity, infinity and 1. XNNPACK
    in LiteRT refuses one whose input scale times weight scale is 256 times its output's scale, or more.

    Attributes:
        layer: which one.
        sqnr_db: of the tensor it gives, 10 log10 of signal power by noise power over all images; infinite without
            noise.
        divergence_nats: of the scores from those of the float model (Kullback-Leibler), mean over the images.
        changed_labels: share of the images whose top label is another than the float model's.
    """

    layer: Layer
    sqnr_db: float
    divergence_nats: float
    changed_labels: float

    @property
    def refused(self) -> bool:
        """Whether the engine does not run the model with this layer in int8."""
        return math.isinf(self.divergence_nats)

    def to_json(self) -> dict[str, Any]:
        """As it stands in reports; what is infinite is None, the divergence of a refused layer alone."""
        return {
            **vars(self.layer),
            "sqnr_db": _finite(self.sqnr_db),
            "divergence_nats": _finite(self.divergence_nats),
            "changed_labels": self.changed_labels,
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """The layers of a model, those that int8 hurts most first: by divergence, then by SQNR.

    Attributes:
        images: how many were run.
        layers: the worst first.
    """

    images: int
    layers: tuple[LayerError, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names, the worst first: what ``mixed_precision`` takes."""
        return tuple(one.layer.name for one in self.layers)

    def to_json(self) -> dict[str, Any]:
        """As it stands in reports."""
        return {"images": self.images, "layers": [one.to_json() for one in self.layers]}


class _RefusedError(ModelError):
    """The engine does not run the model."""


class Probe(Protocol):
    """A model with some of its tensors open to the outside."""

    def __call__(self, image: NDArray[np.uint8], names: Sequence[str]) -> list[NDArray[np.floating[Any]]]:
        """Run one image, uint8 (H, W, C); float values of the tensors ``names``."""


def sensitivity_onnx(
    model: bytes,
    ranges: Mapping[str, Range],
    pixels: NDArray[np.uint8],
    *,
    target: Target = DEFAULT,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Sensitivity:
    """Quantize each layer of an .onnx model alone and measure what that costs.

    A tensor that one layer reads in int8 is rounded for all its readers: what a residual connection passes by, too.

    Args:
        model: result of ``optimised``, with one input and one output, scores (1, classes).
        ranges: as for ``quantize_onnx``.
        pixels: uint8 (N, H, W, C), prepared images; labels are not needed.
        target: what the model is to run on.
        threads: how many to compute with.
        progress: shows one step for each layer.

    Raises:
        DependencyError: onnx or onnxruntime is not installed.
        DataError: there is no image.
        ModelError: a tensor that must be quantized has no range, or ONNX Runtime refuses the float model.
    """
    onnx = import_onnx()
    proto = onnx.load_from_string(model)
    layers = onnx_layers(model)
    answer = _answer(
        {str(node.output[0]): (node.op_type, str(node.input[0])) for node in proto.graph.node if node.input},
        softmax="Softmax",
        output=str(proto.graph.output[0].name),
    )
    names = [layer.name for layer in layers]

    def alone(name: str) -> Probe:
        others = [other for other in names if other != name]
        opened = _opened_onnx(model, [name, answer])
        return _onnx_probe(quantize_onnx(opened, ranges, in_float=others, target=target), threads)

    reference = _onnx_probe(_opened_onnx(model, [*names, answer]), threads)
    return _measured(layers, answer, pixels, reference=reference, alone=alone, progress=progress)


def sensitivity_tflite(
    model: bytes,
    ranges: Mapping[str, Range],
    pixels: NDArray[np.uint8],
    *,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Sensitivity:
    """Quantize each layer of a .tflite model alone and measure what that costs.

    Args:
        model: fp32 .tflite bytes with one input and one output, scores (1, classes).
        ranges: as for ``quantize_tflite``.
        pixels: uint8 (N, H, W, C), prepared images; labels are not needed.
        threads: how many to compute with.
        progress: shows one step for each layer.

    Raises:
        DependencyError: ai-edge-litert or ai-edge-quantizer is not installed.
        DataError: there is no image.
        ModelError: a tensor has no range, or LiteRT refuses the float model.
    """
    file = read_file(model)
    (graph,) = file.subgraphs
    layers = tflite_layers(model)
    answer = _answer(
        {one.outputs[0].name: (one.kind, one.inputs[0].name) for one in operators(file) if one.inputs},
        softmax="SOFTMAX",
        output=graph.tensors[graph.outputs[0]].name.decode(),
    )
    names = [layer.name for layer in layers]

    def alone(name: str) -> Probe:
        others = [other for other in names if other != name]
        quantized = quantize_tflite(model, ranges, in_float=others)
        return _tflite_probe(_opened_tflite(quantized, [name, answer]), threads)

    reference = _tflite_probe(_opened_tflite(model, [*names, answer]), threads)
    return _measured(layers, answer, pixels, reference=reference, alone=alone, progress=progress)


def _answer(producers: Mapping[str, tuple[str, str]], *, softmax: str, output: str) -> str:
    """The tensor whose softmax are the scores: what the last softmax reads, or the output where there is none."""
    kind, read = producers[output]
    return read if kind == softmax else output


def _measured(
    layers: Sequence[Layer],
    answer: str,
    pixels: NDArray[np.uint8],
    *,
    reference: Probe,
    alone: Callable[[str], Probe],
    progress: Progress,
) -> Sensitivity:
    if len(pixels) == 0:
        raise DataError("Sensitivity is measured on images, but there are none; give at least one.")

    def error(layer: Layer) -> LayerError:
        try:
            quantized = alone(layer.name)
        except _RefusedError:
            return LayerError(layer=layer, sqnr_db=-math.inf, divergence_nats=math.inf, changed_labels=1.0)
        return _error(layer, answer, pixels, reference, quantized)

    errors = [error(layer) for layer in progress(layers, "Quantizing single layers", len(layers))]
    errors.sort(key=lambda one: (-one.divergence_nats, one.sqnr_db))
    return Sensitivity(images=len(pixels), layers=tuple(errors))


def _error(layer: Layer, answer: str, pixels: NDArray[np.uint8], reference: Probe, quantized: Probe) -> LayerError:
    """Run both models side by side: a layer's tensors of all images need not be held."""
    signal = noise = divergence = 0.0
    changed = 0
    for image in pixels:
        exact, exact_logits = (values.astype(np.float64) for values in reference(image, [layer.name, answer]))
        given, given_logits = (values.astype(np.float64) for values in quantized(image, [layer.name, answer]))
        signal += float(np.square(exact).sum())
        noise += float(np.square(given - exact).sum())
        divergence += _divergence(_log_softmax(exact_logits), _log_softmax(given_logits))
        changed += int(exact_logits.argmax() != given_logits.argmax())
    return LayerError(
        layer=layer,
        sqnr_db=_decibels(signal, noise),
        divergence_nats=divergence / len(pixels),
        changed_labels=changed / len(pixels),
    )


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def _divergence(log_exact: NDArray[np.float64], log_given: NDArray[np.float64]) -> float:
    """Kullback-Leibler, in nats; rounding must not make it negative."""
    return max(0.0, float((np.exp(log_exact) * (log_exact - log_given)).sum()))


def _opened_onnx(model: bytes, names: Iterable[str]) -> bytes:
    """The model with these tensors among its outputs."""
    proto = import_onnx().load_from_string(model)
    known = {value.name for value in proto.graph.output}
    proto.graph.output.extend(
        value for value in proto.graph.value_info if value.name in set(names) and value.name not in known
    )
    opened: bytes = proto.SerializeToString()
    return opened


def _onnx_probe(model: bytes, threads: int) -> Probe:
    try:  # as the device has it; threads of the one of two models that waits do not spin
        session = open_session(model, threads, chosen_options("onnxruntime", NO_OPTIONS))
    except ModelError as error:
        raise _RefusedError(str(error)) from error
    (model_input,) = session.get_inputs()

    def run(image: NDArray[np.uint8], names: Sequence[str]) -> list[NDArray[np.floating[Any]]]:
        values: list[NDArray[np.floating[Any]]] = session.run(list(names), {model_input.name: image[np.newaxis]})
        return values

    return run


def _opened_tflite(model: bytes, names: Iterable[str]) -> bytes:
    """The model with these tensors among its outputs; where they are int8, as that."""
    file = read_file(model)
    (graph,) = file.subgraphs
    places = {tensor.name.decode(): index for index, tensor in enumerate(graph.tensors)}
    graph.outputs = [*graph.outputs, *(places[name] for name in names if places[name] not in graph.outputs)]
    return packed(file)


def _tflite_probe(model: bytes, threads: int) -> Probe:
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=model, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise _RefusedError(f"LiteRT refuses the model: {first_line(error)}; export it again.") from error
    (model_input,) = interpreter.get_input_details()
    outputs = {details["name"]: details for details in interpreter.get_output_details()}

    def value(name: str) -> NDArray[np.floating[Any]]:
        values, (scale, zero_point) = interpreter.get_tensor(outputs[name]["index"]), outputs[name]["quantization"]
        return dequantize(values, Quantization(scale=scale, zero_point=zero_point)) if scale else values

    def run(image: NDArray[np.uint8], names: Sequence[str]) -> list[NDArray[np.floating[Any]]]:
        interpreter.set_tensor(model_input["index"], image[np.newaxis].astype(model_input["dtype"]))
        interpreter.invoke()
        return [value(name) for name in names]

    return run
