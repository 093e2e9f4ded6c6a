"""Classify frames: open an artifact, then prepare, infer and decide for each frame, each stage timed apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from time import perf_counter_ns
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.artifact import Artifact, read_artifact
from edgeclf_device.choice import choose, default_threads, engine_and_threads
from edgeclf_device.engines import NO_OPTIONS, Engine, open_engine
from edgeclf_device.errors import DataError, ModelError, UsageError
from edgeclf_device.manifest import IMAGES, VIDEO, Manifest, Tensor
from edgeclf_device.preprocess import Color, Image, prepare
from edgeclf_device.quantization import Quantization, dequantize
from edgeclf_device.ranking import Places, allowed_places, best, highest

PLAIN_PIXELS = (None, Quantization(scale=1.0, zero_point=0))
"""Quantizations of an input that takes the values 0 to 255 as they are."""

STAGES = ("prepare", "infer", "decide")

_CLOSED = "This classifier is closed; open it again with Classifier.open."


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """How a model's outputs are read: the same for all results of a classifier.

    Attributes:
        labels: in the order of the output.
        quantization: how integers in an output stand for scores; None where they are scores.
        allowed: indices of the labels that compete for ``label`` and ``top``; None where all do.
    """

    labels: tuple[str, ...]
    quantization: Quantization | None = None
    allowed: Places | None = None


@dataclass(eq=False, slots=True)  # made for each frame with cold caches: frozen=True would take 12 µs more
class Result:
    """What a classifier says of one frame. It shares no memory with other results. Not to be written to.

    Attributes:
        label: of the highest score; of equal scores the first in the order of the labels.
        score: of that label.
        accepted: whether ``score`` is at least the model's reject threshold; True where it has none.
        output: the model's numbers in the order of ``labels``, as the engine gave them: (1, classes) or (classes,).
        reading: how ``output`` is read.
        spent_ns: nanoseconds spent in ``prepare``, ``infer`` and ``decide``.
    """

    label: str
    score: float
    accepted: bool
    output: NDArray[Any] = field(repr=False)
    reading: Reading = field(repr=False)
    spent_ns: tuple[int, int, int]
    _scores: NDArray[np.float32] | None = field(default=None, init=False, repr=False)

    @property
    def scores(self) -> NDArray[np.float32]:
        """float32 (classes,) in the order of ``labels``, of all labels; calculated when first asked for."""
        if self._scores is None:
            self._scores = dequantized(self.output.reshape(-1), self.reading.quantization)
        return self._scores

    @property
    def labels(self) -> tuple[str, ...]:
        """The classifier's labels, in the order of ``scores``."""
        return self.reading.labels

    @property
    def timing_ns(self) -> dict[str, int]:
        """Nanoseconds spent in ``prepare``, ``infer`` and ``decide``."""
        return dict(zip(STAGES, self.spent_ns, strict=True))

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
        row = self.output.reshape(-1)
        places = highest(row, k, self.reading.allowed)
        scores = dequantized(row[places], self.reading.quantization)
        return [(self.labels[place], float(score)) for place, score in zip(places, scores, strict=True)]


