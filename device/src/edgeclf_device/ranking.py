"""Which classes of a row of scores are the highest, quantized or not: pure functions, testable without an engine.

Integers are compared as they are, because ``scale * (q - zero_point)`` grows with ``q`` where the scale is positive: no
class needs to be dequantized to lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.errors import UsageError

Places = NDArray[np.intp]
"""Indices of classes, each once and in ascending order."""


def best(row: NDArray[Any], allowed: Places | None = None) -> int:
    """Index of the highest of (classes,) scores, of those ``allowed`` where given; of equal ones the first."""
    return int(row.argmax()) if allowed is None else int(allowed[row[allowed].argmax()])


def highest(row: NDArray[Any], k: int, allowed: Places | None = None) -> Places:
    """Indices of the ``k`` highest of (classes,) scores, of those ``allowed`` where given, the highest first.

    Fewer where there are fewer. Equal ones keep their order; what is no number comes last.
    """
    values = row if allowed is None else row[allowed]
    # Integers become wider ones first: the smallest of a type has no negative in it.
    keys = -(values.astype(np.int32) if values.dtype.kind in "iu" else values)
    if k < len(keys):
        # All that do not come after the k-th are few, and hold every one that is equal to it.
        few = np.flatnonzero(~(keys > np.partition(keys, k - 1)[k - 1]))
        order = few[np.argsort(keys[few], kind="stable")[:k]]
    else:
        order = np.argsort(keys, kind="stable")
    return order if allowed is None else allowed[order]


def allowed_places(allow: Sequence[str], labels: tuple[str, ...]) -> Places:
    """Indices of the labels in ``allow``, in the order of ``labels``.

    Raises:
        UsageError: ``allow`` is empty, a single text, or names a label that is not in ``labels``.
    """
    if isinstance(allow, str) or not allow:
        raise UsageError(f"allow must be a list of one label or more, but it is {allow!r}; leave it out to allow all.")
    for label in allow:
        if label not in labels:
            from difflib import get_close_matches

            near = get_close_matches(label, labels) or labels[:3]
            raise UsageError(
                f"allow must name labels of the model, but {label!r} is none of its {len(labels)}; near it: "
                f"{', '.join(near)}."
            )
    chosen = set(allow)
    return np.flatnonzero([label in chosen for label in labels])
