"""What is compared between the two architectures: made here on x86-64 and, under the same names, again on arm64."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device import PrepareSpec, load

SIDES = ((1, 1), (2, 3), (7, 1), (61, 83), (97, 501), (224, 224), (300, 300), (480, 640), (720, 1280), (1080, 31))
TARGETS = ((224, 224), (64, 100), (37, 1))
CROPS = ("center", "stretch", "letterbox")
RANDOM_CASES = 1500
FRAME_SIZES = ((61, 83), (240, 320), (16, 20))
TINTS = ((9, 1, 1), (1, 9, 1), (1, 1, 9), (3, 3, 3))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of ``prepare``."""

    name: str
    image: NDArray[np.uint8]
    spec: PrepareSpec
    color: str


def digest(array: NDArray[Any]) -> str:
    """SHA-256 of an array's shape and bytes."""
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()


def prepare_cases() -> Iterator[Case]:
    """Every crop, colour order and number of channels on every size, then random ones of odd sizes and layouts."""
    rng = np.random.default_rng(64)
    for height, width in SIDES:
        image = _noise(rng, (height, width, 4))
        for number, (crop, channels, color) in enumerate(
            (crop, channels, color) for crop in CROPS for channels in ("rgb", "grey") for color in ("rgb", "bgr")
        ):
            target = TARGETS[number % len(TARGETS)]
            spec = PrepareSpec(height=target[0], width=target[1], crop=crop, channels=channels, crop_fraction=0.875)
            for kind, pixels in (("grey", image[..., 0]), ("colour", image[..., :3]), ("alpha", image)):
                yield Case(
                    name=f"{height}x{width} {kind} {color} {crop} {channels}", image=pixels, spec=spec, color=color
                )
    for number in range(RANDOM_CASES):
        yield _random_case(rng, number)


def _random_case(rng: np.random.Generator, number: int) -> Case:
    height, width, to_height, to_width = (int(np.exp(rng.uniform(0, np.log(400)))) for _ in range(4))
    channels = int(rng.choice([1, 3, 4]))
    image = _noise(rng, (height, width, channels))
    layouts = (image, image[::-1, ::-1], image.swapaxes(0, 1), image[::2, ::2])
    spec = PrepareSpec(
        height=to_height,
        width=to_width,
        channels=str(rng.choice(["rgb", "grey"])),
        crop=str(rng.choice(CROPS)),
        crop_fraction=int(rng.integers(1, 1001)) / 1000,
        fill=int(rng.integers(0, 256)),
    )
    color = str(rng.choice(["rgb", "bgr"]))
    return Case(name=f"random {number}", image=layouts[number % len(layouts)], spec=spec, color=color)


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Random bytes, half of the time with a slope in them: rounding errors show in both."""
    noise = np.frombuffer(rng.bytes(int(np.prod(shape))), np.uint8).reshape(shape)
    if rng.random() < 0.5:
        return noise
    slope = np.add.outer(np.arange(shape[0]), np.arange(shape[1]))[..., np.newaxis]
    return ((slope & 0xFF) ^ (noise & 0x07)).astype(np.uint8)


def frames(folder: Path) -> list[NDArray[np.uint8]]:
    """What artifacts are run on: the drawings in ``folder``, noise of several sizes, and noise of one tint each."""
    rng = np.random.default_rng(7)
    drawn = [load(file) for file in sorted(folder.glob("drawing-*.png"))]
    noise = [_noise(rng, (*size, 3)) for size in FRAME_SIZES]
    return [*drawn, *noise, *((noise[0] // np.array(tint)).astype(np.uint8) for tint in TINTS)]
