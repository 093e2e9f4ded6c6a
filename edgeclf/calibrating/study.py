"""How many calibration images a run needs and which: every choice is quantized to w8a8 and judged on other images.

ONNX is the road because it needs TensorFlow at most once. The network is run once over the images to choose from, and
what is kept of each image calibrates every choice that holds it: see ``traces``. Each model is, byte for byte but for
the last bit of a bias, what an export would make of the same images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeclf.calibrating.ground import Ground, read_ground
from edgeclf.calibrating.outcome import CHOSEN, Study, Trial
from edgeclf.exporting.measure import run_images
from edgeclf.exporting.pool import drawn, traces_of
from edgeclf.exporting.request import TIMEOUT_S
from edgeclf.exporting.subject import Images
from edgeclf.exporting.tensors import tensors_of
from edgeclf_calibration.bias_correction import ChannelMeans, corrected
from edgeclf_calibration.doubts import range_stability
from edgeclf_calibration.estimators import ESTIMATORS
from edgeclf_calibration.observe import anchored, observe
from edgeclf_calibration.onnx_int8 import quantize_onnx
from edgeclf_calibration.ranges import MinMax, MovingAverage, Range
from edgeclf_calibration.selection import LOOKING, METHODS, Selection, choose
from edgeclf_calibration.traces import Traces, trace
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress

SIZES = (8, 16, CHOSEN, 64, 128, 256, 512)
SEEDS = (0, 1, 2)
DEFAULT_METHODS = ("stratified", *(method for method in METHODS if method != "stratified"))
"""The export's own comes first: of equals it is recommended."""

