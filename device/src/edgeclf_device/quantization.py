"""Affine quantization as TensorFlow Lite and ONNX define it: real = scale * (q - zero_point)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgeclf_device.errors import ModelError

_SMALLEST_SCALE, _LARGEST_SCALE = (float(one) for one in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Per-tensor affine quantization: ``real = scale * (q - zero_point)``.

    Source: TensorFlow Lite 8-bit quantization specification; ONNX QuantizeLinear.
    """

    scale: float
    zero_point: int

    def to_json(self) -> dict[str, Any]:
        """The manifest's ``quantization`` object."""
        return {"scale": self.scale, "zero_point": self.zero_point}

    @classmethod
    def from_json(cls, value: Any) -> Quantization:
        """Read the manifest's ``quantization`` object.

        Raises:
            ModelError: a missing field, or a scale that is not a positive number of float32, which engines hold it in.
        """
        try:
            scale, zero_point = float(value["scale"]), int(value["zero_point"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"A quantization needs a scale and a zero_point, but it is {value!r}.") from error
        if not _SMALLEST_SCALE <= scale <= _LARGEST_SCALE:
            raise ModelError(f"A quantization's scale must be a positive, finite float32, but it is {scale}.")
        return cls(scale=scale, zero_point=zero_point)


def quantize(values: NDArray[np.floating[Any]], quantization: Quantization, dtype: DTypeLike) -> NDArray[Any]:
    """Float array to integers of ``dtype``: divide, round half to even, shift, saturate. Same shape."""
    limits = np.iinfo(np.dtype(dtype))
    steps = np.rint(np.asarray(values, np.float64) / quantization.scale) + quantization.zero_point
    result: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(dtype)
    return result


def dequantize(values: NDArray[Any], quantization: Quantization) -> NDArray[np.float32]:
    """Integer array to float32: ``scale * (q - zero_point)``. Same shape."""
    shifted = values.astype(np.int32) - np.int32(quantization.zero_point)
    return shifted.astype(np.float32) * np.float32(quantization.scale)
