"""What the exporter asks of its child process, and what the child answers: one JSON object on each line.

The child is the only one that imports TensorFlow; parent and child share nothing but a folder and these lines.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeclf.exporting.convention import Convention, Kind
from edgeclf_device.errors import (
    DataError,
    DependencyError,
    EdgeclfError,
    GateError,
    ModelError,
    SystemStateError,
    UsageError,
)

_ERRORS: dict[str, type[EdgeclfError]] = {
    kind.__name__: kind for kind in (UsageError, DataError, ModelError, DependencyError, SystemStateError, GateError)
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """The conversions of one model.

    Attributes:
        keras_model: path of the ``.keras`` file, or of what else ``kind`` says.
        kind: what it is.
        convention: what a model that was trained elsewhere takes and gives; None: the model of a run, which takes
            uint8 pixels and gives probabilities.
        folder: where each conversion is written, as ``<conversion>.bin``.
        shape: of what the model sees: (height, width, channels), of a video model (window, height, width, channels).
        classes: number of labels, which the model's output must have.
        conversions: names of ``convert.CONVERTERS``, in the order wanted.
        calibration: path of a ``.npy`` file with uint8 (N, height, width, channels), for static int8.
        probe: path of a ``.npy`` file with uint8 (M, height, width, channels), to run through the model before it is
            converted, to see that it is the one that was trained.
        judging: path of such a file with images whose scores by the model are wanted, each as it is done.
        golden_seeds: golden inputs to run through the model.
    """

    keras_model: str
    kind: Kind = "keras"
    convention: Convention | None = None
    folder: str
    shape: tuple[int, ...]
    classes: int
    conversions: tuple[str, ...]
    calibration: str | None
    probe: str | None
    judging: str | None = None
    golden_seeds: tuple[int, ...]

    @staticmethod
    def path_of(folder: Path, conversion: str) -> Path:
        """Where in the job's folder the child writes ``conversion``."""
        return folder / f"{conversion}.bin"

    def to_json(self) -> str:
        """The job file's text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read a job file."""
        fields = json.loads(text)
        for name in ("shape", "conversions", "golden_seeds"):
            fields[name] = tuple(fields[name])
        given = fields.pop("convention")
        if given is not None:
            given |= {name: tuple(given[name]) for name in ("scale", "offset")}
        return cls(convention=None if given is None else Convention(**given), **fields)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What the child says once it has loaded the model.

    Attributes:
        golden: the model's scores for the golden input of each seed.
        probe: the model's scores for each probe image; empty where there was none.
    """

    golden: list[list[float]]
    probe: list[list[float]]


def error_line(error: EdgeclfError) -> dict[str, Any]:
    """The line that carries ``error`` from the child to the parent."""
    return {"error": type(error).__name__, "message": str(error)}


def error_of(line: dict[str, Any]) -> EdgeclfError | None:
    """The error that ``line`` carries, if it carries one."""
    kind = _ERRORS.get(str(line.get("error")))
    return None if kind is None else kind(str(line["message"]))
