"""Time against accuracy, with the intervals of both: what nothing beats stands on the line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeclf.benchmarking.recommend import p50_ms, pareto
from edgeclf.report.plots import BLUE, GREY, new_figure, short
from edgeclf_device.bench import Measurement
from edgeclf_device.bench.text import names

MARKERS = {"litert": "o", "tflite-runtime": "s", "onnxruntime": "^"}


def pareto_plot(measurements: Sequence[Measurement]) -> Any:
    """A figure of matplotlib: the median time with its 95 % interval, the accuracy with Wilson's.

    Measurements without an accuracy are left out; there must be one that has one. INVALID ones are hollow.
    """
    judged = [one for one in measurements if one.accuracy is not None]
    figure, axes = new_figure(8.6, 4.8)
    front = pareto(judged)
    axes.step([p50_ms(one) for one in front], [100 * (one.accuracy or 0) for one in front], where="post", color=BLUE)
    for one in judged:
        best = one in front
        axes.errorbar(
            p50_ms(one),
            100 * (one.accuracy or 0),
            xerr=_lengths(p50_ms(one), one.interval_ms("total", 50)),
            yerr=_lengths(100 * (one.accuracy or 0), accuracy_interval(one)),
            marker=MARKERS.get(one.engine, "o"),
            color=BLUE if best else GREY,
            fillstyle="full" if one.valid else "none",
            capsize=2,
            linewidth=1,
        )
    shown = {id(one): name for name, one in zip(names(judged), judged, strict=True)}
    logarithmic(axes)
    low, high = axes.get_xlim()
    for one in front:
        name = f"{short(shown[id(one)], 34)} {one.engine} ×{one.threads}"
        right = p50_ms(one) ** 2 > low * high  # of the picture's middle: written to the left, inside of it
        at, side = (-6, "right") if right else (6, "left")
        place = (p50_ms(one), 100 * (one.accuracy or 0))
        axes.annotate(name, place, (at, 5), textcoords="offset points", fontsize=8, ha=side)
    axes.set_xlabel("median time of a frame, ms")
    axes.set_ylabel("accuracy, %")
    return figure


def logarithmic(axes: Any) -> None:
    """Make the horizontal axis logarithmic, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def accuracy_interval(measurement: Measurement) -> tuple[float, float] | None:
    """The 95 % interval of the accuracy in percent (Wilson 1927); None where it was not measured."""
    if measurement.accuracy is None or not measurement.accuracy_images:
        return None
    from scipy.stats import binomtest

    images = measurement.accuracy_images
    found = binomtest(round(measurement.accuracy * images), images).proportion_ci(0.95, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def _lengths(value: float, ends: tuple[float, float] | None) -> list[list[float]] | None:
    return None if ends is None else [[max(0.0, value - ends[0])], [max(0.0, ends[1] - value)]]
