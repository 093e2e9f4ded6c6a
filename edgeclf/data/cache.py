"""Prepared pixels on disk: every image is decoded once, and every later training maps the file into memory.

A cache entry is a folder named by the preprocessing, the number of images and the SHA-256 of all their digests in
order, with ``pixels.npy``, ``sizes.npy`` (of the images before they were prepared) and ``unreadable.json`` in it. It is
written under another name and renamed, so two trainings may build the same one and one of them may be killed. Whoever
builds an entry removes those that nobody has opened for 30 days.

Where no entry can be meant, files are read once, for their digests and their pixels; otherwise they are digested first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgeclf.data.clips import read_clip, suffixes_of
from edgeclf.data.dataset import Dataset, Item, digest_of, digests_of, find_images, with_digests, without
from edgeclf_device.atomic import os_errors_explained
from edgeclf_device.clips import ClipSpec, Spec
from edgeclf_device.errors import DataError
from edgeclf_device.images import decode, read_bytes
from edgeclf_device.preprocess import CONTRACT_VERSION, prepare
from edgeclf_device.progress import Progress, no_progress

Pixels = NDArray[np.uint8]
_PIXELS = "pixels.npy"
_SIZES = "sizes.npy"
_UNREADABLE = "unreadable.json"
_TEMPORARY = "building-"
_ABANDONED_AFTER_S = 24 * 3600
_UNUSED_AFTER_S = 30 * 24 * 3600
_BATCH = 8
"""How many images one thread prepares in a row where there are many: handing over single small ones takes its time."""
_NAME = re.compile(r"[0-9a-f]{16}-[0-9]+-[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """An opened cache entry.

    Attributes:
        pixels: uint8 (N, H, W, C), or of clips (N, T, H, W, C), of the readable items in order.
        sizes: int32 (N, 2), height and width of their images or frames.
        unreadable: why the others (by index) are not there.
    """

    pixels: Pixels
    sizes: NDArray[np.int32]
    unreadable: dict[int, str]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """An image's prepared pixels, and its (height, width) before."""

    pixels: Pixels
    size: tuple[int, int]


def default_folder() -> Path:
    """Return where the cache is: $EDGECLF_CACHE, else $XDG_CACHE_HOME/edgeclf, else ~/.cache/edgeclf."""
    if chosen := os.environ.get("EDGECLF_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgeclf"


def load(
    path: Path,
    spec: Spec,
    *,
    strict: bool = False,
    for_training: bool = True,
    cache_dir: Path | None = None,
    progress: Progress = no_progress,
) -> tuple[Dataset, Pixels]:
    """Read the dataset of images, or with a ``ClipSpec`` of clips, at ``path`` with its prepared pixels.

    Every file is decoded at most once.

    Returns:
        the dataset without its unreadable images, each item with its ``size``, and uint8 (N, H, W, C), or
        (N, T, H, W, C), of its items in order, read-only.

    Raises:
        DataError: as for ``edgeclf.data.dataset.scan``; with ``strict`` also an unreadable image.
        DependencyError: OpenCV, or for a Parquet listing pyarrow, is not installed.
        SystemStateError: the cache can't be written.
    """
    found = find_images(path, for_training=for_training, suffixes=suffixes_of(spec))
    return load_found(found, spec, strict=strict, for_training=for_training, cache_dir=cache_dir, progress=progress)


def load_found(
    found: Dataset,
    spec: Spec,
    *,
    strict: bool = False,
    for_training: bool = True,
    cache_dir: Path | None = None,
    progress: Progress = no_progress,
) -> tuple[Dataset, Pixels]:
    """As ``load``, of images that were found already."""
    entry, digests = _entry(found.items, found.root, spec, cache_dir, progress)
    kept = without(with_digests(found, digests), entry.unreadable, strict=strict, for_training=for_training)
    items = (
        replace(item, size=(height, width))
        for item, (height, width) in zip(kept.items, entry.sizes.tolist(), strict=True)
    )
    return replace(kept, items=tuple(items)), entry.pixels


def pixels(
    items: Sequence[Item],
    root: Path,
    spec: Spec,
    *,
    cache_dir: Path | None = None,
    progress: Progress = no_progress,
) -> Pixels:
    """Return the prepared pixels of readable items with digests: uint8 (N, *spec.shape), memory-mapped, read-only.

    Raises:
        DataError: an image can't be read.
        SystemStateError: the cache can't be written.
    """
    entry, _ = _entry(items, root, spec, cache_dir, progress)
    for index, reason in entry.unreadable.items():
        raise DataError(f"{root / items[index].path}: {reason}")
    return entry.pixels


def _entry(
    items: Sequence[Item], root: Path, spec: Spec, cache_dir: Path | None, progress: Progress
) -> tuple[_Entry, list[str]]:
    """Open or build the entry of ``items``; gives their digests too."""
    folder = cache_dir or default_folder()
    digests = [item.digest for item in items]
    if "" in digests and next(folder.glob(f"{_family(spec, len(items))}-*"), None):
        digests = digests_of([root / item.path for item in items], progress=progress)
    opened = None if "" in digests else _open(folder / _name(spec, digests))
    if opened is None:
        with os_errors_explained(folder):
            digests = _build(list(zip(items, digests, strict=True)), root, spec, folder, progress)
        opened = _open(folder / _name(spec, digests))
    if opened is None:
        name = folder / _name(spec, digests)
        raise DataError(f"The pixel cache {name} is damaged; remove that folder and run the same command again.")
    return opened, digests


def _family(spec: Spec, count: int) -> str:
    """How the names of all entries with this preprocessing and number of images begin."""
    if isinstance(spec, ClipSpec):  # the stride is between windows, and nothing of it is in the pixels
        content = json.dumps([CONTRACT_VERSION, spec.frame.to_json(), spec.window, spec.fps], sort_keys=True)
    else:
        content = json.dumps([CONTRACT_VERSION, spec.to_json()], sort_keys=True)
    return f"{hashlib.sha256(content.encode()).hexdigest()[:16]}-{count}"


def _name(spec: Spec, digests: Sequence[str]) -> str:
    content = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return f"{_family(spec, len(digests))}-{content}"


def _open(folder: Path) -> _Entry | None:
    """Open an entry, or return None where there is none or it is damaged."""
    try:
        sizes = np.load(folder / _SIZES, allow_pickle=False)
        mapped = np.load(folder / _PIXELS, mmap_mode="r" if len(sizes) else None, allow_pickle=False)
        unreadable = json.loads((folder / _UNREADABLE).read_bytes())
    except (OSError, ValueError, EOFError):
        return None
    if sizes.shape != (len(mapped), 2):
        return None
    with contextlib.suppress(OSError):  # a cache that others may only read
        os.utime(folder)
    return _Entry(pixels=mapped, sizes=sizes, unreadable={int(index): reason for index, reason in unreadable.items()})


def _build(items: Sequence[tuple[Item, str]], root: Path, spec: Spec, folder: Path, progress: Progress) -> list[str]:
    """Prepare the items, given with their digests where these are known, into an entry; gives all digests."""
    folder.mkdir(parents=True, exist_ok=True)
    _prune(folder)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=_TEMPORARY))
    try:
        digests: list[str] = []
        unreadable: dict[int, str] = {}
        sizes: list[tuple[int, int]] = []
        # Rows are written one after the other, not into a memory map: on a full disk a map kills the process.
        with (temporary / _PIXELS).open("wb") as file:
            _write_header(file, len(items), spec)
            rows = progress(_rows(items, root, spec), "preparing images", len(items))
            for index, (digest, row) in enumerate(rows):
                digests.append(digest)
                if isinstance(row, str):
                    unreadable[index] = row
                else:
                    file.write(row.pixels.data)
                    sizes.append(row.size)
            _write_header(file, len(sizes), spec)
        np.save(temporary / _SIZES, np.array(sizes, np.int32).reshape(-1, 2))
        (temporary / _UNREADABLE).write_text(json.dumps(unreadable), encoding="utf-8")
        _move_into_place(temporary, folder / _name(spec, digests))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return digests


