"""Review a folder: everything is checked and opened, then the page is served until it is closed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from edgeclf.exporting.labels_file import read_labels
from edgeclf.reviewing.classes import find_classes
from edgeclf.reviewing.journal import Journal
from edgeclf.reviewing.session import Guess, MakeGuess, Review, find_images, recorded
from edgeclf_device import Classifier
from edgeclf_device.errors import DataError, DependencyError, UsageError
from edgeclf_device.preprocess import Image
from edgeclf_device.web.served import Opened, Served

if TYPE_CHECKING:
    from starlette.applications import Starlette

ADDRESS = "127.0.0.1:8081"
TOP = 3
"""Labels of the model's guess that are shown."""


class ReviewPage(Served):
    """A served review. A context manager; made by ``review``.

    Attributes:
        review: what is decided on it.
    """

    def __init__(self, opened: Opened, review: Review, stack: ExitStack) -> None:
        self.review = review
        self._stack = stack
        super().__init__(opened)

    def close(self) -> None:
        """End the page; all that was decided is written. Closing twice does no harm."""
        super().close()
        self.review.close()
        self._stack.close()

    def __enter__(self) -> ReviewPage:
        return self


def review(
    folder: Path,
    *,
    out: Path,
    labels: Path | None = None,
    model: Path | None = None,
    address: str = ADDRESS,
    allow_remote: bool = False,
    token: str | None = None,
) -> ReviewPage:
    """Serve a page on which a person sorts the images of ``folder`` into the class folders of ``out``.

    Every image of ``folder`` stays where it is: a copy goes into the folder of its class, under a name that is free.
    What is decided stands in ``out/review.jsonl``, so that a later review goes on from there.

    Args:
        folder: images at any depth, for example what ``classify --keep-hard`` kept.
        out: a folder as ``train`` takes it, whose classes are there to sort into; of one with a train folder that one.
            It need not exist.
        labels: a file with further classes, one a line.
        model: an artifact or bundle whose labels are classes too, and which says what it sees in each image; without
            one, what the device has recorded is shown.
        address, allow_remote, token: as for ``edgeclf_device.web.serve``.

    Raises:
        UsageError: one of the two folders lies in the other, ``out`` is a file, ``model`` is one of video, or as
            ``edgeclf_device.web.serve``.
        DataError: no images, or a label that can't be the name of a folder.
        ModelError, DependencyError: ``model`` can't be opened, or Starlette or uvicorn is not installed.
        SystemStateError: ``out`` can't be written, another review writes to it, or the port is taken.
    """
    _check_apart(folder, out)
    images = find_images(folder)
    with ExitStack() as stack:
        classifier = None if model is None else stack.enter_context(Classifier.open(model))
        if classifier is not None and classifier.clip is not None:
            raise UsageError(
                f"What is reviewed are single images, but {model} sees windows of {classifier.clip.window} frames; "
                "name its labels with --labels."
            )
        known = [] if labels is None else read_labels(labels)
        try:
            classes = find_classes(out, (*known, *(classifier.labels if classifier else ())))
        except OSError as error:
            raise DataError(f"{error.filename or out} can't be read: {error.strerror}.") from error
        journal = stack.enter_context(Journal(out))
        guess = recorded if classifier is None else _guessed(classifier)
        made = Review(folder, images, out=out, classes=classes, journal=journal, guess=guess)
        opened = _open(made, address, allow_remote=allow_remote, token=token)
        return ReviewPage(opened, made, stack.pop_all())


def _check_apart(folder: Path, out: Path) -> None:
    """Check that no image could be both to review and reviewed."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"OUT must be a folder of class folders, but {out} is a file; name a folder.")
    inner, outer = folder.resolve(), out.resolve()
    if inner == outer or inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UsageError(
            f"What is reviewed and OUT must lie apart, but one of {folder} and {out} holds the other: its images would "
            "be taken for a class; move it."
        )


def _guessed(classifier: Classifier) -> MakeGuess:
    def guess(_path: Path, pixels: Image) -> Guess:
        result = classifier(pixels)
        return Guess(label=result.label, score=result.score, top=tuple(result.top(TOP)))

    return guess


def _open(made: Review, address: str, *, allow_remote: bool, token: str | None) -> Opened:
    try:
        from edgeclf.reviewing.app import make_app
        from edgeclf_device.web.server import open_server
    except ImportError as error:
        raise DependencyError(
            f"Reviewing needs Starlette and uvicorn, which do not import here ({error}): "
            'pip install "edgeclf-device[web]".'
        ) from error
    app: Starlette = make_app(made)
    return open_server(
        address,
        app,
        allow_remote=allow_remote,
        token=token,
        reached="whoever reaches it sees the images and sorts them",
        methods=("GET", "HEAD", "POST"),
    )
