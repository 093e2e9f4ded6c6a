"""Whether the benchmark can be believed: against bare loops, against itself, and against planted disturbances.

Fails where a bound is not kept; wants a quiet machine, for some minutes each part.
Run: ``.venv/bin/python -m benchmarks.measuring [PART…] [--json F]``; parts that are not named keep their rows.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from benchmarks.record import commit, write_record
from benchmarks.runtime.subject import calls, lite0, options, require_kept
from edgeclf_device import Classifier, prepare
from edgeclf_device.bench import Plan, bench, sample, synthetic_frame
from edgeclf_device.bench.compare import compare_openers
from edgeclf_device.bench.conditions import Watch
from edgeclf_device.bench.energy import Meter

ENGINES = ("litert", "onnxruntime")
EQUAL_RUNS, PLANTED_RUNS, PLANTED = 10, 3, 0.03
QUIET_RUNS, LOADED_RUNS = 20, 5
MAX_SECONDS, SECONDS = 60.0, 50.0
"""Of a comparison, opening and warming up included, and of its measuring."""


def agreement(path: Path, turns: int) -> dict[str, Any]:
    """The median inference by bench's samples over that of a bare loop of ``prepare`` and the engine's calls, in turn.

    Beside it, without a bound: over a loop of the engine alone on one input, as engines' own tools have it. That input
    never leaves the caches, which no frame of a camera is in.
    """
    with Classifier.open(path, threads=1) as classify:
        frame = synthetic_frame()
        ways = (
            lambda: _sampled(classify, frame),
            lambda: _bare(classify, frame, prepared=False),
            lambda: _bare(classify, frame, prepared=True),
        )
        times = []
        for turn in range(turns + 2):
            order = (0, 1, 2) if turn % 2 else (2, 1, 0)
            taken = {index: ways[index]() for index in order}
            times.append([taken[index] for index in (0, 1, 2)])
    sampled, bare, alone = np.array(times[2:]).T
    ratio, beside = (float(np.median(sampled / other)) for other in (bare, alone))
    figures = {"ratio": round(ratio, 4), "over_the_engine_alone": round(beside, 4), "kept": abs(ratio - 1) <= 0.02}
    return _row("p50 of infer over a bare loop's", path, **figures)


def _sampled(classify: Classifier, frame: Any) -> float:
    return float(np.median([sample(classify, frame)["infer"] for _ in range(30)]))


def _bare(classify: Classifier, frame: Any, *, prepared: bool) -> float:
    spec, infer, taken = classify.manifest.preprocessing, calls(classify), []
    batch = prepare(frame.image, spec)[None]
    for _ in range(30):
        if not prepared:
            batch = prepare(frame.image, spec)[None]
        begin = perf_counter_ns()
        infer(batch)
        taken.append(perf_counter_ns() - begin)
    return float(np.median(taken))


def harness(path: Path) -> dict[str, Any]:
    """What taking one sample costs beyond the classifier's call: clocks, keeping numbers, asking the watch."""
    with Classifier.open(path, threads=1) as classify:
        result, frame, watch, meter = classify(synthetic_frame().image), synthetic_frame(), Watch(), Meter(None)

    class Instant:
        engine = classify.engine

        def __call__(self, *_image: Any, **_color: Any) -> Any:
            return result

    instant = Instant()
    taken: list[dict[str, int]] = []
    count = 20000
    begin = perf_counter_ns()
    for _ in range(count):
        taken.append(sample(instant, frame))  # type: ignore[arg-type]
        watch.look_if_due(time.monotonic_ns())
        meter.tick()
    spent = (perf_counter_ns() - begin) / count
    begin = perf_counter_ns()
    for _ in range(count):
        instant(frame.image, color=frame.color)
    cost_us = (spent - (perf_counter_ns() - begin) / count) / 1e3
    return _row("harness, µs a sample", path, microseconds=round(cost_us, 2), kept=cost_us <= 5)


