"""The accuracy certificate: what was measured on an artifact, against its original, before it was allowed out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeclf_device._fields import get, integers, number
from edgeclf_device.errors import ModelError

MAX_CHANGED_IMAGES = 100
"""So many images that changed label are named; all are counted."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Whether the drop may be chance, from the images that only one of the artifact and the Keras model labels rightly.

    Attributes:
        lost: images that the Keras model alone labels rightly.
        gained: images that the artifact alone labels rightly.
        drop_interval_95: (low, high) in points; the drop lies between them.
        mcnemar_p: probability of counts at least as unequal, if both were equally likely.
    """

    lost: int
    gained: int
    drop_interval_95: tuple[float, float]
    mcnemar_p: float

    def to_json(self) -> dict[str, Any]:
        """The certificate's ``paired`` object."""
        return {**vars(self), "drop_interval_95": list(self.drop_interval_95)}

    @classmethod
    def from_json(cls, value: Any) -> Paired:
        """Read it; raises ModelError where a field is missing or of another type."""
        interval = get(value, "drop_interval_95", list)
        if len(interval) != 2:
            raise ModelError(f"The manifest's drop_interval_95 must be two numbers, but it is {interval!r:.80}.")
        low, high = (number({"drop_interval_95": end}, "drop_interval_95") for end in interval)
        return cls(
            lost=get(value, "lost", int),
            gained=get(value, "gained", int),
            drop_interval_95=(low, high),
            mcnemar_p=number(value, "mcnemar_p"),
        )


@dataclass(frozen=True, kw_only=True)
class ChangedImage:
    """One image that the artifact gives another label than the Keras model does; labels are places in the labels.

    Attributes:
        sha256: of the image's file.
        before, after: the Keras model's label, and the artifact's.
        true: the image's class; None: not known.
    """

    sha256: str
    before: int
    after: int
    true: int | None

    @classmethod
    def from_json(cls, value: Any) -> ChangedImage:
        """Read one image; raises ModelError where a field is missing or of another type."""
        return cls(
            sha256=get(value, "sha256", str),
            before=get(value, "before", int),
            after=get(value, "after", int),
            true=get(value, "true", (int, type(None))),
        )


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How the artifact's answers differ from the Keras model's on the same images, right or wrong.

    Attributes:
        max_error, mean_error: absolute difference of a score, over all images and classes.
        images: how many changed label.
        per_class: for each class, (images that the Keras model gives it, how many of them changed label).
        listed: at most ``MAX_CHANGED_IMAGES`` of those that changed, the ones first that the Keras model was surest of.
    """

    max_error: float
    mean_error: float
    images: int
    per_class: tuple[tuple[int, int], ...]
    listed: tuple[ChangedImage, ...]

    def to_json(self) -> dict[str, Any]:
        """The certificate's ``changes`` object."""
        pairs = [list(pair) for pair in self.per_class]
        return {**vars(self), "per_class": pairs, "listed": [dict(vars(image)) for image in self.listed]}

    @classmethod
    def from_json(cls, value: Any) -> Changes:
        """Read them; raises ModelError where a field is missing or of another type."""
        pairs = get(value, "per_class", list)
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise ModelError("The manifest's per_class must hold pairs of integers; export the model again.")
        counts = [integers(pair, "per_class") for pair in pairs]
        return cls(
            max_error=number(value, "max_error"),
            mean_error=number(value, "mean_error"),
            images=get(value, "images", int),
            per_class=tuple((total, changed) for total, changed in counts),
            listed=tuple(map(ChangedImage.from_json, get(value, "listed", list))),
        )


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was measured on this very file before it was allowed out.

    Without labels no accuracy can be measured: then the five fields that depend on it are None, and no gate was
    applied. ``paired`` and ``changes`` are None before format 1.2.

    Attributes:
        split: which images: normally ``test``; ``held-out`` or ``unlabelled`` where the run has none of its own.
        images: how many.
        accuracy: top-1 of this artifact, 0 to 1.
        reference_accuracy: top-1 of the Keras model on the same images.
        drop_points: (reference_accuracy - accuracy) * 100.
        agreement: share of images with the same top-1 label as the Keras model.
        max_drop_points: the gate it passed.
        engine: what executed it, with its version.
        paired: whether the drop may be chance.
        changes: how its answers differ from the Keras model's.
    """

    split: str
    images: int
    accuracy: float | None
    reference_accuracy: float | None
    drop_points: float | None
    agreement: float
    max_drop_points: float | None
    engine: str
    paired: Paired | None = None
    changes: Changes | None = None

    def to_json(self) -> dict[str, Any]:
        """The manifest's ``certificate`` object."""
        return {
            **vars(self),
            "paired": self.paired.to_json() if self.paired else None,
            "changes": self.changes.to_json() if self.changes else None,
        }

    @classmethod
    def from_json(cls, value: Any) -> Certificate:
        """Read the certificate; raises ModelError where a field is missing or of another type."""
        gated = ("accuracy", "reference_accuracy", "drop_points", "max_drop_points")
        unlabelled = all(get(value, key, (int, float, type(None))) is None for key in gated)
        paired, changes = value.get("paired"), value.get("changes")
        return cls(
            split=get(value, "split", str),
            images=get(value, "images", int),
            agreement=number(value, "agreement"),
            engine=get(value, "engine", str),
            paired=None if paired is None else Paired.from_json(paired),
            changes=None if changes is None else Changes.from_json(changes),
            **{key: None if unlabelled else number(value, key) for key in gated},
        )
