"""What comparing two classifiers tells: the ratio of their times, how sure it is, and a verdict. Pure arithmetic.

Times are compared within rounds of eight blocks, A B B A B A A B, so that a drift longer than a round touches both
alike, and so does the pause between two rounds. The interval of the median ratio comes from a bootstrap of blocks of
neighbouring rounds (Künsch, "The Jackknife and the Bootstrap for General Stationary Observations", 1989), because what
disturbs one round often disturbs the next; its percentiles are expanded for the small number of rounds (Hesterberg,
"What Teachers Should Know About the Bootstrap", 2015, section 5.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.bench.measurement import Measurement
from edgeclf_device.errors import DataError

FORMAT = (1, 0)
VERDICT_CONFIDENCE = 0.99
"""An interval of 95 % would call one in twenty equal pairs unequal; this one calls one in a hundred."""

ORDER = (0, 1, 1, 0, 1, 0, 0, 1)
"""Of the blocks in a round: 0 is the base. Linear and quadratic drifts cancel (Thue and Morse's sequence)."""

RESAMPLES = 5000
MIN_ROUNDS = 12
"""Fewer rounds give no interval that could be trusted."""

SUBJECT = ("artifact", "artifact_sha256", "engine", "threads", "host")
"""Fields by which a comparison names its two measurements."""

Verdict = Literal["faster", "slower", "undecided"]
Ends = tuple[float, float]
_INTERVALS = ("interval_95", "interval_99")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How long ``other`` takes, as a share of ``base``.

    Attributes:
        base, other: what was compared; their samples are those of all their blocks.
        ratio: median over the rounds of (time of other) / (time of base): below 1 where other is faster.
        interval_95, interval_99: of that ratio; None where there were too few rounds.
        rounds: how many rounds of eight blocks were compared; 0 where the two were measured at different times.
    """

    base: Measurement
    other: Measurement
    ratio: float
    interval_95: Ends | None
    interval_99: Ends | None
    rounds: int

    @property
    def verdict(self) -> Verdict:
        """Whether other is faster or slower than base: undecided where the 99 % interval holds 1."""
        return verdict(self.interval_99)

    def exceeds(self, max_regression_percent: float) -> bool:
        """Whether other is surely slower than base by more than this: the whole 99 % interval lies beyond."""
        return self.interval_99 is not None and self.interval_99[0] > 1 + max_regression_percent / 100

    def to_json(self) -> dict[str, Any]:
        """The comparison as ``bench --json`` writes it, without the two measurements."""
        names = [{field: getattr(one, field) for field in SUBJECT} for one in (self.base, self.other)]
        return {
            "base": names[0],
            "other": names[1],
            "ratio": self.ratio,
            "interval_95": None if self.interval_95 is None else list(self.interval_95),
            "interval_99": None if self.interval_99 is None else list(self.interval_99),
            "verdict": self.verdict,
            "rounds": self.rounds,
        }


def comparison_from_json(value: Any, base: Measurement, other: Measurement) -> Comparison:
    """Read what ``Comparison.to_json`` gave of these two.

    Raises:
        DataError: it is not such a value, or is of others.
    """
    try:
        for side, taken in (("base", base), ("other", other)):
            if any(value[side].get(name) != getattr(taken, name) for name in SUBJECT):
                raise DataError(f"This comparison must be of {taken.artifact}, but its {side} is {value[side]}.")
        ends = [None if found is None else (float(found[0]), float(found[1])) for found in map(value.get, _INTERVALS)]
        return Comparison(
            base=base,
            other=other,
            ratio=float(value["ratio"]),
            interval_95=ends[0],
            interval_99=ends[1],
            rounds=int(value["rounds"]),
        )
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise DataError(f"This is not a comparison that bench --json wrote: {error!r} is missing or wrong.") from error


def verdict(interval_99: Ends | None) -> Verdict:
    """What the 99 % interval of a ratio says."""
    if interval_99 is None or interval_99[0] <= 1 <= interval_99[1]:
        return "undecided"
    return "slower" if interval_99[0] > 1 else "faster"


def round_ratios(blocks_ns: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (rounds,): the time of B over that of A in each round, by the geometric means of their blocks.

    Args:
        blocks_ns: float64 (rounds, 8): the median time of a frame in each block, in ``ORDER``.
    """
    signs = np.where(np.array(ORDER) == 1, 1.0, -1.0)
    ratios: NDArray[np.float64] = np.exp(np.log(blocks_ns) @ signs / (len(ORDER) / 2))
    return ratios


def ratio_interval(ratios: NDArray[np.float64], confidence: float) -> Ends | None:
    """The interval of the median of ``ratios`` (rounds,) in the order taken; None for fewer than ``MIN_ROUNDS``.

    The draws are always the same, so that one measurement has one verdict.
    """
    count = len(ratios)
    if count < MIN_ROUNDS:
        return None
    length = round(count ** (1 / 3))
    pieces = -(-count // length)
    starts = np.random.default_rng(0).integers(0, count - length + 1, (RESAMPLES, pieces))
    drawn = (starts[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :count]
    tail = 100 * _expanded_tail(count, confidence)
    low, high = np.percentile(np.median(ratios[drawn], axis=1), (tail, 100 - tail))
    return float(low), float(high)


def _expanded_tail(count: int, confidence: float) -> float:
    """The share of draws to leave out at each end, as if a quantile of t and not of the normal distribution were meant.

    The former comes from the latter by Cornish and Fisher (Abramowitz and Stegun, 26.7.5).
    """
    freedom = count - 1
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    quantile = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return NormalDist().cdf(-quantile * (count / freedom) ** 0.5)


def unpaired_ratio(base: Measurement, other: Measurement, *, stage: str = "total") -> Comparison:
    """Compare measurements of different times, as a stored one with a new one: the intervals of both medians together.

    Each end of the ratio's interval is that of one median over the opposite end of the other's, so it is wider than it
    would have to be. What changed between the two times and shows in neither is not in it.
    """
    ratio = other.percentiles_ms(stage)["p50"] / base.percentiles_ms(stage)["p50"]
    ends = {
        confidence: _quotient(base.interval_ms(stage, 50, confidence), other.interval_ms(stage, 50, confidence))
        for confidence in (0.95, VERDICT_CONFIDENCE)
    }
    return Comparison(
        base=base, other=other, ratio=ratio, interval_95=ends[0.95], interval_99=ends[VERDICT_CONFIDENCE], rounds=0
    )


def _quotient(base: Ends | None, other: Ends | None) -> Ends | None:
    return None if base is None or other is None else (other[0] / base[1], other[1] / base[0])
