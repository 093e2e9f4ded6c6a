"""Runs a converted model on the images that judge it and on the golden input, through the device's own engines."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeclf.evaluation.paired import paired
from edgeclf.evaluation.scores import Pixels, engine_scores
from edgeclf_device.artifact import read_artifact
from edgeclf_device.bundle import Bundle
from edgeclf_device.certificate import MAX_CHANGED_IMAGES, Certificate, ChangedImage, Changes
from edgeclf_device.clips import Spec
from edgeclf_device.engines import open_engine
from edgeclf_device.errors import GateError, ModelError
from edgeclf_device.golden import GENERATOR, golden_input
from edgeclf_device.manifest import Container, Golden, Scheme, Tensor
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.text import drop_interval

_FLOAT_TOLERANCE = 1e-5
_SAME_MODEL_TOLERANCE = 0.01
_TOLERANCE: Mapping[Scheme, float] = {
    "fp32": _FLOAT_TOLERANCE,
    "fp16": 1e-2,
    "w8a32": 1e-2,
    "w8a8": 1 / 256,
    "w8a16": 1e-3,
}
"""How far a golden score may be off on another board: 1e-5 in float, one step of the uint8 scores in static int8. fp16
is calculated in half precision where a board has it; w8a32 rounds activations as its kernels please (seen: 2e-3)."""


def run_images(
    model: bytes,
    container: Container,
    tensors: tuple[Tensor, Tensor],
    pixels: Pixels,
    *,
    threads: int,
    description: str,
    progress: Progress = no_progress,
) -> tuple[NDArray[np.float32], str]:
    """(scores of each image, float32 (N, classes), dequantized; the engine with its version).

    Args:
        model: model bytes.
        container: what they are.
        tensors: input and output as the manifest will state them.
        pixels: prepared images, each uint8 (H, W, C).
        threads: how many to compute with.
        description: what the progress is of.
        progress: shows one step for each image.

    Raises:
        DependencyError: the container's engine is not installed.
        ModelError: the engine refuses the model, or a score is NaN or infinite.
    """
    engine = open_engine(model, container, threads=threads)
    try:
        scores = engine_scores(engine, tensors, pixels, description=description, progress=progress)
        name = f"{engine.name} {engine.version}"
    finally:
        engine.close()
    if not np.isfinite(scores).all():
        raise ModelError("The converted model answers NaN or infinity; look for a diverged training and train again.")
    return scores, name


def certify(
    scores: NDArray[np.float32],
    reference: NDArray[np.float32],
    true: NDArray[np.int64] | None,
    *,
    split: str,
    max_drop_points: float,
    engine: str,
    digests: Sequence[str] = (),
) -> Certificate:
    """Compare an artifact's scores with the original model's on the same images.

    Args:
        scores: float32 (N, classes), of the artifact.
        reference: float32 (N, classes), of the original model.
        true: (N,) class indices; None: not known, and neither accuracy nor drop is measured.
        split: name of the part of the data that the images are.
        max_drop_points: the gate, written into the certificate; ``require_within`` enforces it.
        engine: what gave ``scores``.
        digests: SHA-256 of the N images' files; without them, images that changed label are counted but not named.

    Raises:
        ModelError: a score of the original model is NaN or infinite.
    """
    if not np.isfinite(reference).all():
        raise ModelError("The original model answers NaN or infinity; look for a diverged training and train again.")
    predicted, expected = scores.argmax(axis=1), reference.argmax(axis=1)
    images = len(predicted)
    certificate = Certificate(
        split=split,
        images=images,
        accuracy=None,
        reference_accuracy=None,
        drop_points=None,
        agreement=int((predicted == expected).sum()) / images,
        max_drop_points=None,
        engine=engine,
        changes=_changes(scores, reference, true, digests),
    )
    if true is None:
        return certificate
    right, right_before = predicted == true, expected == true
    found = paired(right_before, right)
    return replace(
        certificate,
        accuracy=int(right.sum()) / images,
        reference_accuracy=int(right_before.sum()) / images,
        drop_points=(found.lost - found.gained) * 100 / images,
        max_drop_points=max_drop_points,
        paired=found,
    )


def _changes(
    scores: NDArray[np.float32], reference: NDArray[np.float32], true: NDArray[np.int64] | None, digests: Sequence[str]
) -> Changes:
    before, after = reference.argmax(axis=1), scores.argmax(axis=1)
    changed, classes = before != after, reference.shape[1]
    given = np.bincount(before, minlength=classes).tolist()
    flipped = np.bincount(before[changed], minlength=classes).tolist()
    surest = np.argsort(-reference.max(axis=1), kind="stable")
    listed = surest[changed[surest]][:MAX_CHANGED_IMAGES].tolist() if digests else []
    error = np.abs(scores - reference)
    return Changes(
        max_error=float(error.max()),
        mean_error=float(error.mean(dtype=np.float64)),
        images=int(changed.sum()),
        per_class=tuple(zip(given, flipped, strict=True)),
        listed=tuple(
            ChangedImage(
                sha256=digests[place],
                before=int(before[place]),
                after=int(after[place]),
                true=None if true is None else int(true[place]),
            )
            for place in listed
        ),
    )


def require_same_model(probe: Sequence[Sequence[float]], reference: NDArray[np.float32], keras_model: Path) -> None:
    """Check that the scores kept in a run are those of its model on its images, by running a few again.

    Args:
        probe: the model's scores now, for the first images.
        reference: float32 (N, classes), the scores kept.
        keras_model: path of the model, for the message.

    Raises:
        ModelError: they differ by more than another machine's arithmetic explains.
    """
    difference = float(np.abs(np.asarray(probe, np.float32) - reference[: len(probe)]).max())
    if not difference <= _SAME_MODEL_TOLERANCE:
        raise ModelError(
            f"{keras_model} gives other scores than its run kept for the same images (by {difference:.3g}, allowed "
            f"{_SAME_MODEL_TOLERANCE}): the model or the images were changed after the training; train again."
        )


def require_within(certificates: Mapping[str, Certificate]) -> None:
    """Check every artifact, by file name, against its gate; one that was measured without labels has none.

    Raises:
        GateError: one or more lose more than allowed; the message is a table of all.
    """
    if all(map(_keeps_to_it, certificates.values())):
        return
    width = max(len(file) for file in certificates)
    rows = [f"  {'artifact':{width}}  accuracy  drop (points)      95 % interval  agreement"]
    for file, one in certificates.items():
        verdict = "" if _keeps_to_it(one) else "  beyond the gate"
        rows.append(
            f"  {file:{width}}  {one.accuracy:8.4f}  {one.drop_points:13.2f}  {drop_interval(one.paired):>17}  "
            f"{one.agreement:9.4f}{verdict}"
        )
    first = next(iter(certificates.values()))
    raise GateError(
        f"An artifact may lose {first.max_drop_points:g} points of the original model's {first.reference_accuracy:.4f} "
        f"on {first.images} {first.split} images, but not all keep to it; nothing was written.\n"
        + "\n".join(rows)
        + "\nLeave the scheme out with --scheme, calibrate with other images, or allow more with --max-drop."
    )


def ungated(bundle: Bundle, max_drop_points: float) -> str:
    """One sentence where no gate could be applied to the artifacts of ``bundle``, for whoever asked for one; or "".

    Raises:
        ModelError: an artifact is damaged.
    """
    certificates = {entry.file: read_artifact(bundle.path(entry)).manifest.certificate for entry in bundle.artifacts}
    first = next(iter(certificates.values()))
    if first is None:
        return f"nothing was measured, for want of images, so --max-drop {max_drop_points:g} was not applied."
    if first.accuracy is not None:
        return ""
    shares = [f"{file} {100 * one.agreement:.2f} %" for file, one in certificates.items() if one is not None]
    return (
        f"no accuracy was measured, for want of images labelled with the model's classes, so --max-drop "
        f"{max_drop_points:g} was not applied. Same label as the original model on {first.images} images: "
        f"{', '.join(shares)}."
    )


def _keeps_to_it(certificate: Certificate) -> bool:
    drop, allowed = certificate.drop_points, certificate.max_drop_points
    return drop is None or allowed is None or drop <= allowed


def choose_golden_seed(scores: Mapping[int, Sequence[float]]) -> int:
    """The seed whose golden input the original model is surest of, so that rounding can't change the label.

    Args:
        scores: the original model's scores for each seed's golden input.
    """
    margins = {seed: float(np.subtract(*np.sort(row)[-1:-3:-1])) for seed, row in scores.items()}
    return max(margins, key=lambda seed: (margins[seed], -seed))


def golden_of(
    model: bytes, container: Container, scheme: Scheme, tensors: tuple[Tensor, Tensor], spec: Spec, *, seed: int
) -> Golden:
    """The golden input of ``seed`` and the scores that this very model gives it on one thread."""
    pixels = golden_input(GENERATOR, seed, spec.shape)
    scores, _ = run_images(model, container, tensors, pixels[np.newaxis], threads=1, description="Golden input")
    return Golden(
        generator=GENERATOR,
        seed=seed,
        input_sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
        scores=tuple(float(score) for score in scores[0]),
        tolerance=_TOLERANCE[scheme],
    )
