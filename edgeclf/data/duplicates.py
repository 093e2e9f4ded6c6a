"""Near duplicates: pictures that look the same though their bytes differ, found from the prepared pixels.

Three sieves, each finer and slower than the one before:

1. a 64-bit perceptual hash of every picture (pHash: Zauner, "Implementation and Benchmarking of Perceptual Image Hash
   Functions", 2010) and every pair within ``HASH_DISTANCE`` bits;
2. on 32×32 thumbnails, what of one picture the other leaves unexplained by least squares, with a gain, an offset, and a
   small shift and stretch along each axis to first order (one step of Lucas and Kanade, 1981);
3. at up to 96×96, what is left between the two once they are aligned by the enhanced correlation coefficient
   (Evangelidis and Psarakis, 2008).

What is left is judged where it is largest: copies of one picture differ nowhere, pictures of like things in places.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.images import import_cv2
from edgeclf_device.progress import Progress, no_progress

Floats = NDArray[np.float32]
Thumbnails = NDArray[np.uint8]
Pair = tuple[int, int]

HASH_DISTANCE = 8
MAX_UNEXPLAINED = 0.12
"""Share of one thumbnail's variance that the other may leave unexplained."""
MAX_COARSE = 0.35
MAX_FINE = 0.25
"""What may be left by the second and by the third sieve; see ``_left_over``."""
FULL_SIDE = 56
"""Below so many pixels less may be left, in proportion: a small picture is mostly its outline, and that things of one
kind share."""
MIN_CONTRAST = 2.0
"""Standard deviation of a thumbnail, in levels, below which a picture is too flat to be compared."""
HASH_CANDIDATES = 256
FINE_CANDIDATES = 4
"""How many pictures, those most alike, the second and the third sieve compare with each one: where everything looks
alike, time would grow with the square."""

_SIDE, _BORDER = 32, 2
_FINE_SIDE = 96
_RIDGE = 1e-5
_ALONG = np.linspace(-1, 1, _SIDE - 2 * _BORDER, dtype=np.float32)
_NONE = np.empty((0, _SIDE, _SIDE), np.uint8)
_ROUND, _BATCH = 256, 16
"""Rows and pairs looked at together. They decide what is skipped as known, so they don't depend on the machine."""


def near_duplicates(
    pixels: NDArray[np.uint8], *, threads: int | None = None, progress: Progress = no_progress
) -> list[Pair]:
    """Find pictures that look the same.

    Of N pictures that look the same N - 1 pairs are named: enough that they hang together.

    Args:
        pixels: uint8 (N, H, W, 1 or 3), RGB, for example the mapped pixels of ``edgeclf.data.cache.load``.
        threads: default: as many as there are processors. The result does not depend on it.

    Returns:
        (i, j) with i < j, most alike first.

    Raises:
        DependencyError: OpenCV is not installed.
    """
    import_cv2("Comparing pictures")
    groups = np.arange(len(pixels))
    found: list[tuple[float, Pair]] = []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        starts = range(0, len(pixels), _ROUND)
        blocks = pool.map(_thumbnails, _blocks(pixels))
        thumbnails = np.concatenate([_NONE, *progress(blocks, "reading pictures", len(starts))])
        pictures = _Pictures(pixels, thumbnails)
        for start in progress(starts, "comparing pictures", len(starts)):
            for left, pair in _pairs_from(start, pictures, groups, pool):
                first, second = groups[list(pair)]
                if first != second:
                    found.append((left, pair))
                    groups[groups == second] = first
    return [pair for _, pair in sorted(found)]


class _Pictures:
    """What is compared.

    Attributes:
        pixels: uint8 (N, H, W, C).
        thumbnails: uint8 (N, 32, 32), grey.
        hashes: uint64 (N,).
        spreads: float64 (N,), the thumbnails' standard deviations.
        usable: bool (N,), false for those too flat to be compared.
        tolerance: share of the limits that holds for pictures of this size.
    """

    def __init__(self, pixels: NDArray[np.uint8], thumbnails: Thumbnails) -> None:
        self.pixels = pixels
        self.thumbnails = thumbnails
        self.hashes = perceptual_hashes(thumbnails)
        self.spreads = np.concatenate([np.empty(0), *(_inner(block).std(axis=(1, 2)) for block in _blocks(thumbnails))])
        self.usable = self.spreads >= MIN_CONTRAST
        self.tolerance = min(1.0, min(pixels.shape[1:3]) / FULL_SIDE)


def _pairs_from(
    start: int, pictures: _Pictures, groups: NDArray[np.int64], pool: ThreadPoolExecutor
) -> Iterator[tuple[float, Pair]]:
    """Yield what is left of each pair whose first is one of the rows from ``start``; the caller joins ``groups``."""
    rows = [row for row in range(start, min(start + _ROUND, len(groups))) if pictures.usable[row]]
    known = groups.copy()
    suspects = zip(rows, pool.map(lambda row: _suspects(row, pictures, known), rows), strict=True)
    apart = ((row, other) for row, others in suspects for other in others if groups[row] != groups[other])
    while batch := list(islice(apart, _BATCH)):
        for pair, left in zip(batch, pool.map(lambda pair: _fine(pictures.pixels, pair), batch), strict=True):
            if left <= MAX_FINE * pictures.tolerance:
                yield left, pair


