"""Which of the measured artifacts to take: what nothing beats in time and accuracy, and what keeps to given limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeclf_device.bench import Measurement
from edgeclf_device.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What to take.

    Attributes:
        taken: the fastest of those that keep both limits; None where none does.
        nearest: where none does, those that nothing beats and that miss a limit by the least: the most accurate within
            the time, and the fastest of the accuracy, as far as there are any; else the fastest and the most accurate.
        max_ms, min_accuracy: the limits; None sets none.
    """

    taken: Measurement | None
    nearest: tuple[Measurement, ...]
    max_ms: float | None
    min_accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        """The recommendation as ``recommend --json`` writes it."""
        return {
            "format": [1, 1],
            "max_ms": self.max_ms,
            "min_accuracy": self.min_accuracy,
            "taken": None if self.taken is None else facts(self.taken),
            "nearest": [facts(one) for one in self.nearest],
        }


def facts(measurement: Measurement) -> dict[str, Any]:
    """What is chosen by: the artifact, what it sees, what executes it, its p50 and p90, its accuracy."""
    return {
        "artifact": measurement.artifact,
        "artifact_sha256": measurement.artifact_sha256,
        "height": measurement.height,
        "width": measurement.width,
        "engine": measurement.engine,
        "threads": measurement.threads,
        "p50_ms": measurement.percentiles_ms("total")["p50"],
        "p90_ms": p90_ms(measurement),
        "accuracy": measurement.accuracy,
    }


def recommend(
    measurements: Sequence[Measurement], *, max_ms: float | None = None, min_accuracy: float | None = None
) -> Recommendation:
    """Choose by p90, which nine of ten frames keep to, and by the accuracy of the certificate.

    Args:
        measurements: valid ones; others are left out. Without an accuracy one keeps no ``min_accuracy``.
        max_ms: that p90 may take, ``prepare`` to ``decide``.
        min_accuracy: as a share.

    Raises:
        DataError: no measurement is valid.
    """
    valid = [one for one in measurements if one.valid]
    if not valid:
        raise DataError(
            f"A recommendation needs a valid measurement, but all {len(measurements)} are INVALID; "
            "bench says why: mend that, and measure again."
        )

    def quick(one: Measurement) -> bool:
        return max_ms is None or p90_ms(one) <= max_ms

    def right(one: Measurement) -> bool:
        return min_accuracy is None or (one.accuracy is not None and one.accuracy >= min_accuracy)

    def most_accurate(some: Sequence[Measurement]) -> list[Measurement]:
        return sorted(some, key=lambda one: (-(one.accuracy or 0), p90_ms(one), one.threads))[:1]

    def fastest(some: Sequence[Measurement]) -> list[Measurement]:
        return sorted(some, key=lambda one: (p90_ms(one), -(one.accuracy or 0), one.threads))[:1]

    good = [one for one in valid if quick(one) and right(one)]
    # Without a limit of time the most accurate is wanted, otherwise the fastest that is accurate enough.
    taken = most_accurate(good) if min_accuracy is None else fastest(good)
    near = most_accurate([one for one in valid if quick(one)]) + fastest([one for one in valid if right(one)])
    nearest = {} if taken else {id(one): one for one in near or fastest(valid) + most_accurate(valid)}
    return Recommendation(
        taken=taken[0] if taken else None, nearest=tuple(nearest.values()), max_ms=max_ms, min_accuracy=min_accuracy
    )


def pareto(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Those than which no other is both faster, by the median, and at least as accurate, the fastest first.

    INVALID ones and ones without an accuracy are left out.
    """
    front: list[Measurement] = []
    judged = [one for one in measurements if one.valid and one.accuracy is not None]
    for one in sorted(judged, key=lambda one: (p50_ms(one), -(one.accuracy or 0))):
        if not front or (one.accuracy or 0) > (front[-1].accuracy or 0):
            front.append(one)
    return front


def p50_ms(measurement: Measurement) -> float:
    """The median of a frame's whole time."""
    return measurement.percentiles_ms("total")["p50"]


def p90_ms(measurement: Measurement) -> float:
    """The time that nine of ten frames keep to."""
    return measurement.percentiles_ms("total")["p90"]


def recommendation_lines(found: Recommendation) -> Iterator[str]:
    """What to take and why, or what misses the limits by the least."""
    limits = [f"p90 at most {found.max_ms:g} ms"] if found.max_ms is not None else []
    limits += [f"accuracy at least {100 * found.min_accuracy:g} %"] if found.min_accuracy is not None else []
    wanted = " and ".join(limits) or "no limit"
    if found.taken is not None:
        taken = found.taken
        yield _line(taken)
        run = f"edgeclf-device classify {taken.artifact} --engine {taken.engine} --threads {taken.threads} --source S"
        yield f"  keeps {wanted}; run it: {run}"
        return
    yield f"Nothing measured keeps {wanted}. Nearest:"
    for one in found.nearest:
        yield f"  {_line(one)}"


def _line(one: Measurement) -> str:
    accuracy = "accuracy not measured" if one.accuracy is None else f"accuracy {100 * one.accuracy:.2f} %"
    run = f"{one.artifact} ({one.width}×{one.height}) on {one.engine} ×{one.threads}"
    return f"{run}: p50 {p50_ms(one):.2f} ms, p90 {p90_ms(one):.2f} ms, {accuracy}"
