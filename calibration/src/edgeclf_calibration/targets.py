"""What the instructions of a processor need of int8 models: one table.

A TensorFlow Lite model has one form for all of them: int8 activations of any zero point and symmetric int8 weights,
one scale per output channel; XNNPACK saturates nowhere. In ONNX the form is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from edgeclf_device.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Target:
    """The form of a w8a8 .onnx model. Weights are int8 with zero point 0 and one scale per output channel in all.

    Attributes:
        name: as ``--target`` takes it.
        board: what it is for.
        activations: their type.
        symmetric: whether the zero points of activations are 0 too.
        weight_limit: the largest magnitude of a weight, in steps.
        inputs_only: whether only what a layer reads is rounded, not what it gives, and biases stay in float.
        reason: why, in one sentence.
        source: who says so.
    """

    name: str
    board: str
    activations: Literal["uint8", "int8"]
    symmetric: bool = False
    weight_limit: Literal[64, 127] = 127
    inputs_only: bool = False
    reason: str
    source: str


_ALL = (
    Target(
        name="pi5",
        board="Raspberry Pi 5 (Cortex-A76) and other arm64 with dot products; the processor of a Jetson Orin",
        activations="int8",
        reason="SDOT multiplies signed by signed; for uint8 activations ONNX Runtime has no symmetric product of "
        "matrices and turns the weights unsigned instead.",
        source="microsoft/onnxruntime pull request 9902 and core/mlas/lib/platform.cpp",
    ),
    Target(
        name="pi4",
        board="Raspberry Pi 3 and 4 (Cortex-A53, A72) and other arm64 without dot products",
        activations="int8",
        reason="SMULL and SMLAL multiply signed by signed without widening first, and two products fit 16 bits as "
        "long as no weight is -128, which none is.",
        source="microsoft/onnxruntime pull request 8695 and issue 31573",
    ),
    Target(
        name="jetson",
        board="the GPU of a Jetson, through TensorRT 10 or newer; for its processor take pi5",
        activations="int8",
        symmetric=True,
        inputs_only=True,
        reason="TensorRT refuses zero points other than 0 and int32 biases, and melts a rectifier into its layer "
        "where nothing is rounded between them.",
        source="NVIDIA TensorRT developer guide, explicit quantization, Q/DQ placement; microsoft/onnxruntime issue "
        "14229",
    ),
    Target(
        name="x86-vnni",
        board="x86-64 with AVX512-VNNI or AVX-VNNI",
        activations="uint8",
        reason="VPDPBUSD multiplies unsigned by signed and sums four products in 32 bits; signed activations would be "
        "shifted at every layer.",
        source="ONNX Runtime documentation, Quantize ONNX models, data type selection; measured, docs/reference/"
        "targets.md",
    ),
    Target(
        name="x86",
        board="every x86-64, with and without VNNI; without a target, the form is this",
        activations="uint8",
        weight_limit=64,
        reason="VPMADDUBSW saturates the sum of two products at 16 bits, and 2 × 255 × 64 still fits.",
        source="ONNX Runtime documentation, Quantize ONNX models, reduce_range; measured, docs/reference/targets.md",
    ),
)

TARGETS: Mapping[str, Target] = MappingProxyType({target.name: target for target in _ALL})
"""Every target by name."""

DEFAULT = TARGETS["x86"]
"""The form where no target is named: what is measured of it on one processor holds on every other."""


def target_named(name: str) -> Target:
    """One of ``TARGETS``.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in TARGETS:
        raise UsageError(f"A target must be one of {', '.join(TARGETS)}, but it is {name!r}.")
    return TARGETS[name]