def perceptual_hashes(thumbnails: Thumbnails) -> NDArray[np.uint64]:
    """The 64-bit pHash of uint8 (N, 32, 32) grey thumbnails, uint64 (N,).

    A bit for each of the 8×8 lowest frequencies of the discrete cosine transform: whether it is above their median.
    """
    from scipy.fft import dctn

    hashes = [np.empty(0, np.uint64)]
    for block in _blocks(thumbnails):
        low = dctn(block.astype(np.float32), axes=(1, 2), norm="ortho")[:, :8, :8].reshape(-1, 64)
        bits = low > np.median(low, axis=1, keepdims=True)
        hashes.append(np.packbits(bits, axis=1).view(np.uint64)[:, 0])
    return np.concatenate(hashes)


def _blocks(pictures: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [pictures[start : start + _ROUND] for start in range(0, len(pictures), _ROUND)]


def _thumbnails(pixels: NDArray[np.uint8]) -> Thumbnails:
    return np.stack([_grey(picture, _SIDE) for picture in pixels])


def _grey(picture: NDArray[np.uint8], side: int) -> Any:
    """uint8 (H, W, 1 or 3) as uint8 (side, side)."""
    import cv2

    grey = picture[..., 0] if picture.shape[2] == 1 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)


def _suspects(row: int, pictures: _Pictures, known: NDArray[np.int64]) -> list[int]:
    """Later pictures that the first two sieves let through, most alike first, but for those of ``row``'s own group."""
    distances = np.bitwise_count(pictures.hashes[row + 1 :] ^ pictures.hashes[row])
    near = np.flatnonzero(distances <= HASH_DISTANCE)
    near = near[pictures.usable[row + 1 :][near] & (known[row + 1 :][near] != known[row])]
    if not len(near):
        return []
    others = row + 1 + near[np.argsort(distances[near], kind="stable")[:HASH_CANDIDATES]]
    left = _coarse(row, others, pictures)
    order = np.argsort(left, kind="stable")[:FINE_CANDIDATES]
    return [int(other) for other in others[order[left[order] <= MAX_COARSE * pictures.tolerance]]]


def _coarse(row: int, others: NDArray[np.int64], pictures: _Pictures) -> Floats:
    """What the thumbnail of ``row`` leaves of each of ``others``, (K,); infinite where it explains too little.

    Without BLAS, whose threads get into each other's way where several of ours call it.
    """
    warps = _warps(pictures.thumbnails[row].astype(np.float32))
    values = _inner(pictures.thumbnails[others]).reshape(len(others), -1).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    products = np.einsum("kp,mp->km", values, warps)
    squares = np.einsum("np,mp->nm", warps, warps) + _RIDGE * np.eye(len(warps), dtype=np.float32)
    weights = np.linalg.solve(squares, products.T).T
    unexplained = 1 - (weights * products).sum(axis=1) / (values.shape[1] * pictures.spreads[others] ** 2)
    left = np.full(len(others), np.inf, np.float32)
    rows = np.flatnonzero(unexplained <= MAX_UNEXPLAINED * pictures.tolerance**2)
    if len(rows):
        rest = values[rows] - np.einsum("km,mp->kp", weights[rows], warps)
        side = _SIDE - 2 * _BORDER
        left[rows] = _left_over(rest.reshape(len(rows), side, side)) / pictures.spreads[others[rows]]
    return left


def _warps(picture: Floats) -> Floats:
    """What small warps and a gain make of a (32, 32) picture, to first order: (5, 784), each of mean 0 and length 1."""
    here, near, far = slice(_BORDER, -_BORDER), slice(_BORDER - 1, -_BORDER - 1), slice(_BORDER + 1, 1 - _BORDER)
    down, across = picture[far, here] - picture[near, here], picture[here, far] - picture[here, near]
    warps = np.stack([picture[here, here], down, across, down * _ALONG[:, None], across * _ALONG])
    warps = warps.reshape(len(warps), -1)
    warps -= warps.mean(axis=1, keepdims=True)
    return np.asarray(warps / np.maximum(np.linalg.norm(warps, axis=1, keepdims=True), _RIDGE), np.float32)


def _inner(pictures: Thumbnails) -> Thumbnails:
    """(..., 32, 32) without the border, which warps bring in from outside."""
    return pictures[..., _BORDER:-_BORDER, _BORDER:-_BORDER]


def _left_over(rest: Floats) -> Floats:
    """How large differences (K, h, w) get: the 99th percentile of the means of 3×3 pixels, (K,)."""
    rows = rest[:, :-2] + rest[:, 1:-1] + rest[:, 2:]
    means = (
        np.abs(rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]).reshape(
            len(rest), rows.shape[1] * (rows.shape[2] - 2)
        )
        / 9
    )
    place = int(0.99 * (means.shape[1] - 1))
    return np.asarray(np.partition(means, place, axis=1)[:, place], np.float32)


def _fine(pixels: NDArray[np.uint8], pair: Pair) -> float:
    """What is left between two pictures once they are aligned, in standard deviations; infinite where they can't be."""
    import cv2

    side = min(_FINE_SIDE, *pixels.shape[1:3])
    first, second = (_grey(pixels[one], side).astype(np.float32) for one in pair)
    warp: Any = np.eye(2, 3, dtype=np.float32)
    everywhere: Any = None
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4)
    try:
        _, warp = cv2.findTransformECC(first, second, warp, cv2.MOTION_AFFINE, criteria, everywhere, 3)
    except cv2.error:  # it did not converge
        return float("inf")
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(second, warp, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    border = max(1, side // 16)
    ours, theirs = (_standard(one[border:-border, border:-border]) for one in (first, warped))
    return float(_left_over((ours - theirs)[np.newaxis])[0])


def _standard(picture: Any) -> Floats:
    return np.asarray((picture - picture.mean()) / max(float(picture.std()), MIN_CONTRAST), np.float32)
