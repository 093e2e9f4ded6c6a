"""Building the pixel cache beside bare ``cv2.imdecode``, interleaved, with as many threads, files read from disk.

Images a second of ``cache.load`` on an empty cache (list, digest, decode, prepare, write) over those of decoding alone.
Absolute figures depend on the machine and on what else it does; the ratio of paired runs is what holds.
Run: ``.venv/bin/python benchmarks/pixel_cache.py --json benchmarks/results/pixel_cache.json``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from datasets import photos, solar
from record import write_record

from edgeclf.data import cache
from edgeclf.data.dataset import scan
from edgeclf_device.preprocess import PrepareSpec

PAIRS = 7
SPEC = PrepareSpec(height=224, width=224)
MIN_RATIO = 0.8
"""The promise for every kind of image."""


def seconds(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall time and processor time of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def decode(files: Sequence[Path]) -> None:
    """Read and decode every file, and do nothing with it."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for image in pool.map(lambda file: cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR), files):
            assert image is not None


def compare(name: str, data: Path, scratch: Path) -> dict[str, Any]:
    """Median rates of both and the median of the paired ratios, for one kind of image."""
    dataset = scan(data)
    files = [dataset.file(item) for item in dataset.items]
    bare, building = [], []
    for number in range(PAIRS + 1):
        folder = scratch / f"cache-{number}"
        bare.append(seconds(lambda: decode(files)))
        building.append(seconds(lambda: cache.load(data, SPEC, cache_dir=folder)))  # noqa: B023
        shutil.rmtree(folder)
    times = np.array([bare[1:], building[1:]])  # (2, PAIRS, 2); the first pair warms both up
    ratios, processor_ratios = (times[0] / times[1]).T
    return {
        "images": name,
        "files": len(files),
        "mean_bytes": sum(file.stat().st_size for file in files) // len(files),
        "imdecode_per_s": len(files) / statistics.median(times[0, :, 0]),
        "cache_per_s": len(files) / statistics.median(times[1, :, 0]),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "processor_time_ratio": statistics.median(processor_ratios),
    }


def main() -> None:
    """Print the table and, on request, write it with the conditions as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        rows = [
            compare("300x300 PNG", solar(), scratch),
            compare("4000x3000 JPEG", photos(), scratch),
        ]
    sys.stdout.write(f"{'images':>15} {'imdecode':>11} {'cache':>11} {'ratio':>6}  {'range':14} of processor time\n")
    for row in rows:
        low, high = row["ratio_range"]
        sys.stdout.write(
            f"{row['images']:>15} {row['imdecode_per_s']:9.1f}/s {row['cache_per_s']:9.1f}/s "
            f"{row['ratio']:6.3f}  {low:.3f} to {high:.3f} {row['processor_time_ratio']:17.3f}\n"
        )
    if arguments.json:
        threads = {"threads": os.cpu_count(), "opencv_threads": cv2.getNumThreads()}
        write_record(arguments.json, pairs=PAIRS, target=[SPEC.height, SPEC.width], **threads, rows=rows)
    if min(row["ratio"] for row in rows) < MIN_RATIO:
        sys.exit(f"Every ratio must be at least {MIN_RATIO}; quiet the machine, or building has become slower.")


if __name__ == "__main__":
    main()
