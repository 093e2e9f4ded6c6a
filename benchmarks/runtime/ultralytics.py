"""A classifier beside Ultralytics: one YOLO network with random weights in ONNX Runtime, 1280×720 frames, on one core.

Ultralytics makes and exports the network, and predicts from its own .onnx file; ours is an artifact that the command
export made of that file. Each in a process of its own (Ultralytics in an environment of its own, made once in the
cache: 1.6 GB, and more where PyPI's torch brings CUDA), pinned to the same core; they take turns. The total is from the
frame as an array to the label. With random weights the labels mean nothing; how many agree is told.
Run: ``.venv/bin/python -m benchmarks.runtime.ultralytics``; a record goes to its benchmarks/results/runtime-*.json.
Fails where a bound is not kept.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import write_record
from benchmarks.runtime.rivals import FRAME, environment, ours, save_frames, take_turns, text_of, worker
from benchmarks.runtime.subject import CACHE, options, require_kept, video_frames

REQUIREMENT = "ultralytics==8.4.190"
NETWORK = "yolo11n-cls"
CLASSES = 1000
SIDE = 224
ALTERNATIONS = 24
MAX_RATIO = 0.85

# What it imports, with OpenCV's build for machines without a screen, which its own requirements do not name.
OTHERS = ["numpy==2.4.6", "opencv-python-headless==5.0.0.93", "onnx==1.23.2", "onnxruntime==1.32.0", "torch==2.13.0"]
MORE = ["matplotlib", "pillow", "polars", "psutil", "pyyaml", "requests", "scipy"]
ALONE = ["--no-deps", "torchvision==0.28.0", REQUIREMENT, "ultralytics-platform==0.1.99", "ultralytics-thop==2.2.3"]

# The compiled operators of torchvision's wheel want CUDA's libraries. A classifier calls none of them, but torchvision
# does not load unless their forms are known.
IMPORT = """
import torch
if torch.version.cuda is None:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from ultralytics import YOLO
"""
EXPORT = f"""{IMPORT}
torch.manual_seed(0)
YOLO("{NETWORK}.yaml").export(format="onnx", imgsz={SIDE}, opset=17, simplify=False)
"""
THEIRS = f"""{FRAME}{IMPORT}
torch.set_num_threads(1)
network = YOLO(model, task="classify")

def one(frame):
    begin = clock()
    found = network.predict(frame, imgsz={SIDE}, verbose=False)[0]
    label = found.names[found.probs.top1]
    end = clock()
    return end - begin, end - begin, label

serve(one)
"""
# Ultralytics cuts the largest centred square and scales pixels to 0 to 1; the softmax is part of its network.
PREPROCESS = f"""
height = {SIDE}
width = {SIDE}
channels = "rgb"
crop = "center"
scale = {1 / 255!r}
offset = 0
"""


def models(python: Path) -> tuple[Path, Path]:
    """(their .onnx file, our artifact of it), made once in the cache."""
    folder = CACHE / NETWORK
    theirs, mine = folder / f"{NETWORK}.onnx", folder / "bundle"
    if not mine.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([python, "-c", EXPORT], check=True, cwd=folder, env={**os.environ, "YOLO_OFFLINE": "True"})
        (folder / "labels.txt").write_text("".join(f"{number}\n" for number in range(CLASSES)), encoding="utf-8")
        (folder / "preprocess.toml").write_text(PREPROCESS, encoding="utf-8")
        told = ["--labels", folder / "labels.txt", "--preprocess", folder / "preprocess.toml", "--scheme", "fp32"]
        subprocess.run([sys.executable, "-m", "edgeclf", "export", theirs, "--out", mine, *told], check=True)
    return theirs, next(mine.glob("*.onnx"))


def measure(core: int, alternations: int) -> dict[str, Any]:
    """Median times of both in milliseconds, the medians of the paired ratios, and how many labels agree."""
    python = environment(REQUIREMENT.replace("==", "-"), [*OTHERS, *MORE], ALONE)
    other, artifact = models(python)
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder, "frames.npy")
        save_frames(frames, video_frames())
        with (
            worker(sys.executable, ours("onnxruntime", "bgr"), core, artifact, frames) as mine,
            worker(python, THEIRS, core, other, frames, YOLO_OFFLINE="True") as theirs,
        ):
            row = take_turns(mine, theirs, alternations)
    return {**row, "kept": row["ratio"] <= MAX_RATIO}


def main() -> None:
    """Print the figures, write the record, and fail where the bound is not kept."""
    parser = options(__doc__, "runtime-ultralytics.json", ALTERNATIONS)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    row = measure(arguments.core, arguments.alternations)
    print(text_of(row, REQUIREMENT))
    conditions = {"ultralytics": REQUIREMENT, "network": f"{NETWORK}, random weights, fp32, {SIDE}×{SIDE}"}
    write_record(arguments.json, alternations=arguments.alternations, bounds={"ratio": MAX_RATIO}, **conditions, **row)
    require_kept([row])


if __name__ == "__main__":
    main()
