"""Measurements as plain lines for people, at most 100 columns wide; the host's tables are made of the same texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgeclf_device.bench.cold_start import ColdStart
from edgeclf_device.bench.comparing import Comparison
from edgeclf_device.bench.measurement import Measurement


def measurement_lines(measurement: Measurement) -> Iterator[str]:
    """What was measured, the percentiles of each stage in milliseconds, and what there is to say about them."""
    environment = measurement.environment
    yield f"{measurement.artifact}: {engine_text(measurement)}, {how(measurement)}"
    yield f"  {measurement.input}; {environment.cpu}, {environment.cores} cores, load {environment.load_1_min}"
    yield f"  {'ms':8} {'p50':>9}  {'95 % interval':>17} {'p90':>9} {'p99':>9} {'p99.9':>9}"
    for stage in measurement.samples_ns:
        median, interval, *others = percentile_texts(measurement, stage)
        yield f"  {stage:8} {median:>9}  {interval:>17} " + " ".join(f"{one:>9}" for one in others)
    yield from (f"  {line}" for line in remarks(measurement))


def engine_text(measurement: Measurement) -> str:
    """The engine with its version, its options and its threads."""
    options = "".join(f", {name} {value}" for name, value in measurement.options.items())
    return f"{measurement.engine} {measurement.engine_version}{options}, {measurement.threads} threads"


def named(measurement: Measurement) -> str:
    """The artifact, with the host before it where that is another machine."""
    return measurement.artifact if measurement.host is None else f"{measurement.host}: {measurement.artifact}"


def subject_name(measurement: Measurement) -> str:
    """``named``, and what executed it."""
    return f"{named(measurement)} ({measurement.engine} ×{measurement.threads})"


def names(measurements: Sequence[Measurement]) -> list[str]:
    """``named`` for each, with what the model sees behind it where these see images of different sizes."""
    sizes = [f"{one.width}×{one.height}" for one in measurements]
    several = len(set(sizes)) > 1
    return [f"{named(one)} {size}" if several else named(one) for one, size in zip(measurements, sizes, strict=True)]


def machine_line(measurement: Measurement) -> str:
    """The frames and the machine that they were measured on."""
    there, host = measurement.environment, "" if measurement.host is None else f"{measurement.host}: "
    return f"{host}{measurement.input}; {there.cpu}, {there.cores} cores, load {there.load_1_min}"


def how(measurement: Measurement) -> str:
    """How many samples were taken, in which scenario."""
    rate = "" if measurement.rate_fps is None else f" {measurement.rate_fps:g} frames/s,"
    scenario = "" if measurement.scenario == "single-stream" else f"{measurement.scenario},{rate} "
    return f"{scenario}{len(measurement.samples_ns['total'])} samples after {measurement.warmup} for warm-up"


def told(measurement: Measurement) -> str:
    """The stage that tells what a frame takes: at a fixed rate with its waiting."""
    return "latency" if "latency" in measurement.samples_ns else "total"


def percentile_texts(measurement: Measurement, stage: str) -> tuple[str, ...]:
    """p50, its 95 % interval, p90, p99 and p99.9 of a stage in milliseconds; – where samples are too few to tell it."""
    values, intervals = measurement.percentiles_ms(stage), measurement.intervals_ms(stage)
    ends = intervals["p50"]
    _, *others = (figure(value) if intervals[name] else "–" for name, value in values.items())
    return figure(values["p50"]), "–" if ends is None else f"{figure(ends[0])} to {figure(ends[1])}", *others


def figure(value_ms: float) -> str:
    """Milliseconds to the microsecond, from 10 on to four digits: no more is known, and tables stay narrow."""
    return f"{value_ms:.{3 if value_ms < 10 else 2 if value_ms < 100 else 1}f}"


def remarks(measurement: Measurement) -> Iterator[str]:
    """Frames per second, what transfer, the first label of a new process, memory and energy take, every doubt aloud."""
    yield f"{measurement.frames_per_second:.1f} frames/s over {measurement.wall_ns / 1e9:.1f} s"
    if "transfer" in measurement.samples_ns:
        carried, whole = (measurement.percentiles_ms(stage)["p50"] for stage in ("transfer", "infer"))
        yield (
            f"of infer, {carried:.3f} ms carry input and output to the device and back ({carried / whole:.0%}), "
            f"and the device computes for {whole - carried:.3f}"
        )
    if measurement.cold_starts:
        yield _cold(measurement.cold_starts)
    if measurement.energy is not None:
        energy = measurement.energy
        each = energy.joules / len(measurement.samples_ns["total"])
        yield f"energy ({energy.source}): {energy.watts:.2f} W, {1000 * each:.2f} mJ each frame"
    if not measurement.steady:
        yield "UNSTABLE: its times were not steady yet after the longest warm-up → measure again, with --seconds 30"
    for doubt in measurement.doubts:
        yield f"{doubt.level.upper()}: {doubt.detail} → {doubt.remedy}"


def _cold(starts: Sequence[ColdStart]) -> str:
    def median_ms(values: Sequence[int]) -> float:
        return float(np.median(values)) / 1e6

    parts = {
        "Python": median_ms([start.start_ns for start in starts]),
        "imports": median_ms([start.import_ns for start in starts]),
        "open": median_ms([start.open_ns for start in starts]),
        "first frame": median_ms([start.first_ns for start in starts]),
    }
    told = ", ".join(f"{name} {value:.0f}" for name, value in parts.items())
    peaks = [start.peak_bytes for start in starts if start.peak_bytes is not None]
    memory = f"; peak memory {np.median(peaks) / 2**20:.0f} MiB" if peaks else ""
    total = median_ms([start.first_label_ns for start in starts])
    return f"first label of a new process after {total:.0f} ms ({told}; median of {len(starts)}){memory}"


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """The verdict in a sentence, the ratio with its intervals, and what to do where nothing is decided."""
    base, other = subject_name(comparison.base), subject_name(comparison.other)
    change = 100 * (comparison.ratio - 1)
    yield f"{other} against {base}: {comparison.verdict}"
    intervals = ", ".join(
        f"{share} % interval {'–' if ends is None else f'{ends[0]:.3f} to {ends[1]:.3f}'}"
        for share, ends in ((95, comparison.interval_95), (99, comparison.interval_99))
    )
    taken = f"{comparison.rounds} rounds in turn" if comparison.rounds else "measured at different times"
    yield f"  time ratio {comparison.ratio:.3f} ({change:+.1f} %), {intervals}; {taken}"
    if comparison.verdict == "undecided":
        yield "  the 99 % interval holds 1; a longer measurement (--seconds) tells smaller differences"
