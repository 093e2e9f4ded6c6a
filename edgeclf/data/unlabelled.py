"""A folder of images without labels, to be learnt from beside a data set: none that judges may be among them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.data import cache
from edgeclf.data.dataset import Dataset, Item
from edgeclf.data.folders import files_below
from edgeclf_device.errors import DataError
from edgeclf_device.images import SUFFIXES
from edgeclf_device.preprocess import PrepareSpec
from edgeclf_device.progress import Progress, no_progress

_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class UnlabelledImages:
    """Images without labels, each different from the others and from all labelled ones.

    Attributes:
        dataset: every readable image of the folder, with its digest; the labels mean nothing.
        pixels: uint8 (M, H, W, C) of its items.
        rows: int64, those of the M that are learnt from.
        labelled: how many are left out because they are labelled training images.
        repeated: how many because an equal one is there.
    """

    dataset: Dataset
    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labelled: int
    repeated: int

    @property
    def digest(self) -> str:
        """SHA-256 of the digests of the images that are learnt from, in their order."""
        digests = "\n".join(self.dataset.items[row].digest for row in self.rows)
        return hashlib.sha256(digests.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What metrics.json says of them."""
        return {
            "images": len(self.rows),
            "labelled": self.labelled,
            "repeated": self.repeated,
            "unreadable": len(self.dataset.rejected),
            "sha256": self.digest,
        }

    def lines(self) -> list[str]:
        """What there is to say of them."""
        left_out = {
            "labelled training images too": self.labelled,
            "equal to another": self.repeated,
            "unreadable": len(self.dataset.rejected),
        }
        said = ", ".join(f"{count} {why}" for why, count in left_out.items() if count)
        return [f"{len(self.rows)} unlabelled images" + (f" (left out: {said})" if said else "")]


def read_unlabelled(
    folder: Path,
    spec: PrepareSpec,
    *,
    beside: Dataset,
    parts: Sequence[str],
    strict: bool = False,
    progress: Progress = no_progress,
) -> UnlabelledImages:
    """Read the images below ``folder``, at any depth; the names of its subfolders mean nothing.

    Args:
        folder: of images.
        spec: the preprocessing.
        beside: the labelled images.
        parts: ``train``, ``val`` or ``test`` of each of them.
        strict: refuse unreadable images instead of leaving them out.
        progress: shows the images as they are prepared.

    Raises:
        DataError: no folder, no images in it, none that can be read, none but labelled ones, or some that judge:
            validation or test images, found by their bytes.
        SystemStateError: the pixel cache can't be written.
    """
    found, pixels = cache.load_found(_find(folder), spec, strict=strict, for_training=False, progress=progress)
    part_of = {item.digest: part for item, part in zip(beside.items, parts, strict=True) if part == "train"}
    part_of |= {item.digest: part for item, part in zip(beside.items, parts, strict=True) if part != "train"}
    _require_none_judge(found, part_of)
    seen: set[str] = set()
    rows, labelled = [], 0
    for row, item in enumerate(found.items):
        if item.digest in part_of:
            labelled += 1
        elif item.digest not in seen:
            rows.append(row)
        seen.add(item.digest)
    if not rows:
        raise DataError(
            f"{folder} must hold images that are not labelled yet, but all {labelled} are training images already; "
            "name a folder with others."
        )
    return UnlabelledImages(
        dataset=found,
        pixels=pixels,
        rows=np.array(rows, np.int64),
        labelled=labelled,
        repeated=len(found.items) - len(rows) - labelled,
    )


def require_folder(folder: Path) -> None:
    """Check that there is a folder.

    Raises:
        DataError: there is none.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        raise DataError(f"The unlabelled images must be a folder, but {folder} is {what}; name a folder of images.")


def _find(folder: Path) -> Dataset:
    require_folder(folder)
    try:
        files = [(file, file.is_file()) for file in files_below(folder)]
    except OSError as error:
        raise DataError(f"{error.filename or folder} can't be read: {error.strerror}; give yourself access.") from error
    images = [file for file, is_file in files if is_file and file.suffix.lower() in SUFFIXES]
    if not images:
        others = Counter(file.suffix.lower() or "without a suffix" for file, _ in files)
        beside = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        raise DataError(
            f"{folder} must hold unlabelled images ({' '.join(sorted(SUFFIXES))}), at any depth, but none was found"
            f"{f' ({beside} beside)' if beside else ''}; name another folder."
        )
    items = tuple(Item(path=file.relative_to(folder).as_posix(), label=0, digest="") for file in images)
    return Dataset(root=folder.absolute(), labels=(), items=items)


def _require_none_judge(found: Dataset, part_of: dict[str, str]) -> None:
    judging = [
        (item.path, part_of[item.digest]) for item in found.items if part_of.get(item.digest, "train") != "train"
    ]
    if judging:
        named = ", ".join(f"{path} ({part})" for path, part in judging[:_NAMED])
        more = f" and {len(judging) - _NAMED} more" if len(judging) > _NAMED else ""
        raise DataError(
            f"No image that judges the model may be learnt from, but {len(judging)} of the unlabelled images in "
            f"{found.root} are validation or test images: {named}{more}; take them out of that folder."
        )
