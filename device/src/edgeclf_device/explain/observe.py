"""Look at one artifact while it runs: times, threads, operators, and the fp32 artifact beside it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter, perf_counter_ns, process_time, sleep
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.artifact import read_artifact
from edgeclf_device.bench import input_of, synthetic_frame
from edgeclf_device.bundle import is_bundle, read_bundle
from edgeclf_device.choice import choose, usable_cores
from edgeclf_device.classifier import Classifier, as_batch
from edgeclf_device.engines import NO_OPTIONS, chosen_options
from edgeclf_device.engines.tflite import TFLiteEngine
from edgeclf_device.errors import ModelError, UsageError
from edgeclf_device.explain.causes import facts_of, why_int8_is_slow
from edgeclf_device.explain.explanation import Comparison, Explanation, Profile
from edgeclf_device.explain.litert_times import litert_times
from edgeclf_device.explain.processor import busy_ticks, family_of, instruction_sets
from edgeclf_device.explain.profile_onnx import profile_onnx
from edgeclf_device.explain.profile_tflite import profile_tflite
from edgeclf_device.intervals import percentile_interval

INTEGER_SCHEMES = ("w8a8", "w8a32", "w8a16")
WARMUP = 10
MIN_SAMPLES = 10
MAX_TIMED_RUNS = 100
SETTLE_SECONDS = 0.1
"""Until OpenCV's threads, which prepared the frame, no longer spin: they would count as the engine's (1.45 of 1)."""
MIN_SECONDS_OF_OTHERS = 0.5
"""Shorter than that, ticks of a hundredth of a second tell nothing of other programs."""
CPUINFO, STAT = Path("/proc/cpuinfo"), Path("/proc/stat")

Run = Callable[[], object]


def explain(
    path: Path,
    *,
    engine: str | None = None,
    threads: int | None = None,
    options: Mapping[str, str] = NO_OPTIONS,
    seconds: float = 1.0,
    against: Path | None = None,
) -> Explanation:
    """Explain the time of an artifact, or of the best one of a bundle.

    The model runs on a synthetic frame: first as it does in ``Classifier``, for the time and the threads, then in turn
    with the fp32 artifact, and then once more with the engine's profiler, where it has one.

    Args:
        path: an artifact or a bundle.
        engine: see ``Classifier.open``.
        threads: see ``Classifier.open``.
        options: see ``Classifier.open``.
        seconds: how long to take each of these up to three.
        against: an fp32 artifact to compare with, of the same engine; None takes ``fp32_sibling(path)``.

    Raises:
        UsageError: ``seconds`` is not above 0.
        ModelError, DependencyError: see ``Classifier.open``.
    """
    if seconds <= 0:
        raise UsageError(f"explain needs seconds above 0, but got {seconds}.")
    chosen = choose(path, engine=engine).path
    with Classifier.open(chosen, engine=engine, threads=threads, options=options) as classify:
        manifest, run = classify.manifest, _runner(classify)
        samples, effective, others = _measured(run, seconds)
        profile = _profile(classify, options, seconds, float(np.median(samples)) / 1e9)
        integer = manifest.scheme in INTEGER_SCHEMES
        other = (against or fp32_sibling(chosen)) if integer else against
        compared = None if other is None else _compared(classify, other, options, seconds)
        family, cores = family_of(platform.machine()), usable_cores()
        sets = instruction_sets(_text(CPUINFO), family)
        facts = facts_of(
            profile,
            sets,
            family=family,
            engine=classify.engine.name,
            options=options,
            scheme=manifest.scheme,
            threads=classify.threads,
            effective_threads=effective,
            others=others,
            cores=cores,
        )
        return Explanation(
            artifact=chosen.name,
            artifact_sha256=classify.artifact.digest,
            scheme=manifest.scheme,
            container=manifest.container,
            engine=classify.engine.name,
            engine_version=classify.engine.version,
            options=dict(options),
            threads=classify.threads,
            cores=cores,
            family=family,
            instruction_sets=sets,
            median_ms=float(np.median(samples)) / 1e6,
            effective_threads=effective,
            others=others,
            profile=profile,
            comparison=compared,
            causes=why_int8_is_slow(facts) if integer else (),
        )


def fp32_sibling(path: Path) -> Path | None:
    """The fp32 artifact of the same container in the bundle that ``path`` lies in; None where there is none.

    Raises:
        ModelError: the bundle's index can't be read.
    """
    if not is_bundle(path.parent):
        return None
    entries = read_bundle(path.parent).artifacts
    mine = next((entry for entry in entries if entry.file == path.name), None)
    if mine is None or mine.scheme == "fp32":
        return None
    other = next((one for one in entries if (one.container, one.scheme) == (mine.container, "fp32")), None)
    return None if other is None or not (path.parent / other.file).is_file() else path.parent / other.file


def verdict(mine: NDArray[np.int64], fp32: NDArray[np.int64]) -> Literal["faster", "slower", "undecided"]:
    """Of nanosecond samples against fp32's: undecided where the medians' 95 % intervals overlap or are missing."""
    own, other = percentile_interval(mine, 50), percentile_interval(fp32, 50)
    if own is None or other is None:
        return "undecided"
    if own[1] < other[0]:
        return "faster"
    return "slower" if own[0] > other[1] else "undecided"


def _batch(classify: Classifier) -> NDArray[Any]:
    frame = synthetic_frame()
    pixels = classify.prepare(input_of(classify, frame), color=frame.color)
    return as_batch(pixels, classify.manifest.inputs[0])


def _runner(classify: Classifier) -> Run:
    batch, engine = _batch(classify), classify.engine
    return lambda: engine.run(batch)


def _sample(run: Run) -> int:
    begin = perf_counter_ns()
    run()
    return perf_counter_ns() - begin


def _measured(run: Run, seconds: float) -> tuple[NDArray[np.int64], float, float | None]:
    """(nanoseconds of each inference, processor time over elapsed time, cores busy otherwise), after a warm-up."""
    for _ in range(WARMUP):
        run()
    sleep(SETTLE_SECONDS)
    samples: list[int] = []
    busy, used, begin = _busy_seconds(), process_time(), perf_counter()
    while len(samples) < MIN_SAMPLES or perf_counter() - begin < seconds:
        samples.append(_sample(run))
    elapsed, used = perf_counter() - begin, process_time() - used
    others = None
    if busy is not None and elapsed >= MIN_SECONDS_OF_OTHERS:
        others = max(0.0, ((_busy_seconds() or 0.0) - busy - used) / elapsed)
    return np.array(samples, np.int64), used / elapsed, others


def _busy_seconds() -> float | None:
    """What all programs together have used of the cores that this process may use; None where nothing tells."""
    text = _text(STAT) if hasattr(os, "sched_getaffinity") else ""
    return busy_ticks(text, os.sched_getaffinity(0)) / os.sysconf("SC_CLK_TCK") if text else None


def _compared(classify: Classifier, other: Path, options: Mapping[str, str], seconds: float) -> Comparison:
    """Both in turn, so that what slows the machine down slows both."""
    scheme = read_artifact(other).manifest.scheme
    if scheme != "fp32":
        raise ModelError(f"int8 is compared with an fp32 artifact, but {other} is {scheme}; name the fp32 one.")
    mine: list[int] = []
    theirs: list[int] = []
    with Classifier.open(other, engine=classify.engine.name, threads=classify.threads, options=options) as reference:
        run, run_fp32 = _runner(classify), _runner(reference)
        for _ in range(WARMUP):
            run()
            run_fp32()
        end = perf_counter() + seconds
        while len(mine) < MIN_SAMPLES or perf_counter() < end:
            mine.append(_sample(run))
            theirs.append(_sample(run_fp32))
    own, fp32 = np.array(mine, np.int64), np.array(theirs, np.int64)
    return Comparison(
        artifact=other.name,
        median_ms=float(np.median(own)) / 1e6,
        fp32_median_ms=float(np.median(fp32)) / 1e6,
        verdict=verdict(own, fp32),
    )


def _profile(classify: Classifier, options: Mapping[str, str], seconds: float, median_seconds: float) -> Profile:
    every = chosen_options(classify.engine.name, options)
    if isinstance(classify.engine, TFLiteEngine):
        runs, times = int(min(MAX_TIMED_RUNS, max(MIN_SAMPLES, seconds / median_seconds))), None
        if classify.engine.name == "litert" and every == chosen_options("litert", NO_OPTIONS):
            times = litert_times(classify.artifact.content, threads=classify.threads, runs=runs)
        return profile_tflite(classify.engine, times, runs)
    return profile_onnx(
        classify.artifact.content,
        _batch(classify),
        threads=classify.threads,
        options=every,
        seconds=seconds,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
