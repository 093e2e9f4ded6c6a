"""A folder or a listing becomes a Dataset: items with labels and digests, none of them decoded yet."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from edgeclf.data.entries import Entry, Split
from edgeclf.data.folders import read_folder
from edgeclf.data.listing import read_listing
from edgeclf_device.errors import DataError
from edgeclf_device.images import SUFFIXES
from edgeclf_device.progress import Progress, no_progress

SPLIT_NAMES: tuple[str, ...] = get_args(Split)
MIN_IMAGES_PER_CLASS = 3
"""One for each part of the split."""

_LISTED_IN_MESSAGE = 10


@dataclass(frozen=True, kw_only=True)
class Item:
    """One labelled image, or one labelled clip of video.

    Attributes:
        path: relative to the dataset's root in POSIX form, or absolute where a listing says so.
        label: index into the dataset's labels.
        digest: SHA-256 of the file's bytes, hexadecimal; empty until it was read.
        split: ``train``, ``val`` or ``test`` where a listing or a folder fixes it.
        stratum: a further property to spread evenly over the splits, where a listing gives one.
        group: images of one group (a patient, a part, a recording) stay in one split, where a listing gives one.
        weight: of the image in the loss, at least 0.
        size: (height, width) of the decoded image, its EXIF orientation applied; None until it was decoded.
    """

    path: str
    label: int
    digest: str
    split: str | None = None
    stratum: str | None = None
    group: str | None = None
    weight: float = 1.0
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """An image that can't be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled images below ``root``.

    Attributes:
        labels: sorted and NFC-normalized.
        rejected: images that can't be read.
        ignored: (suffix, number) of the other files in the folders: taken for no images by their names.
    """

    root: Path
    labels: tuple[str, ...]
    items: tuple[Item, ...]
    rejected: tuple[Rejected, ...] = ()
    ignored: tuple[tuple[str, int], ...] = ()

    def file(self, item: Item) -> Path:
        """Return where ``item``'s file is."""
        return self.root / item.path


def scan(
    path: Path,
    *,
    for_training: bool = True,
    suffixes: Collection[str] = SUFFIXES,
    progress: Progress = no_progress,
) -> Dataset:
    """Find the labelled images of ``path`` and digest their files; nothing is decoded.

    ``path`` is a folder with one subfolder per class, or with train, val and test folders of those, or a CSV or
    Parquet listing; ``suffixes`` see ``find_images``. ``for_training`` asks for two classes and enough images in each;
    one image is enough to evaluate.

    Raises:
        DataError: nothing there, no images, one class, a class with too few images, or a bad listing.
        DependencyError: a Parquet listing and no pyarrow.
    """
    dataset = find_images(path, for_training=for_training, suffixes=suffixes)
    return with_digests(dataset, digests_of([dataset.file(item) for item in dataset.items], progress=progress))


def find_images(path: Path, *, for_training: bool = True, suffixes: Collection[str] = SUFFIXES) -> Dataset:
    """Find the labelled images of ``path`` as ``scan`` does, but don't open them: every digest is empty.

    ``suffixes`` are those of the files of a folder that are taken: of images, or of videos.

    Raises:
        DataError, DependencyError: as for ``scan``.
    """
    try:
        root, entries, ignored = _entries(path, suffixes)
    except OSError as error:
        raise DataError(f"{error.filename or path} can't be read: {error.strerror}; give yourself access.") from error
    if not entries:
        found = f"none was found ({_counted(ignored)} beside)" if ignored else "none was found"
        kinds, what = " ".join(sorted(suffixes)), "images" if suffixes is SUFFIXES else "videos"
        raise DataError(f"{path} must hold {what} ({kinds}), one subfolder per class, but {found}.")
    labels = tuple(sorted({entry.label for entry in entries}))
    index = {label: number for number, label in enumerate(labels)}
    items = tuple(
        Item(
            path=entry.path,
            label=index[entry.label],
            digest="",
            split=entry.split,
            stratum=entry.stratum,
            group=entry.group,
            weight=entry.weight,
        )
        for entry in entries
    )
    dataset = Dataset(root=root.absolute(), labels=labels, items=items, ignored=tuple(sorted(ignored.items())))
    if for_training:
        require_classes(dataset)
    return dataset


