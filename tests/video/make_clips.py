"""Clips that grow brighter or darker: no single frame tells which, for both show the same frames in another order."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

LABELS = ("brighter", "darker")
RATES = (12, 15, 24, 30)


def write_video(path: Path, frames: list[np.ndarray], rate: float) -> Path:
    """Motion JPEG in .avi; the frames are uint8 (H, W, 3) of one size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def ramp(rate: float, seconds: float, *, label: str, draw: np.random.Generator) -> list[np.ndarray]:
    """Frames whose grey goes up or down by some 100 levels a second."""
    low, count = int(draw.integers(20, 80)), round(rate * seconds)
    levels = [low + 100 * index / rate for index in range(count)]
    width = int(draw.choice((24, 32, 40)))
    frames = [np.full((24, width, 3), level, np.float32) + draw.normal(0, 3, (24, width, 3)) for level in levels]
    ordered = frames if label == "brighter" else frames[::-1]
    return [np.clip(frame, 0, 255).astype(np.uint8) for frame in ordered]


def write_clips(folder: Path, *, each: int = 40) -> Path:
    """``each`` clips of every class, of several sizes and rates."""
    for label in LABELS:
        for number in range(each):
            draw = np.random.default_rng(number)
            rate = RATES[number % len(RATES)]
            write_video(folder / label / f"{number:02}.avi", ramp(rate, 1.0, label=label, draw=draw), rate)
    return folder


SETTINGS = (
    "backbone=cnn_lstm",
    "image_size=8",
    "channels=grey",
    "clip.window=4",
    "clip.stride=2",
    "model.filters=2",
    "model.dropout=0.0",
    "model.frame_units=8",
    "model.lstm_units=8",
    "train.batch_size=8",
    "train.epochs=30",
    "train.learning_rate=1e-2",
    "augment.brightness=0.0",
    "augment.contrast=0.0",
    "augment.shift=0.0",
    "split.near_duplicates=false",
)
"""A training of a few seconds that tells the two apart."""
