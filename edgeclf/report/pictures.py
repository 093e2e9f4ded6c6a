"""The report's photographs: taken once, by the training that has the network and the images, and kept in the run."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.evaluation import explain
from edgeclf.training.augment import filmstrips, preview_grid
from edgeclf.training.config import TrainConfig
from edgeclf.training.kept import read_kept
from edgeclf_device.atomic import write_text

if TYPE_CHECKING:
    import keras

PICTURES = "pictures.json"
FORMAT = (1, 0)

GALLERY, WRONG = 24, 16
"""Images in the gallery, and how many of them may be wrong ones where there are right ones to show as well."""
SIDE_PIXELS = 176
PREVIEW_IMAGES, PREVIEW_VIEWS, CLIP_PREVIEW_VIEWS = 5, 6, 2
_JPEG_QUALITY = 85

Image = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image of the gallery, as JPEG.

    Attributes:
        row: index into the run's ``splits``.
        image: the prepared image.
        overlay: coloured by where the network looked; None where no method explains it.
    """

    row: int
    image: bytes = field(repr=False)
    overlay: bytes | None = field(repr=False, default=None)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a run keeps to be looked at.

    Attributes:
        method: of the overlays: see ``edgeclf.evaluation.explain.method``.
        gallery: judged images, the most wrong ones first.
        augmentation: training images and their augmented views, as JPEG.
    """

    method: str
    gallery: tuple[Picture, ...]
    augmentation: bytes = field(repr=False)


def choose(true: NDArray[np.int64], scores: NDArray[np.float32], *, limit: int = GALLERY) -> NDArray[np.int64]:
    """Return which images teach most: wrong ones, the surest first, then right ones, the least sure first.

    Args:
        true: (N,) class indices.
        scores: (N, classes).
        limit: how many at most; a third of them is left to right ones where there are so many.

    Returns:
        indices into the N.
    """
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == true
    surest = np.argsort(-confidence, kind="stable")
    wrong, unsure = surest[~right[surest]], surest[::-1][right[surest[::-1]]]
    kept = max(limit * WRONG // GALLERY, limit - len(unsure))
    wrong = wrong[:kept]
    return np.concatenate([wrong, unsure[: limit - len(wrong)]])


def take_pictures(
    model: keras.Model,
    pixels: NDArray[np.uint8],
    *,
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    judged: NDArray[np.int64],
    scores: NDArray[np.float32],
    config: TrainConfig,
) -> Pictures:
    """Choose and draw what the report shows of single images.

    Args:
        model: the trained network.
        pixels: uint8 (N, H, W, C), prepared images, or (N, T, H, W, C), clips, which are shown as their frames side by
            side, with nothing of where the network looked. A few are read.
        labels: (N,) class indices.
        train, judged: indices of the training images and of those that judge the model.
        scores: float32 (len(judged), classes), what ``model`` says of them.
        config: of the training.
    """
    chosen = choose(labels[judged], scores)
    rows = judged[chosen]
    images = pixels[rows]
    method = "" if images.ndim == 5 else explain.method(model)
    heats = (
        explain.explain(model, images, scores[chosen].argmax(axis=1)) if method and len(rows) else [None] * len(rows)
    )
    gallery = tuple(
        Picture(
            row=int(row),
            image=_jpeg(_thumbnail(image)),
            overlay=None if heat is None else _jpeg(explain.overlay(_thumbnail(image), heat)),
        )
        for row, image, heat in zip(rows, filmstrips(images) if images.ndim == 5 else images, heats, strict=True)
    )
    return Pictures(method=method, gallery=gallery, augmentation=_preview(pixels, labels, train, config))


def write_pictures(folder: Path, pictures: Pictures) -> None:
    """Write ``pictures`` into the run ``folder``.

    Raises:
        SystemStateError: the disk is full or can't be written.
    """
    value = {
        "format": list(FORMAT),
        "method": pictures.method,
        "augmentation": _text(pictures.augmentation),
        "gallery": [
            {"row": one.row, "image": _text(one.image), "overlay": _text(one.overlay)} for one in pictures.gallery
        ],
    }
    write_text(folder / PICTURES, json.dumps(value, indent=1) + "\n")


def read_pictures(folder: Path) -> Pictures | None:
    """Read the pictures of the run ``folder``; None where it keeps none.

    Raises:
        ModelError: they are damaged, or of a newer format.
    """
    return read_kept(folder / PICTURES, _from_json, newest=FORMAT, remedy="remove it, or train again")


def _from_json(value: Any) -> Pictures:
    return Pictures(
        method=str(value["method"]),
        augmentation=_bytes(value["augmentation"]) or b"",
        gallery=tuple(
            Picture(row=int(one["row"]), image=_bytes(one["image"]) or b"", overlay=_bytes(one["overlay"]))
            for one in value["gallery"]
        ),
    )


def _preview(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], train: NDArray[np.int64], config: TrainConfig
) -> bytes:
    """A few training images, of as many classes as can be, each with some of its augmented views."""
    columns = CLIP_PREVIEW_VIEWS if pixels.ndim == 5 else PREVIEW_VIEWS
    _, first = np.unique(labels[train], return_index=True)
    rows = train[[*first, *np.setdiff1d(np.arange(len(train)), first)][:PREVIEW_IMAGES]]
    grid = preview_grid(pixels[rows], labels[rows], config.augment, seed=config.seed, columns=columns)
    return _jpeg(_thumbnail(grid, side_pixels=900))


def _thumbnail(image: Image, *, side_pixels: int = SIDE_PIXELS) -> Image:
    """``image``, uint8 (H, W, 1 or 3), as RGB with its longer side ``side_pixels`` long; few pixels stay squares."""
    import cv2

    height, width = image.shape[:2]
    factor = side_pixels / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST)
    return np.ascontiguousarray(np.broadcast_to(small.reshape(*size[::-1], -1), (*size[::-1], 3)))


def _jpeg(image: Image) -> bytes:
    import cv2

    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return data.tobytes()


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")


def _bytes(text: Any) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
