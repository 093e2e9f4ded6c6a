"""An hour of two cameras with faults: memory, threads and file descriptors stay flat, and every fault is survived.

One camera is a FaultyCamera in this process, the other an MJPEG server in its own. Both are classified all the time,
while faults are injected one after the other; each must be seen within 2 s and be over 5 s after the camera is well.
Run: ``.venv/bin/python -m benchmarks.runtime.soak --minutes 60``; the record is benchmarks/results/runtime-soak.json.
Fails where a fault is missed or not recovered from, a frame is handed out stale or twice, or something grows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, write_record
from benchmarks.runtime.freshness import ARTIFACT, percentiles
from edgeclf_device import Classifier, open_source
from edgeclf_device.fakes import Fault, FaultyCamera, MjpegServer, StreamFault
from edgeclf_device.sources import Source, SourceStatus
from edgeclf_device.sources.live import Live

FPS, SIZE = 30.0, (320, 240)
OTHER_SIZE = (256, 192)
DETECTED_S, RECOVERED_S = 2.0, 5.0
STALE_MS = 1000.0
FAULTS_PER_HOUR = 200
REST_S = 0.5
"""Between two faults of a camera."""
WELL = 5
"""Frames after which a camera counts as well again."""
MAX_GROWTH_MB = 4.0
SAMPLE_S = 0.2
"""Between two looks at what the process holds."""
RESOURCES = ("mb", "threads", "descriptors")

CAMERA_FAULTS = ("stall", "torn", "unplug", "resize", "repeat", "block", "slow")
STREAM_FAULTS = ("stall", "torn", "disconnect", "resize", "repeat", "length", "headers")
SECONDS = {"stall": 1.5, "repeat": 1.5, "unplug": 0.7, "block": 4.0, "slow": 0.1}
"""How long a fault lasts by itself; of ``block`` only the read that it caught, a new opening is well at once."""


@dataclass
class Watched:
    """A camera, what came from it, and the faults it was given."""

    name: str
    source: Source
    inject: Callable[[str, tuple[int, int]], None]
    kinds: Sequence[str]
    faults: list[dict[str, Any]] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    frames: int = 0


def serve(pipe: Connection) -> None:
    """The server's process: sends its address, then takes faults until None comes."""
    with MjpegServer(size=SIZE, fps=FPS) as server:
        pipe.send(server.url)
        while (fault := pipe.recv()) is not None:
            server.inject(fault)


def classify_all(watched: Watched, artifact: Path) -> None:
    """Classify every frame of a camera, and look at each: none stale, none twice."""
    last = -1
    with Classifier.open(artifact, threads=1) as classify:
        for frame in watched.source:
            watched.wrong["stale"] += (time.monotonic_ns() - frame.captured_ns) / 1e6 > STALE_MS
            watched.wrong["twice"] += frame.index <= last
            last = frame.index
            classify(frame.image, color=frame.color)
            watched.frames += 1


def seen(kind: str, before: SourceStatus, now: SourceStatus, size: tuple[int, int]) -> bool:
    """Whether the source noticed a fault; what costs no frame has only to be survived."""
    if kind == "torn":
        return now.torn > before.torn
    if kind == "resize":
        return now.size == size
    if kind in ("slow", "length"):
        return now.captured > before.captured
    return now.faults > before.faults


def wait_for(condition: Callable[[], bool], seconds: float) -> float | None:
    """Seconds until it came to pass, or None if it did not in time."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            return None
        time.sleep(0.01)
    return time.monotonic() - begin


def torment(watched: Watched, end: float) -> None:
    """Give a camera one fault after the other, and time what the source makes of each."""
    sizes: Iterator[tuple[int, int]] = cycle((OTHER_SIZE, SIZE))
    # A stall cannot be told from a slow camera before the second picture has shown how often one comes.
    assert wait_for(lambda: watched.source.status().fps > 0, RECOVERED_S) is not None
    for kind in cycle(watched.kinds):
        if time.monotonic() > end:
            return
        source, before = watched.source, watched.source.status()
        size = next(sizes) if kind == "resize" else SIZE
        lasts_s = 0.0 if kind == "block" else SECONDS.get(kind, 0.0)
        begin = time.monotonic()
        watched.inject(kind, size)
        detected_s = wait_for(lambda: seen(kind, before, source.status(), size), 2 * DETECTED_S)  # noqa: B023
        well_again = begin + lasts_s
        captured = source.status().captured
        recovered = wait_for(
            lambda: (now := source.status()).state == "live" and now.captured >= captured + WELL,  # noqa: B023
            lasts_s + 2 * RECOVERED_S,
        )
        recovered_s = None if recovered is None else max(0.0, time.monotonic() - max(well_again, begin))
        watched.faults.append({"kind": kind, "detected_s": detected_s, "recovered_s": recovered_s})
        time.sleep(REST_S)


def resources() -> tuple[float, int, int]:
    """(resident memory in MB, threads, open file descriptors) of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return (
        pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        len(os.listdir("/proc/self/task")),  # noqa: PTH208 - the names alone
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    )


