"""A folder with one subfolder per class, or a CSV listing, becomes a Dataset: items with labels and digests."""

from __future__ import annotations

import csv
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from edgeclf_device.errors import DataError
from edgeclf_device.images import SUFFIXES, load
from edgeclf_device.progress import Progress, no_progress

SPLIT_NAMES = ("train", "val", "test")
MIN_IMAGES_PER_CLASS = 3
"""One for each part of the split."""

_LISTED_IN_MESSAGE = 10


@dataclass(frozen=True, kw_only=True)
class Item:
    """One labelled image.

    Attributes:
        path: relative to the dataset's root in POSIX form, or absolute where a listing says so.
        label: index into the dataset's labels.
        digest: SHA-256 of the file's bytes, hexadecimal.
        split: ``train``, ``val`` or ``test`` where a listing fixes it.
        stratum: a further property to spread evenly over the splits, where a listing gives one.
    """

    path: str
    label: int
    digest: str
    split: str | None = None
    stratum: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """An image that can't be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled images below ``root``; ``labels`` are sorted and NFC-normalized."""

    root: Path
    labels: tuple[str, ...]
    items: tuple[Item, ...]
    rejected: tuple[Rejected, ...] = ()

    def file(self, item: Item) -> Path:
        """Return where ``item``'s file is."""
        return self.root / item.path


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What is known of an image before its file is opened."""

    path: str
    label: str
    split: str | None = None
    stratum: str | None = None


def read_dataset(path: Path, *, strict: bool = False, progress: Progress = no_progress) -> Dataset:
    """Read ``path`` and decode every image once to find the unreadable ones.

    Where pixels are wanted too, ``edgeclf.data.cache.load`` decodes once for both.

    ``path`` is a folder with one subfolder per class, or a CSV listing. ``strict`` refuses a dataset with an
    unreadable image instead of leaving the image out.

    Raises:
        DataError: nothing there, no images, one class, a class with too few images, a bad listing, or with
            ``strict`` an unreadable image.
    """
    dataset = scan(path, progress=progress)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda item: unreadable_reason(dataset, item), dataset.items)
        reasons = dict(enumerate(progress(found, "checking images", len(dataset.items))))
    return without(dataset, {index: reason for index, reason in reasons.items() if reason}, strict=strict)


def scan(path: Path, *, for_training: bool = True, progress: Progress = no_progress) -> Dataset:
    """Find the labelled images of ``path`` and digest their files; nothing is decoded.

    ``for_training`` asks for two classes and enough images in each; one image is enough to evaluate on.

    Raises:
        DataError: as for ``read_dataset``, but for unreadable images.
    """
    try:
        root, entries = _entries(path)
    except OSError as error:
        raise DataError(f"{error.filename or path} can't be read: {error.strerror}; give yourself access.") from error
    if not entries:
        raise DataError(
            f"{path} must hold images ({' '.join(sorted(SUFFIXES))}), one subfolder per class, but none was found."
        )
    labels = tuple(sorted({entry.label for entry in entries}))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda entry: digest_of(root / entry.path), entries)
        digests = list(progress(found, "reading files", len(entries)))
    items = tuple(
        Item(path=entry.path, label=labels.index(entry.label), digest=digest, split=entry.split, stratum=entry.stratum)
        for entry, digest in zip(entries, digests, strict=True)
    )
    dataset = Dataset(root=root.absolute(), labels=labels, items=items)
    if for_training:
        _check_classes(dataset)
    return dataset


def _entries(path: Path) -> tuple[Path, list[_Entry]]:
    """The folder that paths are relative to, and the images."""
    if path.is_dir():
        root, entries = path, list(_folder_entries(path))
    elif path.is_file():
        root, entries = path.parent, list(_listing_entries(path))
    else:
        raise DataError(f"The data must be a folder of images or a CSV listing, but {path} does not exist.")
    for entry in entries:
        if _not_text(entry.path):
            raise DataError(f"A file's name must be valid text, but {entry.path!a} below {root} is not; rename it.")
    return root, entries


def _not_text(name: str) -> bool:
    """Whether ``name`` holds bytes that no text has, which Python keeps as lone surrogates."""
    return any("\ud800" <= character <= "\udfff" for character in name)


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
        _check_classes(kept)
    elif not items:
        raise DataError(
            f"None of the {len(dataset.items)} images in {dataset.root} can be read; repair or remove them."
        )
    return kept


def unreadable_reason(dataset: Dataset, item: Item) -> str:
    """Return why ``item`` can't be decoded, without its path, or an empty string."""
    try:
        load(dataset.file(item))
    except DataError as error:
        return reason_without_path(error, dataset.file(item))
    return ""


def reason_without_path(error: DataError, path: Path) -> str:
    """Return the message of ``error`` without the path that it begins with."""
    return str(error).removeprefix(str(path)).lstrip(" :")


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


def _visible(path: Path) -> bool:
    return not path.name.startswith(".")


def _is_image(path: Path) -> bool:
    return _visible(path) and path.suffix.lower() in SUFFIXES and path.is_file()


def _folder_entries(root: Path) -> Iterator[_Entry]:
    """Yield every image below each class folder, in the order of their paths; hidden and other files are ignored."""
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir() and _visible(entry)):
        label = unicodedata.normalize("NFC", folder.name)
        for file in sorted(folder.rglob("*")):
            inside = file.relative_to(root)
            if _is_image(file) and not any(part.startswith(".") for part in inside.parts):
                yield _Entry(path=inside.as_posix(), label=label)


def _listing_entries(listing: Path) -> Iterator[_Entry]:
    """Yield the rows of a CSV with the columns path and label and, optionally, split and stratum."""
    try:
        with listing.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in ("path", "label") if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"A listing must have the columns path and label, but {listing} lacks {' and '.join(missing)}; "
                    f"its first line is {','.join(reader.fieldnames or ())!r}."
                )
            for row in reader:
                yield _listing_entry(listing, reader.line_num, row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"A listing must be CSV in UTF-8, but {listing} can't be read as such ({error}).") from error


def _listing_entry(listing: Path, line: int, row: Mapping[str, str | None]) -> _Entry:
    path, label = (row["path"] or "").strip(), unicodedata.normalize("NFC", (row["label"] or "").strip())
    split, stratum = (row.get("split") or "").strip() or None, (row.get("stratum") or "").strip() or None
    where = f"{listing}, line {line}"
    if not path or not label:
        raise DataError(f"{where}: path and label must not be empty.")
    if split is not None and split not in SPLIT_NAMES:
        raise DataError(f"{where}: split must be {', '.join(SPLIT_NAMES)} or empty, but it is {split!r}.")
    if ".." in PurePosixPath(path).parts and not Path(path).is_absolute():
        raise DataError(f"{where}: a relative path must stay below the listing's folder, but it is {path!r}.")
    if not (listing.parent / path).is_file():
        raise DataError(f"{where}: there is no file {listing.parent / path}.")
    return _Entry(path=path, label=label, split=split, stratum=stratum)


def _check_classes(dataset: Dataset) -> None:
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
