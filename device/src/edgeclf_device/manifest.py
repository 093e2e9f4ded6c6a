"""The manifest: everything a device must know about a model, as JSON inside the model file.

Written specification: docs/reference/artifact-format.md. This module owns the reading and the writing of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast, get_args

from edgeclf_device._fields import get, integers, number
from edgeclf_device.certificate import Certificate, Changes
from edgeclf_device.clips import ClipSpec, Spec
from edgeclf_device.errors import ModelError, UsageError
from edgeclf_device.preprocess import PrepareSpec
from edgeclf_device.quantization import Quantization

FORMAT = (1, 3)
"""Major and minor of the manifest this package writes; a newer major is refused, an unknown minor field ignored."""

MAX_MANIFEST_BYTES = 16 << 20
MAX_LABELS = 100_000
MAX_SCORE = 1e30
"""Bound of a golden score: JSON's integers may be too large for any float."""

IMAGES, VIDEO = "NHWC", "NTHWC"
"""Layouts of an input: single images, and windows of a video."""

Buffer = bytes | memoryview
"""Model bytes, or a view of those in a file."""

Container = Literal["tflite", "onnx"]
Scheme = Literal["fp32", "fp16", "w8a32", "w8a8", "w8a16"]
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One input or output of the model.

    Attributes:
        name: as an engine reports it; empty where the engine has only positions.
        dtype: NumPy name, for example ``uint8``.
        shape: with the batch first, for example (1, 224, 224, 3).
        layout: ``NHWC`` or ``NTHWC`` (video) for inputs, ``NC`` for scores.
        quantization: how the integers stand for real numbers; None for float tensors and for plain pixels.
        window, stride: frames per decision and between decisions; 1 and 1 for single images.
        fps: frames a second that are taken of a video; None for single images, and in formats before 1.3 always.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str
    quantization: Quantization | None = None
    window: int = 1
    stride: int = 1
    fps: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The manifest's object for one tensor."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "layout": self.layout,
            "quantization": self.quantization.to_json() if self.quantization else None,
            "window": self.window,
            "stride": self.stride,
            "fps": self.fps,
        }

    @classmethod
    def from_json(cls, value: Any) -> Tensor:
        """Read one tensor; raises ModelError where a field is missing or of another type."""
        quantization = get(value, "quantization", (dict, type(None)))
        return cls(
            name=get(value, "name", str),
            dtype=get(value, "dtype", str),
            shape=tuple(integers(get(value, "shape", list), "shape")),
            layout=get(value, "layout", str),
            quantization=None if quantization is None else Quantization.from_json(quantization),
            window=get(value, "window", int),
            stride=get(value, "stride", int),
            fps=None if value.get("fps") is None else number(value, "fps"),
        )


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A synthetic input and the scores it must give on every engine and board.

    Attributes:
        generator: name of the function in ``golden`` that makes the input.
        seed: its argument.
        input_sha256: of the prepared input's bytes.
        scores: float scores of shape (classes,), dequantized where the output is quantized.
        tolerance: largest allowed absolute difference of a score.
    """

    generator: str
    seed: int
    input_sha256: str
    scores: tuple[float, ...]
    tolerance: float

    def to_json(self) -> dict[str, Any]:
        """The manifest's ``golden`` object."""
        return {**vars(self), "scores": list(self.scores)}

    @classmethod
    def from_json(cls, value: Any) -> Golden:
        """Read the golden input and scores; raises ModelError where a field is missing or of another type."""
        scores = get(value, "scores", list)
        if not all(isinstance(score, (int, float)) and abs(score) < MAX_SCORE for score in scores):
            raise ModelError("The manifest's golden scores must be finite numbers; export the model again.")
        return cls(
            generator=get(value, "generator", str),
            seed=get(value, "seed", int),
            input_sha256=get(value, "input_sha256", str),
            scores=tuple(float(score) for score in scores),
            tolerance=number(value, "tolerance"),
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an artifact says of itself.

    ``reject_below`` is the least score of a label that is to be believed; None: any, and in format 1.0 always.
    ``calibration`` and ``provenance`` are records for people and audits: the runtime keeps them as they are.
    """

    name: str
    container: Container
    scheme: Scheme
    labels: tuple[str, ...]
    preprocessing: PrepareSpec
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    golden: Golden
    certificate: Certificate | None = None
    reject_below: float | None = None
    calibration: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def clip(self) -> ClipSpec | None:
        """How a video becomes the input; None where single images do.

        Raises:
            ModelError: the window, the stride or the rate can't be.
        """
        (tensor,) = self.inputs
        if tensor.layout != VIDEO:
            return None
        try:
            return ClipSpec(
                frame=self.preprocessing, window=tensor.window, stride=tensor.stride, fps=tensor.fps or math.nan
            )
        except UsageError as error:
            raise ModelError(f"The manifest's input can't be used: {error} Export the model again.") from error

    @property
    def spec(self) -> Spec:
        """What makes the input: the preprocessing, and of a video the window too."""
        return self.clip or self.preprocessing

    def to_json(self) -> dict[str, Any]:
        """All fields but the digests, which depend on the model bytes."""
        return {
            "format": list(FORMAT),
            "name": self.name,
            "container": self.container,
            "scheme": self.scheme,
            "labels": list(self.labels),
            "preprocessing": self.preprocessing.to_json(),
            "inputs": [tensor.to_json() for tensor in self.inputs],
            "outputs": [tensor.to_json() for tensor in self.outputs],
            "golden": self.golden.to_json(),
            "certificate": self.certificate.to_json() if self.certificate else None,
            "reject_below": self.reject_below,
            "calibration": self.calibration,
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """Read and check a manifest object.

        Raises:
            ModelError: a newer major format, a missing field, a field of another type, or fields that disagree.
        """
        _check_format(value)
        certificate = value.get("certificate")
        manifest = cls(
            name=get(value, "name", str),
            container=_one_of(value, "container", get_args(Container)),
            scheme=_one_of(value, "scheme", get_args(Scheme)),
            labels=tuple(_labels(value)),
            preprocessing=PrepareSpec.from_json(get(value, "preprocessing", dict)),
            inputs=tuple(Tensor.from_json(tensor) for tensor in get(value, "inputs", list)),
            outputs=tuple(Tensor.from_json(tensor) for tensor in get(value, "outputs", list)),
            golden=Golden.from_json(get(value, "golden", dict)),
            certificate=None if certificate is None else Certificate.from_json(certificate),
            reject_below=None if value.get("reject_below") is None else number(value, "reject_below"),
            calibration=get(value, "calibration", (dict, type(None))),
            provenance=get(value, "provenance", dict),
        )
        check_consistent(manifest)
        return manifest


def check_consistent(manifest: Manifest) -> None:
    """Check that labels, outputs, inputs and golden scores describe one and the same classifier.

    Raises:
        ModelError: they do not; the message says which two disagree.
    """
    if len(manifest.inputs) != 1 or len(manifest.outputs) != 1:
        raise ModelError(
            f"A classifier must have one input and one output, but the manifest names {len(manifest.inputs)} and "
            f"{len(manifest.outputs)}; a newer edgeclf-device may know it."
        )
    classes = manifest.outputs[0].shape[-1] if manifest.outputs[0].shape else 0
    if len(manifest.labels) != classes:
        raise ModelError(
            f"There are {len(manifest.labels)} labels but the model has {classes} outputs; "
            "export again with one label for each output."
        )
    expected = (1, *manifest.spec.shape)
    if manifest.inputs[0].shape != expected:
        raise ModelError(
            f"The preprocessing makes {expected} but the model's input is {manifest.inputs[0].shape}; export again."
        )
    if len(manifest.golden.scores) != classes:
        raise ModelError(
            f"There are {len(manifest.golden.scores)} golden scores but the model has {classes} outputs; export again."
        )
    if manifest.reject_below is not None and not 0 <= manifest.reject_below <= 1:
        raise ModelError(
            f"The manifest's reject_below must be a score from 0 to 1, but it is {manifest.reject_below}; export again."
        )
    if manifest.certificate is not None and manifest.certificate.changes is not None:
        _check_changes(manifest.certificate.changes, classes)


def _check_changes(changes: Changes, classes: int) -> None:
    if len(changes.per_class) != classes:
        raise ModelError(
            f"The certificate's per_class has {len(changes.per_class)} classes but the model has {classes} outputs; "
            "export again."
        )
    named = {place for one in changes.listed for place in (one.before, one.after, one.true) if place is not None}
    if not named <= set(range(classes)):
        raise ModelError(
            f"The certificate's images must have classes from 0 to {classes - 1}, but one has "
            f"{max(named, key=abs)}; export again."
        )


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes.

    Raises:
        ValueError: a NaN or an infinity, which JSON can't hold.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def seal(manifest: Manifest, model: bytes) -> bytes:
    """The manifest's bytes as they stand in the file: with the model's size and digest and its own digest."""
    check_consistent(manifest)
    value = manifest.to_json()
    value["model_bytes"] = len(model)
    value["model_sha256"] = hashlib.sha256(model).hexdigest()
    value["manifest_sha256"] = hashlib.sha256(canonical_json(value)).hexdigest()
    return canonical_json(value)


def own_digest(value: dict[str, Any]) -> str:
    """The digest that ``manifest_sha256`` of this manifest object must have."""
    rest = {key: item for key, item in value.items() if key != "manifest_sha256"}
    return hashlib.sha256(canonical_json(rest)).hexdigest()


def parse(data: bytes) -> dict[str, Any]:
    """Decode a manifest's bytes into an object, without interpreting it.

    Raises:
        ModelError: too large, not UTF-8 JSON, not an object, or not in the canonical form. Without the last, a byte
            could change and the value stay: 1e-05 is 1E-05, and of a key given twice only the last counts.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ModelError(f"A manifest may have {MAX_MANIFEST_BYTES} bytes, but this one has {len(data)}.")
    try:
        value = json.loads(data.decode("utf-8"))
        canonical = canonical_json(value)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"The manifest is damaged: it is not JSON ({error}); copy or export the file again."
        ) from error
    if not isinstance(value, dict):
        raise ModelError("The manifest is damaged: it is not a JSON object; copy or export the file again.")
    if canonical != data:
        raise ModelError("The manifest is damaged: it is not in canonical form; copy or export the file again.")
    return value


