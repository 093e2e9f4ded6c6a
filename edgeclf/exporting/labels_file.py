"""labels.txt: the labels of a model's outputs in their order, one a line, in UTF-8."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from edgeclf.exporting.untrusted import read_text
from edgeclf_device.errors import DataError
from edgeclf_device.manifest import MAX_LABELS


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels of ``path``, without the space round them.

    Raises:
        DataError: no such file, not UTF-8, an empty line, a label twice, or none or too many.
    """
    labels = tuple(line.strip() for line in read_text(path).rstrip().splitlines())
    if not 1 <= len(labels) <= MAX_LABELS:
        raise DataError(f"{path} must hold 1 to {MAX_LABELS} labels, one a line, but it holds {len(labels)}.")
    if "" in labels:
        raise DataError(
            f"Each line of {path} must be the label of one output, but line {labels.index('') + 1} is empty; give the "
            "output a name or remove the line."
        )
    label, count = Counter(labels).most_common(1)[0]
    if count > 1:
        raise DataError(f"The labels in {path} must differ, but {label!r} stands there {count} times; rename one.")
    return labels
