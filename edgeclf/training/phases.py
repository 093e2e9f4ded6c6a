"""The schedule: a linear probe on frozen features, the upper blocks, every block, and every block rounded to int8.

Keras operations and NumPy only, so that any Keras backend trains the same model.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.models import registry
from edgeclf.models.folding import fold_batch_norm, restore_batch_norm
from edgeclf.training.activations import cached_views
from edgeclf.training.adversarial import hardening
from edgeclf.training.augment import Augmenter
from edgeclf.training.backend import compile_options
from edgeclf.training.config import TrainConfig
from edgeclf.training.images import TrainingImages
from edgeclf.training.journal import EpochRecord, Journal
from edgeclf.training.loop import (
    Batches,
    Course,
    compile_classifier,
    fit_quickly,
    follow,
    judging_weights,
    steps_per_epoch,
)
from edgeclf.training.qat import QAT, rounded_network, write_back
from edgeclf.training.semi import UnlabelledViews
from edgeclf_device.progress import Progress

if TYPE_CHECKING:
    import keras

HEAD = "head"
"""As ``train.fine_tune_from``: nothing below the features is ever trained."""

EVERY = "all"
"""As ``train.fine_tune_from``: every block is trained after the probe."""

PROBE = "probe"
"""Name of the phase that fits the head alone."""

_PROBE_PASSES = 60
_PROBE_BATCH = 256
_PROBE_WEIGHT_DECAY = 1e-2
_PREDICT_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of the schedule.

    Attributes:
        name: ``probe``, ``upper``, ``all`` or ``qat``.
        epochs: that it lasts.
        learning_rate: its peak.
    """

    name: str
    epochs: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Training:
    """What all phases of one training share."""

    model: keras.Model
    images: TrainingImages
    config: TrainConfig
    journal: Journal
    scratch: Path
    progress: Progress

    @property
    def pretrained(self) -> bool:
        """Whether the blocks come with weights that are worth keeping."""
        return is_pretrained(self.config)

    def augmenter(self) -> Augmenter:
        """What varies the training images."""
        return Augmenter(
            self.config.augment, shape=self.images.shape, classes=self.images.target_width, seed=self.config.seed
        )


def is_pretrained(config: TrainConfig) -> bool:
    """Whether the configuration's network has blocks and weights that are not random."""
    return config.weights != "none" and bool(registry.backbone(config.backbone).blocks)


def plan(config: TrainConfig) -> tuple[Phase, ...]:
    """The phases of a training; their epochs sum to ``train.epochs``."""
    train = config.train
    rounded = min(train.qat_epochs, max(1, train.epochs - 1)) if train.qat else 0
    float_epochs = train.epochs - rounded
    # Where nothing goes before, what is rounded has everything to learn.
    slowly = train.qat_learning_rate or train.learning_rate / (10 if float_epochs else 1)
    phases = (*_in_float(config, float_epochs), Phase(name=QAT, epochs=rounded, learning_rate=slowly))
    return tuple(phase for phase in phases if phase.epochs > 0)


def _in_float(config: TrainConfig, epochs: int) -> tuple[Phase, ...]:
    """The phases, some maybe empty, in which nothing is rounded."""
    train = config.train
    if not is_pretrained(config):
        return (Phase(name="all", epochs=epochs, learning_rate=train.learning_rate),)
    probe = min(1, epochs)
    last = min(train.all_epochs, epochs - probe)
    return (
        Phase(name=PROBE, epochs=probe, learning_rate=train.probe_learning_rate),
        Phase(
            name="all" if train.fine_tune_from == EVERY else "upper",
            epochs=epochs - probe - last,
            learning_rate=train.learning_rate,
        ),
        Phase(name="all", epochs=last, learning_rate=train.all_learning_rate),
    )


def fit(training: Training) -> list[EpochRecord]:
    """Train ``training.model`` in place and return one record per epoch.

    Each phase leaves the weights of the lowest validation loss so far, the last one, ``qat``, those with which the
    rounded network has it. Pretrained BatchNorm is folded into the
    convolutions while they are trained, and written back, unless ``train.batch_norm`` is ``trained``; in random
    networks it is always trained. After an interruption the phases go on from the journal's checkpoint.
    """
    phases, journal = plan(training.config), training.journal
    first = journal.found.phase if journal.found else 0
    if journal.found:
        training.model.set_weights(journal.found.start)
    for number, phase in enumerate(phases[first:], first):
        if phase.name == PROBE:
            journal.record(_probe(training, phase))
        else:
            _fine_tune(training, phase, number)
        if number + 1 < len(phases):
            best_loss = min(one.val_loss for one in journal.history)
            start = training.model.get_weights()
            journal.save(phase=number + 1, done=0, best_loss=best_loss, best=[], start=start, trained=[], optimizer=[])
    return journal.history


def _fine_tune(training: Training, phase: Phase, number: int) -> None:
    """One phase of training blocks, with gradients."""
    start = training.model.get_weights()
    with _part(training, phase) as part:
        course = Course(
            phase=phase.name,
            number=number,
            model=part.model,
            batches=part.batches,
            val=part.val,
            epochs=phase.epochs,
            learning_rate=phase.learning_rate,
            start=start,
            judged_anew=phase.name == QAT,
        )
        images, config = training.images, training.config
        if images.unlabelled is not None:
            views = UnlabelledViews(images, images.unlabelled, config, model=part.model, lower=part.lower)
            course = replace(
                course, batches=views.batches(part.batches), before_step=views.before_step, accepted=views.accepted
            )
        if config.adversarial.method != "none":
            # Those who resist attacks are wrong on more plain images: both are judged by the attacked ones.
            harden = hardening(part.model, config)
            before = course.before_step
            course = replace(
                course, judged_anew=True, before_step=lambda batch: harden(before(batch)), before_judging=harden
            )
        follow(course, images, config, journal=training.journal, progress=training.progress)
        part.write_back()


