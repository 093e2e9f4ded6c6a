"""The preprocessing contract: any uint8 image to the exact bytes the model sees (docs/reference/preprocessing.md).

Two implementations, equal bit for bit: NumPy, the reference, and OpenCV, the fast path. This module holds what
they share, the order of the steps and the geometry; ``_pixels_numpy`` and ``_pixels_cv2`` do the arithmetic.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.errors import DataError, DependencyError, ModelError, UsageError

CONTRACT_VERSION = 1
"""Raised whenever any image could come out with a different byte; a cache or artifact of another version is refused."""

RESIZE = "halve-then-linear"
MAX_SIDE = 1 << 15

Channels = Literal["rgb", "grey"]
Crop = Literal["center", "stretch", "letterbox"]
Color = Literal["rgb", "bgr"]
Backend = Literal["auto", "numpy", "cv2"]
Image = NDArray[np.uint8]


class Pixels(Protocol):
    """One implementation of the contract's arithmetic, on uint8 (h, w, c) of any strides."""

    def resize(self, image: Image, height: int, width: int) -> Image:
        """To (height, width, c) by ``halve-then-linear``."""

    def grey(self, image: Image, color: Color) -> Image:
        """From (h, w, 3 or 4) to (h, w, 1)."""

    def reverse(self, image: Image) -> Image:
        """From (h, w, 3) to (h, w, 3) with red and blue exchanged."""

    def spread(self, image: Image) -> Image:
        """From (h, w, 1) to (h, w, 3) of equal channels."""


@dataclass(frozen=True, kw_only=True)
class PrepareSpec:
    """What ``prepare`` makes of an image. Written into every manifest.

    Attributes:
        height, width: size of the result in pixels.
        channels: ``rgb`` (three) or ``grey`` (one).
        crop: ``center`` keeps the largest centred part with the result's aspect ratio, ``stretch`` keeps the whole
            image and changes its aspect ratio, ``letterbox`` keeps both and fills the rest.
        crop_fraction: with ``center``, the share of each side of that part to keep: a multiple of 0.001.
        fill: with ``letterbox``, the value of the bars.
    """

    height: int
    width: int
    channels: Channels = "rgb"
    crop: Crop = "stretch"
    crop_fraction: float = 1.0
    fill: int = 114

    def __post_init__(self) -> None:
        def refuse(field: str, constraint: str) -> None:
            raise UsageError(f"{field} must be {constraint}, but it is {getattr(self, field)!r}.")

        for side in ("height", "width"):
            value = getattr(self, side)
            if not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
                refuse(side, f"an integer from 1 to {MAX_SIDE}")
        if self.channels not in get_args(Channels):
            refuse("channels", f"one of {', '.join(get_args(Channels))}")
        if self.crop not in get_args(Crop):
            refuse("crop", f"one of {', '.join(get_args(Crop))}")
        if not 0.001 <= self.crop_fraction <= 1 or abs(self.crop_fraction * 1000 - self.crop_permille) > 1e-9:
            refuse("crop_fraction", "a multiple of 0.001 from 0.001 to 1")
        if not isinstance(self.fill, int) or not 0 <= self.fill <= 255:
            refuse("fill", "an integer from 0 to 255")

    @property
    def crop_permille(self) -> int:
        """``crop_fraction`` in thousandths, the integer that the arithmetic uses."""
        return round(self.crop_fraction * 1000)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the result: (height, width, 3 or 1)."""
        return self.height, self.width, 3 if self.channels == "rgb" else 1

    def to_json(self) -> dict[str, Any]:
        """The manifest's ``preprocessing`` object."""
        return {"contract": CONTRACT_VERSION, "resize": RESIZE, **asdict(self)}

    @classmethod
    def from_json(cls, value: Any) -> PrepareSpec:
        """Read the manifest's ``preprocessing`` object.

        Raises:
            ModelError: another contract version or resize, a missing field, or a value out of range.
        """
        try:
            contract, resize = value["contract"], value["resize"]
            fields = {name: value[name] for name in cls.__dataclass_fields__}
        except (KeyError, TypeError) as error:
            raise ModelError(f"The manifest's preprocessing lacks {error}; export the model again.") from error
        if contract != CONTRACT_VERSION or resize != RESIZE:
            raise ModelError(
                f"This edgeclf prepares images by contract {CONTRACT_VERSION} ({RESIZE}), but the model was made for "
                f"contract {contract} ({resize}); install the edgeclf-device that matches it or export again."
            )
        try:
            return cls(**fields)
        except (UsageError, TypeError) as error:
            raise ModelError(f"The manifest's preprocessing is not usable: {error}") from error


