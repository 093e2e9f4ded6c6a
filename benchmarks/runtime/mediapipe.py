"""A classifier beside MediaPipe's ImageClassifier: the same .tflite file and decoded 1280×720 frames, on one core.

Each in a process of its own (MediaPipe in an environment of its own, made once in the cache), pinned to the same core;
they take turns, and while one works the other waits. The total is from the frame as an array to the label: MediaPipe's
holds the making of its image, which copies the frame; without it is told too.
Run: ``.venv/bin/python -m benchmarks.runtime.mediapipe``; a record goes to benchmarks/results/runtime-mediapipe.json.
Fails where a bound is not kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import write_record
from benchmarks.runtime.subject import CACHE, lite0, options, require_kept, video_frames

REQUIREMENT = "mediapipe==1.2.2"
UV = Path(__file__).parents[2] / ".uv" / "bin" / "uv"
ALTERNATIONS = 24
MAX_RATIO = 0.85

# A worker is pinned and warmed up; then it answers each line with nanoseconds (in all, and without the making of an
# image) and the label of each frame.
FRAME = """
import json, os, sys, time
import numpy as np
os.sched_setaffinity(0, {int(sys.argv[1])})
model, frames = sys.argv[2], np.load(sys.argv[3])
clock = time.perf_counter_ns

def serve(one):
    for frame in frames:
        one(frame)
    for _ in sys.stdin:
        print(json.dumps([one(frame) for frame in frames]), flush=True)
"""
OURS = f"""{FRAME}
import cv2
from edgeclf_device import Classifier
cv2.setNumThreads(1)
classify = Classifier.open(model, engine="litert", threads=1)

def one(frame):
    begin = clock()
    label = classify(frame).label
    end = clock()
    return end - begin, end - begin, label

serve(one)
"""
THEIRS = f"""{FRAME}
import mediapipe as mp
from mediapipe.tasks.python import BaseOptions, vision
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model), max_results=1)
classifier = vision.ImageClassifier.create_from_options(options)

def one(frame):
    begin = clock()
    image = mp.Image(mp.ImageFormat.SRGB, frame)
    made = clock()
    label = classifier.classify(image).classifications[0].categories[0].category_name
    end = clock()
    return end - begin, end - made, label

serve(one)
"""


def environment() -> Path:
    """The Python of an environment with MediaPipe, which is made where it is missing."""
    folder = CACHE / REQUIREMENT.replace("==", "-")
    python = folder / "bin" / "python"
    if not (folder / "complete").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([UV, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([UV, "pip", "install", "--quiet", "--python", python, REQUIREMENT], check=True)
        (folder / "complete").touch()
    return python


@contextlib.contextmanager
def worker(python: Path | str, code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A child process that answers each line it is sent."""
    command = [str(python), "-c", code, *map(str, arguments)]
    quiet = {**os.environ, "GLOG_minloglevel": "3", "TF_CPP_MIN_LOG_LEVEL": "3"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, text=True, cwd=folder, env=quiet, **pipes) as child,
    ):
        yield child
        assert child.stdin is not None
        child.stdin.close()


def ask(child: subprocess.Popen[str]) -> list[list[Any]]:
    """For each frame: nanoseconds of all, nanoseconds without the making of an image, the label."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    answer = child.stdout.readline()
    if not answer:
        sys.exit(f"A worker ended with {child.wait()}: {child.args[0]}")
    found: list[list[Any]] = json.loads(answer)
    return found


def measure(model: Path, core: int, alternations: int) -> dict[str, Any]:
    """Median times of both in milliseconds, the medians of the paired ratios, and how many labels agree."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        frames = Path(folder, "frames.npy")
        np.save(frames, np.ascontiguousarray(np.stack(video_frames())[..., ::-1]))
        arguments = (core, model.resolve(), frames)
        ours = stack.enter_context(worker(sys.executable, OURS, *arguments))
        theirs = stack.enter_context(worker(environment(), THEIRS, *arguments))
        rounds = []
        for number in range(alternations):
            first, second = (ours, theirs) if number % 2 else (theirs, ours)
            answers = {id(child): ask(child) for child in (first, second)}
            rounds.append((answers[id(ours)], answers[id(theirs)]))
    mine, total, classify = (
        [statistics.median(frame[place] for frame in one[side]) / 1e6 for one in rounds]
        for side, place in ((0, 0), (1, 0), (1, 1))
    )
    ratios = [one / other for one, other in zip(mine, total, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    labels = [(one[2], other[2]) for one, other in zip(*rounds[0], strict=True)]
    return {
        "edgeclf_ms": statistics.median(mine),
        "mediapipe_ms": statistics.median(total),
        "mediapipe_without_its_image_ms": statistics.median(classify),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [quartiles[0], quartiles[2]],
        "ratio_without_its_image": statistics.median(one / other for one, other in zip(mine, classify, strict=True)),
        "equal_labels": sum(one == other for one, other in labels),
        "frames": len(labels),
        "kept": statistics.median(ratios) <= MAX_RATIO,
    }


def main() -> None:
    """Print the figures, write the record, and fail where the bound is not kept."""
    parser = options(__doc__, "runtime-mediapipe.json", ALTERNATIONS)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    row = measure(lite0("litert", arguments.bundle), arguments.core, arguments.alternations)
    low, high = row["ratio_quartiles"]
    print(
        f"edgeclf {row['edgeclf_ms']:.2f} ms, {REQUIREMENT} {row['mediapipe_ms']:.2f} ms "
        f"({row['mediapipe_without_its_image_ms']:.2f} without its image), ratio {row['ratio']:.3f} ({low:.3f} to "
        f"{high:.3f}), {row['equal_labels']} of {row['frames']} labels equal: {'kept' if row['kept'] else 'NOT KEPT'}"
    )
    write_record(
        arguments.json, mediapipe=REQUIREMENT, alternations=arguments.alternations, bounds={"ratio": MAX_RATIO}, **row
    )
    require_kept([row])


if __name__ == "__main__":
    main()