def growth(samples: list[tuple[float, int, int]]) -> dict[str, Any]:
    """The first and the last quarter after a warm-up of one fifth, and whether what the process holds is flat.

    Memory is compared by medians. Threads and descriptors are compared by the fewest held at once: they come and go
    with each connection, and a median of theirs says how long the camera was away; what is leaked raises the fewest.
    """
    settled = np.array(samples[len(samples) // 5 :])
    quarter = max(len(settled) // 4, 1)
    ends = settled[:quarter], settled[-quarter:]
    first, last = (np.array([np.median(end[:, 0]), *end[:, 1:].min(axis=0)]) for end in ends)
    hours = len(settled) * SAMPLE_S / 3600
    slope = np.polyfit(np.linspace(0, hours, len(settled)), settled[:, 0], 1)[0]
    rows = {name: {"first": float(first[at]), "last": float(last[at])} for at, name in enumerate(RESOURCES)}
    flat = bool(last[0] - first[0] <= MAX_GROWTH_MB and (last[1:] <= first[1:] + 1).all())
    return {**rows, "memory_mb_per_hour": float(slope), "flat": flat}


def summary(watched: Watched) -> dict[str, Any]:
    """Faults by kind: how many, missed, not recovered from; detection and recovery times."""
    rows = {}
    for kind in watched.kinds:
        given = [fault for fault in watched.faults if fault["kind"] == kind]
        detected = [fault["detected_s"] for fault in given if fault["detected_s"] is not None]
        recovered = [fault["recovered_s"] for fault in given if fault["recovered_s"] is not None]
        rows[kind] = {
            "given": len(given),
            "missed": sum(fault["detected_s"] is None or fault["detected_s"] > DETECTED_S for fault in given),
            "late": sum(fault["recovered_s"] is None or fault["recovered_s"] > RECOVERED_S for fault in given),
            "detected_s": percentiles(detected) if detected else None,
            "recovered_s": percentiles(recovered) if recovered else None,
        }
    return {"camera": watched.name, "frames": watched.frames, "wrong": dict(watched.wrong), "faults": rows}


def run(artifact: Path, minutes: float, camera: FaultyCamera, pipe: Connection) -> tuple[list[Watched], dict[str, Any]]:
    """Both cameras for the time given; (what was seen of each, growth of the process)."""

    def to_camera(kind: Any, size: tuple[int, int]) -> None:
        camera.inject(Fault(kind=kind, seconds=SECONDS.get(kind, 0.0), pictures=3, size=size))

    def to_stream(kind: Any, size: tuple[int, int]) -> None:
        pipe.send(StreamFault(kind=kind, seconds=SECONDS.get(kind, 0.0), size=size))

    end = time.monotonic() + minutes * 60
    with Live("faulty camera", "faulty", camera.open) as faulty, open_source(pipe.recv()) as stream:
        both = [Watched("faulty", faulty, to_camera, CAMERA_FAULTS), Watched("mjpeg", stream, to_stream, STREAM_FAULTS)]
        workers = [threading.Thread(target=classify_all, args=(one, artifact), daemon=True) for one in both]
        workers += [threading.Thread(target=torment, args=(one, end), daemon=True) for one in both]
        for worker in workers:
            worker.start()
        samples = []
        while time.monotonic() < end:
            time.sleep(SAMPLE_S)
            samples.append(resources())
            for one in both:
                one.source.take_notes()
        for worker in workers[2:]:
            worker.join()
        alive = all(worker.is_alive() for worker in workers[:2])  # one that ended was killed by a fault
    return both, {**growth(samples), "alive": alive}


def main() -> None:
    """Print what happened, write the record, and fail where something broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "runtime-soak.json")
    parser.add_argument("--artifact", type=Path, default=ARTIFACT)
    parser.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    both, held = run(arguments.artifact, arguments.minutes, FaultyCamera(size=SIZE, fps=FPS), ours)
    ours.send(None)
    process.join()
    cameras = [summary(one) for one in both]
    kinds = [row for camera in cameras for row in camera["faults"].values()]
    given, missed, late = (sum(row[key] for row in kinds) for key in ("given", "missed", "late"))
    wrong = sum(count for camera in cameras for count in camera["wrong"].values())
    needed = round(FAULTS_PER_HOUR * arguments.minutes / 60)
    kept = missed == late == wrong == 0 and given >= needed and held["flat"] and held["alive"]
    frames = sum(camera["frames"] for camera in cameras)
    changes = ", ".join(f"{name} {held[name]['first']:.1f} to {held[name]['last']:.1f}" for name in RESOURCES)
    print(
        f"{arguments.minutes:g} minutes, {frames} frames, {wrong} of them stale or twice; {given} faults (at least "
        f"{needed}), {missed} missed, {late} not over in time; {changes}: {'kept' if kept else 'NOT KEPT'}"
    )
    bounds = {"detected_s": DETECTED_S, "recovered_s": RECOVERED_S, "growth_mb": MAX_GROWTH_MB, "faults": needed}
    write_record(
        arguments.json,
        minutes=arguments.minutes,
        artifact=arguments.artifact.name,
        bounds=bounds,
        given=given,
        missed=missed,
        late=late,
        wrong=wrong,
        resources=held,
        cameras=cameras,
        kept=kept,
    )
    if not kept:
        sys.exit("A bound was not kept; see above and the record.")


if __name__ == "__main__":
    main()
