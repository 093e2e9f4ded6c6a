"""Age of the frames that a slow classifier reports: inference five times slower than a camera of 30 frames a second.

The camera is an MJPEG server in a process of its own. It writes the time of capture into each picture, so that the age
is known whatever the reader believes; a plain cv2.VideoCapture loop on the same stream is measured beside it.
Run: ``.venv/bin/python -m benchmarks.runtime.freshness``; a record goes to benchmarks/results/runtime-freshness.json.
Fails where the bound is not kept.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.record import RESULTS, write_record
from edgeclf_device import Classifier, open_source
from edgeclf_device.fakes import MjpegServer
from edgeclf_device.sources.synthetic import pattern

ARTIFACT = Path(__file__).parents[2] / "tests" / "device" / "artifacts" / "format-1.2.tflite"
FPS, SIZE, SLOWER = 30.0, (640, 480), 5
PERIOD_MS = 1000 / FPS
WARM_UP = 10
MIN_SHARE = 0.99
BITS, BLOCK = 40, 16
"""The time in microseconds, as black and white squares along the upper edge, which survive JPEG."""

Pixels = NDArray[np.uint8]


def stamped(size: tuple[int, int], index: int) -> Pixels:
    """The pattern with the time of now."""
    image = pattern(size, index)
    bits = (time.monotonic_ns() // 1000 >> np.arange(BITS)) & 1
    image[:BLOCK, : BITS * BLOCK] = np.repeat(bits * 255, BLOCK).astype(np.uint8)[np.newaxis, :, np.newaxis]
    return image


def age_ms(image: Pixels) -> float:
    """Milliseconds since the time that stands in a picture."""
    squares = image[4:12, : BITS * BLOCK, 1].reshape(8, BITS, BLOCK)[:, :, 4:12].mean(axis=(0, 2))
    stamp_us = int(((squares > 128).astype(np.int64) << np.arange(BITS)).sum())
    return float((time.monotonic_ns() // 1000 - stamp_us) % (1 << BITS)) / 1e3


def serve(pipe: Connection) -> None:
    """The camera's process: its address goes into the pipe; it ends when the pipe does."""
    with MjpegServer(size=SIZE, fps=FPS, picture=stamped) as server, contextlib.suppress(EOFError):
        pipe.send(server.url)
        pipe.recv()


@contextlib.contextmanager
def camera() -> Iterator[str]:
    """The address of a camera in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join()


def runtime_frames(url: str) -> Iterator[tuple[Pixels, int | None]]:
    """Frames of the runtime's own source, each with the time at which the source says it was captured."""
    with open_source(url) as source:
        for frame in source:
            yield frame.image, frame.captured_ns


def plain_frames(url: str) -> Iterator[tuple[Pixels, int | None]]:
    """What most programs do."""
    capture = cv2.VideoCapture(url)
    while True:
        good, image = capture.read()
        assert good
        yield image, None


def measure(frames: Iterator[tuple[Pixels, int | None]], classify: Classifier, number: int) -> dict[str, Any]:
    """Ages at the report, and the share of frames that are no older than inference and one period."""
    ages, claimed, inferences = [], [], []
    for image, captured_ns in islice(frames, number + WARM_UP):
        begin_ns = time.monotonic_ns()
        while time.monotonic_ns() - begin_ns < SLOWER * PERIOD_MS * 1e6:
            classify(image, color="bgr")
        now_ns = time.monotonic_ns()
        ages.append(age_ms(image))
        inferences.append((now_ns - begin_ns) / 1e6)
        claimed.append(None if captured_ns is None else (now_ns - captured_ns) / 1e6)
    return {
        "frames": number,
        "inference_ms": float(np.median(inferences[WARM_UP:])),
        "age_ms": percentiles(ages[WARM_UP:]),
        "beyond_inference_ms": percentiles([a - b for a, b in zip(ages, inferences, strict=True)][WARM_UP:]),
        "within_bound": share_within(ages[WARM_UP:], inferences[WARM_UP:]),
        "within_bound_by_captured_ns": (
            None if claimed[-1] is None else share_within(claimed[WARM_UP:], inferences[WARM_UP:])
        ),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p99 and the largest."""
    return {"p50": float(np.median(values)), "p99": float(np.quantile(values, 0.99)), "max": max(values)}


def share_within(ages: list[Any], inferences: list[float]) -> float:
    """The share of frames that are no older than inference and one period."""
    return float(np.mean([age <= inference + PERIOD_MS for age, inference in zip(ages, inferences, strict=True)]))


def main() -> None:
    """Print both ways, write the record, and fail where the bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "runtime-freshness.json")
    parser.add_argument("--artifact", type=Path, default=ARTIFACT)
    parser.add_argument("--frames", type=int, default=300)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    ways: dict[str, Callable[[str], Iterator[tuple[Pixels, int | None]]]] = {
        "edgeclf-device": runtime_frames,
        "cv2.VideoCapture": plain_frames,
    }
    rows = []
    with Classifier.open(arguments.artifact, threads=1) as classify:
        for name, frames in ways.items():
            with camera() as url:
                rows.append({"reader": name, **measure(frames(url), classify, arguments.frames)})
            row = rows[-1]
            print(
                f"{name:18} inference {row['inference_ms']:6.1f} ms, age p50 {row['age_ms']['p50']:7.1f}, p99 "
                f"{row['age_ms']['p99']:7.1f} ms, {row['within_bound']:.1%} within inference + {PERIOD_MS:.1f} ms"
            )
    stream = {"fps": FPS, "size": SIZE, "inference_periods": SLOWER, "artifact": arguments.artifact.name}
    write_record(arguments.json, **stream, min_share=MIN_SHARE, opencv=cv2.__version__, rows=rows)
    if rows[0]["within_bound"] < MIN_SHARE:
        sys.exit(f"At least {MIN_SHARE:.0%} of the frames must be within the bound; quiet the machine, or it broke.")


if __name__ == "__main__":
    main()
