"""The epochs of one phase: batches, schedule, best weights, checkpoints, history and progress.

Keras operations and NumPy only, so that any Keras backend trains the same model. Batch by batch rather than
``model.fit``: under TensorFlow that reads through ``tf.data``, whose generator makes every allocation go back to the
system, a sixth of the whole time here.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeclf.training.backend import compile_options, reseed
from edgeclf.training.config import FitConfig, TrainConfig
from edgeclf.training.images import TrainingImages
from edgeclf.training.journal import Checkpoint, EpochRecord, Journal, Weights
from edgeclf_device.progress import Progress

if TYPE_CHECKING:
    import keras

_FINAL_LEARNING_RATE_SHARE = 0.02
_VALIDATION_BATCH = 64

Rows = NDArray[np.int64]
"""Positions in ``TrainingImages.train``."""

Batch = tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32] | None]
"""Inputs, targets (N, classes) and, where they are not all 1, weights (N,) of one step."""

Batches = Callable[[int, int, Rows], tuple[NDArray[Any], NDArray[np.float32]]]
"""From an epoch and a step, counted from 0, and rows, to the inputs of the trained part and their targets."""


def _as_it_is(batch: Batch) -> Batch:
    return batch


class Judge(Protocol):
    """Gives the validation loss and accuracy, and the weights that they were reached with."""

    def __call__(self, *, averaged: bool) -> tuple[float, float, Weights]:
        """Of the moving average of the weights, or of the weights themselves."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """What one phase trains, on what, and how long.

    Attributes:
        phase: its name.
        number: position in the plan.
        model: from the input of the trained part to the logits.
        batches: makes the inputs of a step.
        val: the validation images as the trained part takes them.
        epochs: of this phase.
        learning_rate: peak.
        start: the whole network's weights when the phase began.
        judged_anew: the network that comes in is another than the phases before have judged.
        before_step: makes of each batch what is trained on, with the weights that the step finds: on the training's
            own thread, unlike ``batches``.
        before_judging: makes of each batch of validation images what the weights are judged by.
        accepted: share of the unlabelled images that were learnt from since it was asked last; 0 where there are none.
    """

    phase: str
    number: int
    model: keras.Model
    batches: Batches
    val: NDArray[Any]
    epochs: int
    learning_rate: float
    start: Weights
    judged_anew: bool = False
    before_step: Callable[[Batch], Batch] = _as_it_is
    before_judging: Callable[[Batch], Batch] = _as_it_is
    accepted: Callable[[], float] = float


def follow(
    course: Course, images: TrainingImages, config: TrainConfig, *, journal: Journal, progress: Progress
) -> None:
    """Train ``course.model`` in place and leave it with the weights of the lowest validation loss.

    The weights that come in are kept where no epoch is better than those of the phases before.

    AdamW with decoupled weight decay (Loshchilov and Hutter 2019), linear warm-up and a cosine down to 2 % of the peak
    (1608.03983), clipped gradients, label smoothing (1512.00567), a moving average of the weights where asked for.
    """
    model, train = course.model, config.train
    steps = steps_per_epoch(images, train)
    _compile(model, config, learning_rate=course.learning_rate, steps=steps, epochs=course.epochs)
    judge = _judge(course, images, train)
    found = _resumed(course, journal)
    if found:
        best_loss, best = found.best_loss, found.best
    elif course.judged_anew:
        best_loss, _, best = judge(averaged=False)  # there is no average yet
    else:
        best_loss, best = min((one.val_loss for one in journal.history), default=np.inf), model.get_weights()
    for epoch in range(found.done if found else 0, course.epochs):
        if _is_stale(journal, course, train):
            break
        reseed(model, config.seed, len(journal.history))
        record, weights = _epoch(
            course, images, config, epoch, steps=steps, judge=judge, journal=journal, show=progress
        )
        journal.record(record)
        if record.val_loss < best_loss:
            best_loss, best = record.val_loss, weights
        journal.save(
            phase=course.number,
            done=epoch + 1,
            best_loss=best_loss,
            best=best,
            start=course.start,
            trained=model.get_weights(),
            optimizer=[variable.numpy() for variable in model.optimizer.variables],
        )
    model.set_weights(best)


def _resumed(course: Course, journal: Journal) -> Checkpoint | None:
    """Put the trained part and its optimizer where the checkpoint left them, if it lies in this phase."""
    found = journal.found
    if found is None or found.phase != course.number or found.done == 0:
        return None
    course.model.set_weights(found.trained)
    course.model.optimizer.build(course.model.trainable_variables)
    for variable, value in zip(course.model.optimizer.variables, found.optimizer, strict=True):
        variable.assign(value)
    return found


def _epoch(
    course: Course,
    images: TrainingImages,
    config: TrainConfig,
    epoch: int,
    *,
    steps: int,
    judge: Judge,
    journal: Journal,
    show: Progress,
) -> tuple[EpochRecord, Weights]:
    """One pass over the training images, and the weights that it is judged by."""
    begin = time.perf_counter()
    number = len(journal.history) + 1

    def batch(step: int, rows: Rows) -> Batch:
        return *course.batches(epoch, step, rows), training_weights(images, images.train[rows], config.train)

    shown = show(_shuffled(images, steps, config, number), f"training ({course.phase}), epoch {number}", steps)
    ready = _Prefetched(enumerate(shown), batch)
    loss, accuracy = _averages(course.model, course.model.train_on_batch, map(course.before_step, ready))
    seconds = time.perf_counter() - begin
    val_loss, val_accuracy, weights = judge(averaged=config.train.ema > 0)
    record = EpochRecord(
        phase=course.phase,
        epoch=number,
        loss=loss,
        accuracy=accuracy,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        learning_rate=float(course.model.optimizer.learning_rate),
        seconds=time.perf_counter() - begin,
        waiting=ready.waited_s / seconds,
        accepted=course.accepted(),
    )
    return record, weights


def steps_per_epoch(images: TrainingImages, train: FitConfig) -> int:
    """How many batches an epoch has; a last one that is not full is left out, if it is not the only one."""
    return max(1, len(images.train) // train.batch_size)


def _is_stale(journal: Journal, course: Course, train: FitConfig) -> bool:
    """Whether early stopping ends the phase: its last epochs brought no lower validation loss."""
    losses = [one.val_loss for one in journal.history if one.phase == course.phase]
    patience = train.early_stopping
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])


def _compile(model: keras.Model, config: TrainConfig, *, learning_rate: float, steps: int, epochs: int) -> None:
    import keras

    train = config.train
    total = epochs * steps
    warm_up = max(1, min(round(train.warm_up_epochs * steps), total // 4))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, total - warm_up),
        alpha=_FINAL_LEARNING_RATE_SHARE,
        warmup_target=learning_rate,
        warmup_steps=warm_up,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=train.weight_decay,
        global_clipnorm=train.clip_norm or None,
        use_ema=train.ema > 0,
        ema_momentum=train.ema or 0.99,
    )
    compile_classifier(model, optimizer, config)


def compile_classifier(model: keras.Model, optimizer: Any, config: TrainConfig) -> None:
    """Compile ``model`` for its logits, one (binary cross-entropy) or one a class (categorical cross-entropy).

    With a teacher or unlabelled images for targets of two parts.
    """
    import keras

    smoothing = config.train.label_smoothing
    if config.two_part_targets:
        from edgeclf.training.two_part_targets import LabelledAccuracy, TwoPartLoss

        temperature = config.distill.temperature if config.distill.teacher else 1.0
        loss: Any = TwoPartLoss(label_smoothing=smoothing, temperature=temperature)
        accuracy: Any = LabelledAccuracy()
    elif model.output.shape[-1] == 1:
        loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)
        accuracy = keras.metrics.MeanMetricWrapper(_same_side, name="accuracy")
    else:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
        accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
    model.compile(optimizer, loss=loss, metrics=[accuracy], **compile_options())


def _same_side(true: Any, logit: Any) -> Any:
    import keras

    return keras.ops.cast(keras.ops.equal(true > 0.5, logit > 0), "float32")


def targets_for(model: keras.Model, targets: NDArray[np.float32]) -> NDArray[np.float32]:
    """Targets as the loss of ``model`` needs them: with one logit, of (N, 2) those of the second class, (N, 1)."""
    return targets[:, 1:] if model.output.shape[-1] == 1 and targets.shape[1] == 2 else targets


def one_per_class(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (N, classes), of which one z, (N, 1), stands for the two (0, z)."""
    return np.concatenate([np.zeros_like(logits), logits], axis=1) if logits.shape[1] == 1 else logits


