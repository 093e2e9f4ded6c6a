"""What speaks against a calibration: sentences for people, about its images and about the ranges they gave."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration.ranges import Range
from edgeclf_device.errors import UsageError

FEW_IMAGES = 32
"""Of n images drawn at random, the next one exceeds the largest value seen with a chance of 1 in n + 1: here 3 %."""

FLAT_LEVELS = 4.0
"""Standard deviation, of 256 levels: noise of a covered lens stays below, and the flattest of 656 solar cells has 8."""

BIASED_FACTOR = 3
"""A share is biased beyond this factor, if it is also three standard deviations (at least 3 images) from chance."""

SAME_RANGE = 1 / 256
"""Ranges that differ by less than a step of int8 give the same quantized model, but for rounding."""

UNSTABLE = 0.05
"""Mean difference between half of the images and all. Halves of 64 random solar cells stay below 19 times in 20."""

_NAMED = 5


def image_doubts(
    pixels: NDArray[np.uint8], labels: Sequence[str] | None, *, known: Mapping[str, int]
) -> tuple[str, ...]:
    """What speaks against these calibration images; nothing where all is well.

    Looked for: fewer than ``FEW_IMAGES`` different ones; copies; most of them nearly without contrast; a known class
    without an image although there is room for one of each; a class with a share quite unlike its share of all images.

    Args:
        pixels: uint8 (N, H, W, C), the chosen images as the model sees them.
        labels: label of each, or None where there are none: then classes are not looked at.
        known: how many images of each class there are to choose from.

    Raises:
        UsageError: a label is not known, or there is not one for each image.
    """
    return (*_doubts_of_pixels(pixels), *(() if labels is None else _doubts_of_classes(labels, len(pixels), known)))


def _doubts_of_pixels(pixels: NDArray[np.uint8]) -> Iterator[str]:
    different = len({hashlib.sha256(image.tobytes()).digest() for image in pixels})
    if different < FEW_IMAGES:
        yield (
            f"The calibration has {different} different images, and with fewer than {FEW_IMAGES} values outside the "
            "ranges found are common; choose more."
        )
    if different < len(pixels):
        yield (
            f"{len(pixels) - different} of {len(pixels)} calibration images are copies of others, pixel for pixel: "
            "they add nothing; choose others in their place."
        )
    flat = [image for image in pixels if float(image.std(axis=(0, 1)).max()) < FLAT_LEVELS]
    if 2 * len(flat) > len(pixels):
        black = sum(float(image.mean()) < FLAT_LEVELS for image in flat)
        yield (
            f"{len(flat)} of {len(pixels)} calibration images are nearly constant, {black} of them black (standard "
            f"deviation below {FLAT_LEVELS:g} of 256 levels): they excite little of the network; choose images like "
            "those the device will see."
        )


def _doubts_of_classes(labels: Sequence[str], images: int, known: Mapping[str, int]) -> Iterator[str]:
    strangers = sorted({label for label in labels if known.get(label, 0) < 1})
    if strangers or len(labels) != images:
        raise UsageError(
            f"Each of the {images} images needs a label that is known, but there are {len(labels)} and not known are: "
            f"{_listed(strangers) or 'none'}; count known= over all images the choice was made from."
        )
    chosen, total = Counter(labels), sum(known.values())
    missing = sorted(label for label, size in known.items() if size and not chosen[label])
    if missing and images >= len(known):
        yield (
            f"{len(missing)} of {len(known)} classes have no calibration image: {_listed(missing)}; "
            "choose with the method stratified, or more images."
        )
    biased = [
        f"{label} ({_percent(chosen[label] / images)} instead of {_percent(known[label] / total)})"
        for label in sorted(chosen)
        if _is_biased(chosen[label], images * known[label] / total)
    ]
    if biased:
        yield (
            f"{len(biased)} of {len(known)} classes have quite another share of the calibration images than of all: "
            f"{_listed(biased)}; choose with the method stratified, or more images."
        )


def _is_biased(found: int, expected: float) -> bool:
    is_off = max(found / expected, expected / found) > BIASED_FACTOR
    return is_off and abs(found - expected) > 3 * max(expected, 1) ** 0.5


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, kw_only=True)
class Stability:
    """How far two sets of ranges of one network differ.

    Attributes:
        differences: for each tensor from 0, equal, to 1, nothing in common.
    """

    differences: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Over the tensors, each counting alike."""
        return sum(self.differences.values()) / len(self.differences)

    @property
    def worst(self) -> str:
        """Name of the tensor whose ranges differ most."""
        return max(self.differences, key=lambda name: (self.differences[name], name))

    @property
    def summary(self) -> str:
        """One sentence."""
        return (
            f"The ranges of {len(self.differences)} tensors differ by {_percent(self.mean)} on average and by "
            f"{_percent(self.differences[self.worst])} at most ({self.worst})."
        )


def range_stability(a: Mapping[str, Range], b: Mapping[str, Range]) -> Stability:
    """Compare the ranges of the same tensors, from half and from all of the images, say.

    The difference is the part of their common hull that not both cover: 1 minus Jaccard's index of the two intervals.

    Raises:
        UsageError: the tensors are not the same, or there is none.
    """
    if a.keys() != b.keys() or not a:
        unlike = sorted(a.keys() ^ b.keys())
        raise UsageError(
            f"Ranges are compared tensor by tensor, but {len(a)} and {len(b)} were given, and only one has: "
            f"{_listed(unlike) or 'none'}; take both from one model."
        )
    return Stability(differences={name: _difference(a[name], b[name]) for name in sorted(a)})


def _difference(a: Range, b: Range) -> float:
    hull = max(a.high, b.high) - min(a.low, b.low)
    shared = max(min(a.high, b.high) - max(a.low, b.low), 0.0)
    return 1 - shared / hull if hull > 0 else 0.0


def range_doubts(
    ranges: Mapping[str, Range], *, half: Mapping[str, Range], synthetic: Mapping[str, Range]
) -> tuple[str, ...]:
    """What speaks against these ranges; nothing where all is well.

    Args:
        ranges: from all calibration images.
        half: of the same tensors, from half of the images.
        synthetic: of the same tensors, from input that shows nothing, such as one grey image.

    Raises:
        UsageError: the tensors are not the same, or there is none.
    """
    doubts = []
    if max(range_stability(ranges, synthetic).differences.values()) < SAME_RANGE:
        doubts.append(
            "The calibration images have no effect: every tensor has the range that a synthetic image gives it too; "
            "look whether the images reach the model."
        )
    stability = range_stability(ranges, half)
    if stability.mean > UNSTABLE:
        doubts.append(
            f"The ranges still grow with the images: between half of them and all, they differ by "
            f"{_percent(stability.mean)} on average, most in {stability.worst}; choose more images."
        )
    return tuple(doubts)
