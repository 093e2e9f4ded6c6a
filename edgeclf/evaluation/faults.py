"""What is wrong with an artifact, by name: checked against the run that it was exported from.

``edgeclf_device.verify`` finds files that are damaged. One that is whole and yet wrong (shuffled labels, a model that
wants BGR, stale calibration) may have digests and golden scores of its own; only the run knows better. Where scores are
not those that the certificate states, known faults are tried one after the other: the one that explains the scores is
named. Where none does, ``layer_faults`` looks at the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from edgeclf.data.dataset import SPLIT_NAMES
from edgeclf.evaluation.layer_faults import layer_fault
from edgeclf.evaluation.scores import Scores, engine_scores
from edgeclf.exporting.fp32 import fp32_of
from edgeclf.exporting.request import STATIC, TIMEOUT_S
from edgeclf.exporting.run_subject import read_subject
from edgeclf.exporting.subject import Subject
from edgeclf.training.run import image_root, items, read_run
from edgeclf_device.artifact import Artifact, read_artifact
from edgeclf_device.bundle import resolve
from edgeclf_device.clips import frame_of
from edgeclf_device.engines import open_engine
from edgeclf_device.errors import DataError, UsageError
from edgeclf_device.images import load
from edgeclf_device.manifest import Manifest
from edgeclf_device.preprocess import PrepareSpec, crop_box, inner_size, prepare
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.verify import Check, Outcome

IMAGES = 64
"""That scores are compared on, at most, evenly spread over those that judge."""

AGREEMENT_POINTS = 2.0
"""By which label agreement may lie below the certificate's, beyond chance: another processor may have measured that."""

_EXPLAINS = 0.5
"""A fault is named where undoing it halves the distance from the Keras scores, at least."""

_RESIZES = {"nearest neighbour": cv2.INTER_NEAREST, "averaging areas": cv2.INTER_AREA, "plain linear": cv2.INTER_LINEAR}

# What networks commonly make of a pixel p: p * scale + offset.
_CONVENTIONS = ((1 / 255, 0.0), (1 / 127.5, -1.0), (1 / 128, -127 / 128), (1.0, 0.0))

Pixels = NDArray[np.uint8]
Run = Callable[[Pixels], Scores]
Found = tuple[str, Outcome, str]
"""Name, outcome and detail of a ``Check``."""


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """Some of the images that judge: as decoded, as prepared by the reference, and the Keras model's scores of them."""

    decoded: list[Pixels]
    pixels: Pixels
    keras: Scores


def checks_against(path: Path, run: Path, *, images: int = IMAGES, progress: Progress = no_progress) -> list[Check]:
    """Compare an artifact, or every artifact of a bundle, with the run that it was exported from.

    Args:
        path: an artifact or a bundle.
        run: the run's folder, with its images at hand.
        images: how many of those that judge are classified, at most.
        progress: shows images, and the conversion where layers have to be looked at.

    Returns:
        of each file: ``labels``, ``preprocessing``, ``calibration`` where it has one, and ``scores``; and ``preparing``
        of this machine.

    Raises:
        UsageError: there is no such path or run, or the run is of clips.
        DataError: the run has no images, or they are not where they were.
        ModelError: an artifact or the run is damaged.
        DependencyError: an engine is not installed; TensorFlow, where layers have to be looked at.
    """
    subject = read_subject(run, progress=progress)
    if subject.clip is not None:
        raise UsageError(
            f"{run} sees clips, and only what is wrong with models of single images is known; leave it out."
        )
    spec = frame_of(subject.spec)
    judged = _judged(run, subject, images)
    checks = [_preparing(judged, spec)]
    for file in resolve(path):
        artifact = read_artifact(file)
        manifest = artifact.manifest
        found = [_labels(manifest, subject), _preprocessing(manifest, spec)]
        if manifest.calibration is not None:
            found.append(_calibration(manifest, subject))
        if manifest.preprocessing.shape == spec.shape and len(manifest.labels) == len(subject.labels):
            found.append(_scores(artifact, subject, judged, progress))
        checks += [Check(file=file.name, name=name, outcome=outcome, detail=detail) for name, outcome, detail in found]
    return checks


