"""Time of a classifier beyond ``prepare`` and the engine's own calls: one thread, EfficientNet-Lite0 w8a8, 1280×720.

Both ways take turns in one process, on one interpreter; the medians are of differences between neighbours.
Run: ``.venv/bin/python -m benchmarks.runtime.overhead``; a record goes to benchmarks/results/runtime-overhead.json.
Fails where a bound is not kept.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.record import RESULTS, write_record
from benchmarks.runtime.subject import CONTAINER_OF, Frame, bare, lite0, video_frames
from edgeclf_device import Classifier

ALTERNATIONS = 40
PAIRS = 25
"""Neighbours measured in each alternation."""
WARM_UP = 20
MAX_OVERHEAD_US = 30
MAX_SHARE = 0.01


def nanoseconds(call: Callable[[], Any]) -> int:
    """Time of one call."""
    begin = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - begin


def measure(engine: str, bundle: Path | None, frame: Frame, alternations: int) -> dict[str, Any]:
    """Median times of both ways in microseconds, of their difference, and whether the bounds are kept."""
    with Classifier.open(lite0(engine, bundle), engine=engine, threads=1) as classify:
        raw = bare(classify)
        assert np.array_equal(raw(frame), classify(frame, color="bgr").output)
        ways = (lambda: classify(frame, color="bgr"), lambda: raw(frame))
        for _ in range(WARM_UP):
            for way in ways:
                way()
        totals, differences = [], []
        for number in range(alternations):
            pairs = []
            for _ in range(PAIRS):
                # Each goes first in turn, so that neither gains by what the other leaves in the caches.
                spent = [nanoseconds(way) for way in (ways if number % 2 else ways[::-1])]
                pairs.append(spent if number % 2 else spent[::-1])
            totals.append(statistics.median(whole for whole, _ in pairs) / 1e3)
            differences.append(statistics.median(whole - part for whole, part in pairs) / 1e3)
        total, overhead = statistics.median(totals), statistics.median(differences)
        quartiles = statistics.quantiles(differences, n=4)
        return {
            "engine": f"{classify.engine.name} {classify.engine.version}",
            "total_us": total,
            "overhead_us": overhead,
            "overhead_quartiles_us": [quartiles[0], quartiles[2]],
            "share": overhead / total,
            "kept": overhead <= MAX_OVERHEAD_US and overhead / total <= MAX_SHARE,
        }


def main() -> None:
    """Print the table, write the record, and fail where a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "runtime-overhead.json")
    parser.add_argument("--bundle", type=Path, help="of EfficientNet-Lite0; made and kept in the cache if not given")
    parser.add_argument("--alternations", type=int, default=ALTERNATIONS)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    frame = video_frames()[0]
    rows = [measure(engine, arguments.bundle, frame, arguments.alternations) for engine in CONTAINER_OF]
    for row in rows:
        low, high = row["overhead_quartiles_us"]
        print(
            f"{row['engine']:20} {row['total_us'] / 1e3:7.3f} ms a frame, beyond prepare and engine "
            f"{row['overhead_us']:6.1f} µs ({low:.1f} to {high:.1f}), {row['share']:.2%}: "
            f"{'kept' if row['kept'] else 'NOT KEPT'}"
        )
    bounds = {"overhead_us": MAX_OVERHEAD_US, "share": MAX_SHARE}
    write_record(arguments.json, alternations=arguments.alternations, pairs=PAIRS, bounds=bounds, rows=rows)
    if not all(row["kept"] for row in rows):
        sys.exit("A bound was not kept; see above.")


if __name__ == "__main__":
    main()
