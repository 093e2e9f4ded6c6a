"""Whether samples may be believed: what disturbed the machine while they were taken, with numbers and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.bench.conditions import Conditions
from edgeclf_device.bench.steady import block_medians, change_point

Level = Literal["invalid", "unstable"]
Limits = tuple[float, float]
"""Beyond the first unstable, beyond the second invalid."""

FREQUENCY: Limits = (0.05, 0.15)
"""Change of the fastest core's clock, as a share of its highest: steps of a governor are larger, its jitter smaller."""

OTHERS: Limits = (0.10, 0.35)
"""Work of others on our cores, in cores: a system's own services take a few hundredths of one."""

STOLEN: Limits = (0.02, 0.10)
"""Share of our cores that other machines of the same host took."""

DRIFT: Limits = (0.03, 0.10)
"""Change of the median time from one part of the measurement to the next."""

ALIKE = 5
"""Samples of a block, at least: so near to each other that what disturbs one disturbs the next."""

WINDOW_S = 1.0
"""The work of others is also looked at in windows of at least this length: shorter ones are too coarse for the
system's clock ticks of 10 ms."""

SWAPPED_PER_S = 10.0
"""Pages that are swapped each second without harm to this process."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """One reason not to believe a measurement.

    Attributes:
        kind: throttling, frequency, load, stolen, swapping or drift.
        level: ``invalid``, the samples are worthless; ``unstable``, another measurement may differ.
        detail: what was seen, with numbers.
        remedy: what to do.
    """

    kind: str
    level: Level
    detail: str
    remedy: str

    def to_json(self) -> dict[str, Any]:
        """The doubt as measurement files hold it."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Doubt:
        """What ``to_json`` gave."""
        return cls(**value)


def judge(looks: Sequence[Conditions], samples_ns: NDArray[np.int64]) -> tuple[Doubt, ...]:
    """Every reason to doubt a measurement.

    Args:
        looks: at least two: before, during and after.
        samples_ns: int64 (N,): the times of all frames, in the order taken.
    """
    return (*_throttling(looks), *_frequency(looks), *_load(looks), *_swapping(looks), *_drift(samples_ns))


def _throttling(looks: Sequence[Conditions]) -> Iterator[Doubt]:
    causes = dict.fromkeys(cause.removesuffix(" now") for one in looks for cause in one.throttled)
    events = _rise([one.throttle_events for one in looks])
    cooling = max((one.cooling_state or 0 for one in looks), default=0)
    seen = [*causes, *([f"{events:g} times throttled"] if events else [])]
    seen += [f"slowed down to cool, state {cooling}"] if cooling else []
    if seen:
        temperatures = [one.temperature_c for one in looks if one.temperature_c is not None]
        heat = f", at {max(temperatures):.0f} °C" if temperatures else ""
        yield Doubt(
            kind="throttling",
            level="invalid",
            detail=f"the machine was held back: {', '.join(seen)}{heat}",
            remedy="cool it or mend its power supply, let it rest, and measure again",
        )


def _frequency(looks: Sequence[Conditions]) -> Iterator[Doubt]:
    # The fastest core of each look: those with nothing to do clock down and tell nothing.
    fastest = [max(one.frequencies_mhz) for one in looks if one.frequencies_mhz]
    # The first look finds the clock of the warm-up, the last one that of the end: both belong to the measurement.
    if len(fastest) < 2:
        return
    level = _level(1 - min(fastest) / max(fastest), FREQUENCY)
    if level:
        yield Doubt(
            kind="frequency",
            level=level,
            detail=f"the clock changed between {min(fastest):.0f} and {max(fastest):.0f} MHz",
            remedy="sudo cpupower frequency-set --governor performance, and measure again",
        )


def _load(looks: Sequence[Conditions]) -> Iterator[Doubt]:
    spans = [(looks[0], looks[-1]), *_windows(looks)]
    others = max(_others(before, after) for before, after in spans)
    level = _level(others, OTHERS)
    if level:
        yield Doubt(
            kind="load",
            level=level,
            detail=f"other programs used up to {others:.2f} of a core that this one may use",
            remedy="stop them (top shows them), and measure again",
        )
    stolen = max(_cores(before, after, "stolen_s") for before, after in spans)
    level = _level(stolen, STOLEN)
    if level:
        yield Doubt(
            kind="stolen",
            level=level,
            detail=f"the host gave up to {stolen:.2f} of a core to other machines",
            remedy="measure on hardware of your own, or when the host is quiet",
        )


def _others(before: Conditions, after: Conditions) -> float:
    """Cores that others kept busy between two looks; 0 where the system doesn't tell, or the time is too short."""
    busy = _cores(before, after, "busy_s")
    return busy - _cores(before, after, "own_s") if busy else 0.0


def _cores(before: Conditions, after: Conditions, counter: str) -> float:
    """By how much a counter of core seconds rose each second; 0 likewise."""
    first, last, wall = getattr(before, counter), getattr(after, counter), (after.at_ns - before.at_ns) / 1e9
    return 0.0 if first is None or last is None or wall < WINDOW_S else (last - first) / wall


def _windows(looks: Sequence[Conditions]) -> Iterator[tuple[Conditions, Conditions]]:
    """Neighbouring looks that lie at least ``WINDOW_S`` apart."""
    begin = looks[0]
    for one in looks[1:]:
        if one.at_ns - begin.at_ns >= WINDOW_S * 1e9:
            yield begin, one
            begin = one


def _swapping(looks: Sequence[Conditions]) -> Iterator[Doubt]:
    pages = _rise([one.swapped_pages for one in looks])
    faults = looks[-1].major_faults - looks[0].major_faults
    wall = (looks[-1].at_ns - looks[0].at_ns) / 1e9
    if not pages or wall <= 0:
        return
    level: Level | None = "invalid" if faults > 0 else "unstable" if pages / wall > SWAPPED_PER_S else None
    if level:
        yield Doubt(
            kind="swapping",
            level=level,
            detail=f"{pages:g} pages were swapped, and this process waited for the disk {faults} times",
            remedy="free memory: close programs or take a smaller model, and measure again",
        )


def _drift(samples_ns: NDArray[np.int64]) -> Iterator[Doubt]:
    blocks = block_medians(samples_ns, least=ALIKE)
    place = change_point(blocks)
    if place is None:
        return
    before, after = float(np.median(blocks[:place])), float(np.median(blocks[place:]))
    level = _level(abs(after / before - 1), DRIFT)
    if level:
        yield Doubt(
            kind="drift",
            level=level,
            detail=(
                f"the median time changed from {before / 1e6:.3f} to {after / 1e6:.3f} ms "
                f"after {100 * place / len(blocks):.0f} % of the samples"
            ),
            remedy="wait until the machine is quiet and its temperature steady, and measure again",
        )


def _rise(counts: Sequence[int | None]) -> int:
    known = [count for count in counts if count is not None]
    return known[-1] - known[0] if known else 0


def _level(value: float, limits: Limits) -> Level | None:
    unstable, invalid = limits
    return "invalid" if value > invalid else "unstable" if value > unstable else None
