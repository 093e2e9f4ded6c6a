"""Parity: an artifact gives the same scores however it is executed, and those of the Keras model it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeclf.evaluation.first_divergence import Divergence, Network, first_divergence
from edgeclf.evaluation.parity_images import Images, image_source
from edgeclf.evaluation.scores import Scores
from edgeclf.evaluation.variants import TFLITE_RUNTIME, Bound, Variant, bound_of, variant_scores, variants_of
from edgeclf_device.artifact import Artifact, read_artifact
from edgeclf_device.bundle import resolve
from edgeclf_device.errors import DependencyError, EdgeclfError, UsageError
from edgeclf_device.progress import Progress, no_progress

FORMAT = (1, 0)
KERAS = "keras"
DEFAULT_IMAGES = 32


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two executions of one artifact on the same images.

    Attributes:
        artifact: file name.
        variant: see ``variants_of``.
        against: the artifact's reference variant, or ``keras``.
        images: how many.
        max_error: largest difference of two scores, dequantized.
        mean_error: mean difference of two scores.
        distance: see ``Bound``.
        agreement: share of images with the same label.
        worst: number of the image with the largest difference.
        bound: how far apart they may be.
        divergence: the first layer that diverges, where the bound is broken and one was found.
        note: why none was found, where the bound is broken.
    """

    artifact: str
    variant: str
    against: str
    images: int
    max_error: float
    mean_error: float
    distance: float
    agreement: float
    worst: int
    bound: Bound
    divergence: Divergence | None = None
    note: str = ""

    @property
    def kept(self) -> bool:
        """Whether the bound holds; NaN breaks it."""
        return self.max_error <= self.bound.max_error and self.distance <= self.bound.distance

    def to_json(self) -> dict[str, Any]:
        """The pair as ``parity --json`` writes it; NaN and infinity, which JSON lacks, become null."""
        return _finite({**asdict(self), "kept": self.kept})


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A variant of an artifact that could not be run, and why."""

    artifact: str
    variant: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """As ``parity --json`` writes it."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The whole matrix. ``images`` says in words what was run, by artifact."""

    images: Mapping[str, str]
    pairs: tuple[Pair, ...]
    absent: tuple[Absent, ...]

    @property
    def broken(self) -> tuple[Pair, ...]:
        """The pairs that do not keep their bound."""
        return tuple(pair for pair in self.pairs if not pair.kept)

    def to_json(self) -> dict[str, Any]:
        """The content of ``parity --json``."""
        return {
            "format": list(FORMAT),
            "kept": not self.broken,
            "images": dict(self.images),
            "pairs": [pair.to_json() for pair in self.pairs],
            "absent": [one.to_json() for one in self.absent],
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class _Subject:
    """One artifact with what its variants gave, the reference first."""

    file: str
    artifact: Artifact
    images: Images
    scores: Mapping[str, Scores]
    variants: Mapping[str, Variant]

    @property
    def reference(self) -> Variant:
        return next(iter(self.variants.values()))

    def network(self, variant: Variant) -> Network:
        return Network(
            model=self.artifact.model,
            container=self.artifact.manifest.container,
            options=variant.options,
            threads=variant.threads,
        )


def parity(
    paths: Sequence[Path],
    *,
    run: Path | None = None,
    data: Path | None = None,
    images: int = DEFAULT_IMAGES,
    tflite_runtime: Path | None = None,
    progress: Progress = no_progress,
) -> Parity:
    """Run every artifact in every way that this machine has, and compare the scores.

    Args:
        paths: artifacts, or bundles, of which every artifact.
        run: the run that they were made from: the images that judged it are run, and each variant is compared with the
            Keras scores that the run kept too. No TensorFlow is needed.
        data: a folder of images or a listing to run instead; without either, the golden input and synthetic images.
        images: how many at most, evenly spread over those there are.
        tflite_runtime: see ``variant_scores``.
        progress: shows each variant's images.

    Raises:
        UsageError: both ``run`` and ``data``, or fewer than one image.
        DataError: no such images, or an artifact that was not made from ``run``.
        ModelError: an artifact or the run is damaged.
        DependencyError: nothing can be compared, because no artifact runs in two ways here.
    """
    if run is not None and data is not None:
        raise UsageError(
            "Name a run or other images, but --run and --data were both given; Keras scores are of a run's own."
        )
    if images < 1:
        raise UsageError(f"At least 1 image must be run, but --images {images} was given.")
    source = image_source(run, data, count=images, progress=progress)
    absent: list[Absent] = []
    subjects = []
    for file in (file for path in paths for file in resolve(path)):
        artifact = read_artifact(file)
        subject, missed = _run(file.name, artifact, source(artifact), python=tflite_runtime, progress=progress)
        subjects.append(subject)
        absent += missed
    pairs = [pair for subject in subjects for pair in _pairs(subject)]
    if not pairs:
        reasons = "; ".join(dict.fromkeys(one.reason for one in absent))
        raise DependencyError(f"Two ways to run an artifact are needed to compare them, but there are not: {reasons}")
    explained = _explained(pairs, subjects)
    return Parity(
        images={one.file: one.images.description for one in subjects}, pairs=tuple(explained), absent=tuple(absent)
    )


def _run(
    file: str, artifact: Artifact, images: Images, *, python: Path | None, progress: Progress
) -> tuple[_Subject, list[Absent]]:
    """(what every variant that runs here gave, the variants that do not)."""
    scores: dict[str, Scores] = {}
    variants: dict[str, Variant] = {}
    absent: list[Absent] = []
    for variant in variants_of(artifact.manifest.container):
        title = f"{file} on {variant.name}"
        try:
            found = variant_scores(
                artifact, variant, images.pixels, python=python, description=title, progress=progress
            )
        except EdgeclfError as error:
            absent.append(Absent(artifact=file, variant=variant.name, reason=str(error)))
        else:
            scores[variant.name], variants[variant.name] = found, variant
    return _Subject(file=file, artifact=artifact, images=images, scores=scores, variants=variants), absent


def _pairs(subject: _Subject) -> Iterator[Pair]:
    """Each variant against the reference, then each against Keras."""
    manifest, keras = subject.artifact.manifest, subject.images.keras
    bounds: dict[str, Bound] = {}
    for name, variant in subject.variants.items():
        reference = subject.reference
        same = (variant.engine, variant.options) == (reference.engine, reference.options)
        bounds[name] = bound_of("threads" if same else "kernels", manifest.container, manifest.scheme)
        if variant is not reference:
            yield _pair(subject, name, reference.name, subject.scores[reference.name], bounds[name])
    if keras is not None:
        of_reference = bound_of("keras", manifest.container, manifest.scheme)
        for name, variant in subject.variants.items():
            bound = of_reference if variant is subject.reference else of_reference + bounds[name]
            yield _pair(subject, name, KERAS, keras, bound)


def _pair(subject: _Subject, variant: str, against: str, expected: Scores, bound: Bound) -> Pair:
    scores = subject.scores[variant]
    errors = np.abs(np.subtract(scores, expected, dtype=np.float64))
    return Pair(
        artifact=subject.file,
        variant=variant,
        against=against,
        images=len(errors),
        max_error=float(errors.max()),
        mean_error=float(errors.mean()),
        distance=float(errors.sum(axis=1).mean() / 2),
        agreement=float((scores.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        worst=int(errors.max(axis=1).argmax()),
        bound=bound,
    )


def _explained(pairs: Sequence[Pair], subjects: Sequence[_Subject]) -> Iterator[Pair]:
    """The pairs, each broken one with the first layer that diverges, or with why none can be named."""
    by_file = {subject.file: subject for subject in subjects}
    for pair in pairs:
        if pair.kept:
            yield pair
            continue
        try:
            divergence, note = _why(pair, by_file, pairs)
        except EdgeclfError as error:
            divergence, note = None, f"its layers can't be compared: {error}"
        yield replace(pair, divergence=divergence, note=note)


def _why(pair: Pair, by_file: Mapping[str, _Subject], pairs: Sequence[Pair]) -> tuple[Divergence | None, str]:
    subject = by_file[pair.artifact]
    variant, image = subject.variants[pair.variant], subject.images.pixels[pair.worst]
    if variant.engine == TFLITE_RUNTIME:
        return None, f"{TFLITE_RUNTIME} runs in another Python, where its layers can't be seen"
    if variant is not subject.reference:
        first, second = subject.network(subject.reference), subject.network(variant)
    else:
        sound = _sound_sibling(subject, by_file, pairs)
        if sound is None:
            return None, (
                "only layers of fp32 artifacts can be compared, with one of the other format that agrees with Keras"
            )
        # The suspect's own layers are named, so it comes first.
        first, second = subject.network(variant), sound.network(sound.reference)
    divergence = first_divergence(first, second, image, tolerance=pair.bound.layer)
    if divergence:
        return divergence, ""
    if pair.against == KERAS and variant is not subject.reference:
        return None, f"its layers agree with those of {subject.reference.name}, which see"
    return None, "no layer diverges by itself: small differences add up"


def _sound_sibling(subject: _Subject, by_file: Mapping[str, _Subject], pairs: Sequence[Pair]) -> _Subject | None:
    """The fp32 artifact of the other format, if it agrees with Keras; rounded layers have no equals elsewhere."""
    if subject.artifact.manifest.scheme != "fp32":
        return None
    for pair in pairs:
        other = by_file[pair.artifact]
        manifest = other.artifact.manifest
        is_other_format = manifest.container != subject.artifact.manifest.container
        if pair.against == KERAS and pair.kept and is_other_format and manifest.scheme == "fp32":
            return other
    return None


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _finite(one)
        if isinstance(one, dict)
        else None
        if isinstance(one, float) and not math.isfinite(one)
        else one
        for key, one in value.items()
    }
