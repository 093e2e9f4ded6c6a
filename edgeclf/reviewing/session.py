"""A review: images one after the other, what is guessed of them, and what a person decides, which can be undone."""

from __future__ import annotations

import contextlib
import os
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgeclf.data.dataset import digest_of
from edgeclf.reviewing.classes import Classes, name_problem
from edgeclf.reviewing.filing import file_image
from edgeclf.reviewing.journal import Decision, Journal
from edgeclf_device.atomic import os_errors_explained
from edgeclf_device.errors import DataError, UsageError
from edgeclf_device.hard_record import read_record
from edgeclf_device.images import SUFFIXES, load
from edgeclf_device.preprocess import Image
from edgeclf_device.web.picture import encode

PREPARED = 4
"""Pictures kept ready: the one that is shown, and a few to go back to."""
HISTORY, NAMED = 100, 20
"""Decisions that a page can undo after it was loaded again, and unreadable images that it names."""


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a model says of an image: its best labels with their scores, and the best one's score, 0 to 1."""

    label: str
    score: float
    top: tuple[tuple[str, float], ...] = ()


MakeGuess = Callable[[Path, Image], "Guess | None"]
"""Guesses of an image file and its pixels, uint8 RGB."""


def recorded(path: Path, _pixels: Image) -> Guess | None:
    """What stands in the image's record, where a device has kept it as a hard frame."""
    record = read_record(path)
    return None if record is None else Guess(label=record.label, score=record.score, top=record.top)


def find_images(folder: Path) -> list[Path]:
    """The images and ``.npy`` frames below ``folder``: the least sure first as their records say, the rest by name.

    Raises:
        DataError: it is no folder, holds none, or can't be read.
    """
    if not folder.is_dir():
        raise DataError(f"What is reviewed must be a folder of images, but {folder} is none.")
    found = []
    for inner, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(inner, name)
            for name in sorted(files)
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES | {".npy"}
        ]
    if not found:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))} or .npy), so there is nothing to do.")
    records = {path: read_record(path) for path in found}
    return sorted(found, key=lambda path: -record.unsure if (record := records[path]) else 0.0)


def _raise(error: OSError) -> None:
    raise DataError(f"{error.filename} can't be read: {error.strerror}; give yourself access.") from error


