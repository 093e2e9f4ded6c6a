"""The training's input beside ``keras.utils.image_dataset_from_directory`` on the same files, interleaved.

Four questions: how fast cached images come, plain and augmented; how fast the cache is built beside bare decoding is
asked by ``pixel_cache.py``; which share of a training step on this CPU waits for input; what an epoch on a frozen
backbone costs beside one forward pass. Absolute rates depend on the machine; the paired ratios are what holds.
Run: ``.venv/bin/python benchmarks/training.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from datasets import photos, solar
from record import RESULTS, write_record

from edgeclf.data import cache
from edgeclf.training.augment import Augmenter
from edgeclf.training.config import AugmentConfig, load_config
from edgeclf.training.images import TrainingImages
from edgeclf.training.loop import _Prefetched, _shuffled
from edgeclf.training.run import read_history
from edgeclf.training.train import train

BATCH = 32
ALTERNATIONS = 5
AUGMENT = AugmentConfig(rotation=10, zoom=0.1)
MIN_RATIO = {"plain": 3.0, "augmented": 1.0}
MAX_WAITING = 0.05
MAX_FROZEN_EPOCH = 0.05


def training_images(folder: Path, size: int) -> TrainingImages:
    """The images of ``folder`` from the cache, all of them to train on."""
    spec = replace(load_config(), image_size=size).spec
    dataset, pixels = cache.load(folder, spec)
    labels = np.array([item.label for item in dataset.items])
    rows = np.arange(len(labels))
    weights = np.ones(len(labels), np.float32)
    return TrainingImages(
        pixels=pixels, labels=labels, weights=weights, train=rows, val=rows[:0], classes=len(dataset.labels)
    )


def ours(images: TrainingImages, augmenter: Augmenter | None, epoch: int) -> Iterable[Any]:
    """The batches of one epoch as the training makes them."""
    steps = -(-len(images.train) // BATCH)
    config = load_config(None, [f"train.batch_size={BATCH}"])

    def batch(step: int, rows: Any) -> Any:
        pixels, targets = images.pixels[rows], images.one_hot(rows)
        return (*(augmenter(pixels, targets, key=(epoch, step)) if augmenter else (pixels, targets)), None)

    return _Prefetched(enumerate(_shuffled(images, steps, config, epoch)), batch)


def theirs(folder: Path, size: int, *, augmented: bool) -> Iterable[Any]:
    """The batches of ``image_dataset_from_directory``, with the same stock layers where ``augmented``."""
    data = keras.utils.image_dataset_from_directory(
        folder, image_size=(size, size), batch_size=BATCH, shuffle=True, seed=0, label_mode="categorical", verbose=False
    )
    if not augmented:
        return data
    import tensorflow as tf

    layers = keras.layers
    chain = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(AUGMENT.rotation / 360, fill_mode="nearest"),
            layers.RandomTranslation(AUGMENT.shift, AUGMENT.shift, fill_mode="nearest"),
            layers.RandomZoom(AUGMENT.zoom, fill_mode="nearest"),
            layers.RandomBrightness(AUGMENT.brightness),
            layers.RandomContrast(AUGMENT.contrast),
        ]
    )
    changed = data.map(lambda x, y: (chain(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    return changed.prefetch(tf.data.AUTOTUNE)


def images_per_s(batches: Iterable[Any]) -> float:
    """How fast ``batches`` come when nothing else is done."""
    begin = time.perf_counter()
    count = sum(len(batch[0]) for batch in batches)
    return count / (time.perf_counter() - begin)


def compare(name: str, folder: Path, size: int, *, augmented: bool) -> dict[str, Any]:
    """Median rates and the median of the paired ratios."""
    images = training_images(folder, size)
    augmenter = Augmenter(AUGMENT, shape=images.shape, classes=images.classes, seed=0) if augmented else None
    data = theirs(folder, size, augmented=augmented)

    def mine(epoch: int) -> float:
        return images_per_s(ours(images, augmenter, epoch))

    mine(0)
    images_per_s(data)
    pairs = [(mine(epoch), images_per_s(data)) for epoch in range(1, 1 + ALTERNATIONS)]
    kind = "augmented" if augmented else "plain"
    ratio = statistics.median(a / b for a, b in pairs)
    return {
        "images": name,
        "kind": kind,
        "count": len(images.train),
        "size": size,
        "edgeclf_per_s": statistics.median(a for a, _ in pairs),
        "keras_per_s": statistics.median(b for _, b in pairs),
        "ratio": ratio,
        "kept": ratio >= MIN_RATIO[kind],
    }


def waiting(folder: Path, work: Path) -> dict[str, Any]:
    """The share of an epoch that training every block waits for augmented input; and of upper blocks for cached."""
    shares = {}
    for name, overrides in {"all": ["train.fine_tune_from=all"], "upper": []}.items():
        chosen = [f"data={json.dumps(str(folder))}", "image_size=160", "train.epochs=3", *overrides]
        history = read_history(train(load_config(None, chosen), out=work / name))
        shares[name] = max(row["waiting"] for row in history if row["phase"] == name)
    return {"shares": shares, "kept": max(shares.values()) < MAX_WAITING}


def frozen(folder: Path, work: Path) -> dict[str, Any]:
    """An epoch of the head on cached features beside one forward pass over the same images."""
    seen: dict[str, float] = {}

    def clock(items: Iterable[Any], description: str, _total: int | None = None) -> Iterable[Any]:
        begin = time.perf_counter()
        yield from items
        seen.setdefault(description, time.perf_counter() - begin)

    chosen = [f"data={json.dumps(str(folder))}", "image_size=160", "train.epochs=6", "train.fine_tune_from=head"]
    run = train(load_config(None, [*chosen, "augment.views=1"]), out=work / "head", progress=clock)
    epochs = [row["seconds"] for row in read_history(run) if row["phase"] == "upper"][1:]
    pass_s, epoch_s = seen["computing features"], statistics.median(epochs)
    return {
        "forward_pass_s": pass_s,
        "epoch_s": epoch_s,
        "share": epoch_s / pass_s,
        "kept": epoch_s / pass_s <= MAX_FROZEN_EPOCH,
    }


def main() -> None:
    """Print the figures, write the record, and fail where a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "training.json")
    arguments = parser.parse_args()
    cells = solar().parent / "images"
    rows = []
    for name, folder, size in (("300x300 PNG", cells, 224), ("12-megapixel JPEG", photos(), 224)):
        for augmented in (False, True):
            rows.append(compare(name, folder, size, augmented=augmented))
            row = rows[-1]
            print(
                f"{name:18} {row['kind']:10} edgeclf {row['edgeclf_per_s']:7.0f} images/s, keras "
                f"{row['keras_per_s']:6.0f}, ratio {row['ratio']:.2f}: {'kept' if row['kept'] else 'NOT KEPT'}",
                flush=True,
            )
    with tempfile.TemporaryDirectory() as work:
        wait, cold = waiting(cells, Path(work)), frozen(cells, Path(work))
    print(f"waiting for input: {wait}\nfrozen backbone: {cold}")
    write_record(arguments.json, alternations=ALTERNATIONS, input=rows, waiting=wait, frozen_epoch=cold)
    if not all(one["kept"] for one in (*rows, wait, cold)):
        sys.exit("A bound was not kept; see above.")


if __name__ == "__main__":
    main()
