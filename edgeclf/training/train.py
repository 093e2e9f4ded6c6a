"""Training as a function: a configuration becomes a run folder, whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from edgeclf.data import cache
from edgeclf.data.clips import one_frame
from edgeclf.data.dataset import Dataset
from edgeclf.data.duplicates import near_duplicates
from edgeclf.data.report import describe
from edgeclf.data.splits import leaks, require_shares, split
from edgeclf.evaluation.confidence import expected_calibration_error, fit_temperature, reject_threshold
from edgeclf.models import registry
from edgeclf.models.architecture import Architecture
from edgeclf.report.pictures import Pictures, take_pictures, write_pictures
from edgeclf.training.augment import require_alike, require_colours
from edgeclf.training.backend import compile_options, dtype_policy, precision, require_keras, seed_everything
from edgeclf.training.config import ConfidenceConfig, TrainConfig, to_toml
from edgeclf.training.further import Further, gather, named_teacher, require_further, with_further
from edgeclf.training.images import TrainingImages
from edgeclf.training.journal import Journal, kept_if_useful, open_journal, require_none, require_one
from edgeclf.training.loop import one_per_class
from edgeclf.training.outcome import Outcome, data_digest, write_outcome
from edgeclf.training.phases import EVERY, HEAD, Training, fit, is_pretrained, plan
from edgeclf.training.run import Run, read_run
from edgeclf_device.atomic import atomic_folder, require_empty
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import Progress, no_progress

if TYPE_CHECKING:
    import keras

_PREDICT_BATCH = 32


def resolve(config: TrainConfig) -> TrainConfig:
    """Fill in what ``config`` leaves open, make ``data`` absolute, and refuse what can be refused before any work.

    Raises:
        UsageError: unknown backbone, weights or block, images that the backbone can't take, no data named, or attacks
            in a training without gradients at the images.
        DependencyError: the package with the weights is not installed.
    """
    if not config.data:
        raise UsageError("The configuration must name the data: a folder of images or a listing.")
    chosen = registry.backbone(config.backbone)
    data = Path(config.data).expanduser().absolute()
    chosen.fits(config.image_size, config.model)
    _require_kind(config, video=chosen.video)
    require_colours(config.augment, channels=config.spec.shape[-1])
    registry.require_weights(config.backbone, config.weights)
    train = config.train
    if not is_pretrained(config):
        train = dataclasses.replace(train, fine_tune_from=EVERY)
    elif train.fine_tune_from not in (HEAD, EVERY, *chosen.blocks):
        raise UsageError(
            f"train.fine_tune_from must be {HEAD}, {EVERY} or one of {', '.join(chosen.blocks)}, but it is "
            f"{train.fine_tune_from!r}."
        )
    elif train.fine_tune_from == next(iter(chosen.blocks)):
        train = dataclasses.replace(train, fine_tune_from=EVERY)
    resolved = dataclasses.replace(
        require_further(config),
        name=config.name or (data.stem if data.is_file() else data.name),
        data=str(data),
        train=train,
    )
    require_shares(config.split.fractions)
    _require_gradients(resolved)
    return resolved


def _require_gradients(config: TrainConfig) -> None:
    """Refuse attacks where the training, or a phase of it, sees no images to attack."""
    phases = [phase.name for phase in plan(config)]
    begin = f"adversarial.method={config.adversarial.method} attacks images, but "
    if config.adversarial.method != "none" and "upper" in phases:
        raise UsageError(
            f"{begin}the phase upper is trained on what the frozen blocks made of them; set train.fine_tune_from=all."
        )
    if config.adversarial.method != "none" and phases == ["probe"]:
        raise UsageError(f"{begin}one epoch is the linear probe alone; give train.epochs of at least 2.")


def _require_kind(config: TrainConfig, *, video: bool) -> None:
    """Check that a network for clips is asked for clips, and for what can be done to them, and no other network."""
    if video != (config.clip.window > 1):
        wanted = "at least 2" if video else "1 for a network that sees single images"
        raise UsageError(
            f"clip.window must be {wanted}, but {config.backbone} was given {config.clip.window}; "
            "networks for clips are cnn_lstm alone."
        )
    if not video:
        return
    require_alike(config.augment)
    if config.train.qat:
        raise UsageError(
            f"train.qat rounds the layers of image networks, not the products inside the LSTM of {config.backbone}; "
            "leave --qat out."
        )
    for key, is_on in (
        ("adversarial.method", config.adversarial.method != "none"),
        ("semi.unlabeled", bool(config.semi.unlabeled)),
        ("distill.teacher", bool(config.distill.teacher)),
    ):
        if is_on:
            raise UsageError(f"{key} is for networks of single images, but {config.backbone} sees clips; leave it out.")


def _say_nothing(_line: str) -> None:
    """What ``train`` tells nobody."""


def train(
    config: TrainConfig,
    *,
    out: Path,
    strict: bool = False,
    resume: bool = False,
    tell: Callable[[str], object] = _say_nothing,
    progress: Progress = no_progress,
) -> Run:
    """Train a classifier on the images at ``config.data`` and write the run folder ``out``.

    ``out`` is new or empty and appears whole at the end. From the first epoch on, ``OUT.unfinished`` beside it holds a
    checkpoint; ``resume`` goes on from there, and takes a run that was finished meanwhile as it is. ``strict`` refuses
    unreadable images instead of leaving them out. ``tell`` is given what there is to say of the data, a line at a time,
    before the training begins.

    Raises:
        UsageError: a bad configuration, ``out`` is not empty, an unfinished training is in the way, or there is none.
        DataError: see ``edgeclf.data.cache.load`` and ``edgeclf.data.splits.split``.
        ModelError: the checkpoint or a file of weights is damaged.
        DependencyError: Keras, its backend or the package with the weights is not installed.
        SystemStateError: the disk is full or can't be written.
    """
    config = resolve(config)
    if resume and (out / "metrics.json").exists():
        return _finished(out, config)
    require_keras()
    require_empty(out)
    (require_one if resume else require_none)(out)
    with kept_if_useful(out), atomic_folder(out) as folder:
        journal = _write_run(folder, config, out, strict=strict, resume=resume, tell=tell, progress=progress)
    journal.remove()
    return read_run(out)


def _finished(out: Path, config: TrainConfig) -> Run:
    """The run in ``out``, which is what this configuration makes."""
    run = read_run(out)
    if run.config != config:
        raise UsageError(
            f"{out} is a finished run of another configuration, so there is nothing to resume; name another folder "
            "with --out, or repeat the command that it was made with."
        )
    return run


def _write_run(
    folder: Path,
    config: TrainConfig,
    out: Path,
    *,
    strict: bool,
    resume: bool,
    tell: Callable[[str], object],
    progress: Progress,
) -> Journal:
    clock = [time.perf_counter()]
    teacher = named_teacher(config)
    dataset, pixels = cache.load(Path(config.data), config.spec, strict=strict, progress=progress)
    near = near_duplicates(one_frame(pixels), progress=progress) if config.split.near_duplicates else []
    parts = split(dataset, seed=config.seed, fractions=config.split.fractions, near=near)
    data = describe(dataset, parts, config.spec, near=near, leaks=leaks(dataset, parts, near))
    further = gather(config, teacher, dataset, parts, strict=strict, progress=progress)
    for line in [*data.lines(), *further.lines()]:
        tell(line)
    clock.append(time.perf_counter())
    journal = open_journal(out, _identity(config, dataset, parts, further), resume=resume)
    images = with_further(_images(dataset, pixels, parts), further, dataset, config, progress=progress)
    model = _fitted(config, images, journal, scratch=folder, progress=progress)
    clock.append(time.perf_counter())
    judged = np.flatnonzero(np.isin(parts, ("val", "test")))
    logits = predict(model, pixels, judged, layer="logits", progress=progress)
    labels = np.array([item.label for item in dataset.items], np.int64)[judged]
    confidence, scores = calibrate(
        model, logits, labels, val=np.equal(np.array(parts)[judged], "val"), config=config.confidence
    )
    clock.append(time.perf_counter())
    outcome = Outcome(
        dataset=dataset,
        parts=parts,
        model=model,
        history=journal.history,
        scores=scores,
        confidence=confidence,
        data=data,
        further=further.to_json(),
        timings_s=dict(zip(("data", "fit", "predict"), np.diff(clock).tolist(), strict=True)),
    )
    write_outcome(folder, config, outcome)
    write_pictures(folder, _pictures(outcome, pixels, config))
    journal.finish(folder)
    return journal


def _pictures(outcome: Outcome, pixels: NDArray[np.uint8], config: TrainConfig) -> Pictures:
    """What the report shows of the images that judge."""
    judged = outcome.rows("test" if "test" in outcome.parts else "val")
    return take_pictures(
        outcome.model,
        pixels,
        labels=outcome.labels,
        train=outcome.rows("train"),
        judged=judged,
        scores=outcome.scores[np.isin(outcome.rows("val", "test"), judged)],
        config=config,
    )


def _identity(config: TrainConfig, dataset: Dataset, parts: Sequence[str], further: Further) -> str:
    """Of everything that decides the weights, wherever the images and the teacher lie."""
    choices = dataclasses.replace(
        config,
        data="",
        name="",
        semi=dataclasses.replace(config.semi, unlabeled=further.unlabelled.digest if further.unlabelled else ""),
        distill=dataclasses.replace(config.distill, teacher=further.teacher.digest if further.teacher else ""),
    )
    return hashlib.sha256(f"{to_toml(choices)}{data_digest(dataset, parts)}".encode()).hexdigest()


def _images(dataset: Dataset, pixels: NDArray[np.uint8], parts: Sequence[str]) -> TrainingImages:
    return TrainingImages(
        pixels=pixels,
        labels=np.array([item.label for item in dataset.items], np.int64),
        weights=np.array([item.weight for item in dataset.items], np.float32),
        train=np.flatnonzero(np.equal(parts, "train")),
        val=np.flatnonzero(np.equal(parts, "val")),
        classes=len(dataset.labels),
    )


def _fitted(
    config: TrainConfig, images: TrainingImages, journal: Journal, *, scratch: Path, progress: Progress
) -> keras.Model:
    """Build the network, train it, and return it in float32."""
    seed_everything(config.seed, deterministic=config.train.deterministic)
    architecture = Architecture(
        image_size=config.image_size,
        channels=images.shape[-1],
        classes=images.classes,
        window=config.clip.window,
        options=config.model,
    )
    policy = precision(config.train.precision)
    with dtype_policy(policy):
        model = registry.build(config.backbone, architecture, weights=config.weights)
        fit(Training(model=model, images=images, config=config, journal=journal, scratch=scratch, progress=progress))
    if policy == "float32":
        return model
    with dtype_policy("float32"):
        exact = registry.build(config.backbone, architecture, weights="none")
    exact.set_weights(model.get_weights())
    return exact


def calibrate(
    model: keras.Model,
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    val: NDArray[np.bool_],
    config: ConfidenceConfig,
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Fold the temperature that suits the ``val`` rows into the logits layer of ``model``, and choose the threshold.

    Returns:
        what metrics.json says of it, and the scores that the model then gives, float32 (N, classes).
    """
    import keras

    layer = model.get_layer("logits")
    pair = one_per_class(logits)
    temperature = 1.0
    if config.temperature and isinstance(layer, keras.layers.Dense):
        temperature = fit_temperature(pair[val], labels[val])
        layer.set_weights([value / np.float32(temperature) for value in layer.get_weights()])
    plain, scores = softmax(pair, axis=1), softmax(pair / np.float32(temperature), axis=1).astype(np.float32)
    return {
        "temperature": temperature,
        "val_ece_before": expected_calibration_error(labels[val], plain[val]),
        "val_ece_after": expected_calibration_error(labels[val], scores[val]),
        "reject": reject_threshold(labels[val], scores[val], config.accept_accuracy)
        if config.accept_accuracy
        else None,
    }, scores


def predict(
    model: keras.Model,
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    layer: str = "",
    progress: Progress = no_progress,
) -> NDArray[np.float32]:
    """Return what ``model`` makes of ``pixels[rows]``, uint8 (N, H, W, C): its scores, or the output of ``layer``.

    float32 (len(rows), classes), or as wide as the layer.
    """
    return predictor(model, layer=layer)(pixels, rows, progress)


def predictor(
    model: keras.Model, *, layer: str = ""
) -> Callable[[NDArray[np.uint8], NDArray[np.int64], Progress], NDArray[np.float32]]:
    """``predict`` of ``model`` for many calls: it is compiled once."""
    import keras

    same = keras.Model(model.input, model.get_layer(layer).output if layer else model.output)
    same.compile(**compile_options())

    def run(pixels: NDArray[np.uint8], rows: NDArray[np.int64], progress: Progress) -> NDArray[np.float32]:
        starts = range(0, len(rows), _PREDICT_BATCH)
        batches = [
            np.asarray(same.predict_on_batch(pixels[rows[start : start + _PREDICT_BATCH]]), np.float32)
            for start in progress(starts, "predicting", len(starts))
        ]
        return np.concatenate(batches)

    return run
