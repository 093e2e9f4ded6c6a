"""The images that parity is measured on: those of a run with its Keras scores, given ones, or synthetic ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeclf.evaluation.scores import Scores
from edgeclf_device.artifact import Artifact
from edgeclf_device.clips import Spec
from edgeclf_device.errors import DataError
from edgeclf_device.golden import GENERATOR, golden_input
from edgeclf_device.preprocess import PrepareSpec
from edgeclf_device.progress import Progress, no_progress


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """What is run: uint8 (N, *shape), what they are in words, and the Keras model's scores where they are known."""

    pixels: NDArray[np.uint8]
    description: str
    keras: Scores | None = None


def image_source(
    run: Path | None, data: Path | None, *, count: int, progress: Progress = no_progress
) -> Callable[[Artifact], Images]:
    """A function that gives the images to run an artifact on: of ``run``, of ``data``, or synthetic ones.

    Args:
        run: a run; its images come with the Keras scores that it kept.
        data: a folder of images or a listing.
        count: how many images at most, evenly spread over those there are.
        progress: shows the images as they are read and prepared.

    Raises:
        DataError: no such images, or the run has none. What is returned raises it for an artifact of another run.
        ModelError: the run is damaged.
    """
    if run is not None:
        return _of_run(run, count, progress)
    if data is None:
        return lambda artifact: synthetic_images(artifact, count)
    from edgeclf.exporting.given_images import read_given

    @functools.cache
    def given(labels: tuple[str, ...], spec: Spec) -> Images:
        found = read_given(data, labels, spec, progress=progress)
        return Images(pixels=found.take(_spread(len(found), count)), description=f"images of {data}")

    return lambda artifact: given(artifact.manifest.labels, artifact.manifest.spec)


def _of_run(run: Path, count: int, progress: Progress) -> Callable[[Artifact], Images]:
    from edgeclf.exporting.run_subject import read_subject

    subject = read_subject(run, progress=progress)
    if subject.judging is None or subject.reference is None:
        raise DataError(f"{run} keeps no scores of the Keras model, because it has no images; name images with --data.")
    places = _spread(len(subject.judging), count)
    images = Images(
        pixels=subject.judging.take(places),
        description=f"{subject.judging.split} images of {run}",
        keras=subject.reference[places],
    )

    def judging(artifact: Artifact) -> Images:
        manifest = artifact.manifest
        if (manifest.labels, manifest.spec) != (subject.labels, subject.spec):
            raise DataError(
                f"The artifact {manifest.name} has other labels or another preprocessing than {run}; name the run it "
                "was exported from."
            )
        return images

    return judging


def _spread(available: int, count: int) -> list[int]:
    """At most ``count`` places, evenly spread."""
    return [int(place) for place in np.linspace(0, available - 1, min(count, available)).round()]


def synthetic_images(artifact: Artifact, count: int) -> Images:
    """The artifact's golden input, then gradients, edges and flat fields, then golden inputs of other seeds.

    Of a video model each of the middle ones is a clip in which nothing moves.
    """
    manifest = artifact.manifest
    spec, seed = manifest.spec, 0 if manifest.golden is None else manifest.golden.seed
    fields = (golden_input(GENERATOR, seed + 1 + extra, spec.shape) for extra in range(count))
    made = [
        golden_input(GENERATOR, seed, spec.shape),
        *(np.broadcast_to(one, spec.shape) for one in _patterns(manifest.preprocessing)),
        *fields,
    ]
    return Images(pixels=np.stack(made[:count]), description="the golden input and synthetic images")


def _patterns(spec: PrepareSpec) -> Iterator[NDArray[np.uint8]]:
    height, width, channels = spec.shape
    down, across = np.mgrid[0:height, 0:width]
    centre = np.hypot(down - height / 2, across - width / 2)
    for grey in (
        across * 255 // max(width - 1, 1),
        down * 255 // max(height - 1, 1),
        (down // 8 + across // 8) % 2 * 255,
        across % 2 * 255,
        np.where(centre < min(height, width) / 3, 230, 25),
        np.zeros((height, width)),
        np.full((height, width), 255),
    ):
        yield np.repeat(np.asarray(grey, np.uint8)[..., np.newaxis], channels, axis=2)
