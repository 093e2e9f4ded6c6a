"""Two models judged by the same labelled images: how large is the difference of their accuracies, and is it chance?

Only the images that one model labels rightly and the other wrongly say anything of it: those that the second one lost
and those that it gained. Both figures are of their counts alone, exact, and use no random numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.certificate import Paired

_TAIL = 0.025
"""Probability on each side of a 95 % interval."""
_PSEUDO_IMAGES = 0.5
"""Added to each of the four counts that the interval is drawn from."""


def paired(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Paired:
    """Judge what a model loses against the one it stands for.

    Args:
        before: bool (N,), N at least 1: which images the reference labels rightly.
        after: bool (N,), which the model in question does.
    """
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    return Paired(
        lost=lost,
        gained=gained,
        drop_interval_95=drop_interval_points(lost, gained, images=len(before)),
        mcnemar_p=mcnemar_p(lost, gained),
    )


def mcnemar_p(lost: int, gained: int) -> float:
    """The probability of counts at least as unequal as these, if an image were as likely to be lost as to be gained.

    The exact, two-sided test of McNemar, Note on the sampling error of the difference between correlated proportions
    or percentages, Psychometrika 1947: a binomial test of ``lost`` among ``lost + gained``. 1 where both are 0.
    """
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def drop_interval_points(lost: int, gained: int, *, images: int) -> tuple[float, float]:
    """The 95 % interval of the drop, ``100 * (lost - gained) / images`` points, which always lies in it.

    A paired bootstrap with the percentile method (Efron and Tibshirani, An Introduction to the Bootstrap, 1993). To
    draw N images with replacement is to draw N times from the cells of the paired table, so the distribution of the
    drop is calculated, not sampled: their ideal bootstrap, of infinitely many resamples. It is drawn from the table
    with half an image more in each cell (Agresti and Min, Simple improved confidence intervals for comparing matched
    proportions, Statistics in Medicine 2005): otherwise a table without a lost image would promise that none is ever
    lost, and where few images are lost the interval would be too narrow.

    Args:
        lost: images that the reference alone labels rightly.
        gained: images that the model in question alone labels rightly.
        images: how many judged both, at least 1 and at least ``lost + gained``.

    Returns:
        (low, high) in points; exchanging ``lost`` and ``gained`` gives (-high, -low).
    """
    low, high = _low_tail(lost, gained, images), -_low_tail(gained, lost, images)
    return 100 * low / images, 100 * high / images


def _low_tail(lost: int, gained: int, images: int) -> int:
    """The least resampled ``lost - gained`` that is not in the lower tail.

    The distribution of a sum of N equal steps of +1, 0 and -1 is the step's Fourier transform to the power of N.
    """
    size = 1 << (2 * images + 1).bit_length()
    total = images + 4 * _PSEUDO_IMAGES
    step = np.zeros(size)
    step[1], step[-1] = (lost + _PSEUDO_IMAGES) / total, (gained + _PSEUDO_IMAGES) / total
    step[0] = 1 - step[1] - step[-1]
    chances = np.fft.fftshift(np.fft.irfft(np.fft.rfft(step) ** images, size))
    return int(np.searchsorted(np.cumsum(chances), _TAIL)) - size // 2
