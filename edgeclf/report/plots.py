"""The report's pictures, as SVG text to stand inside the page."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from edgeclf.report.report import ArtifactRow

BLUE, ORANGE, GREY = "#1f6feb", "#d9730d", "#8b949e"


def class_balance(labels: Sequence[str], counts: Mapping[str, Sequence[int]]) -> str:
    """Bars of images per class (one bar a class) stacked by split; ``counts`` maps a split to counts per class."""
    figure, axes = _figure(6.4, 0.9 + 0.42 * len(labels))
    left = [0] * len(labels)
    for (split, values), colour in zip(counts.items(), (BLUE, ORANGE, GREY), strict=False):
        axes.barh(labels, values, left=left, label=split, color=colour, height=0.7)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("images")
    axes.legend(frameon=False, ncols=len(counts), loc="lower right", bbox_to_anchor=(1, 1))
    return _svg(figure)


def learning_curves(history: Sequence[dict[str, Any]]) -> str:
    """Loss and accuracy over all epochs, training and validation; a dotted line where a phase begins."""
    from matplotlib.ticker import MaxNLocator

    figure, pair = _figure(9.6, 3.2, columns=2)
    epochs = range(1, len(history) + 1)
    for axes, name in zip(pair, ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [row[name] for row in history], color=GREY, label="training")
        axes.plot(epochs, [row[f"val_{name}"] for row in history], color=BLUE, label="validation")
        for place in range(1, len(history)):
            if history[place]["phase"] != history[place - 1]["phase"]:
                axes.axvline(place + 0.5, color=GREY, linestyle=":", linewidth=1)
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
    return _svg(figure)


def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """The confusion matrix as a heat map, shaded by the share of each true class; counts written in while legible."""
    side = min(9.6, 2.2 + 0.55 * len(labels))
    figure, axes = _figure(side + 0.8, side)
    shares = [[value / max(1, sum(row)) for value in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=45 if len(labels) > 4 else 0, ha="center")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(labels) <= 15:
        for y, row in enumerate(matrix):
            for x, value in enumerate(row):
                axes.text(x, y, value, ha="center", va="center", color="white" if shares[y][x] > 0.5 else "black")
    return _svg(figure)


def artifacts(rows: Sequence[ArtifactRow]) -> str:
    """Accuracy against median latency, one point an artifact; the area of a point is its size in bytes."""
    figure, axes = _figure(6.4, 3.4)
    largest = max(row.size_bytes for row in rows)
    for row in rows:
        # The two formats of a scheme often lie on each other: one is named above its point, the other below.
        colour, label_points = (BLUE, 6) if row.file.endswith(".tflite") else (ORANGE, -14)
        axes.scatter(row.p50_ms, 100 * row.accuracy, s=240 * row.size_bytes / largest, color=colour, alpha=0.8)
        axes.annotate(row.file, (row.p50_ms, 100 * row.accuracy), (8, label_points), textcoords="offset points")
    axes.set_xlim(0, 1.6 * max(row.p50_ms for row in rows))
    axes.margins(y=0.4)
    axes.set_xlabel("median time per frame, prepare + infer + decide (ms)")
    axes.set_ylabel("test accuracy (%)")
    return _svg(figure)


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    """A figure of ``width`` by ``height`` inches that no window system and no global state knows of."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 10}):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(ncols=columns)


def _svg(figure: Figure) -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "edgeclf"}), warnings.catch_warnings():
        # The text stays text and the browser draws it: a glyph that matplotlib's font lacks is no loss.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
