"""What a model that was trained elsewhere takes for its pixels and answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.errors import ModelError

Kind = Literal["keras", "saved_model", "tflite", "onnx"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How pixels become what the network takes (``pixel * scale + offset``), and what its outputs are.

    Attributes:
        scale, offset: one for each channel, in the network's own order of channels.
        bgr: whether the network takes blue before green and red; prepared images are red, green, blue.
        logits: whether the outputs still lack their softmax.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    bgr: bool = False
    logits: bool = False

    @property
    def is_identity(self) -> bool:
        """Whether the network takes the pixels as they are."""
        return not self.bgr and set(self.scale) == {1.0} and set(self.offset) == {0.0}

    @property
    def is_quantization(self) -> bool:
        """Whether the scale and zero point of a uint8 tensor can say the same exactly, so that nothing is computed."""
        if self.bgr or len(set(self.scale)) > 1 or len(set(self.offset)) > 1 or self.scale[0] <= 0:
            return False
        zero_point = -self.offset[0] / self.scale[0]
        return abs(zero_point - round(zero_point)) < 1e-3 and 0 <= round(zero_point) <= 255

    @property
    def matrix(self) -> NDArray[np.float32]:
        """float32 (C, C): rows are the network's channels, columns those of the prepared image."""
        rows = np.diag(np.array(self.scale, np.float32))
        return np.ascontiguousarray(rows[:, ::-1]) if self.bgr else rows

    def of(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the network takes for uint8 (…, C) pixels, float32 of the same shape."""
        ordered = pixels[..., ::-1] if self.bgr else pixels
        return ordered.astype(np.float32) * np.array(self.scale, np.float32) + np.array(self.offset, np.float32)

    def then(self, scale: NDArray[np.float64] | float, offset: NDArray[np.float64] | float) -> Convention:
        """This convention where the network itself goes on with ``value * scale + offset``, from there."""
        factors, terms = (np.broadcast_to(one, len(self.scale)).astype(np.float64) for one in (scale, offset))
        return Convention(
            scale=tuple((np.array(self.scale) * factors).tolist()),
            offset=tuple((np.array(self.offset) * factors + terms).tolist()),
            bgr=self.bgr,
            logits=self.logits,
        )


def require_identity(convention: Convention) -> None:
    """Check the convention of a model with a uint8 input.

    Raises:
        ModelError: it is another than to take the pixels as they are.
    """
    if not convention.is_identity:
        raise ModelError(
            "The model takes uint8 pixels as they are, but the preprocessing scales them or reverses their channels; "
            'give scale = 1, offset = 0 and channels = "rgb".'
        )


def require_classes(outputs: int, classes: int) -> None:
    """Check that there is a label for each output.

    Raises:
        ModelError: there is not.
    """
    if outputs != classes:
        raise ModelError(
            f"There are {classes} labels but the model has {outputs} outputs; write one label a line for each output."
        )
