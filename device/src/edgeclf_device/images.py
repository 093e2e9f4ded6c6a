"""Image files as uint8 RGB pixels, and frames as PNG. A JPEG's bytes differ between libraries; ``prepare``'s do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device._image_header import lacks_its_end, stated_size
from edgeclf_device.errors import DataError, DependencyError
from edgeclf_device.preprocess import MAX_SIDE, Color, Image, as_pixels

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
MAX_PIXELS = 1 << 28


def load(path: Path) -> NDArray[np.uint8]:
    """Decode an image file, or read a ``.npy`` frame.

    Rules: the EXIF orientation is applied; 16-bit samples keep their upper 8 bits; grey, palette and CMYK become RGB;
    alpha is dropped; of an animation the first frame is taken. (OpenCV 4.12 is
    the first to decode GIF, OpenCV 5 is known to heed the orientation of a WebP and 4.12 not to.)

    Returns:
        uint8 (H, W, 3) RGB; a ``.npy`` file's array as it is.

    Raises:
        DataError: no such file, empty, cut off, not an image that ``prepare`` takes, or more than 2^28 pixels.
        DependencyError: OpenCV is not installed and the file is not a ``.npy``.
    """
    if path.suffix.lower() == ".npy":
        return _load_array(path)
    cv2 = import_cv2(f"Decoding {path.name}")
    image = decode(read_bytes(path), path)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB), np.uint8)


def read_bytes(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        DataError: it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.") from error


def decode(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Decode the bytes of the image file at ``path`` by the rules of ``load``, but leave grey images as they are.

    ``prepare(..., color="bgr")`` makes the same bytes of it as of ``load``'s image, and has less to do.

    Returns:
        uint8 (H, W) grey or (H, W, 3) BGR.

    Raises:
        DataError, DependencyError: as for ``load``.
    """
    cv2 = import_cv2(f"Decoding {path.name}")
    if not data:
        raise DataError(f"{path} is empty (0 bytes); remove it or copy it again.")
    _check_size(stated_size(data), path)
    if lacks_its_end(data):
        raise DataError(f"{path} is cut off: its end is missing; remove it or copy it again.")
    try:
        # Not cv2.imread, which can't open every non-ASCII name; IMREAD_COLOR_RGB came with OpenCV 4.10 only.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR)
    except cv2.error as error:
        raise DataError(f"{path} can't be decoded ({error.err}); remove it or save it again.") from error
    if image is None:
        raise DataError(
            f"{path} is not an image that can be decoded whole: it is damaged, cut off or of an unknown kind; "
            "remove it, copy it again, or save it as PNG or JPEG."
        )
    _check_size(image.shape[:2], path)
    return np.asarray(image, np.uint8)


def _check_size(size: tuple[int, int] | None, path: Path) -> None:
    if size is not None and (size[0] * size[1] > MAX_PIXELS or max(size) > MAX_SIDE):
        raise DataError(
            f"{path}: an image may have {MAX_PIXELS} pixels and {MAX_SIDE} a side, but it states {size[1]}×{size[0]}; "
            "make it smaller or remove it."
        )


def import_cv2(purpose: str) -> Any:
    """Import OpenCV, or say that ``purpose`` needs it.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise DependencyError(
            f'{purpose} needs OpenCV, which does not import here ({error}): pip install "edgeclf-device[camera]".'
        ) from error
    return cv2


def blue_first(cv2: Any, frame: Image, color: Color) -> Image:
    """What OpenCV's encoders want of a frame as ``prepare`` takes it: uint8 (H, W) grey or (H, W, 3) BGR."""
    if frame.ndim == 2:
        return frame
    channels = frame.shape[2]
    if channels == 1:
        return frame[:, :, 0]
    if channels == 3 and color == "bgr":
        return frame
    code = {
        (3, "rgb"): cv2.COLOR_RGB2BGR,
        (4, "rgb"): cv2.COLOR_RGBA2BGR,
        (4, "bgr"): cv2.COLOR_BGRA2BGR,
    }[channels, color]
    return np.asarray(cv2.cvtColor(frame, code), np.uint8)


def png(frame: Image, color: Color) -> bytes:
    """A PNG of a frame as ``prepare`` takes it: every pixel as it was, alpha dropped.

    Raises:
        DependencyError: OpenCV is not installed.
    """
    cv2 = import_cv2("Writing a PNG")
    done, data = cv2.imencode(".png", np.ascontiguousarray(blue_first(cv2, frame, color)))
    if not done:
        raise ValueError(f"OpenCV made no PNG of a frame of shape {frame.shape}.")
    return bytes(data)


def _load_array(path: Path) -> NDArray[np.uint8]:
    try:
        # Mapped, because a damaged header may state any size: then this fails where reading would ask for the memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not a NumPy array file: {error}.") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} must hold one array, but it is an archive of arrays; save the frame with numpy.save.")
    if array.dtype != np.uint8:
        raise DataError(f"{path} must hold uint8 pixels, but it holds {array.dtype}; scale them to 0..255 first.")
    try:
        as_pixels(array)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return np.array(array)