def _judged(run: Path, subject: Subject, count: int) -> _Judged:
    judging, reference = subject.judging, subject.reference
    if judging is None or reference is None:
        raise DataError(f"{run} has no images to check artifacts with; name a run that was trained here.")
    opened = read_run(run)
    everything, root = items(opened, SPLIT_NAMES), image_root(opened)
    places = np.linspace(0, len(judging) - 1, min(count, len(judging))).round().astype(int)
    decoded = [load(root / everything[int(judging.rows[place])].path) for place in places]
    pixels = np.stack([prepare(image, frame_of(subject.spec), backend="numpy") for image in decoded])
    return _Judged(decoded=decoded, pixels=pixels, keras=reference[places])


def _preparing(judged: _Judged, spec: PrepareSpec) -> Check:
    """Whether this machine prepares images as the contract's reference does."""
    fast = np.stack([prepare(image, spec) for image in judged.decoded])
    if np.array_equal(fast, judged.pixels):
        detail = f"{len(fast)} images have the bytes of the contract"
        return Check(file="this machine", name="preparing", outcome="ok", detail=detail)
    like = [name for name in _RESIZES if np.array_equal(fast, _resized(judged, spec, name))]
    detail = f"images are resized by {like[0]}" if like else "images have other bytes"
    detail += ", not by the contract's halve-then-linear; another version of OpenCV may be at fault"
    return Check(file="this machine", name="preparing", outcome="failed", detail=detail)


def _resized(judged: _Judged, spec: PrepareSpec, name: str) -> Pixels:
    """The images cropped and coloured by the contract, but resized in another way."""
    whole, made = replace(spec, crop="letterbox" if spec.crop == "letterbox" else "stretch", crop_fraction=1.0), []
    for image in judged.decoded:
        top, left, rows, columns = crop_box(image.shape[0], image.shape[1], spec)
        kept = PrepareSpec(height=rows, width=columns, channels=spec.channels)
        coloured = prepare(image[top : top + rows, left : left + columns], kept, backend="numpy")
        height, width = inner_size(rows, columns, spec)
        resized = cv2.resize(coloured, (width, height), interpolation=_RESIZES[name])
        made.append(prepare(np.asarray(resized, np.uint8), whole, backend="numpy"))
    return np.stack(made)


def _labels(manifest: Manifest, subject: Subject) -> Found:
    if manifest.labels == subject.labels:
        return "labels", "ok", f"{len(manifest.labels)} labels in the run's order"
    if sorted(manifest.labels) != sorted(subject.labels):
        return "labels", "failed", f"the run has {_some(subject.labels)}, the artifact {_some(manifest.labels)}"
    moved = [place for place, label in enumerate(manifest.labels) if label != subject.labels[place]]
    first = moved[0]
    detail = (
        f"shuffled: {len(moved)} of {len(manifest.labels)} stand in another place; output {first} is "
        f"{subject.labels[first]!r} in the run and {manifest.labels[first]!r} here"
    )
    return "labels", "failed", detail


def _some(labels: tuple[str, ...]) -> str:
    return f"{len(labels)} labels ({', '.join(labels[:3])}{', …' if len(labels) > 3 else ''})"


def _preprocessing(manifest: Manifest, spec: PrepareSpec) -> Found:
    ours, theirs = spec.to_json(), manifest.preprocessing.to_json()
    other = [f"{key} is {ours[key]!r} in the run and {theirs[key]!r} here" for key in ours if ours[key] != theirs[key]]
    return ("preprocessing", "failed", "; ".join(other)) if other else ("preprocessing", "ok", "the run's own")


def _calibration(manifest: Manifest, subject: Subject) -> Found:
    record = manifest.calibration or {}
    digests = set(record.get("digests", ()))
    if record.get("source") != "train" or not digests or subject.calibration is None:
        return "calibration", "skipped", "its images are not the run's own, or are not listed"
    gone = len(digests - set(subject.calibration.digests))
    if gone:
        detail = f"stale: {gone} of its {len(digests)} images are not among the run's training images; export again"
        return "calibration", "failed", detail
    return "calibration", "ok", f"its {len(digests)} images are training images of the run"


