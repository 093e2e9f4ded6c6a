"""Time of ``prepare`` beside OpenCV's INTER_AREA, interleaved in one process on one thread.

Absolute times depend on the machine and on what else it does; the ratio of paired runs is what holds.
Run: ``make bench``, or ``.venv/bin/python benchmarks/prepare.py --json benchmarks/results/prepare.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeclf_device.preprocess import PrepareSpec, prepare

PAIRS = 400
SIZES = ((720, 1280), (1080, 1920), (480, 640), (300, 300))
SIDE = 224
MAX_RATIO = 0.25
"""The promise for the first of ``SIZES``."""


def milliseconds(call: Callable[[], Any]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - begin) / 1e6


def compare(height: int, width: int) -> dict[str, Any]:
    """Median times of the three ways and the median of the paired ratios, for one size of frame."""
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    spec = PrepareSpec(height=SIDE, width=SIDE)

    def fast() -> Any:
        return prepare(frame, spec, backend="cv2")

    def reference() -> Any:
        return prepare(frame, spec, backend="numpy")

    def area() -> Any:
        return cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)

    assert np.array_equal(fast(), reference())
    for _ in range(20):
        fast()
        area()
    pairs = [(milliseconds(fast), milliseconds(area)) for _ in range(PAIRS)]
    ratios = [a / b for a, b in pairs]
    quartiles = statistics.quantiles(ratios, n=4)
    return {
        "frame": f"{width}x{height}",
        "prepare_cv2_ms": statistics.median(a for a, _ in pairs),
        "inter_area_ms": statistics.median(b for _, b in pairs),
        "prepare_numpy_ms": statistics.median(milliseconds(reference) for _ in range(20)),
        "ratio_to_inter_area": quartiles[1],
        "ratio_quartiles": [quartiles[0], quartiles[2]],
    }


def main() -> None:
    """Print the table and, on request, write it with the conditions as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    rows = [compare(*size) for size in SIZES]
    sys.stdout.write(f"{'frame':>10} {'prepare cv2':>12} {'INTER_AREA':>11} {'NumPy':>9} {'ratio':>6}  quartiles\n")
    for row in rows:
        low, high = row["ratio_quartiles"]
        sys.stdout.write(
            f"{row['frame']:>10} {row['prepare_cv2_ms']:9.3f} ms {row['inter_area_ms']:8.3f} ms "
            f"{row['prepare_numpy_ms']:6.2f} ms {row['ratio_to_inter_area']:6.3f}  {low:.3f} to {high:.3f}\n"
        )
    if arguments.json:
        git = ["git", "rev-parse", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
        conditions = {
            "pairs": PAIRS,
            "target": [SIDE, SIDE],
            "threads": 1,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "date": time.strftime("%Y-%m-%d"),
            "commit": commit,
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"conditions": conditions, "rows": rows}, indent=2) + "\n")
    if rows[0]["ratio_to_inter_area"] > MAX_RATIO:
        sys.exit(f"The first ratio must be at most {MAX_RATIO}; quiet the machine, or prepare has become slower.")


if __name__ == "__main__":
    main()