def with_digests(dataset: Dataset, digests: Sequence[str]) -> Dataset:
    """Return ``dataset`` with these digests of its items."""
    items = (replace(item, digest=digest) for item, digest in zip(dataset.items, digests, strict=True))
    return replace(dataset, items=tuple(items))


def without(
    dataset: Dataset, reasons: Mapping[int, str], *, strict: bool = False, for_training: bool = True
) -> Dataset:
    """Return ``dataset`` with the unreadable items of ``reasons`` (index to reason) moved to ``rejected``.

    Raises:
        DataError: ``strict`` and there is one, or too few images are left.
    """
    if not reasons:
        return dataset
    rejected = tuple(
        Rejected(path=dataset.items[index].path, reason=reason) for index, reason in sorted(reasons.items())
    )
    if strict:
        listed = "".join(f"\n  {one.path}: {one.reason}" for one in rejected[:_LISTED_IN_MESSAGE])
        more = len(rejected) - _LISTED_IN_MESSAGE
        raise DataError(
            f"{len(rejected)} of {len(dataset.items)} images can't be read:{listed}"
            + (f"\n  and {more} more" if more > 0 else "")
            + "\nRepair or remove them, or leave out --strict to go on without them."
        )
    items = tuple(item for index, item in enumerate(dataset.items) if index not in reasons)
    kept = replace(dataset, items=items, rejected=dataset.rejected + rejected)
    if for_training:
        require_classes(kept)
    elif not items:
        raise DataError(
            f"None of the {len(dataset.items)} images in {dataset.root} can be read; repair or remove them."
        )
    return kept


def require_classes(dataset: Dataset) -> None:
    """Check that there are two classes and enough images in each to train on.

    Raises:
        DataError: there are not.
    """
    counts = Counter(item.label for item in dataset.items)
    if len(dataset.labels) < 2:
        raise DataError(
            f"A classifier needs at least two classes, but {dataset.root} has one ({dataset.labels[0]}); "
            "put each class into a subfolder of its own."
        )
    for index, label in enumerate(dataset.labels):
        if counts[index] < MIN_IMAGES_PER_CLASS:
            raise DataError(
                f"Every class needs at least {MIN_IMAGES_PER_CLASS} readable images, one for each part of the split, "
                f"but {label!r} has {counts[index]}; add images or remove the class."
            )


def digests_of(files: Sequence[Path], *, progress: Progress = no_progress) -> list[str]:
    """Return ``digest_of`` each file, reading several at once.

    Raises:
        DataError: one can't be opened.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(progress(pool.map(digest_of, files), "reading files", len(files)))


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal.

    Raises:
        DataError: it can't be opened.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} can't be opened: {error.strerror}.") from error


def _entries(path: Path, suffixes: Collection[str]) -> tuple[Path, list[Entry], Counter[str]]:
    """The folder that paths are relative to, the images, and the other files by suffix."""
    ignored: Counter[str] = Counter()
    if path.is_dir():
        root = path
        entries, ignored = read_folder(path, suffixes)
    elif path.is_file():
        root, entries = path.parent, read_listing(path)
    else:
        raise DataError(f"The data must be a folder of images, or a CSV or Parquet listing, but {path} does not exist.")
    for entry in entries:
        if _not_text(entry.path):
            raise DataError(f"A file's name must be valid text, but {entry.path!a} below {root} is not; rename it.")
    return root, entries, ignored


def _counted(ignored: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in sorted(ignored.items()))


def _not_text(name: str) -> bool:
    """Whether ``name`` holds bytes that no text has, which Python keeps as lone surrogates."""
    return any("\ud800" <= character <= "\udfff" for character in name)