def _scores(artifact: Artifact, subject: Subject, judged: _Judged, progress: Progress) -> Found:
    """Whether scores are those that the certificate promises, and if not, which fault explains them."""
    manifest = artifact.manifest
    tensors = (manifest.inputs[0], manifest.outputs[0])
    title = f"Checking {manifest.scheme} .{manifest.container}"
    engine = open_engine(artifact.content, manifest.container, threads=1)
    try:

        def run(pixels: Pixels) -> Scores:
            return engine_scores(engine, tensors, pixels, description=title, progress=progress)

        scores = run(judged.pixels)
        doubt = _doubt(scores, judged.keras, manifest)
        if not doubt:
            return "scores", "ok", f"those that its certificate states, on {len(scores)} images"
        explained = _explained(run, scores, judged, frame_of(subject.spec))
    finally:
        engine.close()
    if explained is None:
        fp32 = fp32_of(subject, manifest.container, timeout_s=TIMEOUT_S, progress=progress)
        rounded = manifest.scheme in STATIC
        explained = layer_fault(artifact.model, fp32, manifest.container, judged.pixels, rounded=rounded)
    return "scores", "failed", f"{doubt}: {explained}"


def _doubt(scores: Scores, keras: Scores, manifest: Manifest) -> str:
    """How the scores are not those of the certificate; empty where they are."""
    if not np.isfinite(scores).all():
        return "some scores are no numbers"
    certificate = manifest.certificate
    agreement = float((scores.argmax(axis=1) == keras.argmax(axis=1)).mean())
    promised = 1.0 if certificate is None else certificate.agreement
    chance = 2 * np.sqrt(max(promised * (1 - promised), 1 / len(scores)) / len(scores))
    if agreement < promised - AGREEMENT_POINTS / 100 - chance:
        return f"{100 * agreement:.1f} % have the Keras model's label, the certificate states {100 * promised:.1f} %"
    error = float(np.abs(scores - keras).mean())
    if certificate is not None and certificate.changes is not None:
        allowed = 2 * certificate.changes.mean_error + 1e-4
        if error > allowed:
            return f"scores are {error:.2g} from the Keras model's, the certificate states {allowed / 2:.2g}"
    return ""


def _explained(run: Run, scores: Scores, judged: _Judged, spec: PrepareSpec) -> str | None:
    """The fault that brings the scores nearest to the Keras model's when it is undone; None where none does."""
    plain = _distance(scores, judged.keras)
    undone = {reason: _distance(run(pixels), judged.keras) for reason, pixels in _undone(judged, spec)}
    permuted, order = _permuted(scores, judged.keras)
    if list(order) != sorted(order):
        undone[f"the outputs are in another order ({', '.join(map(str, order))}): the labels are shuffled"] = permuted
    best = min(undone, key=lambda reason: undone[reason])
    return best if undone[best] <= _EXPLAINS * plain else None


def _undone(judged: _Judged, spec: PrepareSpec) -> Iterator[tuple[str, Pixels]]:
    """Each known fault of the input, with pixels that undo it."""
    pixels = judged.pixels
    if spec.shape[2] == 3:
        yield "red and blue are exchanged: the model takes BGR for RGB", pixels[..., ::-1]
    yield (
        "the input is taken for int8 where it is uint8, or the other way round: pixels are 128 apart",
        pixels ^ np.uint8(0x80),
    )
    for name in _RESIZES:
        yield f"the model was made for images resized by {name}, not by halve-then-linear", _resized(judged, spec, name)
    for right in _CONVENTIONS:
        for wrong in _CONVENTIONS:
            if wrong != right:
                values = (pixels * right[0] + right[1] - wrong[1]) / wrong[0]
                moved = np.clip(np.rint(values), 0, 255).astype(np.uint8)
                computes, should = (f"pixel × {scale:.4g} {offset:+.3g}" for scale, offset in (wrong, right))
                yield f"wrong scale: the model computes {computes} where {should} is right", moved


def _distance(scores: Scores, keras: Scores) -> float:
    """Mean total variation distance of two rows of scores, 0 to 1."""
    return float(np.abs(np.subtract(scores, keras, dtype=np.float64)).sum(axis=1).mean() / 2)


def _permuted(scores: Scores, keras: Scores) -> tuple[float, tuple[int, ...]]:
    """(the distance in the order of outputs that is best, that order): an assignment problem (Kuhn 1955)."""
    costs = np.abs(scores[:, :, np.newaxis] - keras[:, np.newaxis, :]).sum(axis=0)
    _, places = linear_sum_assignment(costs.T)
    return _distance(scores[:, places], keras), tuple(int(place) for place in places)
