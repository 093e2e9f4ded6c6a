"""What an export needs to know of its model, wherever the model comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.exporting.convention import Convention, Kind
from edgeclf_device.clips import ClipSpec, Spec


@dataclass(frozen=True, kw_only=True)
class Images:
    """Some prepared images: a split of a run's data, or images that the caller names.

    Attributes:
        pixels: uint8 (M, H, W, C), of all images, or (M, T, H, W, C), of all clips, normally mapped from disk.
        rows: (N,) which of them.
        true: (N,) class indices; None where nothing is known of the model's classes.
        digests: SHA-256 of each image's file.
        split: what they are: ``train``, ``val`` or ``test`` of the run, ``given``, or what judges of given images:
            ``held-out`` where they are labelled, otherwise ``unlabelled``.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    true: NDArray[np.int64] | None
    digests: tuple[str, ...]
    split: str

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self.pixels[row] for row in self.rows)

    def take(self, places: Sequence[int]) -> NDArray[np.uint8]:
        """The images at ``places``, uint8 (len(places), H, W, C)."""
        return np.asarray(self.pixels[self.rows[list(places)]])

    def named(self, labels: Sequence[str]) -> list[str]:
        """The label of each image; where they have none, one that is the same for all."""
        return [self.split] * len(self) if self.true is None else [labels[one] for one in self.true]

    def part(self, places: Sequence[int], *, split: str | None = None) -> Images:
        """The images at ``places`` alone, under another name where ``split`` is given."""
        return Images(
            pixels=self.pixels,
            rows=self.rows[list(places)],
            true=None if self.true is None else self.true[list(places)],
            digests=tuple(self.digests[place] for place in places),
            split=split or self.split,
        )


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained model and the images that calibrate and judge it.

    Attributes:
        name: begins the name of every artifact.
        model: path of its file or folder.
        labels: of the model's outputs, in order.
        spec: preprocessing that the model was trained with, and of a video model its window.
        calibration: images to choose the calibration from; None: there are none.
        tuning: images to choose a way of quantizing by, none of which trained the model or judges it; None: what the
            calibration leaves over.
        judging: images that judge, none of which trained or calibrated the model; None: there are none.
        reference: the model's own scores on ``judging``, float32 (N, classes); None: not known yet.
        reject_below: the least score to be believed, from the model's validation; None: any.
        provenance: digests and licences of what the model was made from.
        kind: what ``model`` is.
        convention: what a model that was trained elsewhere takes and gives; None: the model of a run.
    """

    name: str
    model: Path
    labels: tuple[str, ...]
    spec: Spec
    calibration: Images | None
    tuning: Images | None
    judging: Images | None
    reference: NDArray[np.float32] | None
    reject_below: float | None
    provenance: Mapping[str, Any]
    kind: Kind = "keras"
    convention: Convention | None = None

    @property
    def clip(self) -> ClipSpec | None:
        """The window of a video model; None of one of single images."""
        return self.spec if isinstance(self.spec, ClipSpec) else None
