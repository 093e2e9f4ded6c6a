"""The ways to execute an artifact, and how far apart their scores may be: one table, with the reason for each bound."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeclf.evaluation.scores import Scores, engine_scores
from edgeclf_device.artifact import Artifact
from edgeclf_device.choice import default_threads
from edgeclf_device.classifier import as_batch, check_engine, scores_of
from edgeclf_device.engines import open_engine
from edgeclf_device.errors import DependencyError, SystemStateError
from edgeclf_device.manifest import Container, Scheme
from edgeclf_device.progress import Progress, no_progress

Pairing = Literal["threads", "kernels", "keras"]
"""How two executions differ: in threads alone, in kernels or in how the graph is rewritten, or in the whole network."""

TFLITE_RUNTIME = "tflite-runtime"
CHILD_TIMEOUT_S = 600


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to execute an artifact: an engine, its options (``engines.OPTIONS``) and its threads."""

    name: str
    engine: str
    options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Bound:
    """How far apart two executions may be.

    Attributes:
        max_error: largest difference of a score of any image.
        distance: mean over the images of the total variation distance of two rows of scores, half the sum of their
            absolute differences: 0 to 1 whatever the number of classes, which a mean error is not.
        layer: relative error (root mean square) from which a layer counts as diverged, where a bound is broken.
        reason: why they are apart at all, and the largest difference and distance seen.
    """

    max_error: float
    distance: float
    layer: float
    reason: str

    def __add__(self, other: Bound) -> Bound:
        """The bound of a way over a third execution (triangle inequality)."""
        return Bound(
            max_error=self.max_error + other.max_error,
            distance=self.distance + other.distance,
            layer=max(self.layer, other.layer),
            reason=f"{self.reason}; {other.reason}",
        )


def _bound(max_error: float, distance: float, layer: float, reason: str) -> Bound:
    return Bound(max_error=max_error, distance=distance, layer=layer, reason=reason)


_FLOAT = _bound(2e-5, 5e-6, 1e-4, "float32 sums in another order (seen: 4e-6, 1e-6)")
_EXACT = _bound(0.0, 0.0, 0.0, "sums of integers do not depend on their order (seen: 0)")

_SAME_FILE: Mapping[tuple[Container, Scheme], Bound] = {
    ("tflite", "fp32"): _FLOAT,
    ("tflite", "fp16"): _FLOAT,
    ("tflite", "w8a32"): _bound(
        0.15, 0.03, 0.25, "each kernel rounds activations to int8 in its own way (seen: 0.04, 0.007)"
    ),
    ("tflite", "w8a8"): _bound(
        0.4, 0.08, 0.6, "kernels round the sums of each layer to int8 differently, by one step (seen: 0.1, 0.02)"
    ),
    ("tflite", "w8a16"): _bound(
        4e-4, 1e-4, 1e-2, "kernels round the sums of each layer to int16 differently, by one step (seen: 9e-5, 2e-5)"
    ),
    ("onnx", "fp32"): _FLOAT,
    ("onnx", "fp16"): _bound(1e-2, 2e-3, 1e-2, "fused operators round to float16 less often (seen: 2e-3, 4e-4)"),
    ("onnx", "w8a32"): _FLOAT,
    ("onnx", "w8a8"): _bound(
        0.15, 0.08, 0.6, "without fusing, layers compute in float between two roundings (seen: 0.034, 0.02)"
    ),
}
"""Two variants of one file: four times what was seen, rounded.

Seen on EfficientNet-Lite0 (2, 4 and 1000 classes) and a small network, on photos and synthetic images, on x86-64 with
VNNI by litert 2.3.0, onnxruntime 1.32.0 and tflite-runtime 2.14.0.
"""

_KERAS: Mapping[Scheme, Bound] = {
    "fp32": _FLOAT,
    "fp16": _bound(2e-2, 3e-3, 2e-2, "weights are rounded to float16 (seen: 6e-3, 7e-4)"),
    "w8a32": _bound(0.5, 0.2, 0.5, "weights are rounded to int8 (seen: 0.13, 0.05)"),
    "w8a8": _bound(0.8, 0.4, 0.6, "weights and activations are rounded to int8 (seen: 0.3, 0.21)"),
    "w8a16": _bound(0.8, 0.4, 0.6, "weights are rounded to int8 (seen: 0.33, 0.15)"),
}
"""The reference variant against the Keras model: two to four times what was seen.

Of rounded models it tells a broken one from a sound one; what rounding costs, the accuracy certificate says.
"""


