"""The report's plot of what corruptions and attacks leave of the accuracy, as SVG text."""

from __future__ import annotations

from edgeclf.evaluation.robustness_result import Robustness, ordeals
from edgeclf.report.plots import new_figure, to_svg

_COLUMNS = 3
_STYLES = ("-", "--", ":", "-.")
"""Float and int8 often lie on each other."""


def robustness_plot(made: Robustness) -> str:
    """Accuracy against severity or epsilon, plain images at 0: a small plot a corruption or attack, a line a model."""
    panels = list(ordeals(made))
    rows = -(-len(panels) // _COLUMNS)
    figure, grid = new_figure(8.4, 2.2 * rows + 0.6, rows, _COLUMNS)
    for axes, one in zip(grid.flat, panels, strict=False):
        for number, (model, shares) in enumerate(zip(made.models, one.shares, strict=True)):
            if shares is not None:
                values = [100 * share for share in (model.accuracy, *shares)]
                style = _STYLES[number % len(_STYLES)]
                axes.plot([0, *one.levels], values, style, color=f"C{number}", marker=".", label=model.model)
        axes.set_title(one.title, fontsize=10)
        axes.set_xticks([0, *one.levels])
        axes.set_ylim(-3, 103)
        axes.set_xlabel(one.unit, fontsize=8, labelpad=1)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy (%)")
    figure.legend(*grid.flat[0].get_legend_handles_labels(), frameon=False, ncols=3, loc="outside upper center")
    return to_svg(figure)
