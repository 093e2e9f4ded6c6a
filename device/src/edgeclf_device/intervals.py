"""How sure a percentile of measured times is: intervals that know that samples taken one after the other are alike."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


def percentile_interval(samples: NDArray[np.int64], rank: float, *, confidence: float = 0.95) -> tuple[int, int] | None:
    """(low, high): two of the samples between which the percentile lies with this confidence.

    Woodruff's interval (1952): the share of samples below the percentile is known to within its standard error, and the
    samples at both ends of that range bound it. Nothing is assumed of how times are distributed. That neighbours are
    alike widens the standard error by the autocorrelation time of "is below" (Heidelberger and Lewis, "Quantile
    Estimation in Dependent Sequences", 1984).

    Args:
        samples: int64 (N,) in the order taken.
        rank: of the percentile, above 0 and below 100.
        confidence: above 0 and below 1.

    Returns:
        The interval; None where there are too few samples to have one.
    """
    count, share = len(samples), rank / 100
    if count < 2:
        return None
    ordered = np.sort(samples)
    estimate = np.percentile(ordered, rank, method="inverted_cdf")
    effective = count / autocorrelation_time((samples <= estimate).astype(np.float64))
    spread = NormalDist().inv_cdf((1 + confidence) / 2) * np.sqrt(share * (1 - share) / effective)
    low, high = int(np.floor(count * (share - spread))), int(np.ceil(count * (share + spread)))
    if low < 1 or high > count:
        return None
    return int(ordered[low - 1]), int(ordered[high - 1])


def autocorrelation_time(series: NDArray[np.float64]) -> float:
    """How many samples of a series tell as much as one that stands alone: at least 1; 1 where none tells of the next.

    One plus twice the sum of the autocorrelations, summed over pairs while these are positive, each taken for no larger
    than the pair before: the initial monotone sequence of Geyer, "Practical Markov Chain Monte Carlo" (1992), section
    3.3.

    Args:
        series: float64 (N,), N at least 1.
    """
    count = len(series)
    centred = series - series.mean()
    # Twice as long and zeros behind: the Fourier transform takes the series for a ring.
    spectrum = np.fft.rfft(centred, 2 * count)
    covariances = np.fft.irfft(spectrum * spectrum.conj())[:count]
    if covariances[0] <= 0:
        return 1.0
    correlations = covariances / covariances[0]
    pairs = correlations[: count // 2 * 2].reshape(-1, 2).sum(axis=1)
    positive = pairs[: np.append(pairs <= 0, True).argmax()]
    return max(1.0, float(2 * np.minimum.accumulate(positive).sum() - 1))
