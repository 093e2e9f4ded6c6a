"""The errors of layers as a picture: what each does to the scores, and to its own tensor."""

from __future__ import annotations

import io
import math
from pathlib import Path

from edgeclf.calibrating.layers import LayerErrors
from edgeclf.report.plots import BLUE, GREY, NAMED_CLASSES, ORANGE, new_figure, short
from edgeclf_device.atomic import write_bytes

_DOTS_PER_INCH = 150
_TITLE_LENGTH = 44


def write_layers_plot(made: LayerErrors, path: Path) -> None:
    """Write a PNG: a bar a layer, the worst on top, at most ``NAMED_CLASSES``; those that were refused in orange.

    Raises:
        SystemStateError: the system refused (disk full, permission).
    """
    shown = made.layers[:NAMED_CLASSES]
    figure, left = new_figure(10, 1.3 + 0.21 * len(shown))
    left.set_subplotspec(figure.add_gridspec(1, 2, width_ratios=(3, 2))[0])
    right = figure.add_subplot(1, 3, 3, sharey=left)
    right.set_subplotspec(left.get_gridspec()[1])
    right.spines[["top", "right"]].set_visible(False)
    right.tick_params(left=False, labelleft=False)
    finite = [one.divergence_nats for one in shown if not one.refused]
    places, edge = range(len(shown)), max(finite, default=1.0) or 1.0
    left.barh(
        places,
        [edge if one.refused else one.divergence_nats for one in shown],
        color=[ORANGE if one.refused else BLUE for one in shown],
    )
    right.barh(places, [one.sqnr_db if math.isfinite(one.sqnr_db) else 0 for one in shown], color=GREY)
    for place, one in enumerate(shown):
        if one.refused:
            left.text(edge, place, "refused ", ha="right", va="center", color="white", fontsize=8)
        elif one.changed_labels:
            left.text(one.divergence_nats, place, f" {100 * one.changed_labels:.1f} %", va="center", fontsize=8)
        if one.sqnr_db == math.inf:
            right.text(0, place, " no noise", va="center", fontsize=8)
    left.set_yticks(places, [short(title, _TITLE_LENGTH) for title in made.titles[: len(shown)]], fontsize=8)
    left.invert_yaxis()
    left.margins(x=0.1, y=0.01)
    left.set_xlabel("divergence of the scores (nats); labels changed (%)")
    right.set_xlabel("signal to noise of the layer (dB)")
    which = f"the worst {len(shown)} of {len(made.layers)} layers" if len(shown) < len(made.layers) else "all layers"
    figure.suptitle(f"{made.name}, .{made.container}: {which}, each in int8 alone", fontsize=10, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH)
    write_bytes(path, buffer.getvalue())
