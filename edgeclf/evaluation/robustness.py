"""How much of its accuracy a model keeps under corruptions and attacks; float and int8 on the same images."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeclf.data.dataset import Dataset
from edgeclf.evaluation.attacks import Images
from edgeclf.evaluation.candidates import KERAS_SUFFIX, Candidate, candidates, of_run
from edgeclf.evaluation.corruptions import SEVERITIES, applicable, corrupted
from edgeclf.evaluation.evaluate import class_indices, images_of
from edgeclf.evaluation.metrics import require_finite
from edgeclf.evaluation.robustness_result import IN_FLOAT, ModelRobustness, Robustness
from edgeclf.evaluation.worst_images import Worst, worst_images
from edgeclf.training.run import MODEL, Run, read_run
from edgeclf_device.artifact import read_artifact
from edgeclf_device.choice import runnable
from edgeclf_device.clips import ClipSpec, Spec
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress

IMAGES = 500
EPSILONS = (2, 4, 8)


def robustness(
    model: Path,
    data: Path,
    *,
    split: str | None = None,
    labels: Path | None = None,
    preprocess: Path | None = None,
    engine: str | None = None,
    threads: int | None = None,
    images: int = IMAGES,
    epsilons: Sequence[int] = EPSILONS,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Robustness:
    """Judge ``model`` by corrupted and attacked images of ``data``.

    Attacks need the gradient of a Keras model. Where ``data`` is the run that the artifacts were exported from, its
    model is judged and attacked too, and they are judged by the images that deceive it.

    Args:
        model, data, split, labels, preprocess, engine, threads: as ``evaluate``.
        images: how many at most, chosen by ``seed``.
        epsilons: largest changes of a value, 0 to 255, that attacks may make.
        seed: of the choice, the corruptions and the attacks.
        progress: shows each part of the work.

    Raises:
        UsageError: an epsilon that is no whole number from 1 to 255, or no image; otherwise as ``evaluate``.
        DataError, ModelError, DependencyError: as ``evaluate``.
    """
    if not epsilons or any(not 1 <= epsilon <= 255 for epsilon in epsilons):
        raise UsageError(
            f"An epsilon is a change of a pixel's value, from 1 to 255, but {', '.join(map(str, epsilons)) or 'none'} "
            "was given; 8 is usual."
        )
    if images < 1:
        raise UsageError(f"At least 1 image must judge, but {images} was given.")
    rising = tuple(sorted(set(epsilons)))

    @functools.cache
    def judging(spec: Spec) -> tuple[Dataset, Images, str]:
        if isinstance(spec, ClipSpec):
            raise UsageError("Robustness is measured on single images, but this model sees clips; leave it out.")
        dataset, pixels, part = images_of(data, spec, split, progress)
        rows = np.sort(np.random.default_rng(seed).permutation(len(pixels))[:images])
        chosen = tuple(dataset.items[row] for row in rows)
        return replace(dataset, items=chosen), np.asarray(pixels[rows]), part

    run = run_of(model, data, engine=engine)
    judged: list[ModelRobustness] = []
    found: _Found = {}
    source = ""
    for one in itertools.chain(
        [of_run(run)] if run and run.folder != model else [],
        candidates(model, labels=labels, preprocess=preprocess, engine=engine, threads=threads),
    ):
        dataset, pixels, part = judging(one.spec)
        true = class_indices(dataset, one.labels)
        if one.network is not None:
            found, source = _attack(one, pixels, true, rising, seed=seed, progress=progress), one.weights_sha256
        same = one.network is not None or (source and one.weights_sha256 == source)
        judged.append(
            ModelRobustness(
                model=one.model,
                engine=one.engine,
                accuracy=_accuracy(one, pixels, true),
                corruptions=_under_corruption(one, pixels, true, seed=seed, progress=progress),
                attacks=_under_attack(one, found, true) if same else {},
            )
        )
    return Robustness(
        data=str(data),
        split=part,
        images=len(true),
        seed=seed,
        epsilons=rising,
        models=tuple(judged),
        rejected=dataset.rejected,
    )


def run_of(model: Path, data: Path, *, engine: str | None = None) -> Run | None:
    """The run that ``model`` is, or ``data`` where ``model`` was exported from it; None: neither.

    Raises:
        as ``robustness``.
    """
    if (model / MODEL).is_file():
        return read_run(model)
    if model.suffix == KERAS_SUFFIX or not (data / MODEL).is_file():
        return None
    run = read_run(data)
    own = run.metrics.get("weights_sha256")
    files = runnable(model, engine=engine)[0]
    made_from = {read_artifact(file).manifest.provenance.get("weights_sha256") for file in files}
    return run if own and own in made_from else None


_Found = dict[str, list[Worst]]
"""What was found at each epsilon, by attack."""


def _attack(
    one: Candidate,
    pixels: Images,
    true: NDArray[np.int64],
    epsilons: Sequence[int],
    *,
    seed: int,
    progress: Progress,
) -> _Found:
    found: _Found = {}
    attacks = worst_images(
        one.network, pixels, true, classes=len(one.labels), epsilons=epsilons, seed=seed, progress=progress
    )
    for name, worst in attacks:
        found.setdefault(name, []).append(worst)
    return found


def _under_attack(one: Candidate, found: _Found, true: NDArray[np.int64]) -> dict[str, tuple[float, ...]]:
    """The network's own accuracy as the attacks found it; an artifact's on the images that they found."""
    if one.network is None:
        return {name: tuple(_accuracy(one, worst.images, true) for worst in all_) for name, all_ in found.items()}
    return {
        **{name: tuple(float((~worst.deceived).mean()) for worst in all_) for name, all_ in found.items()},
        IN_FLOAT: tuple(float((~worst.deceived_in_float).mean()) for worst in found["pgd"]),
    }


def _under_corruption(
    one: Candidate, pixels: Images, true: NDArray[np.int64], *, seed: int, progress: Progress
) -> dict[str, tuple[float, ...]]:
    names = applicable(one.spec.shape[2])
    steps = iter(progress([(name, level) for name in names for level in SEVERITIES], f"Corrupting for {one.model}"))
    made: dict[str, tuple[float, ...]] = {}
    for name, severity in steps:
        spoilt = corrupted(pixels, name, severity, seed=seed)
        made[name] = (*made.get(name, ()), _accuracy(one, spoilt, true))
    return made


def _accuracy(one: Candidate, pixels: Images, true: NDArray[np.int64]) -> float:
    scores = one.scores(pixels)
    require_finite(scores)
    return float((scores.argmax(axis=1) == true).mean())
