"""Images that the caller names to calibrate with, and to judge by where a run has none of its own."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from edgeclf.data.cache import pixels
from edgeclf.data.clips import suffixes_of
from edgeclf.data.dataset import Dataset, Item, digest_of, scan
from edgeclf.exporting.subject import Images
from edgeclf_device.clips import Spec
from edgeclf_device.errors import DataError
from edgeclf_device.progress import Progress, no_progress

MIN_CALIBRATION_IMAGES = 8
"""Fewer say nothing of the ranges to expect. A hundred or more are better."""


def read_given(path: Path, labels: Sequence[str], spec: Spec, *, progress: Progress = no_progress) -> Images:
    """The images of a folder or a CSV listing, prepared; of equal files one.

    They are labelled where the listing's labels, or the names of the folder's subfolders, are all among ``labels``,
    and no image lies beside those subfolders. Otherwise every image below the folder counts, at any depth.

    Raises:
        DataError: nothing is there, or an image can't be read.
        SystemStateError: the pixel cache can't be written.
    """
    found = _dataset(path, labels, suffixes_of(spec), progress)
    first = {item.digest: item for item in reversed(found.items)}
    items = tuple(item for item in found.items if first[item.digest] is item)
    known = bool(found.labels) and set(found.labels) <= set(labels)
    place = np.array([list(labels).index(label) for label in found.labels] if known else [], np.int64)
    return Images(
        pixels=pixels(items, found.root, spec, progress=progress),
        rows=np.arange(len(items)),
        true=place[[item.label for item in items]] if known else None,
        digests=tuple(item.digest for item in items),
        split="given",
    )


def halves(images: Images) -> tuple[Images, Images]:
    """The images to calibrate with, and those to judge by: every other one of each class, in the order of the digests.

    Raises:
        DataError: fewer than ``MIN_CALIBRATION_IMAGES`` for each half.
    """
    if len(images) < 2 * MIN_CALIBRATION_IMAGES:
        raise DataError(
            f"Half of the images calibrate and half judge, so {2 * MIN_CALIBRATION_IMAGES} different ones are needed, "
            f"but {len(images)} were given; add images (200 or more are better)."
        )
    classes = [0] * len(images) if images.true is None else images.true.tolist()
    order = sorted(range(len(images)), key=lambda place: (classes[place], images.digests[place]))
    judging = "unlabelled" if images.true is None else "held-out"
    return images.part(order[::2]), images.part(order[1::2], split=judging)


def without(images: Images, digests: Collection[str]) -> Images:
    """``images`` without those whose ``digests`` are named: what judges a model must not calibrate it.

    Raises:
        DataError: fewer than ``MIN_CALIBRATION_IMAGES`` are left.
    """
    kept = [place for place, digest in enumerate(images.digests) if digest not in digests]
    if len(kept) < MIN_CALIBRATION_IMAGES:
        raise DataError(
            f"At least {MIN_CALIBRATION_IMAGES} different images must calibrate that do not also judge the model, but "
            f"{len(kept)} were given; add images (100 or more are better)."
        )
    return images.part(kept)


def _dataset(path: Path, labels: Sequence[str], suffixes: Collection[str], progress: Progress) -> Dataset:
    try:
        files = (
            sorted(_files_below(path, suffixes)) if path.is_dir() and not _is_labelled(path, labels, suffixes) else None
        )
    except OSError as error:
        raise DataError(f"{error.filename or path} can't be read: {error.strerror}; give yourself access.") from error
    if files is None:
        return scan(path, for_training=False, suffixes=suffixes, progress=progress)
    if not files:
        raise DataError(f"{path} must hold files of {' '.join(sorted(suffixes))}, at any depth, but none was found.")
    digests = progress(map(digest_of, files), "reading files", len(files))
    items = [
        Item(path=file.relative_to(path).as_posix(), label=0, digest=digest)
        for file, digest in zip(files, digests, strict=True)
    ]
    return Dataset(root=path.absolute(), labels=(), items=tuple(items))


def _is_labelled(folder: Path, labels: Sequence[str], suffixes: Collection[str]) -> bool:
    visible = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    classes = {unicodedata.normalize("NFC", entry.name) for entry in visible if entry.is_dir()}
    beside = any(entry.suffix.lower() in suffixes and entry.is_file() for entry in visible)
    return bool(classes) and classes <= set(labels) and not beside


def _files_below(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    for file in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix.lower() in suffixes and not hidden and file.is_file():
            yield file
