"""What is kept of each image that a network was shown: enough to choose images, and to calibrate on any of them.

An estimator that looks at the smallest and the largest value alone can then be shown any of the images again without
running the network: in the place of a tensor its two ends, and in the place of what a convolution reads, the means of
its channels.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration.bias_correction import ChannelMeans
from edgeclf_calibration.coverage import Extremes
from edgeclf_calibration.observe import observe
from edgeclf_device.errors import ModelError

Shown = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Traces:
    """Of N images.

    Attributes:
        names: of the network's T float tensors.
        minima, maxima: float32 (N, T), their ends in each image.
        means: float32 (N, channels), by the name of what a convolution reads.
        embeddings: float32 (N, D), what the last dense layer reads; None where it was not asked for.
        seconds: that it took to show the network all of them.
    """

    names: tuple[str, ...]
    minima: NDArray[np.float32]
    maxima: NDArray[np.float32]
    means: Mapping[str, NDArray[np.float32]]
    embeddings: NDArray[np.float32] | None
    seconds: float

    def ends(self, place: int) -> Shown:
        """The two ends of each tensor in one image, (2,) each: for ``MinMax`` and ``MovingAverage``."""
        both = np.stack([self.minima[place], self.maxima[place]], axis=1)
        return dict(zip(self.names, both, strict=True))

    def channels(self, place: int) -> Shown:
        """The channel means of one image, (1, channels) each: for ``ChannelMeans``."""
        return {name: values[place : place + 1] for name, values in self.means.items()}


class _Tracer:
    """An ``Observer`` that collects traces."""

    def __init__(self, convolved: Collection[str], embedding: str | None) -> None:
        self.names: tuple[str, ...] = ()
        self.extremes = Extremes()
        self.means: dict[str, list[NDArray[np.float32]]] = {name: [] for name in convolved}
        self.embeddings: list[NDArray[np.float32]] = []
        self._embedding = embedding

    def update(self, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """Take in one image."""
        self.names = tuple(name for name, values in tensors.items() if values.size)
        self.extremes.update(tensors)
        one = ChannelMeans()
        one.update({name: tensors[name] for name in self.means})
        for name, mean in one.means().items():
            self.means[name].append(mean.astype(np.float32))
        if self._embedding is not None:
            self.embeddings.append(tensors[self._embedding].reshape(-1).astype(np.float32))


def trace(model: bytes, chunks: Iterable[NDArray[np.uint8]], *, with_embeddings: bool, threads: int) -> Traces:
    """Show a network every image once.

    Args:
        model: fp32 .onnx bytes; result of ``optimised``.
        chunks: uint8 (n, H, W, C) each, N images together.
        with_embeddings: keep what the last dense layer reads.
        threads: how many to compute with.

    Raises:
        ModelError: ``with_embeddings``, and the network has no dense layer.
        DependencyError: onnx or onnxruntime is not installed.
    """
    convolved, dense = _inputs(model)
    if with_embeddings and dense is None:
        raise ModelError(
            "The method k-center looks at what the last dense layer reads, but the network has none; "
            "choose by another method."
        )
    tracer, begin = _Tracer(convolved, dense if with_embeddings else None), time.monotonic()
    for pixels in chunks:
        observe(model, pixels, tracer, threads=threads)
    return Traces(
        names=tracer.names,
        minima=tracer.extremes.minima(),
        maxima=tracer.extremes.maxima(),
        means={name: np.stack(rows) for name, rows in tracer.means.items() if rows},
        embeddings=np.stack(tracer.embeddings) if tracer.embeddings else None,
        seconds=time.monotonic() - begin,
    )


def _inputs(model: bytes) -> tuple[set[str], str | None]:
    """(what convolutions read, what the last dense layer reads): names of tensors that a node computes."""
    import onnx

    graph = onnx.load_from_string(model).graph
    constants = {tensor.name for tensor in graph.initializer}
    computed = {name for node in graph.node for name in node.output}
    convolved = {node.input[0] for node in graph.node if node.op_type == "Conv"} & computed
    dense = [
        node.input[0]
        for node in graph.node
        if node.op_type in {"Gemm", "MatMul"} and node.input[1] in constants and node.input[0] in computed
    ]
    return convolved, dense[-1] if dense else None