class Review:
    """One folder under review. Its methods may be called from any thread.

    Args:
        folder: what is reviewed; its files are only read.
        images: in the order in which they are shown, below ``folder``.
        out: the folder that holds the classes and ``journal``.
        classes: to sort into.
        journal: what was decided before, and is to be.
        guess: what is shown as the model's opinion.
    """

    def __init__(
        self,
        folder: Path,
        images: Sequence[Path],
        *,
        out: Path,
        classes: Classes,
        journal: Journal,
        guess: MakeGuess = recorded,
    ) -> None:
        self._folder = folder.absolute()
        self._images = [path.absolute() for path in images]
        self._numbers = {str(path): number for number, path in enumerate(self._images)}
        self._folders = dict(classes.folders)
        self._home = classes.home
        self._out = out
        self._journal = journal
        self._guess = guess
        self._unreadable: dict[int, str] = {}
        self._new: set[str] = set()
        self._turn = threading.Lock()
        self._prepared = lru_cache(maxsize=PREPARED)(self._prepare)

    def next_after(self, number: int) -> dict[str, Any] | None:
        """The first undecided image after ``number``, from the beginning where none is: number, name and guess.

        Images that can't be read are passed over and remembered. None where nothing is left.
        """
        count = len(self._images)
        for step in range(1, count + 1):
            place = (number + step) % count
            if not self._open(place):
                continue
            try:
                return self.shown(place)
            except DataError as error:
                self._unreadable[place] = str(error)
        return None

    def shown(self, number: int) -> dict[str, Any]:
        """Number, name and guess of an image, decided or not.

        Raises:
            DataError: there is no such image, or it can't be read.
        """
        _, guess = self._prepared(self._place(number))
        name = self._name(number)
        return {"number": number, "name": name, "guess": None if guess is None else asdict(guess)}

    def picture(self, number: int) -> bytes:
        """A JPEG of an image, to look at.

        Raises:
            DataError: as for ``shown``.
        """
        return self._prepared(self._place(number))[0]

    def decide(self, number: int, label: str | None, *, new: bool = False) -> None:
        """Put a copy of an image into the folder of a class, or say that it is of none.

        Args:
            number: of the image.
            label: of the class; None: of no class.
            new: whether a class that is not there yet is meant.

        Raises:
            UsageError: the image is decided already, for example in another tab, or there is no such class.
            DataError: a new class can't have that name, or the image can't be read.
            SystemStateError: the system refused (disk full); then nothing is decided.
        """
        image = str(self._images[self._place(number)])
        with self._turn:
            earlier = self._journal.decisions.get(image)
            if earlier is not None:
                raise UsageError(f"{self._name(number)} is decided already: {earlier.label or 'none of these'}.")
            if label is None:
                self._journal.add(Decision(image=image, label=None))
                return
            label, folder = self._class(label, new=new)
            filed = file_image(Path(image), folder)
            file = filed.path.relative_to(self._out).as_posix()
            decision = Decision(image=image, label=label, file=file, sha256=filed.sha256, made=filed.made)
            try:
                self._journal.add(decision)
            except BaseException:
                self._remove(decision)
                raise
            self._folders[label] = folder

    def undo(self, number: int) -> None:
        """Take a decision back, and its copy away.

        Raises:
            UsageError: the image is not decided, or its copy was changed since.
            DataError: there is no such image.
            SystemStateError: the system refused.
        """
        image = str(self._images[self._place(number)])
        with self._turn:
            decision = self._journal.decisions.get(image)
            if decision is None:
                raise UsageError(f"{self._name(number)} is not decided, so there is nothing to undo.")
            self._remove(decision)
            self._journal.take_back(image)

    def close(self) -> None:
        """End it, after the decision that is in work: none is taken any more."""
        with self._turn:
            self._journal.close()

    def state(self) -> dict[str, Any]:
        """How far it is, the classes with their number of decided images, and what can be undone."""
        with self._turn:
            decisions = list(self._journal.decisions.values())
            unreadable = sorted(self._unreadable.items())
            here = [self._numbers[one.image] for one in decisions if one.image in self._numbers]
            counts = Counter(decision.label for decision in decisions)
            return {
                "folder": self._folder.name,
                "out": str(self._out),
                "total": len(self._images),
                "decided": len(here),
                "left": len(self._images) - len(here) - len(unreadable),
                "none": counts[None],
                "classes": [{"label": label, "images": counts[label]} for label in self._folders],
                "unreadable": len(unreadable),
                "reasons": [reason for _, reason in unreadable[:NAMED]],
                "history": here[-HISTORY:],
            }

    def _prepare(self, number: int) -> tuple[bytes, Guess | None]:
        pixels = load(self._images[number])
        return encode(pixels, "rgb"), self._guess(self._images[number], pixels)

    def _place(self, number: int) -> int:
        if not 0 <= number < len(self._images):
            raise DataError(f"There are {len(self._images)} images, but number {number} was asked for.")
        return number

    def _name(self, number: int) -> str:
        return os.fsencode(self._images[number].relative_to(self._folder)).decode("utf-8", "replace")

    def _open(self, number: int) -> bool:
        return number not in self._unreadable and str(self._images[number]) not in self._journal.decisions

    def _class(self, label: str, *, new: bool) -> tuple[str, Path]:
        """The label as it is written, and its folder."""
        label = unicodedata.normalize("NFC", label)
        if label in self._folders:
            return label, self._folders[label]
        if not new:
            raise UsageError(f"There is no class {label!r}; load the page again.")
        problem = name_problem(label, self._folders)
        if problem:
            raise DataError(f"A class becomes a folder, but {label!r} {problem}.")
        self._new.add(label)
        return label, self._home / label

    def _remove(self, decision: Decision) -> None:
        """Remove the copy that a decision made, and the folder of a new class with its last one."""
        if decision.file is None or not decision.made:
            return
        path = self._out / decision.file
        with os_errors_explained(path):
            if path.exists():
                if digest_of(path) != decision.sha256:
                    raise UsageError(
                        f"{path} was changed since it was put there, so it is not removed; do it yourself."
                    )
                path.unlink()
            if decision.label in self._new:
                with contextlib.suppress(OSError):  # there is more in it
                    path.parent.rmdir()
                    self._new.discard(decision.label)
                    self._folders.pop(decision.label, None)
