"""The report's plots of data, training and artifacts, as SVG text to stand inside the page."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from edgeclf.report.artifacts import ArtifactRow

BLUE, ORANGE, GREY = "#1f6feb", "#d9730d", "#8b949e"
NAMED_CLASSES = 40
"""More classes than that are not named on an axis: nothing could be read."""


def class_balance(labels: Sequence[str], counts: Mapping[str, Sequence[int]]) -> str:
    """Bars of images per class (one bar a class) stacked by split; ``counts`` maps a split to counts per class."""
    figure, axes = new_figure(6.4, 0.9 + 0.42 * len(labels) if len(labels) <= NAMED_CLASSES else 6)
    left, height = [0] * len(labels), 0.7 if len(labels) <= NAMED_CLASSES else 1
    for (split, values), colour in zip(counts.items(), (BLUE, ORANGE, GREY), strict=False):
        axes.barh(range(len(labels)), values, left=left, label=split, color=colour, height=height, linewidth=0)
        left = [a + b for a, b in zip(left, values, strict=True)]
    _name_classes(axes.set_yticks, labels)
    axes.invert_yaxis()
    axes.set_xlabel("images")
    figure.legend(frameon=False, ncols=len(counts), loc="outside upper right")
    return to_svg(figure)


def learning_curves(history: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Loss, accuracy and learning rate over all epochs; a dotted line and a name where a phase begins.

    Where there are unlabelled images, the share of them that was learnt from comes last.
    """
    marker = "." if len(history) <= 20 else ""
    pictures = []
    # Runs of before there were unlabelled images lack the column.
    last = ["accepted"] if any(row.get("accepted") for row in history) else []
    for name in ("loss", "accuracy", "learning_rate", *last):
        figure, axes = new_figure(4.6, 3.2)
        epochs = range(1, len(history) + 1)
        if name in {"learning_rate", "accepted"}:
            axes.plot(epochs, [row[name] for row in history], color=BLUE, marker=marker)
            axes.set_yscale("log" if name == "learning_rate" else "linear")
        else:
            axes.plot(epochs, [row[name] for row in history], color=GREY, marker=marker, label="training")
            axes.plot(epochs, [row[f"val_{name}"] for row in history], color=BLUE, marker=marker, label="validation")
            axes.legend(frameon=False)
        _mark_phases(axes, [row["phase"] for row in history])
        axes.set_xlabel("epoch")
        axes.set_ylabel(name.replace("_", " "))
        pictures.append(to_svg(figure))
    return tuple(pictures)


def _mark_phases(axes: Any, phases: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    starts = [place for place in range(len(phases)) if place == 0 or phases[place] != phases[place - 1]]
    for number, place in enumerate(starts if len(starts) > 1 else ()):
        if place:
            axes.axvline(place + 0.5, color=GREY, linestyle=":", linewidth=1)
        # Phases of one epoch lie close together: their names take two lines in turn.
        height = 1.01 if number % 2 == 0 else 1.07
        edge = axes.get_xlim()[0] if place == 0 else place + 0.5
        axes.text(edge, height, phases[place], transform=axes.get_xaxis_transform(), color="#59636e", fontsize=8)


def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """The confusion matrix as a heat map, shaded by the share of each true class; counts written in while legible."""
    side = min(9.6, 2.2 + 0.55 * len(labels))
    figure, axes = new_figure(side + 0.8, side)
    shares = [[value / max(1, sum(row)) for value in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _name_classes(
        axes.set_xticks, labels, rotation=45 if len(labels) > 4 else 0, ha="right" if len(labels) > 4 else "center"
    )
    _name_classes(axes.set_yticks, labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(labels) <= 15:
        for y, row in enumerate(matrix):
            for x, value in enumerate(row):
                axes.text(x, y, value, ha="center", va="center", color="white" if shares[y][x] > 0.5 else "black")
    return to_svg(figure)


def artifacts(rows: Sequence[ArtifactRow]) -> str:
    """Accuracy against median latency, one point an artifact; the area of a point is its size in bytes."""
    figure, axes = new_figure(6.4, 3.4)
    largest = max(row.size_bytes for row in rows)
    for row in rows:
        if row.accuracy is None:
            continue
        # The two formats of a scheme often lie on each other: one is named above its point, the other below.
        colour, label_points = (BLUE, 6) if row.file.endswith(".tflite") else (ORANGE, -14)
        axes.scatter(row.p50_ms, 100 * row.accuracy, s=240 * row.size_bytes / largest, color=colour, alpha=0.8)
        axes.annotate(row.file, (row.p50_ms, 100 * row.accuracy), (8, label_points), textcoords="offset points")
    axes.set_xlim(0, 1.6 * max(row.p50_ms for row in rows))
    axes.margins(y=0.4)
    axes.set_xlabel("median time per frame, prepare + infer + decide (ms)")
    axes.set_ylabel("test accuracy (%)")
    return to_svg(figure)


def short(label: str, length: int = 24) -> str:
    """``label``, cut where it would push the plot aside."""
    return label if len(label) <= length else f"{label[: length - 1]}…"


def _name_classes(set_ticks: Any, labels: Sequence[str], **text: Any) -> None:
    named = len(labels) <= NAMED_CLASSES
    set_ticks(range(len(labels)) if named else [], [short(label) for label in labels] if named else [], **text)


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """A figure of ``width`` by ``height`` inches that no window system and no global state knows of, and its axes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 10}):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns)


def to_svg(figure: Figure) -> str:
    """``figure`` as an SVG element: the same bytes for the same picture."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "edgeclf"}), warnings.catch_warnings():
        # The text stays text and the browser draws it: a glyph that matplotlib's font lacks is no loss.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]
