"""One fine-tuning: batches, schedule, best weights, history and progress."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.training.activations import TrainingImages
from edgeclf.training.config import TrainConfig
from edgeclf_device.progress import Progress

if TYPE_CHECKING:
    import keras

_FINAL_LEARNING_RATE_SHARE = 0.02
_VALIDATION_BATCH = 64
_CLIP_NORM = 1.0

Batch = tuple[NDArray[Any], NDArray[np.float32]]
"""Inputs and one-hot targets of one step."""

Batches = Callable[[int, NDArray[np.int64]], NDArray[Any]]
"""From an epoch (counted from 0) and rows of the training part to the input of the trained blocks."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One line of history.csv. The probe counts as one epoch: the images pass through the network once."""

    phase: str
    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


def fine_tune(
    model: keras.Model,
    images: TrainingImages,
    batches: Batches,
    val: NDArray[Any],
    config: TrainConfig,
    *,
    epochs: int,
    before: Sequence[EpochRecord],
    progress: Progress,
) -> list[EpochRecord]:
    """Train ``model`` (input to logits) in place, keep the weights of the best validation loss, return the history.

    The weights that come in are kept where no epoch is better than the last one ``before``.

    AdamW with decoupled weight decay (Loshchilov and Hutter 2019), one epoch of linear warm-up and a cosine down
    to 2 % of the peak (1608.03983), gradients clipped to a norm of 1, label smoothing (1512.00567).
    """
    steps = max(1, len(images.train) // config.train.batch_size)
    _compile(model, config, steps=steps, epochs=epochs)
    targets, val_targets = images.one_hot(images.train), images.one_hot(images.val)
    starts = range(0, len(val), _VALIDATION_BATCH)
    val_batches = [(val[at : at + _VALIDATION_BATCH], val_targets[at : at + _VALIDATION_BATCH]) for at in starts]
    records: list[EpochRecord] = []
    best: tuple[float, list[NDArray[np.float32]]] = (before[-1].val_loss if before else math.inf, model.get_weights())
    for epoch in range(epochs):
        start = time.perf_counter()
        number = len(before) + 1 + epoch
        shown = progress(_shuffled(len(targets), steps, config, epoch), f"fine-tuning, epoch {number}", steps)
        ready = _prefetched(shown, functools.partial(_batch, batches, targets, epoch))
        loss, accuracy = _averages(model.train_on_batch, ready)
        val_loss, val_accuracy = _averages(model.test_on_batch, val_batches)
        records.append(
            EpochRecord(
                phase="fine-tune",
                epoch=number,
                loss=loss,
                accuracy=accuracy,
                val_loss=val_loss,
                val_accuracy=val_accuracy,
                learning_rate=float(model.optimizer.learning_rate),
                seconds=time.perf_counter() - start,
            )
        )
        if val_loss < best[0]:
            best = (val_loss, model.get_weights())
    model.set_weights(best[1])
    return records


def _compile(model: keras.Model, config: TrainConfig, *, steps: int, epochs: int) -> None:
    import keras

    train = config.train
    warm_up = steps if epochs > 1 else max(1, steps // 4)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, epochs * steps - warm_up),
        alpha=_FINAL_LEARNING_RATE_SHARE,
        warmup_target=train.learning_rate,
        warmup_steps=warm_up,
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=train.weight_decay, global_clipnorm=_CLIP_NORM),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=train.label_smoothing),
        metrics=["accuracy"],
        jit_compile=False,
    )


def _batch(batches: Batches, targets: NDArray[np.float32], epoch: int, rows: NDArray[np.int64]) -> Batch:
    return batches(epoch, rows), targets[rows]


def _shuffled(count: int, steps: int, config: TrainConfig, epoch: int) -> list[NDArray[np.int64]]:
    """Return the rows of each step; their order depends on the seed and the epoch alone."""
    size = min(config.train.batch_size, count)
    order = np.random.default_rng((config.seed, epoch)).permutation(count)
    # Within a batch the order of the disk is the fastest to read.
    return [np.sort(order[step * size : (step + 1) * size]) for step in range(steps)]


def _prefetched(steps: Iterable[NDArray[np.int64]], prepare: Callable[[NDArray[np.int64]], Batch]) -> Iterator[Batch]:
    """Yield ``prepare`` of each step, preparing the next one while the caller works on this one."""
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[Batch] | None = None
        for rows in steps:
            following = pool.submit(prepare, rows)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def _averages(step: Callable[..., Any], batches: Iterable[Batch]) -> tuple[float, float]:
    """Run ``step`` on every batch and return the mean loss and accuracy over all images.

    Batch by batch rather than ``model.fit``: under TensorFlow that reads through ``tf.data``, whose generator makes
    every allocation go back to the system, a sixth of the whole time here.
    """
    totals = np.zeros(2)
    count = 0
    for inputs, targets in batches:
        logs = step(inputs, targets, return_dict=True)
        totals += len(targets) * np.array([logs["loss"], logs["accuracy"]])
        count += len(targets)
    loss, accuracy = totals / count
    return float(loss), float(accuracy)
