"""The report's plots of how good the scores are: ROC, precision and recall, reliability, coverage. SVG text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.evaluation.confidence import MIN_ACCEPTED, reliability, selective_accuracy
from edgeclf.report.plots import BLUE, GREY, ORANGE, new_figure, short, to_svg

LINES = 10
"""More classes than that share one line, their mean."""
_POINTS = 300

Indices = NDArray[np.int64]
Scores = NDArray[np.float32]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def roc(true: Indices, scores: Scores, labels: Sequence[str]) -> str:
    """True positives against false positives, one class against the rest; the area under each curve in the legend."""
    from sklearn.metrics import roc_auc_score, roc_curve

    def curve(of_class: NDArray[np.bool_], score: Scores) -> Curve:
        false_positives, true_positives, _ = roc_curve(of_class, score)
        return false_positives, true_positives

    figure, axes = new_figure(4.6, 4.0)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    _draw(axes, true, scores, labels, curve=curve, area=roc_auc_score, corner="lower right", title="area, class")
    axes.set_xlabel("share of the other classes taken for it")
    axes.set_ylabel("share of the class found (recall)")
    return to_svg(figure)


def precision_recall(true: Indices, scores: Scores, labels: Sequence[str]) -> str:
    """Precision against recall, one class against the rest; average precision in the legend."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    def curve(of_class: NDArray[np.bool_], score: Scores) -> Curve:
        precision, recall, _ = precision_recall_curve(of_class, score)
        return recall[::-1], precision[::-1]

    figure, axes = new_figure(4.6, 4.0)
    _draw(
        axes, true, scores, labels, curve=curve, area=average_precision_score, corner="lower left", title="mean, class"
    )
    axes.set_xlabel("share of the class found (recall)")
    axes.set_ylabel("share of the finds that is right (precision)")
    return to_svg(figure)


def reliability_diagram(true: Indices, calibrated: Scores, before: Scores | None) -> str:
    """Accuracy against confidence, in bins, with and (where there was one) before the temperature (1706.04599)."""
    figure, axes = new_figure(4.6, 4.0)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    found = reliability(true, calibrated)
    bins = len(found.images)
    centres = (np.arange(bins) + 0.5) / bins
    axes.bar(centres, np.nan_to_num(found.accuracy), width=0.94 / bins, color=BLUE, alpha=0.55, label="now")
    if before is not None:
        earlier = reliability(true, before)
        axes.plot(earlier.confidence, earlier.accuracy, "o", color=ORANGE, markersize=5, label="before")
        figure.legend(frameon=False, ncols=2, loc="outside upper right")
    axes.set_xlabel("confidence (highest score)")
    axes.set_ylabel("accuracy")
    _unit_square(axes)
    return to_svg(figure)


def coverage(true: Indices, scores: Scores, threshold: float | None) -> str:
    """Accuracy of the accepted images against their share while the threshold falls; a dot at the model's own."""
    figure, axes = new_figure(4.6, 4.0)
    falling, accepted, right = selective_accuracy(true, scores)
    first = int(np.searchsorted(accepted, min(MIN_ACCEPTED, len(true))))  # the accuracy of fewer images is chance
    x, y = _thinned(accepted[first:] / len(true), right[first:] / accepted[first:])
    axes.plot(x, y, color=BLUE, drawstyle="steps-post")
    place = -1 if threshold is None else int((falling >= threshold).sum()) - 1
    if place >= 0:
        dot = accepted[place] / len(true), right[place] / accepted[place]
        axes.plot(*dot, "o", color=ORANGE)
        axes.annotate(f"score ≥ {threshold:.3f}", dot, (0, -16), textcoords="offset points", ha="right")
    axes.set_xlabel("coverage (share of the images accepted)")
    axes.set_ylabel("accuracy of the accepted images")
    axes.set_xlim(0, 1.02)
    axes.margins(y=0.25)
    axes.set_ylim(top=min(1.003, axes.get_ylim()[1]))
    return to_svg(figure)


def _draw(
    axes: Any,
    true: Indices,
    scores: Scores,
    labels: Sequence[str],
    *,
    curve: Callable[[NDArray[np.bool_], Scores], Curve],
    area: Callable[[NDArray[np.bool_], Scores], float],
    corner: str,
    title: str,
) -> None:
    """A line for each class that has a curve, or their mean at equal places of the first axis."""
    classes = [index for index in range(len(labels)) if 0 < (true == index).sum() < len(true)]
    curves = [curve(true == index, scores[:, index]) for index in classes]
    areas = [float(area(true == index, scores[:, index])) for index in classes]
    if len(labels) <= LINES:
        for index, (x, y), size in zip(classes, curves, areas, strict=True):
            axes.plot(*_thinned(x, y), color=f"C{index}", label=f"{size:.3f} {short(labels[index])}")
    elif curves:
        places = np.linspace(0, 1, 201)
        mean = np.mean([np.interp(places, x, y) for x, y in curves], axis=0)
        axes.plot(places, mean, color=BLUE, label=f"{np.mean(areas):.3f} mean of {len(curves)} classes")
    if curves:
        axes.legend(frameon=False, fontsize=8, title_fontsize=8, alignment="left", loc=corner, title=title)
    _unit_square(axes)


def _unit_square(axes: Any) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> Curve:
    """As many points as can be told apart."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).astype(np.int64))
    return x[kept], y[kept]