FROM_ENDS = frozenset({MinMax.name, MovingAverage.name})
"""Estimators that see of each tensor only how far it reaches in each image."""


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What every trial needs."""

    ground: Ground
    traces: Traces
    anchors: dict[int, Traces]
    reference: NDArray[np.int64]
    estimator: str
    threads: int


def study(
    run: Path,
    *,
    bundle: Path | None = None,
    data: Path | None = None,
    methods: Sequence[str] | None = None,
    sizes: Sequence[int] = SIZES,
    seeds: Sequence[int] = SEEDS,
    estimator: str = MinMax.name,
    threads: int = 2,
    timeout_s: float = TIMEOUT_S,
    progress: Progress = no_progress,
) -> Study:
    """Try every method with every size and seed: calibrate, quantize, and run the result on images that judge.

    Args:
        run: folder of a training, or a stock classifier, which needs ``data``.
        bundle: an export of that run with fp32 .onnx in it; None: convert, which needs TensorFlow.
        data: a folder of images or a listing, half to choose from and half to judge by, not the run's training and
            validation splits. Without labels the agreement with the fp32 model is all that judges.
        methods: of ``METHODS``; those that no seed changes are tried once. None: ``DEFAULT_METHODS``, of images
            without labels all but ``stratified``.
        sizes: numbers of images; one beyond the images that there are means all of them.
        seeds: of the random methods.
        estimator: of ``ESTIMATORS``. Those that need more than the ends of each tensor in each image run the network
            again for every choice.
        threads: how many to compute with.
        timeout_s: how long the conversion may take.
        progress: shows conversion, observation and trials.

    Raises:
        UsageError: an unknown method or estimator; ``stratified`` without labels; no method, size or seed; a size below
            1; or as ``read_ground``.
        DataError, ModelError, DependencyError, SystemStateError: as ``read_ground``.
    """
    _check(DEFAULT_METHODS if methods is None else methods, sizes, seeds, estimator)
    begin = time.monotonic()
    ground = read_ground(run, bundle=bundle, data=data, timeout_s=timeout_s, progress=progress)
    ground = replace(ground, pool=drawn(ground.pool))
    methods = _possible(methods, ground.pool)
    traces = traces_of(
        ground.model, ground.pool, with_embeddings="k-center" in methods, threads=threads, progress=progress
    )
    choices = list(_choices(ground, traces, methods, sizes, seeds))
    tensors = tensors_of(ground.model, "onnx", "fp32")
    scores, engine = run_images(
        ground.model,
        "onnx",
        tensors,
        ground.judging,
        threads=threads,
        description="Measuring fp32",
        progress=progress,
    )
    bench = _Bench(
        ground=ground,
        traces=traces,
        anchors=_anchors(ground, {choice.indices[0] for choice in choices}, threads),
        reference=scores.argmax(axis=1),
        estimator=estimator,
        threads=threads,
    )
    trials = [_trial(bench, choice) for choice in progress(choices, "Quantizing and judging", len(choices))]
    return Study(
        name=ground.name,
        estimator=estimator,
        engine=engine,
        split=ground.judging.split,
        judged_images=len(ground.judging),
        pool_images=len(ground.pool),
        reference_accuracy=_accuracy(bench.reference, ground.judging),
        trials=tuple(trials),
        seconds=time.monotonic() - begin,
    )


def _check(methods: Sequence[str], sizes: Sequence[int], seeds: Sequence[int], estimator: str) -> None:
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        raise UsageError(f"A method must be one of {', '.join(METHODS)}, but {', '.join(unknown) or 'none'} was named.")
    if estimator not in ESTIMATORS:
        raise UsageError(f"The estimator must be one of {', '.join(ESTIMATORS)}, but it is {estimator!r}.")
    if not seeds or not sizes or min(sizes) < 1:
        raise UsageError(f"A study needs sizes of at least 1 and a seed, but got {list(sizes)} and {list(seeds)}.")


def _possible(methods: Sequence[str] | None, pool: Images) -> Sequence[str]:
    """``methods``, or of the default ones those that ``pool`` allows."""
    if methods is None:
        return [method for method in DEFAULT_METHODS if method != "stratified" or pool.true is not None]
    if "stratified" in methods and pool.true is None:
        raise UsageError("The method stratified needs labels, but the images have none; name others with --method.")
    return methods


def _choices(
    ground: Ground, traces: Traces, methods: Sequence[str], sizes: Sequence[int], seeds: Sequence[int]
) -> Iterator[Selection]:
    pool = ground.pool
    labels = None if pool.true is None else pool.named(ground.labels)
    for method in methods:
        for size in sorted({min(size, len(pool)) for size in sizes}):
            for seed in seeds[:1] if method in LOOKING else seeds:
                yield choose(
                    labels,
                    pool.digests,
                    count=size,
                    seed=seed,
                    method=method,
                    embeddings=traces.embeddings,
                    minima=traces.minima,
                    maxima=traces.maxima,
                )


def _anchors(ground: Ground, places: set[int], threads: int) -> dict[int, Traces]:
    """Traces of the images that begin a choice, as they are when they do: see ``anchored``."""
    return {
        place: trace(ground.model, [anchored(ground.pool.take([place]))], with_embeddings=False, threads=threads)
        for place in sorted(places)
    }


def _trial(bench: _Bench, choice: Selection) -> Trial:
    """Calibrate on a choice, quantize, and judge."""
    ground, begin = bench.ground, time.monotonic()
    half, ranges = _ranges(bench, choice)
    means = ChannelMeans()
    means.update(bench.anchors[choice.indices[0]].channels(0))
    for place in choice.indices[1:]:
        means.update(bench.traces.channels(place))
    model = quantize_onnx(corrected(ground.model, means.means()), ranges)
    seconds = time.monotonic() - begin
    tensors = tensors_of(model, "onnx", "w8a8")
    scores, _ = run_images(model, "onnx", tensors, ground.judging, threads=bench.threads, description="Judging")
    predicted, each_s = scores.argmax(axis=1), bench.traces.seconds / len(ground.pool)
    shown = len(ground.pool) if choice.method in LOOKING else choice.count if bench.estimator in FROM_ENDS else 0
    return Trial(
        method=choice.method,
        images=choice.count,
        seed=None if choice.method in LOOKING else choice.seed,
        accuracy=_accuracy(predicted, ground.judging),
        agreement=float(np.mean(predicted == bench.reference)),
        range_difference=range_stability(half, ranges).mean,
        seconds=seconds + shown * each_s,
    )


def _accuracy(predicted: NDArray[np.int64], judging: Images) -> float | None:
    return None if judging.true is None else float(np.mean(predicted == judging.true))


def _ranges(bench: _Bench, choice: Selection) -> tuple[dict[str, Range], dict[str, Range]]:
    """The ranges from the first half of a choice, and from all of it."""
    estimator = ESTIMATORS[bench.estimator]()
    middle = (choice.count + 1) // 2
    if bench.estimator in FROM_ENDS:
        estimator.update(bench.anchors[choice.indices[0]].ends(0))
        for place in choice.indices[1:middle]:
            estimator.update(bench.traces.ends(place))
        half = estimator.ranges()
        for place in choice.indices[middle:]:
            estimator.update(bench.traces.ends(place))
    else:
        pixels = anchored(bench.ground.pool.take(choice.indices))
        observe(bench.ground.model, pixels[:middle], estimator, threads=bench.threads)
        half = estimator.ranges()
        observe(bench.ground.model, pixels[middle:], estimator, threads=bench.threads)
    return half, estimator.ranges()