def _judge(course: Course, images: TrainingImages, train: FitConfig) -> Judge:
    """A function that gives the validation loss and accuracy and the weights that they were reached with."""
    import keras

    model, val = course.model, course.val
    targets = images.judging_targets(images.val)
    own = judging_weights(images, images.val, train)
    parts = [slice(at, at + _VALIDATION_BATCH) for at in range(0, len(val), _VALIDATION_BATCH)]
    swap = keras.callbacks.SwapEMAWeights()
    swap.set_model(model)

    def judge(*, averaged: bool) -> tuple[float, float, Weights]:
        batches = ((val[part], targets[part], None if own is None else own[part]) for part in parts)
        if averaged:
            swap.on_test_begin()
        loss, accuracy = _averages(model, model.test_on_batch, map(course.before_judging, batches))
        reached = model.get_weights()
        if averaged:
            swap.on_test_end()
        return loss, accuracy, reached

    return judge


def training_weights(images: TrainingImages, rows: NDArray[np.int64], train: FitConfig) -> NDArray[np.float32] | None:
    """What each of ``rows`` counts in a batch; sampling draws rare classes more often already."""
    return _weights(images, rows, classes_alike=train.balance == "weights")


def judging_weights(images: TrainingImages, rows: NDArray[np.int64], train: FitConfig) -> NDArray[np.float32] | None:
    """What each of ``rows`` counts where every image comes once: in the probe, and in what chooses the best epoch."""
    return _weights(images, rows, classes_alike=train.balance != "none")