def bound_of(pairing: Pairing, container: Container, scheme: Scheme) -> Bound:
    """How far apart two executions of an artifact may be; docs/reference/parity.md shows the same table.

    ``keras`` is for the artifact's reference variant; another variant's own bound comes on top of it.
    """
    if pairing == "keras":
        return _KERAS[scheme]
    if pairing == "threads" and container == "tflite" and scheme in ("w8a8", "w8a16"):
        return _EXACT
    return _SAME_FILE[container, scheme]


def variants_of(container: Container) -> tuple[Variant, ...]:
    """Every way to execute a container. The first is the artifact's reference: what a device runs by default."""
    several = max(2, default_threads())
    if container == "onnx":
        return tuple(
            Variant(
                name=f"onnxruntime {level} ×{threads}",
                engine="onnxruntime",
                options={"optimization": level},
                threads=threads,
            )
            for level in ("all", "extended", "basic", "disabled")
            for threads in (1, several)
        )
    ways = (("xnnpack", 1), ("xnnpack", several), ("builtin", 1), ("builtin", several), ("reference", 1))
    litert = (
        Variant(
            name=f"litert {kernels} ×{threads}",
            engine="litert",
            options={"kernels": kernels},
            threads=threads,
        )
        for kernels, threads in ways
    )
    return (*litert, Variant(name=f"{TFLITE_RUNTIME} ×1", engine=TFLITE_RUNTIME))


def variant_scores(
    artifact: Artifact,
    variant: Variant,
    pixels: NDArray[np.uint8],
    *,
    python: Path | None = None,
    description: str,
    progress: Progress = no_progress,
) -> Scores:
    """The artifact's scores on one variant: float32 (N, classes), dequantized.

    Args:
        artifact: what to execute.
        variant: how.
        pixels: uint8 (N, H, W, C), prepared.
        python: the Python whose environment has tflite-runtime, which needs NumPy 1 while edgeclf needs NumPy 2; None
            takes this one.
        description: what the progress is of.
        progress: shows one step for each image.

    Raises:
        DependencyError: the engine is not installed, or does not load.
        ModelError: it refuses the model.
        SystemStateError: tflite-runtime took too long.
    """
    manifest = artifact.manifest
    tensors = (manifest.inputs[0], manifest.outputs[0])
    if variant.engine == TFLITE_RUNTIME:
        batches = np.stack([as_batch(image, tensors[0]) for image in pixels])
        outputs = _in_tflite_runtime(artifact.content, batches, python or Path(sys.executable))
        return np.stack([scores_of(output, tensors[1]) for output in outputs])
    engine = open_engine(
        artifact.content, manifest.container, engine=variant.engine, threads=variant.threads, options=variant.options
    )
    try:
        check_engine(manifest, engine)
        return engine_scores(engine, tensors, pixels, description=description, progress=progress)
    finally:
        engine.close()


_CHILD = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
folder = sys.argv[1]
interpreter = Interpreter(model_path=folder + "/model.tflite", num_threads=1)
interpreter.allocate_tensors()
(image,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
outputs = []
for batch in np.load(folder + "/batches.npy", mmap_mode="r"):
    interpreter.set_tensor(image["index"], batch)
    interpreter.invoke()
    outputs.append(interpreter.get_tensor(scores["index"]))
np.save(folder + "/outputs.npy", np.stack(outputs))
"""


def _in_tflite_runtime(model: bytes, batches: NDArray[Any], python: Path) -> NDArray[Any]:
    """Run (N, 1, H, W, C) in a child process of ``python``: the raw outputs (N, 1, classes)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.tflite").write_bytes(model)
        np.save(Path(folder, "batches.npy"), batches)
        command = [str(python), "-c", _CHILD, folder]
        try:
            child = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=CHILD_TIMEOUT_S, check=False
            )
        except OSError as error:
            raise DependencyError(
                f"The Python that has {TFLITE_RUNTIME} must be a program, but {python} gives: "
                f"{error.strerror}; name another."
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SystemStateError(
                f"{TFLITE_RUNTIME} must be done within {CHILD_TIMEOUT_S} s, but was not; take fewer images (--images)."
            ) from error
        if child.returncode != 0:
            last = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
            raise DependencyError(
                f"{TFLITE_RUNTIME} does not run it in {python} ({last}); name a Python that has it, with NumPy 1, "
                "by --tflite-runtime."
            )
        outputs: NDArray[Any] = np.load(Path(folder, "outputs.npy"), allow_pickle=False)
        return outputs