class _Slowed:
    """An engine that works on for a share of each run's time."""

    def __init__(self, engine: Any, share: float) -> None:
        self._engine, self._share = engine, share

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, batch: Any) -> Any:
        begin = perf_counter_ns()
        output = self._engine.run(batch)
        end = begin + (perf_counter_ns() - begin) * (1 + self._share)
        while perf_counter_ns() < end:
            pass
        return output


def _slowed(path: Path, share: float) -> Classifier:
    classify = Classifier.open(path, threads=1)
    if share:
        classify.engine = _Slowed(classify.engine, share)
    return classify


def verdicts(path: Path, share: float, runs: int) -> dict[str, Any]:
    """The verdicts of so many comparisons of an artifact with itself, the second one slowed down by ``share``."""
    expected = "slower" if share else "undecided"
    found, ratios, seconds = [], [], []
    for _ in range(runs):
        begin = time.monotonic()
        made = compare_openers(
            (lambda: Classifier.open(path, threads=1), lambda: _slowed(path, share)), seconds=SECONDS
        )
        seconds.append(round(time.monotonic() - begin, 1))
        found.append(made.verdict)
        ratios.append(round(made.ratio, 4))
    return _row(
        f"{expected}, {100 * share:g} % planted",
        path,
        verdicts=found,
        ratios=ratios,
        seconds=seconds,
        kept=found.count(expected) == runs and max(seconds) <= MAX_SECONDS,
    )


def flags(path: Path, runs: int, *, beside: Callable[[], None] | None) -> dict[str, Any]:
    """How many of so many measurements are INVALID, with another program beside them or without."""
    doubts = []
    for _ in range(runs):
        child = None
        if beside is not None:
            child = multiprocessing.get_context("fork").Process(target=beside, daemon=True)
            child.start()
        taken = bench(path, threads=1, plan=Plan(seconds=3))
        if child is not None:
            child.terminate()
            child.join()
        doubts.append([f"{doubt.level} {doubt.kind}: {doubt.detail}" for doubt in taken.doubts])
    flagged = sum(bool(one) for one in doubts)
    kept = flagged == runs if beside is not None else flagged <= 0.05 * runs
    return _row(
        f"flagged, {'loaded' if beside else 'quiet'}", path, runs=runs, flagged=flagged, doubts=doubts, kept=kept
    )


def _busy() -> None:
    while True:
        pass


def _row(what: str, path: Path, **figures: Any) -> dict[str, Any]:
    row = {"what": what, "artifact": path.name, **figures}
    shown = ", ".join(f"{key} {value}" for key, value in figures.items() if key != "doubts")
    print(f"{path.name}: {what}: {shown}", flush=True)
    return row


PARTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "agreement": agreement,
    "harness": lambda path, _: harness(path),
    "slower": lambda path, _: verdicts(path, PLANTED, PLANTED_RUNS),
    "equal": lambda path, _: verdicts(path, 0, EQUAL_RUNS),
    "loaded": lambda path, _: flags(path, LOADED_RUNS, beside=_busy),
    "quiet": lambda path, _: flags(path, QUIET_RUNS, beside=None),
}
EACH_ENGINE = ("agreement", "harness", "slower")


def main() -> None:
    """Measure, print and record."""
    parser = options(__doc__, "measuring.json", 40)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"the parts are {', '.join(PARTS)}, but {', '.join(unknown)} was named")
    artifacts = [lite0(engine, chosen.bundle) for engine in ENGINES]
    rows = json.loads(chosen.json.read_text(encoding="utf-8"))["rows"] if chosen.parts and chosen.json.exists() else []
    for part in chosen.parts or PARTS:
        for path in artifacts if part in EACH_ENGINE else artifacts[:1]:
            row = {**PARTS[part](path, chosen.alternations), "part": part, "commit": commit()}
            rows = [one for one in rows if (one.get("part"), one["artifact"]) != (part, path.name)] + [row]
            write_record(chosen.json, rows=rows)
    require_kept(rows)


if __name__ == "__main__":
    main()
