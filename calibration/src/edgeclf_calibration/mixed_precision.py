"""Mixed precision: the fewest layers are left in float that keep what the caller measures within bounds.

The layers stand in the order of their sensitivity, as in Wu, Judd, Zhang, Isaev, Micikevicius, "Integer Quantization
for Deep Learning Inference: Principles and Empirical Evaluation" (2020), section 6.1, "partial quantization"; the count
is bisected, and what then proves unnecessary is quantized after all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress

MAX_TRIALS = 16
"""Layers that are tried in int8 again after the bisection, each of which costs a measurement."""


class Quantize(Protocol):
    """``quantize_onnx`` or ``quantize_tflite`` with a model and ranges bound to it (``functools.partial``)."""

    def __call__(self, *, in_float: Collection[str]) -> bytes:
        """The quantized model with these layers in float."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer that is quantized or left in float as a whole.

    Attributes:
        name: of the tensor that it gives; what ``in_float`` of ``quantize_onnx`` and ``quantize_tflite`` takes.
        kind: of its first operator, as the format spells it (``Conv``, ``CONV_2D``).
        multiply_accumulates: of its convolution or matrix product, for one image; 0 for all others.
    """

    name: str
    kind: str
    multiply_accumulates: int


def int8_share(layers: Collection[Layer], in_float: Collection[str]) -> float:
    """Share of the layers' multiply-accumulates that stay in int8 with some of them in float; 1 if there are none.

    Raises:
        UsageError: ``in_float`` names what is none of ``layers``.
    """
    kept = set(layers_named(in_float, [layer.name for layer in layers]))
    total = sum(layer.multiply_accumulates for layer in layers)
    return 1 - sum(layer.multiply_accumulates for layer in layers if layer.name in kept) / total if total else 1.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What was measured with some layers in float, and whether that is within the bound."""

    in_float: tuple[str, ...]
    drop: float
    holds: bool

    def to_json(self) -> dict[str, Any]:
        """As it stands in records."""
        return {"in_float": list(self.in_float), "drop": self.drop, "holds": self.holds}


@dataclass(frozen=True, kw_only=True)
class MixedPrecision:
    """The outcome of a search.

    Attributes:
        model: the quantized model with the layers ``best.in_float`` in float.
        best: of the trials that hold, that with the fewest layers in float, the most sensitive first; where none
            holds, that with all layers in float that may be.
        max_drop: the bound.
        trials: all that was measured, in that order.
    """

    model: bytes
    best: Trial
    max_drop: float
    trials: tuple[Trial, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything but the model."""
        return {
            **self.best.to_json(),
            "max_drop": self.max_drop,
            "trials": [trial.to_json() for trial in self.trials],
        }


def mixed_precision(
    quantize: Quantize,
    layers: Sequence[str],
    measure: Callable[[bytes], float],
    *,
    max_drop: float,
    max_layers: int | None = None,
    progress: Progress = no_progress,
) -> MixedPrecision:
    """Search the fewest layers to leave in float with which ``measure`` gives at most ``max_drop``.

    Deterministic if ``quantize`` and ``measure`` are. It measures at most 3 + log2(layers) + ``MAX_TRIALS`` times: with
    no layer in float, with all that may be, between them by bisection (one more in float is taken to do no harm), and
    then without single ones of those found, the least sensitive first.

    Args:
        quantize: gives the model with some layers in float.
        layers: those that may stay in float, the most sensitive first (``Sensitivity.names``).
        measure: of a quantized model, what must not exceed ``max_drop``: points of accuracy lost, or any number
            that is smaller for a better model. NaN exceeds it.
        max_drop: the bound.
        max_layers: how many layers may stay in float; all where None.
        progress: shows one step for each measurement.

    Returns:
        The outcome; where it does not hold, with all in float that may be, for the caller to refuse.

    Raises:
        UsageError: ``max_layers`` is negative.
    """
    if max_layers is not None and max_layers < 0:
        raise UsageError(f"The number of layers left in float must be at least 0, but it is {max_layers}; allow some.")

    def tried(in_float: tuple[str, ...]) -> Trial:
        drop = measure(quantize(in_float=in_float))
        return Trial(in_float=in_float, drop=drop, holds=drop <= max_drop)

    search = _search(tuple(layers[:max_layers]), tried)
    trials = tuple(progress(search, "Searching for mixed precision"))
    best = min((one for one in trials if one.holds), key=lambda one: len(one.in_float), default=trials[-1])
    return MixedPrecision(model=quantize(in_float=best.in_float), best=best, max_drop=max_drop, trials=trials)


def _search(allowed: tuple[str, ...], tried: Callable[[tuple[str, ...]], Trial]) -> Iterator[Trial]:
    """Everything worth trying: of the trials that hold, that with the fewest layers is the result."""
    yield (nothing := tried(()))
    if nothing.holds or not allowed:
        return
    yield (best := tried(allowed))
    if not best.holds:
        return
    too_few = 0
    while len(best.in_float) - too_few > 1:
        count = (too_few + len(best.in_float)) // 2
        yield (trial := tried(allowed[:count]))
        if trial.holds:
            best = trial
        else:
            too_few = count
    # Without the last one it did not hold.
    for name in best.in_float[-2::-1][:MAX_TRIALS]:
        yield (trial := tried(tuple(one for one in best.in_float if one != name)))
        if trial.holds:
            best = trial


def layers_named(names: Collection[str], layers: Collection[str]) -> list[str]:
    """Those of a model's ``layers`` that are named, in their order.

    Raises:
        UsageError: another name.
    """
    unknown = sorted(set(names) - set(layers))
    if unknown:
        raise UsageError(
            f"What stays in float must be one of the model's {len(layers)} layers, but {unknown[0]!r} is none; "
            "take the names that its sensitivity lists."
        )
    return [name for name in layers if name in names]
