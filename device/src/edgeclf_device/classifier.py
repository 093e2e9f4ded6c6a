"""Classify frames: open an artifact, then prepare, infer and decide for each frame, each stage timed apart."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.artifact import Artifact, read_artifact
from edgeclf_device.choice import choose, default_threads
from edgeclf_device.engines import Engine, open_engine
from edgeclf_device.errors import ModelError, UsageError
from edgeclf_device.manifest import Manifest, Tensor
from edgeclf_device.preprocess import Color, Image, prepare
from edgeclf_device.quantization import Quantization, dequantize

PLAIN_PIXELS = (None, Quantization(scale=1.0, zero_point=0))
"""Quantizations of an input that takes the values 0 to 255 as they are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What a classifier says of one frame.

    Attributes:
        label: of the highest score; of equal scores the first in the order of the labels.
        score: of that label.
        accepted: whether ``score`` is at least the model's reject threshold; True where it has none.
        scores: float32 (classes,) in the order of ``labels``, dequantized where the model's output is quantized.
        labels: of the classifier.
        timing_ns: nanoseconds spent in ``prepare``, ``infer`` and ``decide``.
    """

    label: str
    score: float
    accepted: bool
    scores: NDArray[np.float32]
    labels: tuple[str, ...] = field(repr=False)
    timing_ns: dict[str, int]

    @property
    def timing_ms(self) -> dict[str, float]:
        """Milliseconds spent in ``prepare``, ``infer`` and ``decide``."""
        return {stage: spent / 1e6 for stage, spent in self.timing_ns.items()}

    def top(self, k: int) -> list[tuple[str, float]]:
        """The ``k`` highest scores with their labels, the highest first; fewer where there are fewer labels.

        Raises:
            UsageError: ``k`` is less than 1.
        """
        if k < 1:
            raise UsageError(f"top(k) needs a k of at least 1, but it is {k}.")
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [(self.labels[index], float(self.scores[index])) for index in order]


class Classifier:
    """An opened artifact. A context manager, called with a frame.

    Calls from several threads are served one after the other: a lock serializes them, because engines serve one
    caller at a time. For parallel work open one classifier for each thread.

    Attributes:
        path: of the artifact that was opened.
        artifact: its manifest and model digest.
        engine: the loaded engine, with its name and version.
        threads: the number the engine may compute with.
    """

    def __init__(self, path: Path, artifact: Artifact, engine: Engine, threads: int) -> None:
        check_engine(artifact.manifest, engine)
        # Imports OpenCV, where it is installed: 0.2 s that the first frame must not pay for.
        prepare(np.zeros((1, 1), np.uint8), artifact.manifest.preprocessing)
        self.path = path
        self.artifact = artifact
        self.engine = engine
        self.threads = threads
        self._open = True
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str | Path, *, engine: str | None = None, threads: int | None = None) -> Classifier:
        """Open an artifact, or the best artifact of a bundle by the rule of ``choice.choose``.

        Args:
            path: a .tflite or .onnx artifact, or a bundle folder.
            engine: its name; None takes the preferred one that is installed.
            threads: how many it may compute with; None takes ``choice.default_threads()``.

        Raises:
            ModelError: the artifact or bundle is missing, damaged, of a newer format, or at odds with its engine.
            DependencyError: no engine that executes it is installed.
            UsageError: an unknown engine, one of another container, or fewer than one thread.
        """
        choice = choose(Path(path), engine=engine)
        artifact = read_artifact(choice.path)
        count = default_threads() if threads is None else threads
        loaded = open_engine(artifact.model, artifact.manifest.container, engine=choice.engine, threads=count)
        try:
            return cls(choice.path, artifact, loaded, count)
        except ModelError as error:
            loaded.close()
            raise ModelError(f"{choice.path}: {error}") from error

    @property
    def manifest(self) -> Manifest:
        """The artifact's manifest."""
        return self.artifact.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the scores."""
        return self.artifact.manifest.labels

    def __call__(self, frame: Image, *, color: Color = "rgb") -> Result:
        """Classify one frame.

        Args:
            frame: uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of any size and strides; never written to.
            color: order of its channels; ``bgr`` for frames from OpenCV.

        Raises:
            DataError: ``frame`` is not such an array.
            UsageError: the classifier is closed, or ``color`` is unknown.
        """
        tensor = self.manifest.inputs[0]
        with self._lock:
            if not self._open:
                raise UsageError("This classifier is closed; open it again with Classifier.open.")
            begin = perf_counter_ns()
            batch = as_batch(prepare(frame, self.manifest.preprocessing, color=color), tensor)
            prepared = perf_counter_ns()
            output = self.engine.run(batch)
            inferred = perf_counter_ns()
        scores, best = decide(output, self.manifest.outputs[0])
        score = float(scores[best])
        decided = perf_counter_ns()
        return Result(
            label=self.labels[best],
            score=score,
            accepted=accepts(score, self.manifest),
            scores=scores,
            labels=self.labels,
            timing_ns={"prepare": prepared - begin, "infer": inferred - prepared, "decide": decided - inferred},
        )

    def close(self) -> None:
        """Give the engine's memory back. Closing twice does no harm; a call in another thread is waited for."""
        with self._lock:
            if self._open:
                self._open = False
                self.engine.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def as_batch(prepared: Image, tensor: Tensor) -> NDArray[Any]:
    """Prepared uint8 (height, width, channels) as the engine takes it: (1, height, width, channels) of its dtype."""
    batch = prepared[np.newaxis]
    return batch if tensor.dtype == "uint8" else batch.astype(tensor.dtype)


