"""One fine-tuning: batches, schedule, best weights, history and progress round ``keras.Model.fit``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
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
    first_epoch: int,
    progress: Progress,
) -> list[EpochRecord]:
    """Train ``model`` (input to logits) in place, keep the weights of the best validation loss, return the history.

    AdamW with decoupled weight decay (Loshchilov and Hutter 2019), one epoch of linear warm-up and a cosine down
    to 2 % of the peak (1608.03983), gradients clipped to a norm of 1, label smoothing (1512.00567).
    """
    import keras

    train = config.train
    steps = max(1, len(images.train) // train.batch_size)
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
    val_targets = images.one_hot(images.val)
    records: list[EpochRecord] = []
    best: tuple[float, list[NDArray[np.float32]]] = (math.inf, model.get_weights())
    for epoch in range(epochs):
        start = time.perf_counter()
        logs = model.fit(
            _epoch(images, batches, config, epoch),
            validation_data=(val, val_targets),
            validation_batch_size=_VALIDATION_BATCH,
            verbose=0,
            callbacks=[_bridge(progress, f"fine-tuning, epoch {first_epoch + epoch}", steps)],
        ).history
        values = {name: float(value[-1]) for name, value in logs.items()}
        rate = float(model.optimizer.learning_rate)
        seconds = time.perf_counter() - start
        number = first_epoch + epoch
        records.append(EpochRecord(phase="fine-tune", epoch=number, learning_rate=rate, seconds=seconds, **values))
        if values["val_loss"] < best[0]:
            best = (values["val_loss"], model.get_weights())
    model.set_weights(best[1])
    return records


def _epoch(images: TrainingImages, batches: Batches, config: TrainConfig, epoch: int) -> Any:
    """Return one epoch as a ``keras.utils.PyDataset`` whose order depends on the seed and the epoch alone."""
    import keras

    size = min(config.train.batch_size, len(images.train))
    targets = images.one_hot(images.train)
    order = np.random.default_rng((config.seed, epoch)).permutation(len(images.train))

    class Epoch(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
        def __len__(self) -> int:
            return len(order) // size

        def __getitem__(self, step: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
            rows = np.sort(order[step * size : (step + 1) * size])  # in the order of the disk
            return batches(epoch, rows), targets[rows]

    return Epoch()


def _bridge(progress: Progress, description: str, steps: int) -> Any:
    """Return a Keras callback that moves ``progress`` on by one with every batch."""
    import keras

    shown = iter(progress(range(steps), description, steps))
    next(shown, None)
    return keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_batch, **_logs: next(shown, None))