def _weights(images: TrainingImages, rows: NDArray[np.int64], *, classes_alike: bool) -> NDArray[np.float32] | None:
    """float32 (len(rows),); None where all count the same.

    With ``classes_alike`` an image counts inverse to its class's share of the training images, 1 on average.
    """
    if not classes_alike and np.all(images.weights == 1):
        return None
    own = images.weights[rows]
    if not classes_alike:
        return own
    of_class = 1 / (images.classes * np.maximum(images.class_shares(), 1e-9))
    return own * of_class.astype(np.float32)[images.labels[rows]]


def _shuffled(images: TrainingImages, steps: int, config: TrainConfig, number: int) -> list[Rows]:
    """Return the rows of each step; they depend on the seed and the epoch alone."""
    count = len(images.train)
    size = min(config.train.batch_size, count)
    draw = np.random.default_rng((config.seed, number))
    if config.train.balance == "sampling":
        chances = 1 / np.maximum(images.class_shares(), 1e-9)[images.labels[images.train]]
        order = draw.choice(count, steps * size, p=chances / chances.sum())
    else:
        order = draw.permutation(count)
    # Within a batch the order of the disk is the fastest to read.
    return [np.sort(order[step * size : (step + 1) * size]) for step in range(steps)]


class _Prefetched:
    """Yields what ``prepare`` makes of each item, preparing the next one while the caller works on this one.

    ``waited_s`` is how long the caller had to wait.
    """

    def __init__(self, items: Iterable[tuple[int, Rows]], prepare: Callable[[int, Rows], Batch]) -> None:
        self.waited_s = 0.0
        self._items = items
        self._prepare = prepare

    def __iter__(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(1) as pool:
            waiting: Future[Batch] | None = None
            for item in self._items:
                following = pool.submit(self._prepare, *item)
                if waiting is not None:
                    yield self._result(waiting)
                waiting = following
            if waiting is not None:
                yield self._result(waiting)

    def _result(self, future: Future[Batch]) -> Batch:
        begin = time.perf_counter()
        batch = future.result()
        self.waited_s += time.perf_counter() - begin
        return batch


def _averages(model: keras.Model, step: Callable[..., Any], batches: Iterable[Batch]) -> tuple[float, float]:
    """Run ``step`` on every batch and return the mean loss and accuracy over all images."""
    totals = np.zeros(2)
    count = 0
    for inputs, targets, weights in batches:
        logs = step(inputs, targets_for(model, targets), sample_weight=weights, return_dict=True)
        totals += len(targets) * np.array([logs["loss"], logs["accuracy"]])
        count += len(targets)
    loss, accuracy = totals / count
    return float(loss), float(accuracy)


def fit_quickly(
    model: keras.Model,
    train: tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32] | None],
    val: tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32] | None],
    *,
    passes: int,
    batch_size: int,
    seed: int,
) -> tuple[float, float, float, float]:
    """Train a compiled ``model`` for many cheap passes over arrays; gives loss, accuracy, val loss, val accuracy."""
    run = functools.partial(_array_batches, size=batch_size)
    for number in range(passes):
        reseed(model, seed, number)
        order = np.random.default_rng((seed, number)).permutation(len(train[0]))
        _averages(model, model.train_on_batch, run(train, order))
    results = (_averages(model, model.test_on_batch, run(part, np.arange(len(part[0])))) for part in (train, val))
    (loss, accuracy), (val_loss, val_accuracy) = results
    return loss, accuracy, val_loss, val_accuracy


def _array_batches(arrays: Batch, order: Rows, *, size: int) -> Iterator[Batch]:
    inputs, targets, weights = arrays
    for at in range(0, len(order), size):
        rows = order[at : at + size]
        yield inputs[rows], targets[rows], None if weights is None else weights[rows]