def prepare(image: Image, spec: PrepareSpec, *, color: Color = "rgb", backend: Backend = "auto") -> Image:
    """Turn any uint8 image into the exact bytes the model sees.

    Args:
        image: uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); any strides; never written to. Alpha is dropped.
        spec: size, channels and crop of the result.
        color: order of a colour image's channels; ``bgr`` for frames from OpenCV.
        backend: ``auto`` takes OpenCV where it is installed and NumPy elsewhere; the bytes are the same.

    Returns:
        uint8 (spec.height, spec.width, 3 or 1), C-contiguous, sharing no memory with ``image``.

    Raises:
        DataError: ``image`` is not such an array.
        UsageError: an unknown ``color`` or ``backend``.
        DependencyError: ``backend="cv2"`` without OpenCV.
    """
    pixels = as_pixels(image)
    if color not in get_args(Color):
        raise UsageError(f"color must be rgb or bgr, but it is {color!r}.")
    arithmetic = _pixels(backend)
    top, left, rows, columns = crop_box(pixels.shape[0], pixels.shape[1], spec)
    pixels = pixels[top : top + rows, left : left + columns]
    if pixels.shape[2] >= 3:
        # Channels are resized independently, so dropping alpha here and reordering at the end gives the same bytes.
        pixels = arithmetic.grey(pixels, color) if spec.channels == "grey" else pixels[..., :3]
    inner_height, inner_width = inner_size(rows, columns, spec)
    resized = arithmetic.resize(pixels, inner_height, inner_width)
    if spec.channels == "rgb":
        if resized.shape[2] == 1:
            resized = arithmetic.spread(resized)
        elif color == "bgr":
            resized = arithmetic.reverse(resized)
    if (inner_height, inner_width) != (spec.height, spec.width):
        return _padded(resized, spec)
    if np.may_share_memory(resized, image):
        return resized.copy(order="C")
    return np.ascontiguousarray(resized)


def as_pixels(image: Image) -> Image:
    """A view of any image that ``prepare`` takes as uint8 (H, W, 1, 3 or 4).

    Raises:
        DataError: it takes no such array.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        received = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"An image must be a uint8 NumPy array, but a {received} was given; scale it to 0..255 first.")
    pixels = image[..., np.newaxis] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise DataError(
            "An image must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) with H and W at least 1, "
            f"but it has {image.shape}."
        )
    if max(pixels.shape[:2]) > MAX_SIDE:
        raise DataError(f"An image side must be at most {MAX_SIDE} pixels, but the image is {image.shape}.")
    return pixels


def crop_box(height: int, width: int, spec: PrepareSpec) -> tuple[int, int, int, int]:
    """The part of a (height, width) image that is kept: (top, left, rows, columns), by integer arithmetic."""
    if spec.crop != "center":
        return 0, 0, height, width
    rows, columns = height, width
    if width * spec.height >= height * spec.width:
        columns = min(width, max(1, (2 * height * spec.width + spec.height) // (2 * spec.height)))
    else:
        rows = min(height, max(1, (2 * width * spec.height + spec.width) // (2 * spec.width)))
    rows = max(1, (rows * spec.crop_permille + 500) // 1000)
    columns = max(1, (columns * spec.crop_permille + 500) // 1000)
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def inner_size(height: int, width: int, spec: PrepareSpec) -> tuple[int, int]:
    """Size that the kept part is resized to: the result's size, or less in one direction with ``letterbox``."""
    if spec.crop != "letterbox":
        return spec.height, spec.width
    if width * spec.height >= height * spec.width:
        return max(1, (2 * height * spec.width + width) // (2 * width)), spec.width
    return spec.height, max(1, (2 * width * spec.height + height) // (2 * height))


def _padded(resized: Image, spec: PrepareSpec) -> Image:
    rows, columns = resized.shape[:2]
    top, left = (spec.height - rows) // 2, (spec.width - columns) // 2
    result = np.full(spec.shape, spec.fill, np.uint8)
    result[top : top + rows, left : left + columns] = resized
    return result


@functools.cache
def _pixels(backend: Backend) -> Pixels:
    if backend not in get_args(Backend):
        raise UsageError(f"backend must be one of {', '.join(get_args(Backend))}, but it is {backend!r}.")
    if backend != "numpy":
        # An OpenCV that is installed but does not load (the GUI build without libGL) counts as none.
        try:
            from edgeclf_device import _pixels_cv2
        except ImportError as error:
            if backend == "cv2":
                raise DependencyError(
                    f'backend="cv2" needs OpenCV ({error}): pip install "edgeclf-device[camera]".'
                ) from error
        else:
            return _pixels_cv2
    from edgeclf_device import _pixels_numpy

    return _pixels_numpy
