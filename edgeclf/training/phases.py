"""The two phases of a training: a linear probe on frozen features, then fine-tuning of the upper blocks.

Core in Keras operations and NumPy only, so that any Keras backend trains the same model.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.models import registry
from edgeclf.models.folding import fold_batch_norm, restore_batch_norm
from edgeclf.training import augment
from edgeclf.training.activations import TrainingImages, lower_part, run_views, scratch_array
from edgeclf.training.config import TrainConfig
from edgeclf.training.loop import EpochRecord, fine_tune
from edgeclf_device.progress import Progress

if TYPE_CHECKING:
    import keras

_PROBE_PASSES = 60
_PROBE_BATCH = 256
_PROBE_LEARNING_RATE = 1e-2
_PROBE_WEIGHT_DECAY = 1e-2
_PREDICT_BATCH = 64


def fit(
    model: keras.Model, images: TrainingImages, config: TrainConfig, *, scratch: Path, progress: Progress
) -> list[EpochRecord]:
    """Train ``model`` in place and return one record per epoch.

    Pretrained weights: the probe, which counts as the first epoch, then fine-tuning from ``train.fine_tune_from``
    upwards, its BatchNorm frozen and folded meanwhile. Random weights: every block and BatchNorm is trained, from
    freshly drawn views. Both keep the weights of the best validation loss.

    ``config`` is resolved, so that ``train.fine_tune_from`` names a block; ``scratch`` is a folder on the disk where
    the frozen blocks' activations may lie meanwhile.
    """
    points = registry.backbone(config.backbone).freeze_points
    lowest = config.train.fine_tune_from
    if config.weights == "none" or lowest in ("all", points[0]):
        return _fit_every_block(model, images, config, progress)
    cut = registry.block_output(model, points[points.index(lowest) - 1])
    upper = fold_batch_norm(cut, model.get_layer("logits").output)
    history = _fit_upper_blocks(lower_part(model.input, cut), upper, images, config, scratch=scratch, progress=progress)
    restore_batch_norm(upper, model)
    return history


def _fit_upper_blocks(
    lower: keras.Model,
    upper: keras.Model,
    images: TrainingImages,
    config: TrainConfig,
    *,
    scratch: Path,
    progress: Progress,
) -> list[EpochRecord]:
    shape = tuple(lower.output.shape[1:])
    fine_epochs = config.train.epochs - 1
    views = max(1, min(config.augment.views, fine_epochs))
    with (
        scratch_array(scratch, (views, len(images.train), *shape)) as train,
        scratch_array(scratch, (1, len(images.val), *shape)) as val,
    ):
        for indices, numbers, into in ((images.train, range(views), train), (images.val, range(1), val)):
            run_views(lower, images, indices, numbers, config.augment, seed=config.seed, into=into, progress=progress)
        plain = val[0].astype(np.float32)
        history = [_probe(upper, images, config, train=(train[0], np.arange(len(images.train))), val=plain)]

        def batches(epoch: int, rows: NDArray[np.int64]) -> NDArray[Any]:
            return train[(epoch + images.train[rows]) % views, rows].astype(np.float32)

        if fine_epochs:
            history += fine_tune(
                upper, images, batches, plain, config, epochs=fine_epochs, before=tuple(history), progress=progress
            )
    return history


def _fit_every_block(
    model: keras.Model, images: TrainingImages, config: TrainConfig, progress: Progress
) -> list[EpochRecord]:
    """Train from the image upwards; each epoch draws a view of its own. BatchNorm learns where the rest is random."""
    import keras

    logits = model.get_layer("logits").output
    random = config.weights == "none"
    whole = keras.Model(model.input, logits) if random else fold_batch_norm(model.input, logits)
    val = images.pixels[images.val]
    history = []
    if not random:
        history.append(_probe(whole, images, config, train=(images.pixels, images.train), val=val))

    def batches(epoch: int, rows: NDArray[np.int64]) -> NDArray[Any]:
        numbers = np.full(len(rows), epoch)
        return augment.views(
            images.pixels, config.augment, seed=config.seed, indices=images.train[rows], numbers=numbers
        )

    epochs = config.train.epochs - len(history)
    if epochs:
        history += fine_tune(
            whole, images, batches, val, config, epochs=epochs, before=tuple(history), progress=progress
        )
    if not random:
        restore_batch_norm(whole, model)
    return history


def _probe(
    upper: keras.Model,
    images: TrainingImages,
    config: TrainConfig,
    *,
    train: tuple[NDArray[Any], NDArray[np.int64]],
    val: NDArray[Any],
) -> EpochRecord:
    """Fit the head alone, on the raw pooled features of the plain images: ``train`` is their array and its rows.

    Raw, not standardized: standardizing gives weak features large weights, and int8 then drowns the classes in the
    rounding of features that hardly vary. Weight decay and dropout keep the head small for the same reason.
    """
    import keras

    start = time.perf_counter()
    pooled = keras.Model(upper.input, upper.get_layer("features").output)
    pooled.compile(jit_compile=False)
    features, val_features = (_features(pooled, *part) for part in (train, (val, np.arange(len(val)))))
    head = keras.Sequential(
        [
            keras.Input(features.shape[1:]),
            keras.layers.Dropout(config.train.dropout, seed=config.seed),
            keras.layers.Dense(images.classes),
        ]
    )
    steps = _PROBE_PASSES * -(-len(features) // _PROBE_BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(_PROBE_LEARNING_RATE, steps)
    head.compile(
        keras.optimizers.AdamW(schedule, weight_decay=_PROBE_WEIGHT_DECAY),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.train.label_smoothing),
        metrics=["accuracy"],
        jit_compile=False,
    )
    targets, val_targets = images.one_hot(images.train), images.one_hot(images.val)
    head.fit(features, targets, batch_size=_PROBE_BATCH, epochs=_PROBE_PASSES, verbose=0)
    loss, accuracy = head.evaluate(features, targets, batch_size=_PROBE_BATCH, verbose=0)
    val_loss, val_accuracy = head.evaluate(val_features, val_targets, batch_size=_PROBE_BATCH, verbose=0)
    upper.get_layer("logits").set_weights(head.layers[-1].get_weights())
    return EpochRecord(
        phase="probe",
        epoch=1,
        loss=loss,
        accuracy=accuracy,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        learning_rate=_PROBE_LEARNING_RATE,
        seconds=time.perf_counter() - start,
    )


def _features(pooled: keras.Model, inputs: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the pooled features, float32 (len(rows), width), of ``inputs[rows]``."""
    starts = range(0, len(rows), _PREDICT_BATCH)
    return np.concatenate(
        [np.asarray(pooled.predict_on_batch(inputs[rows[start : start + _PREDICT_BATCH]])) for start in starts]
    )
