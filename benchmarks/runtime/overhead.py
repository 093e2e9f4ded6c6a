"""Time of a classifier beyond ``prepare`` and the engine's own calls: one thread, EfficientNet-Lite0 w8a8, 1280×720.

Both ways take turns in one process, on one interpreter. In both, ``prepare`` and each call of the engine are timed, and
what is left of the whole is the time beyond them; what is left in a bare loop (the timing itself, for the most) is
subtracted. A frame takes 5 ms and varies by more than what is to be found, so the difference of whole frames, which is
told beside it, settles nothing below 20 µs.
Run: ``.venv/bin/python -m benchmarks.runtime.overhead``; a record goes to benchmarks/results/runtime-overhead.json.
Fails where a bound is not kept.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cv2
import numpy as np

from benchmarks.record import write_record
from benchmarks.runtime import subject
from benchmarks.runtime.subject import CONTAINER_OF, Frame, bare, lite0, options, require_kept, video_frames
from edgeclf_device import Classifier, classifier

ALTERNATIONS = 40
PAIRS = 25
"""Neighbours measured in each alternation."""
WARM_UP = 20
MAX_OVERHEAD_US = 30
MAX_SHARE = 0.01


class Stopwatch:
    """Wraps functions and sums up the time that is spent in them."""

    def __init__(self) -> None:
        self.spent_ns = 0

    def on(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter_ns()
            result = function(*arguments, **named)
            self.spent_ns += time.perf_counter_ns() - begin
            return result

        return timed

    def split(self, call: Callable[[], Any]) -> tuple[int, int]:
        """Nanoseconds of one call, and those of them that were spent outside the timed functions."""
        self.spent_ns = 0
        begin = time.perf_counter_ns()
        call()
        whole = time.perf_counter_ns() - begin
        return whole, whole - self.spent_ns


def watched(classify: Classifier, watch: Stopwatch) -> None:
    """Time the engine's own calls, which both ways make."""
    engine: Any = classify.engine
    if engine.name == "litert":
        inner = engine._interpreter  # noqa: SLF001
        names = ("set_tensor", "invoke", "get_tensor")
        asked = {name: getattr(inner, name) for name in ("get_input_details", "get_output_details")}
        engine._interpreter = SimpleNamespace(**{name: watch.on(getattr(inner, name)) for name in names}, **asked)  # noqa: SLF001
    else:
        engine._session = SimpleNamespace(run=watch.on(engine._session.run))  # noqa: SLF001


def measure(engine: str, bundle: Path | None, frame: Frame, alternations: int) -> dict[str, Any]:
    """Median times of both ways in microseconds, and whether the bounds are kept."""
    watch = Stopwatch()
    with (
        Classifier.open(lite0(engine, bundle), engine=engine, threads=1) as classify,
        mock.patch.object(classifier, "prepare", watch.on(classifier.prepare)),
        mock.patch.object(subject, "prepare", watch.on(subject.prepare)),
    ):
        watched(classify, watch)
        raw = bare(classify)
        assert np.array_equal(raw(frame), classify(frame, color="bgr").output)
        ways = (lambda: classify(frame, color="bgr"), lambda: raw(frame))
        for _ in range(WARM_UP):
            for way in ways:
                way()
        totals, overheads, differences = [], [], []
        for number in range(alternations):
            pairs = []
            for _ in range(PAIRS):
                # Each goes first in turn, so that neither gains by what the other leaves in the caches.
                spent = [watch.split(way) for way in (ways if number % 2 else ways[::-1])]
                pairs.append(spent if number % 2 else spent[::-1])
            whole, beyond = np.median(pairs, axis=0).T / 1e3
            totals.append(float(whole[0]))
            overheads.append(float(beyond[0] - beyond[1]))
            differences.append(float(whole[0] - whole[1]))
        total, overhead = statistics.median(totals), statistics.median(overheads)
        quartiles = statistics.quantiles(overheads, n=4)
        return {
            "engine": f"{classify.engine.name} {classify.engine.version}",
            "total_us": total,
            "overhead_us": overhead,
            "overhead_quartiles_us": [quartiles[0], quartiles[2]],
            "difference_of_whole_frames_us": statistics.median(differences),
            "share": overhead / total,
            "kept": overhead <= MAX_OVERHEAD_US and overhead / total <= MAX_SHARE,
        }


def main() -> None:
    """Print the table, write the record, and fail where a bound is not kept."""
    arguments = options(__doc__, "runtime-overhead.json", ALTERNATIONS).parse_args()
    cv2.setNumThreads(1)
    frame = video_frames()[0]
    rows = [measure(engine, arguments.bundle, frame, arguments.alternations) for engine in CONTAINER_OF]
    for row in rows:
        low, high = row["overhead_quartiles_us"]
        print(
            f"{row['engine']:20} {row['total_us'] / 1e3:7.3f} ms a frame, beyond prepare and engine "
            f"{row['overhead_us']:6.1f} µs ({low:.1f} to {high:.1f}), {row['share']:.2%} "
            f"(whole frames differ by {row['difference_of_whole_frames_us']:.1f} µs): "
            f"{'kept' if row['kept'] else 'NOT KEPT'}"
        )
    bounds = {"overhead_us": MAX_OVERHEAD_US, "share": MAX_SHARE}
    write_record(arguments.json, alternations=arguments.alternations, pairs=PAIRS, bounds=bounds, rows=rows)
    require_kept(rows)


if __name__ == "__main__":
    main()
