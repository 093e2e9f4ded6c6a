"""Which engine and how many threads run an artifact fastest on this board: measured, and kept in the state folder.

Candidates take turns in one process, forwards and then backwards (ABBA), so that a clock that is throttled or a
neighbour that wakes up meets them all alike. ``tuning`` judges.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from time import monotonic_ns

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.artifact import Artifact, read_artifact
from edgeclf_device.bench import sample, synthetic_frame
from edgeclf_device.bundle import resolve
from edgeclf_device.choice import choose, runnable, usable_cores
from edgeclf_device.classifier import Classifier
from edgeclf_device.engines import ENGINES_OF, install_command, installed, open_engine
from edgeclf_device.environment import record_environment
from edgeclf_device.errors import DependencyError, ModelError, UsageError
from edgeclf_device.golden import GENERATOR
from edgeclf_device.progress import Progress, no_progress
from edgeclf_device.sources import Frame
from edgeclf_device.state import TUNING, engine_version, forget_state, write_state
from edgeclf_device.tuning import Refused, Trial, TunedArtifact, Tuning, judge

MIN_ROUNDS = 8
TURN_NS = 50_000_000
"""A turn measures for about this long, and at least one frame, after one frame that is not measured."""


def tune(
    path: Path,
    *,
    seconds_per_candidate: float = 3.0,
    frames: Sequence[Frame] | None = None,
    description: str = "frames of the caller",
    progress: Progress = no_progress,
) -> Tuning:
    """Measure an artifact, or every one of a bundle, on each engine and number of threads, and keep what is fastest.

    ``Classifier.open`` then takes that engine and these threads, where its caller names neither.

    Args:
        path: an artifact or a bundle.
        seconds_per_candidate: how long to measure each engine with each number of threads, on average; slow ones get
            what their ``MIN_ROUNDS`` turns take.
        frames: measured in turn; None takes one synthetic frame of 1280×720.
        description: of ``frames``, for the record.
        progress: shows the rounds as they are done.

    Raises:
        UsageError: no frames, or no time.
        ModelError, DependencyError: as ``Classifier.open``; where all engines of an artifact fail, as the first.
    """
    if seconds_per_candidate <= 0 or (frames is not None and not frames):
        raise UsageError(
            f"tune needs a time above 0 and at least one frame, but got {seconds_per_candidate} s and "
            f"{'no' if frames is None else len(frames)} frames."
        )
    preferred = choose(path).path.name
    files, _ = runnable(path)
    environment = record_environment()
    measured = [synthetic_frame()] if frames is None else list(frames)
    return Tuning(
        artifacts=tuple(_tune_artifact(file, measured, seconds_per_candidate, progress) for file in files),
        preferred=preferred,
        input=f"synthetic {GENERATOR} frame, 1280×720" if frames is None else description,
        environment=environment,
    )


def forget(path: Path) -> list[str]:
    """Remove what ``tune`` keeps about an artifact, or every one of a bundle, on this board: file names of these.

    Raises:
        ModelError: see ``bundle.resolve`` and ``read_artifact``.
        SystemStateError: the system refused.
    """
    return [file.name for file in resolve(path) if forget_state(TUNING, read_artifact(file).digest)]


def thread_counts(cores: int) -> list[int]:
    """The powers of 2 up to ``cores``."""
    return [1 << power for power in range(cores.bit_length()) if 1 << power <= cores]


def _tune_artifact(path: Path, frames: list[Frame], seconds: float, progress: Progress) -> TunedArtifact:
    artifact = read_artifact(path)
    with contextlib.ExitStack() as stack:
        opened, refused = _open_candidates(path, artifact, stack)
        turns_ns = _measure(opened, frames, seconds, progress, f"Tuning {path.name}")
        names = [(one.engine.name, one.engine.version, one.threads) for one in opened]
    trials, chosen = judge(names, turns_ns)
    kept, notes = _keep(artifact, chosen)
    certificate = artifact.manifest.certificate
    return TunedArtifact(
        artifact=path.name,
        digest=artifact.digest,
        scheme=artifact.manifest.scheme,
        accuracy=None if certificate is None else certificate.accuracy,
        trials=tuple(trials),
        refused=tuple(refused),
        chosen=chosen,
        kept=kept,
        notes=tuple(notes),
    )


def _keep(artifact: Artifact, chosen: Trial) -> tuple[Path | None, list[str]]:
    """(where the choice is kept, what there is to say about it)."""
    notes: list[str] = []
    value = {
        "engine": chosen.engine,
        "engine_version": engine_version(chosen.engine),
        "threads": chosen.threads,
        "median_ms": chosen.median_ms,
    }
    return write_state(TUNING, artifact.digest, value, tell=notes.append), notes


def _open_candidates(
    path: Path, artifact: Artifact, stack: contextlib.ExitStack
) -> tuple[list[Classifier], list[Refused]]:
    """Classifiers of every engine and number of threads, which ``stack`` closes, and the engines that refuse."""
    container = artifact.manifest.container
    opened: list[Classifier] = []
    refused: list[Refused] = []
    errors: list[ModelError | DependencyError] = []
    for name in filter(installed, ENGINES_OF[container]):
        try:
            for threads in thread_counts(usable_cores()):
                engine = open_engine(artifact.content, container, engine=name, threads=threads)
                stack.callback(engine.close)
                opened.append(Classifier(path, artifact, engine, threads))
        except (ModelError, DependencyError) as error:  # noqa: PERF203 - opening takes milliseconds
            errors.append(error)
            refused.append(Refused(engine=name, reason=str(error)))
    if errors and not opened:
        raise errors[0]
    if not opened:
        wanted = install_command(ENGINES_OF[container][0])
        raise DependencyError(f"{path.name} needs an engine, but none that runs it is installed: {wanted}.")
    return opened, refused


def _measure(
    opened: list[Classifier], frames: list[Frame], seconds: float, progress: Progress, title: str
) -> NDArray[np.int64]:
    """int64 (candidates, rounds): the median nanoseconds of a frame in each turn."""
    turn = cycle(frames)
    frames_per_turn = [max(1, TURN_NS // _warm_up(classify, turn)) for classify in opened]
    rounds: list[list[int]] = []
    for number in progress(_rounds(seconds * len(opened)), title):
        order = range(len(opened)) if number % 2 == 0 else reversed(range(len(opened)))
        taken = dict.fromkeys(range(len(opened)), 0)
        for index in order:
            sample(opened[index], next(turn))
            times = [sample(opened[index], next(turn))["total"] for _ in range(frames_per_turn[index])]
            taken[index] = int(np.median(times))
        rounds.append(list(taken.values()))
    return np.array(rounds, np.int64).T


def _warm_up(classify: Classifier, turn: Iterator[Frame]) -> int:
    """The fastest of a few frames, in nanoseconds."""
    return min(sample(classify, next(turn))["total"] for _ in range(3))


def _rounds(seconds: float) -> Iterator[int]:
    """An even number of rounds: at least ``MIN_ROUNDS``, then more until the time is over."""
    end_ns, number = monotonic_ns() + round(seconds * 1e9), 0
    while number < MIN_ROUNDS or number % 2 or monotonic_ns() < end_ns:
        yield number
        number += 1