def _folds(training: Training) -> bool:
    return training.pretrained and training.config.train.batch_norm == "frozen"


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The part of the network that a phase trains.

    Attributes:
        model: from its input to the logits.
        batches, val: the images as it takes them.
        lower: what the blocks below it make of pixels.
        write_back: writes what was trained into the whole network.
    """

    model: keras.Model
    batches: Batches
    val: NDArray[Any]
    lower: Callable[[NDArray[np.uint8]], NDArray[Any]]
    write_back: Callable[[], None]


@contextlib.contextmanager
def _part(training: Training, phase: Phase) -> Iterator[_Part]:
    """What ``phase`` trains."""
    images, model = training.images, training.model
    augmenter = training.augmenter()
    if phase.name in {"all", QAT}:

        def batches(epoch: int, step: int, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.float32]]:
            chosen = images.train[rows]
            return augmenter(images.pixels[chosen], images.targets(chosen), key=(epoch, step))

        trained, write_back = _rounded(training, phase) if phase.name == QAT else _trained(training, model.input)
        val = images.pixels[images.val]
        yield _Part(model=trained, batches=batches, val=val, lower=lambda pixels: pixels, write_back=write_back)
        return
    cut = _cut(training)
    lower = fold_batch_norm(model.input, cut)
    lower.compile(**compile_options())
    views = max(1, min(training.config.augment.views, phase.epochs))
    with cached_views(
        lower, images, augmenter, views=views, scratch=training.scratch, progress=training.progress
    ) as cached:
        trained, write_back = _trained(training, cut)
        yield _Part(
            model=trained,
            batches=cached.batch,
            val=cached.val,
            lower=lambda pixels: np.asarray(lower.predict_on_batch(pixels), np.float32),
            write_back=write_back,
        )


def _trained(training: Training, inputs: Any) -> tuple[keras.Model, Callable[[], None]]:
    """The network from ``inputs`` to the logits, with BatchNorm as this training treats it, and its way back."""
    import keras

    logits = training.model.get_layer("logits").output
    if not _folds(training):
        return keras.Model(inputs, logits), lambda: None  # the layers are the network's own
    folded = fold_batch_norm(inputs, logits)
    return folded, lambda: restore_batch_norm(folded, training.model)


def _rounded(training: Training, phase: Phase) -> tuple[keras.Model, Callable[[], None]]:
    """The network from the image to the logits as int8 computes it, and its way back."""
    images, config = training.images, training.config
    steps = phase.epochs * steps_per_epoch(images, config.train)
    # The last of three parts learns with the ranges that it is judged by.
    network = rounded_network(
        training.model, images, moving_steps=steps * 2 // 3, seed=config.seed, progress=training.progress
    )
    return network.model, lambda: write_back(network, training.model)


def _cut(training: Training) -> Any:
    """Where the frozen blocks end."""
    lowest = training.config.train.fine_tune_from
    if lowest == HEAD:
        return training.model.get_layer("features").output
    return registry.block_below(training.model, training.config.backbone, lowest)


def _probe(training: Training, phase: Phase) -> EpochRecord:
    """Fit the head alone, on the raw features of the plain images, which are computed once.

    Raw, not standardized: standardizing gives weak features large weights, and int8 then drowns the classes in the
    rounding of features that hardly vary. Weight decay and dropout keep the head small for the same reason.
    """
    import keras

    begin = time.perf_counter()
    images, config, model = training.images, training.config, training.model
    pooled = fold_batch_norm(model.input, model.get_layer("features").output)
    pooled.compile(**compile_options())
    parts = [
        (
            _features(pooled, images.pixels, rows, training.progress),
            targets,
            judging_weights(images, rows, config.train),
        )
        for rows, targets in (
            (images.train, images.targets(images.train)),
            (images.val, images.judging_targets(images.val)),
        )
    ]
    head = keras.Model(model.get_layer("features").output, model.get_layer("logits").output)
    steps = _PROBE_PASSES * -(-len(images.train) // _PROBE_BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(phase.learning_rate, steps)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=_PROBE_WEIGHT_DECAY)
    compile_classifier(head, optimizer, config)
    loss, accuracy, val_loss, val_accuracy = fit_quickly(
        head, parts[0], parts[1], passes=_PROBE_PASSES, batch_size=_PROBE_BATCH, seed=config.seed
    )
    return EpochRecord(
        phase=phase.name,
        epoch=1,
        loss=loss,
        accuracy=accuracy,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        learning_rate=phase.learning_rate,
        seconds=time.perf_counter() - begin,
        waiting=0.0,
    )


def _features(
    pooled: keras.Model, pixels: NDArray[np.uint8], rows: NDArray[np.int64], progress: Progress
) -> NDArray[np.float32]:
    """Return the features, float32 (len(rows), width), of ``pixels[rows]``."""
    starts = range(0, len(rows), _PREDICT_BATCH)
    return np.concatenate(
        [
            np.asarray(pooled.predict_on_batch(pixels[rows[at : at + _PREDICT_BATCH]]), np.float32)
            for at in progress(starts, "computing features", len(starts))
        ]
    )
