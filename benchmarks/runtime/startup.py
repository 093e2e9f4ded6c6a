"""Start of a process to the first label beside a ten-line script with the engine alone, and the peak memory of both.

Both read the same 1280×720 JPEG and the same w8a8 EfficientNet-Lite0 in a process of their own; they take turns. The
script knows its labels, resizes plainly and checks nothing. The time ends when the label can be read from the process's
output. The command ``edgeclf-device classify`` is told beside them.
Run: ``.venv/bin/python -m benchmarks.runtime.startup``; a record goes to benchmarks/results/runtime-startup.json.
Fails where a bound is not kept.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2

from benchmarks.record import write_record
from benchmarks.runtime.subject import CONTAINER_OF, lite0, options, require_kept, video_frames
from edgeclf_device import read_artifact

ALTERNATIONS = 48
MAX_RATIO = 1.3
MAX_MORE_MB = 15

ALONE = {
    "litert": """
import json, sys
import cv2
from ai_edge_litert.interpreter import Interpreter
model, photo, labels = sys.argv[1:4]
labels = json.load(open(labels))
interpreter = Interpreter(model, num_threads=1)
interpreter.allocate_tensors()
pixels = cv2.cvtColor(cv2.resize(cv2.imread(photo), (224, 224)), cv2.COLOR_BGR2RGB)
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels[None])
interpreter.invoke()
print(labels[interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).argmax()], flush=True)
""",
    "onnxruntime": """
import json, sys
import cv2
import onnxruntime
model, photo, labels = sys.argv[1:4]
labels = json.load(open(labels))
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options)
pixels = cv2.cvtColor(cv2.resize(cv2.imread(photo), (224, 224)), cv2.COLOR_BGR2RGB)
print(labels[session.run(None, {session.get_inputs()[0].name: pixels[None]})[0].argmax()], flush=True)
""",
}
OURS = """
import sys
import cv2
from edgeclf_device import Classifier
model, photo, engine = sys.argv[1:4]
with Classifier.open(model, engine=engine, threads=1) as classify:
    print(classify(cv2.imread(photo), color="bgr").label, flush=True)
"""
PEAK = """
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
"""A process's own peak: what the system tells its parent may be the parent's, from before the exec."""
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Bytecode is kept, as pip keeps that of a package: with it switched off, each start compiles whatever was edited."""


def start(command: list[str]) -> tuple[float, str, float]:
    """Seconds to the first line that the process prints, the line, and the peak in MB that it tells last."""
    begin = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT
    ) as child:
        assert child.stdout is not None
        label = child.stdout.readline()
        spent = time.perf_counter() - begin
        rest = child.stdout.read().split()
    if child.returncode or not label:
        sys.exit(f"A process ended with {child.returncode}: {command[:3]}")
    return spent, label.strip(), int(rest[-1]) / 1024 if rest and rest[-1].isdigit() else 0.0


def measure(engine: str, bundle: Path | None, alternations: int) -> dict[str, Any]:
    """Median seconds of each way, median of the paired ratios, and the peaks of memory."""
    model = lite0(engine, bundle).resolve()
    with tempfile.TemporaryDirectory() as folder:
        photo, labels = str(Path(folder, "photo.jpg")), str(Path(folder, "labels.json"))
        cv2.imwrite(photo, video_frames()[0])
        Path(labels).write_text(json.dumps(read_artifact(model).manifest.labels), encoding="utf-8")
        command = [str(Path(sys.executable).with_name("edgeclf-device")), "classify", str(model), "--source", photo]
        ways = {
            "edgeclf": [sys.executable, "-c", OURS + PEAK, str(model), photo, engine],
            "alone": [sys.executable, "-c", ALONE[engine] + PEAK, str(model), photo, labels],
            "command": [*command, "--engine", engine, "--threads", "1"],
        }
        for way in ways.values():  # files into the system's cache, bytecode onto the disk
            start(way)
        rounds = []
        for number in range(alternations):
            names = list(ways) if number % 2 else list(ways)[::-1]
            rounds.append({name: start(ways[name]) for name in names})
    seconds = {name: statistics.median(one[name][0] for one in rounds) for name in ways}
    peaks = {name: statistics.median(one[name][2] for one in rounds) for name in ("edgeclf", "alone")}
    ratios = [one["edgeclf"][0] / one["alone"][0] for one in rounds]
    quartiles = statistics.quantiles(ratios, n=4)
    ratio, more = statistics.median(ratios), peaks["edgeclf"] - peaks["alone"]
    return {
        "engine": engine,
        "seconds": seconds,
        "ratio": ratio,
        "ratio_quartiles": [quartiles[0], quartiles[2]],
        "peak_mb": peaks,
        "more_mb": more,
        "labels": {name: rounds[0][name][1] for name in ways},
        "kept": ratio <= MAX_RATIO and more <= MAX_MORE_MB,
    }


def main() -> None:
    """Print the table, write the record, and fail where a bound is not kept."""
    arguments = options(__doc__, "runtime-startup.json", ALTERNATIONS).parse_args()
    rows = [measure(engine, arguments.bundle, arguments.alternations) for engine in CONTAINER_OF]
    for row in rows:
        seconds, (low, high) = row["seconds"], row["ratio_quartiles"]
        print(
            f"{row['engine']:12} first label {seconds['edgeclf']:.3f} s, the engine alone {seconds['alone']:.3f} s, "
            f"ratio {row['ratio']:.2f} ({low:.2f} to {high:.2f}); the command {seconds['command']:.3f} s; peak "
            f"{row['peak_mb']['edgeclf']:.0f} MB, {row['more_mb']:+.1f} MB: {'kept' if row['kept'] else 'NOT KEPT'}"
        )
    bounds = {"ratio": MAX_RATIO, "more_mb": MAX_MORE_MB}
    write_record(arguments.json, alternations=arguments.alternations, bounds=bounds, rows=rows)
    require_kept(rows)


if __name__ == "__main__":
    main()