def scores_of(output: NDArray[Any], tensor: Tensor) -> NDArray[np.float32]:
    """The model's output (1, classes) as float32 scores (classes,), dequantized by the manifest's numbers."""
    row = output.reshape(-1)
    return row.astype(np.float32) if tensor.quantization is None else dequantize(row, tensor.quantization)


def decide(output: NDArray[Any], tensor: Tensor) -> tuple[NDArray[np.float32], int]:
    """(float32 scores (classes,), index of the highest; the first of equal ones)."""
    scores = scores_of(output, tensor)
    return scores, int(scores.argmax())


def accepts(score: float, manifest: Manifest) -> bool:
    """Whether a label of this score is to be believed: always where the manifest names no threshold."""
    return manifest.reject_below is None or score >= manifest.reject_below


def check_engine(manifest: Manifest, engine: Engine) -> None:
    """Check that the engine sees the tensors that the manifest describes, and that this runtime can feed them.

    Raises:
        ModelError: a dtype or shape differs, or the input is not single frames of plain pixels.
    """
    (tensor,), (output,) = manifest.inputs, manifest.outputs
    _check_same("input", tensor, engine.input_dtype, engine.input_shape)
    _check_same("output", output, engine.output_dtype, engine.output_shape)
    if tensor.layout != "NHWC" or tensor.window != 1:
        raise ModelError(
            f"This edgeclf-device feeds single NHWC frames, but the model takes {tensor.layout} with a window of "
            f"{tensor.window}; upgrade edgeclf-device."
        )
    if tensor.dtype not in ("uint8", "float32") or tensor.quantization not in PLAIN_PIXELS:
        raise ModelError(
            f"An input must take the pixels 0 to 255 as uint8 or float32, but it is {tensor.dtype} "
            f"with {tensor.quantization}; export the model again."
        )


def _check_same(what: str, tensor: Tensor, dtype: str, shape: tuple[int, ...]) -> None:
    if (tensor.dtype, tensor.shape) != (dtype, shape):
        raise ModelError(
            f"The manifest's {what} is {tensor.dtype} {tensor.shape}, but the engine sees {dtype} {shape}; "
            "the manifest is not this model's: export it again."
        )
