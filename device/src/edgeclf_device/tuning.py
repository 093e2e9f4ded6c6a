"""What ``tune`` found out, as data, as JSON and as lines for people, and how it is judged: testable without hardware.

Candidates are compared round by round: the interval of the median ratio to the fastest comes from a bootstrap over the
rounds (Efron 1979, percentiles).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.environment import Environment

FORMAT = (1, 0)
RESAMPLES = 1000

Verdict = Literal["fastest", "undecided", "slower"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One engine with one number of threads.

    Attributes:
        engine, engine_version, threads: what was tried.
        turns_ns: the median time of a frame, ``prepare`` to ``decide``, in each turn.
        ratio_95: (low, high) of the 95 % interval of its median time over that of the fastest.
        verdict: ``undecided`` where that interval holds 1: it may be as fast as the fastest.
    """

    engine: str
    engine_version: str
    threads: int
    turns_ns: tuple[int, ...]
    ratio_95: tuple[float, float]
    verdict: Verdict

    @property
    def median_ms(self) -> float:
        """The median of the turns."""
        return float(np.median(self.turns_ns)) / 1e6

    @property
    def interval_ms(self) -> tuple[float, float]:
        """The 95 % interval of ``median_ms``."""
        low, high = _interval(np.array(self.turns_ns))
        return low / 1e6, high / 1e6

    def to_json(self) -> dict[str, Any]:
        """The trial as ``tune --json`` prints it."""
        shown = {"median_ms": self.median_ms, "interval_95_ms": list(self.interval_ms)}
        return {**vars(self), "turns_ns": list(self.turns_ns), "ratio_95": list(self.ratio_95), **shown}


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An engine that is installed but can't run the artifact, and why."""

    engine: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TunedArtifact:
    """What was found for one artifact.

    Attributes:
        artifact: file name; ``digest`` is the SHA-256 of its model bytes.
        scheme: of it.
        accuracy: by its certificate; None where none was measured.
        trials: of all candidates, in the order tried.
        refused: engines that were left out.
        chosen: the one to use from now on: of those that may be the fastest, the one of the fewest threads.
        kept: the file that remembers it; None: nowhere.
        notes: what there is to say about that.
    """

    artifact: str
    digest: str
    scheme: str
    accuracy: float | None
    trials: tuple[Trial, ...]
    refused: tuple[Refused, ...]
    chosen: Trial
    kept: Path | None
    notes: tuple[str, ...]

    @property
    def decided(self) -> bool:
        """Whether one candidate is clearly faster than all others."""
        return all(trial.verdict != "undecided" for trial in self.trials)

    def to_json(self) -> dict[str, Any]:
        """The artifact's part of ``tune --json``."""
        return {
            "artifact": self.artifact,
            "artifact_sha256": self.digest,
            "scheme": self.scheme,
            "accuracy": self.accuracy,
            "chosen": {"engine": self.chosen.engine, "threads": self.chosen.threads},
            "decided": self.decided,
            "kept": None if self.kept is None else str(self.kept),
            "notes": list(self.notes),
            "trials": [trial.to_json() for trial in self.trials],
            "refused": [dict(vars(refused)) for refused in self.refused],
        }


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What ``tune`` found.

    Attributes:
        artifacts: each that can run here.
        preferred: file name of the one that ``Classifier.open`` takes of a bundle, by ``choice.choose``.
        input: which frames were measured, for people.
        environment: the machine, before the first was.
    """

    artifacts: tuple[TunedArtifact, ...]
    preferred: str
    input: str
    environment: Environment

    def to_json(self) -> dict[str, Any]:
        """The tuning as ``tune --json`` prints it."""
        return {
            "format": list(FORMAT),
            "preferred": self.preferred,
            "input": self.input,
            "environment": self.environment.to_json(),
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
        }


def judge(names: Sequence[tuple[str, str, int]], turns_ns: NDArray[np.int64]) -> tuple[list[Trial], Trial]:
    """(the trials with their verdicts, the chosen one).

    Args:
        names: (engine, version, threads) of each candidate.
        turns_ns: int64 (candidates, rounds): the median time of a frame in each turn.
    """
    medians = np.median(turns_ns, axis=1)
    best = int(medians.argmin())
    trials = []
    for index, (engine, version, threads) in enumerate(names):
        low, high = _interval(turns_ns[index] / turns_ns[best])
        verdict: Verdict = "fastest" if index == best else "undecided" if low <= 1 else "slower"
        turns = tuple(int(turn) for turn in turns_ns[index])
        trials.append(
            Trial(
                engine=engine,
                engine_version=version,
                threads=threads,
                turns_ns=turns,
                ratio_95=(low, high),
                verdict=verdict,
            )
        )
    contenders = [trial for trial in trials if trial.verdict != "slower"]
    return trials, min(contenders, key=lambda trial: (trial.threads, trial.median_ms))


def tuning_lines(tuning: Tuning) -> Iterator[str]:
    """What was measured, what is chosen, and what becomes of it."""
    environment = tuning.environment
    yield f"{tuning.input}; {environment.cpu}, {environment.cores} cores, load {environment.load_1_min}"
    for found in tuning.artifacts:
        accuracy = "not measured" if found.accuracy is None else f"{100 * found.accuracy:.2f} %"
        yield f"{found.artifact}: accuracy {accuracy}"
        yield f"  {'engine':16} {'threads':>7} {'ms':>9}  {'95 % interval':>17}"
        for trial in found.trials:
            low, high = trial.interval_ms
            mark = "  chosen" if trial is found.chosen else ""
            interval = f"{low:.3f} to {high:.3f}"
            yield f"  {trial.engine:16} {trial.threads:7} {trial.median_ms:9.3f}  {interval:>17}  {trial.verdict}{mark}"
        yield from (f"  {refused.engine} can't run it: {refused.reason}" for refused in found.refused)
        if not found.decided:
            yield "  undecided: of those that may be the fastest the fewest threads are taken; --seconds 10 tells more"
        yield from (f"  {note}" for note in found.notes)
        if found.kept is not None:
            yield f"  kept in {found.kept}"
    if len(tuning.artifacts) > 1:
        yield f"of this bundle {tuning.preferred} is run; name another file to run that one"


def _interval(values: NDArray[Any]) -> tuple[float, float]:
    """The 95 % interval of the median of (n,) values by a bootstrap whose draws are always the same."""
    drawn = np.random.default_rng(0).integers(0, values.size, (RESAMPLES, values.size))
    low, high = np.percentile(np.median(values[drawn], axis=1), (2.5, 97.5))
    return float(low), float(high)