def _write_header(file: BinaryIO, count: int, spec: Spec) -> None:
    """Write the .npy header at the start of ``file``; NumPy pads it so that the number of rows can change in place."""
    file.seek(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *spec.shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _digested(path: Path, spec: Spec) -> tuple[str, Callable[[], _Row]]:
    """A file's digest, and what decodes and prepares it."""
    if isinstance(spec, ClipSpec):

        def clip() -> _Row:
            pixels, size = read_clip(path, spec)
            return _Row(pixels=pixels, size=size)

        return digest_of(path), clip
    data = read_bytes(path)

    def image() -> _Row:
        decoded = decode(data, path)
        return _Row(pixels=prepare(decoded, spec, color="bgr"), size=(decoded.shape[0], decoded.shape[1]))

    return hashlib.sha256(data).hexdigest(), image


def _rows(items: Sequence[tuple[Item, str]], root: Path, spec: Spec) -> Iterator[tuple[str, _Row | str]]:
    """Yield each item's digest with its pixels, or the reason why there are none, in order, decoding on every core."""

    def row(item: Item, known: str) -> tuple[str, _Row | str]:
        path = root / item.path
        digest, read = _digested(path, spec)
        if known not in {"", digest}:
            raise DataError(f"{path} has changed since it was listed; put the old file back, or train again.")
        try:
            return digest, read()
        except DataError as error:
            return digest, str(error).removeprefix(str(path)).lstrip(" :")

    def rows(batch: Sequence[tuple[Item, str]]) -> list[tuple[str, _Row | str]]:
        return [row(item, known) for item, known in batch]

    threads = os.cpu_count() or 1
    size = min(_BATCH, 1 + len(items) // (2 * _BATCH * threads))
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[list[tuple[str, _Row | str]]]] = deque()
    try:
        for start in range(0, len(items), size):
            waiting.append(pool.submit(rows, items[start : start + size]))
            if len(waiting) > 2 * threads:  # only a few results wait in memory
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _move_into_place(temporary: Path, final: Path) -> None:
    """Rename; where another training was first, keep its entry, unless that one can't be opened."""
    if final.exists() and _open(final) is None:
        shutil.rmtree(final)
    with contextlib.suppress(FileExistsError, NotADirectoryError):
        try:
            temporary.rename(final)
        except OSError:
            if _open(final) is None:
                raise


def _prune(folder: Path) -> None:
    """Remove what a killed training left, once it is certainly not being written any more, and what nobody uses."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if path.name.startswith(_TEMPORARY):
                changed = max(one.stat().st_mtime for one in (path, *path.iterdir()))
                old = time.time() - changed > _ABANDONED_AFTER_S
            else:
                is_entry = _NAME.fullmatch(path.name) is not None
                old = is_entry and time.time() - path.stat().st_mtime > _UNUSED_AFTER_S
            if old:
                shutil.rmtree(path, ignore_errors=True)