class Classifier:
    """An opened artifact. A context manager, called with a frame.

    Calls from several threads are served one after the other: one waits for the other, because engines serve one
    caller at a time. For parallel work open one classifier for each thread.

    Attributes:
        path: of the artifact that was opened.
        artifact: its manifest and model digest.
        engine: the loaded engine, with its name and version.
        threads: the number the engine may compute with.
        clip: how a video becomes its input; None where it classifies single frames.
    """

    def __init__(
        self, path: Path, artifact: Artifact, engine: Engine, threads: int, *, allow: Sequence[str] | None = None
    ) -> None:
        manifest = artifact.manifest
        check_engine(manifest, engine)
        # Imports OpenCV, where it is installed: 0.2 s that the first frame must not pay for.
        prepare(np.zeros((1, 1), np.uint8), manifest.preprocessing)
        self.path = path
        self.artifact = artifact
        self.engine = engine
        self.threads = threads
        self.clip = manifest.clip
        self._spec, self._input = manifest.preprocessing, manifest.inputs[0]
        self._takes_bytes = manifest.inputs[0].dtype == "uint8"
        self._labels, self._reject_below = manifest.labels, manifest.reject_below
        self._quantization = manifest.outputs[0].quantization
        self._table = score_table(manifest.outputs[0])
        self._allowed = None if allow is None else allowed_places(allow, manifest.labels)
        self._reading = Reading(labels=manifest.labels, quantization=self._quantization, allowed=self._allowed)
        self._place = np.empty((), np.intp)  # where argmax writes: making a new number each time takes 7 µs
        self._open = True
        self._turn = Lock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        engine: str | None = None,
        threads: int | None = None,
        options: Mapping[str, str] = NO_OPTIONS,
        allow: Sequence[str] | None = None,
    ) -> Classifier:
        """Open an artifact, or the best artifact of a bundle by the rule of ``choice.choose``.

        Args:
            path: a .tflite or .onnx artifact, or a bundle folder.
            engine: its name; None takes the preferred one that is installed.
            threads: how many it may compute with; None takes what ``tune`` kept, else ``choice.default_threads()``.
            options: of the engine, see ``engines.OPTIONS``: ``{"delegate": "libedgetpu.so.1"}`` for litert and
                tflite-runtime, ``{"provider": "cuda"}`` for onnxruntime.
            allow: labels that compete, the others never win, whatever their scores; None: all. Scores stay as they
                are, so the model's reject threshold then asks for the same sureness of the best of these.

        Raises:
            ModelError: the artifact or bundle is missing, damaged, of a newer format, or at odds with its engine.
            DependencyError: no engine that executes it is installed, or the delegate or provider does not work here.
            UsageError: an unknown engine, one of another container, fewer than one thread, an unknown option, or a
                label in ``allow`` that the model does not have.
        """
        choice = choose(Path(path), engine=engine)
        artifact = read_artifact(choice.path)
        if options:  # what tune measured was without any
            name, count = choice.engine, default_threads() if threads is None else threads
        else:
            name, count = engine_and_threads(artifact.digest, engine=engine, threads=threads, preferred=choice.engine)
        container = artifact.manifest.container
        loaded = open_engine(artifact.content, container, engine=name, threads=count, options=options)
        try:
            return cls(choice.path, artifact, loaded, count, allow=allow)
        except ModelError as error:
            loaded.close()
            raise ModelError(f"{choice.path}: {error}") from error
        except UsageError:
            loaded.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """The artifact's manifest."""
        return self.artifact.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the scores."""
        return self.artifact.manifest.labels

    def __call__(self, frame: Image, *, color: Color = "rgb") -> Result:
        """Classify one frame, or where the model is one of video, one whole window of frames.

        Args:
            frame: uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of any size and strides; never written to. Of a video
                model uint8 (T, H, W, 3 or another): the frames that ``Stream`` would take, all prepared here.
            color: order of its channels; ``bgr`` for frames from OpenCV.

        Raises:
            DataError: ``frame`` is not such an array.
            UsageError: the classifier is closed, or ``color`` is unknown.
        """
        with self._turn:
            if not self._open:
                raise UsageError(_CLOSED)
            begin = perf_counter_ns()
            pixels = self.prepare(frame, color=color)
            return self._infer(pixels, begin)

    def prepared(self, pixels: Image, *, prepare_ns: int = 0) -> Result:
        """Classify what is prepared already: uint8 of the manifest's input without the batch, as ``Stream`` holds it.

        ``prepare_ns`` is what the preparing took.

        Raises:
            DataError: ``pixels`` is of another shape or type.
            UsageError: the classifier is closed.
        """
        expected = self.manifest.spec.shape
        if pixels.dtype != np.uint8 or pixels.shape != expected:
            raise DataError(f"Prepared pixels must be uint8 {expected}, but they are {pixels.dtype} {pixels.shape}.")
        with self._turn:
            if not self._open:
                raise UsageError(_CLOSED)
            return self._infer(pixels, perf_counter_ns() - prepare_ns)

    def prepare(self, frame: Image, *, color: Color = "rgb") -> Image:
        """The pixels that the model sees of a frame, or of the frames of a window; arguments and errors of a call."""
        if self.clip is None:
            return prepare(frame, self._spec, color=color)
        if frame.ndim not in {3, 4} or len(frame) != self.clip.window:
            raise DataError(
                f"This model sees windows of {self.clip.window} frames, uint8 (T, H, W, C), but one call was given "
                f"{frame.shape}; let edgeclf_device.Stream hold the window of a stream of frames."
            )
        return np.stack([prepare(one, self._spec, color=color) for one in frame])

    def _infer(self, pixels: Image, begin: int) -> Result:
        """The result for prepared pixels, whose preparing began at ``begin``, in the caller's turn."""
        batch = pixels[None] if self._takes_bytes else as_batch(pixels, self._input)
        prepared = perf_counter_ns()
        output = self.engine.run(batch)
        inferred = perf_counter_ns()
        return self._result(output, prepared - begin, inferred - prepared, inferred)

    def many(self, frames: Iterable[Image], *, color: Color = "rgb") -> list[Result]:
        """Classify several frames: in one call of the engine where the model's batch is open, else one by one.

        A batch is open in an .onnx artifact that was exported with a dynamic batch. One call is faster on a GPU, and
        on a CPU seldom; all prepared frames are then in memory at once, and each result's ``infer`` is its share of the
        call.

        Args:
            frames: each as for a single call; their sizes may differ.
            color: order of their channels.

        Returns:
            One result for each frame, in their order.

        Raises:
            as a single call.
        """
        if not self.engine.open_batch:
            return [self(frame, color=color) for frame in frames]
        given = list(frames)  # before the turn is taken: a generator may classify too
        batches, spent = [], []
        with self._turn:
            if not self._open:
                raise UsageError(_CLOSED)
            for frame in given:
                begin = perf_counter_ns()
                batches.append(as_batch(self.prepare(frame, color=color), self._input))
                spent.append(perf_counter_ns() - begin)
            if not batches:
                return []
            begin = perf_counter_ns()
            rows = self.engine.run(np.concatenate(batches))
            share = (perf_counter_ns() - begin) // len(batches)
            return [self._result(row, one, share, perf_counter_ns()) for row, one in zip(rows, spent, strict=True)]

    def _result(self, output: NDArray[Any], prepare_ns: int, infer_ns: int, begin: int) -> Result:
        """The decision over the engine's output for one frame, begun at ``begin``, in the caller's turn.

        After an inference the processor's caches hold the model, so each operation here takes ten times as long as in a
        loop of its own: hence few, and only the winner is dequantized.
        """
        if self._allowed is None:
            output.argmax(None, self._place)
            place: int = self._place.item()
        else:
            place = best(output.reshape(-1), self._allowed)
        found = output.item(place)
        if self._table is not None:
            score = self._table[found]
        elif self._quantization is None:
            score = float(found)
        else:
            score = float(dequantize(output.reshape(-1)[place], self._quantization))
        return Result(
            self._labels[place],
            score,
            self._reject_below is None or score >= self._reject_below,
            output,
            self._reading,
            (prepare_ns, infer_ns, perf_counter_ns() - begin),
        )

    def close(self) -> None:
        """Give the engine's memory back, after the call in progress in another thread; closing twice does no harm.

        Calls that wait for their turn are refused.
        """
        self._open = False  # before the turn comes: callers one after the other would keep it
        with self._turn:
            self.engine.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def as_batch(prepared: Image, tensor: Tensor) -> NDArray[Any]:
    """Prepared uint8 (height, width, channels), or a window of such, as the engine takes it: a batch of its dtype."""
    batch = prepared[np.newaxis]
    return batch if tensor.dtype == "uint8" else batch.astype(tensor.dtype)


