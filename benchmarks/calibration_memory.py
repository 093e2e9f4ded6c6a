"""Memory that calibration takes above the model and the images: every estimator at once, 1,000 photos, MobileNetV2-224.

The network has random weights: how large its values are does not change how much is kept of them. Fails above 300 MB.
Run: ``.venv/bin/python benchmarks/calibration_memory.py``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from photos import judging_photos
from record import RESULTS, write_record

from edgeclf.exporting.file_subject import export_file
from edgeclf_calibration import ESTIMATORS, watch
from edgeclf_device import PrepareSpec, load, prepare

MAX_MB = 300
IMAGES = 1000
SPEC = PrepareSpec(height=224, width=224)
KERAS = """
import sys, keras
keras.utils.set_random_seed(0)
keras.applications.MobileNetV2(weights=None, classes=10).save(sys.argv[1])
"""
PREPROCESS = """height = 224
width = 224
channels = "rgb"
mean = 127.5
std = 127.5
"""


def models(folder: Path) -> dict[str, Path]:
    """The fp32 network in both formats."""
    subprocess.run([sys.executable, "-c", KERAS, folder / "mobilenet.keras"], check=True)
    (folder / "labels.txt").write_text("\n".join("abcdefghij") + "\n", encoding="utf-8")
    (folder / "preprocess.toml").write_text(PREPROCESS, encoding="utf-8")
    named = {"labels": folder / "labels.txt", "preprocess": folder / "preprocess.toml"}
    made = export_file(folder / "mobilenet.keras", folder / "bundle", **named, schemes=["fp32"])
    return {entry.container: made.path(entry) for entry in made.artifacts}


def measure(container: str, model: Path, pixels: Path) -> dict[str, float]:
    """Megabytes that this process has at most, before and while the images are watched, and the seconds."""
    images = np.load(pixels)
    watch(model.read_bytes(), container, images[:1])
    before, begin = _peak_mb(), time.perf_counter()
    watch(model.read_bytes(), container, images, estimators=tuple(ESTIMATORS), threads=2)
    return {"before_mb": before, "above_mb": _peak_mb() - before, "seconds": time.perf_counter() - begin}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print a line for each format, write the record, and fail above the bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "calibration_memory.json")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        container, model, pixels = arguments.child
        print(json.dumps(measure(container, Path(model), Path(pixels))))
        return
    results = {}
    with tempfile.TemporaryDirectory() as work:
        pixels = Path(work) / "photos.npy"
        files = sorted(judging_photos().iterdir())[:IMAGES]
        np.save(pixels, np.stack([prepare(load(file), SPEC) for file in files]))
        for container, model in models(Path(work)).items():
            command = [sys.executable, __file__, "--child", container, model, pixels]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results[container] = json.loads(done.stdout)
            print(
                f".{container}: {results[container]['above_mb']:.0f} MB above the model and {len(files)} images",
                flush=True,
            )
    write_record(arguments.json, bound_mb=MAX_MB, images=IMAGES, estimators=list(ESTIMATORS), results=results)
    if max(one["above_mb"] for one in results.values()) > MAX_MB:
        sys.exit(f"Calibration takes more than {MAX_MB} MB.")


if __name__ == "__main__":
    main()
