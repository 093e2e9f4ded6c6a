"""What ``near_duplicates`` finds among 2,624 real pictures of solar cells, which look alike, and how long it takes.

Copies of some cells, changed as copies are, are put among the originals: recall is the share that hangs together with
its original. Pairs of different cells are counted too: neighbouring wafers of one block of silicon share crystals.
Time is taken on pictures that differ, as photographs do.
Run: ``.venv/bin/python benchmarks/near_duplicates.py --json benchmarks/results/near_duplicates.json``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from record import write_record
from scipy.cluster.hierarchy import DisjointSet

from edgeclf.data.duplicates import near_duplicates
from edgeclf.solar.images import cells
from edgeclf_device.images import load
from edgeclf_device.preprocess import PrepareSpec, prepare

Image = NDArray[np.uint8]

COPIES = 150
TIMED = 70_000
SPEC = PrepareSpec(height=224, width=224)
MIN_RECALL = 0.9
"""The promise for each single change; copies changed in every way at once are reported alone."""


def jpeg(image: Any) -> Any:
    """Saved again as a JPEG of quality 60."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)


def smaller(image: Any) -> Any:
    """Shrunk to 0.7 of its sides."""
    return cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)


def brighter(image: Any) -> Any:
    """Brightened by 8 %."""
    return cv2.convertScaleAbs(image, alpha=1.08)


def cropped(image: Any) -> Any:
    """Without the outermost hundredth on each side."""
    rows, columns = (max(1, round(0.01 * side)) for side in image.shape[:2])
    return np.ascontiguousarray(image[rows:-rows, columns:-columns])


CHANGES: dict[str, Callable[[Any], Any]] = {
    "JPEG quality 60": jpeg,
    "shrunk to 0.7": smaller,
    "8 % brighter": brighter,
    "cropped by 2 %": cropped,
    "all four": lambda image: jpeg(brighter(smaller(cropped(image)))),
}


def recall(images: list[Image], pixels: Image) -> dict[str, float]:
    """Share of changed copies that are found, by change."""
    picks = np.random.default_rng(0).permutation(len(images))[: COPIES * len(CHANGES)].reshape(len(CHANGES), -1)
    sources = picks.ravel().tolist()
    changes = [change for change in CHANGES.values() for _ in range(COPIES)]
    copies = [prepare(change(images[source]), SPEC) for change, source in zip(changes, sources, strict=True)]
    joined = DisjointSet(range(len(pixels) + len(copies)))
    for first, second in near_duplicates(np.concatenate([pixels, np.stack(copies)])):
        joined.merge(first, second)
    found = [joined.connected(len(pixels) + place, source) for place, source in enumerate(sources)]
    return dict(zip(CHANGES, np.reshape(found, picks.shape).mean(axis=1).tolist(), strict=True))


def seconds_for_unlike() -> float:
    """Wall time for pictures that have nothing to do with each other, 64×64 and grey."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (TIMED, 8, 8)).astype(np.uint8)
    pixels = np.stack([cv2.resize(one, (64, 64), interpolation=cv2.INTER_CUBIC) for one in coarse])[..., np.newaxis]
    begin = time.perf_counter()
    near_duplicates(pixels)
    return time.perf_counter() - begin


def main() -> None:
    """Print the figures and, on request, write them with the conditions as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    images = [load(cell.file) for cell in cells()]
    pixels = np.stack([prepare(image, SPEC) for image in images])
    found = recall(images, pixels)
    pairs = near_duplicates(pixels)
    joined = DisjointSet(range(len(pixels)))
    for first, second in pairs:
        joined.merge(first, second)
    figures = {
        "recall": found,
        "pictures": len(pixels),
        "pairs_of_different_cells": len(pairs),
        "largest_unit": max(map(len, joined.subsets())),
        "unlike_pictures": TIMED,
        "unlike_pictures_s": seconds_for_unlike(),
    }
    for change, share in found.items():
        sys.stdout.write(f"{change:>16}: {share:6.1%} found\n")
    sys.stdout.write(
        f"{len(pairs)} pairs of different cells among {len(pixels)}, at most {figures['largest_unit']} hang together; "
        f"{TIMED} unlike pictures in {figures['unlike_pictures_s']:.1f} s\n"
    )
    if arguments.json:
        write_record(arguments.json, threads=os.cpu_count(), copies=COPIES, **figures)
    missed = [change for change in list(CHANGES)[:-1] if found[change] < MIN_RECALL]
    if missed:
        sys.exit(f"At least {MIN_RECALL:.0%} of copies must be found, but not of: {', '.join(missed)}.")


if __name__ == "__main__":
    main()
