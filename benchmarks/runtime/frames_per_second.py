"""Frames per second of a classifier beside a bare loop of the same ``prepare`` and engine calls, on decoded frames.

Both loops take turns over 1280×720 frames of a video in one process, on one interpreter with one thread.
Run: ``.venv/bin/python -m benchmarks.runtime.frames_per_second``; a record goes to
benchmarks/results/runtime-frames-per-second.json. Fails where a bound is not kept.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2

from benchmarks.record import write_record
from benchmarks.runtime.subject import CONTAINER_OF, Frame, bare, lite0, options, require_kept, video_frames
from edgeclf_device import Classifier

ALTERNATIONS = 40
MIN_RATIO = 0.97


def frames_per_second(way: Callable[[Frame], Any], frames: Sequence[Frame]) -> float:
    """Of one loop over ``frames``."""
    begin = time.perf_counter_ns()
    for frame in frames:
        way(frame)
    return len(frames) * 1e9 / (time.perf_counter_ns() - begin)


def measure(engine: str, bundle: Path | None, frames: Sequence[Frame], alternations: int) -> dict[str, Any]:
    """Median frames per second of both ways and the median of the paired ratios."""
    with Classifier.open(lite0(engine, bundle), engine=engine, threads=1) as classify:
        raw = bare(classify)

        def whole(frame: Frame) -> Any:
            return classify(frame, color="bgr").label

        for way in (whole, raw):
            frames_per_second(way, frames)
        pairs = []
        for number in range(alternations):
            ways = (whole, raw) if number % 2 else (raw, whole)
            rates = [frames_per_second(way, frames) for way in ways]
            pairs.append(rates if number % 2 else rates[::-1])
        ratios = [one / other for one, other in pairs]
        quartiles = statistics.quantiles(ratios, n=4)
        return {
            "engine": f"{classify.engine.name} {classify.engine.version}",
            "classifier_per_s": statistics.median(one for one, _ in pairs),
            "bare_per_s": statistics.median(other for _, other in pairs),
            "ratio": statistics.median(ratios),
            "ratio_quartiles": [quartiles[0], quartiles[2]],
            "kept": statistics.median(ratios) >= MIN_RATIO,
        }


def main() -> None:
    """Print the table, write the record, and fail where a bound is not kept."""
    arguments = options(__doc__, "runtime-frames-per-second.json", ALTERNATIONS).parse_args()
    cv2.setNumThreads(1)
    frames = video_frames()
    rows = [measure(engine, arguments.bundle, frames, arguments.alternations) for engine in CONTAINER_OF]
    for row in rows:
        low, high = row["ratio_quartiles"]
        print(
            f"{row['engine']:20} {row['classifier_per_s']:6.1f} frames/s, bare loop {row['bare_per_s']:6.1f}, "
            f"ratio {row['ratio']:.3f} ({low:.3f} to {high:.3f}): {'kept' if row['kept'] else 'NOT KEPT'}"
        )
    write_record(
        arguments.json, alternations=arguments.alternations, frames=len(frames), bounds={"ratio": MIN_RATIO}, rows=rows
    )
    require_kept(rows)


if __name__ == "__main__":
    main()
