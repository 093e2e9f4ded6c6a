"""A classifier beside MediaPipe's ImageClassifier: the same .tflite file and decoded 1280×720 frames, on one core.

Each in a process of its own (MediaPipe in an environment of its own, made once in the cache), pinned to the same core;
they take turns, and while one works the other waits. The total is from the frame as an array to the label: MediaPipe's
holds the making of its image, which copies the frame; without it is told too.
Run: ``.venv/bin/python -m benchmarks.runtime.mediapipe``; a record goes to benchmarks/results/runtime-mediapipe.json.
Fails where a bound is not kept.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import write_record
from benchmarks.runtime.rivals import FRAME, environment, ours, save_frames, take_turns, text_of, worker
from benchmarks.runtime.subject import lite0, options, require_kept, video_frames

REQUIREMENT = "mediapipe==1.2.2"
ALTERNATIONS = 24
MAX_RATIO = 0.85
QUIET = {"GLOG_minloglevel": "3", "TF_CPP_MIN_LOG_LEVEL": "3"}

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


def measure(model: Path, core: int, alternations: int) -> dict[str, Any]:
    """Median times of both in milliseconds, the medians of the paired ratios, and how many labels agree."""
    python = environment(REQUIREMENT.replace("==", "-"), [REQUIREMENT])
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder, "frames.npy")
        save_frames(frames, [frame[..., ::-1] for frame in video_frames()])
        arguments = (core, model.resolve(), frames)
        with (
            worker(sys.executable, ours("litert", "rgb"), *arguments) as mine,
            worker(python, THEIRS, *arguments, **QUIET) as theirs,
        ):
            row = take_turns(mine, theirs, alternations)
    return {**row, "kept": row["ratio"] <= MAX_RATIO}


def main() -> None:
    """Print the figures, write the record, and fail where the bound is not kept."""
    parser = options(__doc__, "runtime-mediapipe.json", ALTERNATIONS)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    row = measure(lite0("litert", arguments.bundle), arguments.core, arguments.alternations)
    print(text_of(row, REQUIREMENT))
    write_record(
        arguments.json, mediapipe=REQUIREMENT, alternations=arguments.alternations, bounds={"ratio": MAX_RATIO}, **row
    )
    require_kept([row])


if __name__ == "__main__":
    main()
