"""Limits that a pipeline sets: what is broken, said in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeclf_device.bench.comparing import Comparison
from edgeclf_device.bench.measurement import Measurement
from edgeclf_device.bench.text import subject_name, told
from edgeclf_device.errors import GateError


def gate(
    measurements: Sequence[Measurement],
    comparisons: Sequence[Comparison] = (),
    *,
    max_p90_ms: float | None = None,
    max_regression_percent: float | None = None,
) -> None:
    """Refuse what breaks a limit that was set, and measurements that can't tell.

    Args:
        measurements: each one's p90 of ``total``, or of ``latency`` where frames came at a fixed rate, is held against
            ``max_p90_ms``.
        comparisons: each must not be surely slower than its base by more than ``max_regression_percent``.
        max_p90_ms, max_regression_percent: None sets no limit.

    Raises:
        GateError: with every limit that is broken.
    """
    broken = [*_too_slow(measurements, max_p90_ms), *_slower(comparisons, max_regression_percent)]
    if max_p90_ms is not None or max_regression_percent is not None:
        judged = [*measurements, *(one for made in comparisons for one in (made.base, made.other))]
        names = dict.fromkeys(subject_name(one) for one in judged if not one.valid)
        broken += [f"{name}: its measurement is INVALID and can't keep a limit" for name in names]
    if broken:
        raise GateError("; ".join(broken) + ".")


def _too_slow(measurements: Sequence[Measurement], limit: float | None) -> Iterator[str]:
    for taken in measurements if limit is not None else ():
        found = taken.percentiles_ms(told(taken))["p90"]
        if limit is not None and found > limit:
            yield f"{subject_name(taken)}: p90 must be at most {limit:g} ms, but it is {found:.3f} ms"


def _slower(comparisons: Sequence[Comparison], limit: float | None) -> Iterator[str]:
    for made in comparisons if limit is not None else ():
        if limit is not None and made.exceeds(limit):
            low, high = made.interval_99 or (made.ratio, made.ratio)
            yield (
                f"{subject_name(made.other)}: at most {limit:g} % slower than {made.base.artifact} is allowed, but its "
                f"time is {made.ratio:.3f} times as long (99 % interval {low:.3f} to {high:.3f})"
            )
