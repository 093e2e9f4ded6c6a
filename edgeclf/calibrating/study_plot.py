"""A calibration study as a picture: what each method gives with each number of images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from edgeclf.calibrating.outcome import Study, Trial
from edgeclf.report.plots import BLUE, GREY, ORANGE, new_figure
from edgeclf_device.atomic import write_bytes

GREEN = "#2da44e"
_COLOURS = {"random": GREY, "stratified": BLUE, "k-center": ORANGE, "extreme": GREEN}
_DOTS_PER_INCH = 150


def write_plot(study: Study, path: Path) -> None:
    """Write a PNG: agreement with the fp32 model against images, a line a method, a dot a seed; and accuracy, if known.

    Raises:
        SystemStateError: the system refused (disk full, permission).
    """
    figure, left = new_figure(6 if study.reference_accuracy is None else 10, 4.2)
    _draw(left, study, "agreement")
    best = 100 * study.best
    left.axhspan(best - study.tolerance_points, best, color=GREY, alpha=0.15, linewidth=0)
    left.set_ylabel(f"same label as fp32 on {study.judged_images} {study.split} images (%)")
    if study.recommended is not None:
        chosen = study.recommended
        left.plot(chosen.images, 100 * chosen.agreement, "o", markersize=13, markerfacecolor="none", color="black")
    if study.reference_accuracy is not None:
        left.set_subplotspec(figure.add_gridspec(1, 2)[0])
        right = figure.add_subplot(1, 2, 2)
        right.spines[["top", "right"]].set_visible(False)
        _draw(right, study, "accuracy")
        right.axhline(100 * study.reference_accuracy, color="black", linestyle=":", linewidth=1, label="fp32")
        right.set_ylabel("accuracy (%)")
    figure.legend(*figure.axes[-1].get_legend_handles_labels(), frameon=False, ncols=5, loc="outside upper left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH)
    write_bytes(path, buffer.getvalue())


def _draw(axes: Any, study: Study, what: str) -> None:
    """One line for each method, through the means."""
    sizes = sorted({trial.images for trial in study.trials})
    for method in study.methods:
        cells = [cell for cell in study.cells if cell.method == method]
        axes.plot(
            [cell.images for cell in cells],
            [100 * getattr(cell, what) for cell in cells],
            color=_COLOURS[method],
            marker=".",
            label=method,
        )
        seeds: list[Trial] = [one for one in study.trials if one.method == method and one.seed is not None]
        axes.plot(
            [one.images for one in seeds],
            [100 * getattr(one, what) for one in seeds],
            ".",
            color=_COLOURS[method],
            markersize=4,
            alpha=0.5,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("calibration images")
