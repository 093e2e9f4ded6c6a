"""Another project's classifier beside ours: each in a process and an environment of its own, both on the same core.

They take turns, and while one works the other waits. A worker gets the core, the model and a file of frames; once it
has warmed up it answers each line with what every frame took.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runtime.subject import CACHE, Frame

Answer = list[list[Any]]
"""For each frame: nanoseconds from the array to the label, nanoseconds without the making of an image, the label."""

FRAME = """
import json, os, sys, time
import numpy as np
os.sched_setaffinity(0, {int(sys.argv[1])})
model, frames = sys.argv[2], np.load(sys.argv[3])
clock = time.perf_counter_ns
answers, sys.stdout = sys.stdout, sys.stderr  # some print what they do

def serve(one):
    for frame in frames:
        one(frame)
    for _ in sys.stdin:
        print(json.dumps([one(frame) for frame in frames]), file=answers, flush=True)
"""
"""How a worker begins. It ends with ``serve(one)``, where ``one`` gives a frame's part of an ``Answer``."""


def ours(engine: str, color: str) -> str:
    """Our worker's code, for frames whose channels are in the order ``color``."""
    return f"""{FRAME}
import cv2
from edgeclf_device import Classifier
cv2.setNumThreads(1)
classify = Classifier.open(model, engine="{engine}", threads=1)

def one(frame):
    begin = clock()
    label = classify(frame, color="{color}").label
    end = clock()
    return end - begin, end - begin, label

serve(one)
"""


def environment(name: str, *installs: Sequence[str]) -> Path:
    """The Python of an environment in the cache; where it is missing it is made, each of ``installs`` given to pip."""
    folder = CACHE / name
    python = folder / "bin" / "python"
    if not (folder / "complete").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        for packages in installs:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "complete").touch()
    return python


@contextlib.contextmanager
def worker(python: Path | str, code: str, *arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A child process that answers each line it is sent."""
    command = [str(python), "-c", code, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, text=True, cwd=folder, env={**os.environ, **environment}, **pipes) as child,
    ):
        yield child
        assert child.stdin is not None
        child.stdin.close()


def ask(child: subprocess.Popen[str]) -> Answer:
    """What every frame takes now."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    answer = child.stdout.readline()
    if not answer:
        sys.exit(f"A worker ended with {child.wait()}: {child.args[0]}")
    found: Answer = json.loads(answer)
    return found


def take_turns(mine: subprocess.Popen[str], theirs: subprocess.Popen[str], alternations: int) -> dict[str, Any]:
    """Median milliseconds of both, medians of the paired ratios, and how many labels agree."""
    rounds = []
    for number in range(alternations):
        first, second = (mine, theirs) if number % 2 else (theirs, mine)
        answers = {id(child): ask(child) for child in (first, second)}
        rounds.append((answers[id(mine)], answers[id(theirs)]))
    own, total, classify = (
        [statistics.median(frame[place] for frame in one[side]) / 1e6 for one in rounds]
        for side, place in ((0, 0), (1, 0), (1, 1))
    )
    ratios = [one / other for one, other in zip(own, total, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    labels = [(one[2], other[2]) for one, other in zip(*rounds[0], strict=True)]
    return {
        "edgeclf_ms": statistics.median(own),
        "other_ms": statistics.median(total),
        "other_without_its_image_ms": statistics.median(classify),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [quartiles[0], quartiles[2]],
        "ratio_without_its_image": statistics.median(one / other for one, other in zip(own, classify, strict=True)),
        "equal_labels": sum(one == other for one, other in labels),
        "frames": len(labels),
    }


def save_frames(path: Path, frames: Sequence[Frame]) -> None:
    """Write frames for the workers to read."""
    np.save(path, np.ascontiguousarray(np.stack(frames)))


def text_of(row: dict[str, Any], other: str) -> str:
    """A row in one line."""
    low, high = row["ratio_quartiles"]
    return (
        f"edgeclf {row['edgeclf_ms']:.2f} ms, {other} {row['other_ms']:.2f} ms "
        f"({row['other_without_its_image_ms']:.2f} without its image), ratio {row['ratio']:.3f} ({low:.3f} to "
        f"{high:.3f}), {row['equal_labels']} of {row['frames']} labels equal: {'kept' if row['kept'] else 'NOT KEPT'}"
    )