def _check_format(value: Any) -> None:
    version = get(value, "format", list)
    if len(version) != 2 or not all(isinstance(part, int) for part in version):
        raise ModelError(f"The manifest's format must be two integers, but it is {version!r}.")
    if version[0] != FORMAT[0]:
        raise ModelError(
            f"This edgeclf-device reads manifest format {FORMAT[0]}, but the file has {version[0]}.{version[1]}; "
            "upgrade edgeclf-device or export the model again."
        )


def _one_of(value: Any, key: str, choices: tuple[Value, ...]) -> Value:
    item = get(value, key, str)
    if item not in choices:
        raise ModelError(f"The manifest's {key} must be one of {', '.join(map(str, choices))}, but it is {item!r}.")
    return cast(Value, item)


def _labels(value: Any) -> list[str]:
    labels = get(value, "labels", list)
    if not 1 <= len(labels) <= MAX_LABELS or not all(isinstance(label, str) and label for label in labels):
        raise ModelError(f"The manifest must hold 1 to {MAX_LABELS} labels, each a text that is not empty.")
    if len(set(labels)) != len(labels):
        raise ModelError("The manifest's labels must differ from each other; rename the classes and export again.")
    if any("\n" in label or "\r" in label for label in labels):
        raise ModelError("A label must stand on one line; rename the class and export again.")
    return cast("list[str]", labels)
