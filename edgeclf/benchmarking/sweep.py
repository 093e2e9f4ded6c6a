"""Measure artifacts on engines with numbers of threads: every combination that there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edgeclf_device.artifact import read_artifact
from edgeclf_device.bench import Comparison, Measurement, Plan, bench, compare
from edgeclf_device.bench.measure import DEFAULT_PLAN
from edgeclf_device.choice import runnable
from edgeclf_device.engines import ENGINES_OF
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.sources import Frame

Subject = TypeVar("Subject")


@dataclass(frozen=True, kw_only=True)
class Ways:
    """With what artifacts are measured.

    Attributes:
        engines: each that executes an artifact; none: the preferred one that is installed.
        threads: each number.
        options: of the engines, see ``engines.OPTIONS``.
        frames, description: see ``edgeclf_device.bench.bench``.
    """

    engines: tuple[str, ...] = ()
    threads: tuple[int, ...] = (1,)
    options: Mapping[str, str] = field(default_factory=dict)
    frames: Sequence[Frame] | None = None
    description: str = "frames of the caller"

    def common(self, engine: str | None, threads: int) -> dict[str, Any]:
        """The arguments that measuring and comparing have in common."""
        return {
            "engine": engine,
            "threads": threads,
            "options": self.options,
            "frames": self.frames,
            "description": self.description,
        }


ONE_THREAD = Ways()


@dataclass(frozen=True)
class Found:
    """The artifacts to measure, each with its engines, and those for which none is installed."""

    runs: list[tuple[Path, str | None]] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)


def find(paths: Sequence[Path], engines: Sequence[str] = ()) -> Found:
    """Every artifact named, or in a bundle named, with each engine that is to execute it.

    Raises:
        ModelError, DependencyError, UsageError: see ``choice.choose``; also where an engine executes none of them.
    """
    found = Found()
    for path in paths:
        good, bad = runnable(path)
        found.skipped.extend(bad)
        for file in good:
            able = ENGINES_OF[read_artifact(file).manifest.container]
            chosen = [engine for engine in engines if engine in able] if engines else [None]
            found.runs.extend((file, engine) for engine in chosen)
            if not chosen:
                found.skipped.append(file)
    idle = [engine for engine in engines if engine not in {name for _, name in found.runs}]
    if idle or not found.runs:
        names = ", ".join(str(path) for path in paths)
        raise UsageError(
            f"{' and '.join(idle) or 'No engine'} executes none of {names}; name other engines or artifacts."
        )
    return found


def sweep(
    found: Found,
    ways: Ways = ONE_THREAD,
    *,
    scenario: str = "single-stream",
    rate_fps: float | None = None,
    plan: Plan = DEFAULT_PLAN,
    progress: Progress = no_progress,
) -> list[Measurement]:
    """Measure one artifact after the other; see ``edgeclf_device.bench.bench``."""
    how: dict[str, Any] = {"scenario": scenario, "rate_fps": rate_fps, "plan": plan, "progress": progress}
    return [bench(file, **ways.common(engine, count), **how) for file, engine in found.runs for count in ways.threads]


def compare_all(
    found: Found, ways: Ways = ONE_THREAD, *, seconds: float = 20.0, progress: Progress = no_progress
) -> list[Comparison]:
    """Compare every artifact with the first one that the same engine executes, in turn; see ``compare`` of the device.

    Raises:
        UsageError: no engine that was asked for executes two of them.
    """
    return [
        compare(base, other, **ways.common(engine, count), seconds=seconds, progress=progress)
        for engine, (base, *others) in with_one_engine(found.runs)
        for other in others
        for count in ways.threads
    ]


def with_one_engine(runs: Sequence[tuple[Subject, str | None]]) -> list[tuple[str | None, list[Subject]]]:
    """For each engine, the two or more that are to be measured in turn on it; None: on the preferred one of each.

    Raises:
        UsageError: no engine has two.
    """
    engines = dict.fromkeys(engine for _, engine in runs)
    groups = [(engine, [subject for subject, its in runs if its == engine]) for engine in engines]
    if all(len(subjects) < 2 for _, subjects in groups):
        raise UsageError(
            "What is measured in turn must share an engine, but --engine "
            f"{', '.join(map(str, engines))} gives each its own; leave --engine out, or measure them one by one."
        )
    return [(engine, subjects) for engine, subjects in groups if len(subjects) > 1]