def scores_of(output: NDArray[Any], tensor: Tensor) -> NDArray[np.float32]:
    """The model's output (1, classes) as float32 scores (classes,), dequantized by the manifest's numbers."""
    return dequantized(output.reshape(-1), tensor.quantization)


def dequantized(values: NDArray[Any], quantization: Quantization | None) -> NDArray[np.float32]:
    """Any of the model's outputs as float32 scores, in memory of their own. Same shape."""
    return values.astype(np.float32) if quantization is None else dequantize(values, quantization)


def score_table(tensor: Tensor) -> list[float] | None:
    """The scores of all integers that a quantized output of 8 bits may hold; None for other outputs.

    The integer is the index: of signed ones the negative ones stand at the end, where Python looks for them.
    """
    if tensor.quantization is None or tensor.dtype not in ("uint8", "int8"):
        return None
    integers = np.arange(256, dtype=np.uint8).view(tensor.dtype)
    return [float(score) for score in dequantize(integers, tensor.quantization)]


def check_engine(manifest: Manifest, engine: Engine) -> None:
    """Check that the engine sees the tensors that the manifest describes, and that this runtime can feed them.

    Raises:
        ModelError: a dtype or shape differs, or the input is neither frames nor windows of plain pixels.
    """
    (tensor,), (output,) = manifest.inputs, manifest.outputs
    _check_same("input", tensor, engine.input_dtype, engine.input_shape)
    _check_same("output", output, engine.output_dtype, engine.output_shape)
    if tensor.layout != VIDEO and (tensor.layout != IMAGES or tensor.window != 1):
        raise ModelError(
            f"This edgeclf-device feeds single {IMAGES} frames or {VIDEO} windows, but the model takes {tensor.layout} "
            f"with a window of {tensor.window}; upgrade edgeclf-device."
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
