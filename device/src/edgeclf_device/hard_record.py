"""The record beside a kept frame: what the classifier said of it, as JSON in a file of the same name."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeclf_device.hard_frames import CELLS, Hard

FORMAT = (1, 0)
MAX_BYTES = 1 << 16
_TEXTS = ("time", "source", "name", "label", "measure", "artifact")
_NO_LOOK = np.zeros(CELLS * CELLS, np.uint8)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was said of a frame when it was kept.

    Attributes:
        time: when it was captured by the machine's clock, ISO 8601 in UTC; a board without a network may be years off.
        source, name, index: the source's description, the frame's name and its place there.
        label, score: the best of this frame alone; ``top`` lists the best three with their scores.
        unsure: how unsure the scores are by ``measure``, 0 to 1.
        artifact: SHA-256 of the model that said so, hexadecimal.
        look: of the frame, hexadecimal; see ``hard_frames``.
    """

    time: str
    source: str
    name: str
    index: int
    label: str
    score: float
    top: tuple[tuple[str, float], ...]
    measure: str
    unsure: float
    artifact: str
    look: str

    def to_json(self) -> dict[str, Any]:
        """The record as its file holds it."""
        top = [{"label": label, "score": score} for label, score in self.top]
        return {"format": list(FORMAT), **asdict(self), "top": top}


def record_of(image: Path) -> Path:
    """Where the record of an image file is."""
    return image.with_suffix(".json")


def read_record(image: Path) -> Record | None:
    """The record of an image file; None where there is none that this version can read."""
    try:
        with record_of(image).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        return _parsed(json.loads(data)) if len(data) <= MAX_BYTES else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def kept_frame(image: Path) -> Hard:
    """A file that was kept. One whose record is missing or damaged counts too, as the surest of all.

    Raises:
        OSError: it can't be looked at.
    """
    record, size_bytes = read_record(image), image.stat().st_size
    if record is None:
        return Hard(name=image.name, unsure=0.0, size_bytes=size_bytes, look=_NO_LOOK)
    size_bytes += record_of(image).stat().st_size
    look = np.frombuffer(bytes.fromhex(record.look), np.uint8)
    return Hard(name=image.name, unsure=record.unsure, size_bytes=size_bytes, look=look)


def _parsed(value: Any) -> Record:
    if value["format"][0] != FORMAT[0]:
        raise ValueError("another format")
    fields: dict[str, Any] = {key: _text(value[key]) for key in _TEXTS}
    fields |= {key: _number(value[key]) for key in ("score", "unsure")}
    top = tuple((_text(one["label"]), _number(one["score"])) for one in value["top"])
    return Record(**fields, index=int(value["index"]), top=top, look=_look(value["look"]))


def _look(value: Any) -> str:
    if len(bytes.fromhex(_text(value))) != CELLS * CELLS:
        raise ValueError("no look")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("no number")
    return number
