"""python make_run.py FOLDER SIZE: writes FOLDER/images and FOLDER/run, as ``edgeclf train`` would, in seconds."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}

import keras

from edgeclf.data import cache
from edgeclf.data.report import describe
from edgeclf.data.splits import split
from edgeclf.training.config import SplitConfig, TrainConfig
from edgeclf.training.journal import EpochRecord
from edgeclf.training.outcome import Outcome, write_outcome

LABELS = ("Fläche", "gerändert")


def draw(label: int, rng: np.random.Generator) -> np.ndarray:
    image = rng.integers(60, 196, (40, 44, 3)).astype(np.uint8)
    if label:
        image[::4] //= 4
    return image


def write_images(folder: Path) -> None:
    import cv2

    rng = np.random.default_rng(0)
    for label, name in enumerate(LABELS):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            _, data = cv2.imencode(".png", draw(label, rng))
            data.tofile(folder / name / f"ü{number:02}.png")


def network(size: int) -> keras.Model:
    layers = keras.layers
    image = keras.Input((size, size, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 128, offset=-127 / 128)(image)
    for width in (8, 16):
        x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(epsilon=1e-3)(x)
        x = layers.ReLU(max_value=6.0)(x)
    y = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.ReLU(max_value=6.0)(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    scores = layers.Softmax(name="scores")(layers.Dense(len(LABELS))(x))
    return keras.Model(image, scores)


def main(folder: Path, size: int) -> None:
    write_images(folder / "images")
    config = TrainConfig(
        name="klein", data=str(folder / "images"), image_size=size, split=SplitConfig(train=0.5, val=0.2, test=0.3)
    )
    dataset, pixels = cache.load(folder / "images", config.spec)
    parts = split(dataset, seed=0, fractions=config.split.fractions)
    labels = np.array([item.label for item in dataset.items])
    keras.utils.set_random_seed(0)
    model = network(size)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy")
    train = np.flatnonzero(np.equal(parts, "train"))
    model.fit(pixels[train], labels[train], epochs=12, batch_size=10, verbose=0)
    values = {field.name: 0 for field in dataclasses.fields(EpochRecord)}
    judged = np.flatnonzero(np.isin(parts, ("val", "test")))
    outcome = Outcome(
        data=describe(dataset, parts, config.spec),
        dataset=dataset,
        parts=parts,
        model=model,
        history=[EpochRecord(**values)],
        scores=model.predict(pixels[judged], verbose=0),
        confidence={},
        timings_s={},
    )
    (folder / "run").mkdir()
    write_outcome(folder / "run", config, outcome)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
