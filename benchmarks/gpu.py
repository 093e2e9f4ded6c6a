"""What a GPU takes from host array to host label: ONNX Runtime, plain, bound and as a CUDA graph, TensorFlow and JAX.

MobileNetV2 and ResNet-50 of the zoo (224 × 224, 1000 classes; times do not depend on weights), fp32 and fp16, one image
and then batches. The ways take turns, forwards and backwards, so that a clock that changes meets all alike. Told apart
are the whole way (pixels in, label out) and the device alone. Bounds are those for one H100; without a GPU the same
code runs on the CPU (``--provider cpu``), where nothing is bound and no record is written unless ``--json`` names one.
Run: ``.venv/bin/python benchmarks/zoo.py make mobilenet_v2 resnet50``, then
``.venv/bin/python benchmarks/gpu.py [--provider cuda|tensorrt|cpu] [--json F]``; see benchmarks/gpu/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from record import write_record
from zoo import SIZE, ZOO

from edgeclf_calibration.onnx_batch import dynamic_batch
from edgeclf_device.artifact import read_artifact
from edgeclf_device.engines import chosen_options, open_engine
from edgeclf_device.engines.onnx_device import OnnxDevice
from edgeclf_device.engines.onnx_providers import asked
from edgeclf_device.engines.onnxruntime import OnnxRuntime, load, open_session
from edgeclf_device.explain.profile_onnx import profile_onnx

NETWORKS = ("mobilenet_v2", "resnet50")
SCHEMES = ("fp32", "fp16")
MAX_MS = {"mobilenet_v2": 0.42, "resnet50": 0.90}
"""Of fp32 as a CUDA graph, one image, p50, on one H100."""

BATCHES = (1, 2, 4, 8, 16, 32, 64)
WARM_UP, RUNS = 10, 20
RESULTS = Path(__file__).parent / "gpu"
REFERENCES = {"tensorflow": "TensorFlow, tf.function", "jax": "Keras under JAX, jit"}

Run = Callable[[NDArray[np.uint8]], Any]


def images(count: int) -> NDArray[np.uint8]:
    """Uint8 (count, SIZE, SIZE, 3)."""
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def ways_of(model: bytes, provider: str) -> dict[str, OnnxRuntime]:
    """The same model with everything copied at each run, in memory of the device, and as a CUDA graph."""
    options = chosen_options("onnxruntime", {"provider": provider})
    device = asked(provider).device or "cpu"
    version = onnxruntime.__version__
    return {
        "session.run": OnnxRuntime(open_session(model, 1, options), version),
        "bound": OnnxDevice(open_session(model, 1, options), version, device),
        "graph": load(model, 1, options),
    }


def timed(engines: dict[str, OnnxRuntime], batch: NDArray[np.uint8], turns: int) -> dict[str, dict[str, Any]]:
    """Milliseconds of each way, from the pixels to the labels, and of the device alone where it is told apart."""
    order = list(engines)
    whole: dict[str, list[int]] = {name: [] for name in order}
    alone: dict[str, list[int]] = {name: [] for name in order}
    for engine in engines.values():
        for _ in range(WARM_UP):
            engine.run(batch)
    for turn in range(turns):
        for name in order if turn % 2 == 0 else reversed(order):
            engine = engines[name]
            engine.run(batch)
            for _ in range(RUNS):
                begin = perf_counter_ns()
                engine.run(batch).argmax(axis=1)
                spent = perf_counter_ns() - begin
                whole[name].append(spent)
                if engine.transfer_ns is not None:
                    alone[name].append(spent - engine.transfer_ns)
    return {name: _figures(whole[name], alone[name]) for name in order}


def _figures(whole_ns: list[int], alone_ns: list[int]) -> dict[str, Any]:
    p50, p90 = (float(one) / 1e6 for one in np.percentile(whole_ns, (50, 90)))
    figures = {"p50_ms": round(p50, 4), "p90_ms": round(p90, 4), "samples": len(whole_ns)}
    if alone_ns:
        device = float(np.median(alone_ns)) / 1e6
        figures |= {"device_ms": round(device, 4), "transfer_share": round(1 - device / p50, 3)}
    return figures


def measure(network: str, scheme: str, provider: str, turns: int, batches: list[int]) -> dict[str, Any]:
    """One network in one scheme: each way with one image, batches, and what executes its nodes."""
    model = read_artifact(ZOO / f"{network}-most" / f"{network}-{scheme}.onnx").model
    options = chosen_options("onnxruntime", {"provider": provider})
    placed = profile_onnx(model, images(1), threads=1, options=options, seconds=0.1).placement
    row = {"network": network, "scheme": scheme, "nodes": dict(placed)}
    row["one_image"] = timed(ways_of(model, provider), images(1), turns)
    opened = open_engine(dynamic_batch(model), "onnx", options={"provider": provider})
    row["batches"] = []
    for count in batches:
        figures = timed({"batch": opened}, images(count), max(1, turns // 10))["batch"]
        row["batches"].append({"images": count, "images_per_s": round(1000 * count / figures["p50_ms"], 1), **figures})
    return row


def reference(backend: str, network: str, turns: int) -> dict[str, Any]:
    """The .keras file under a framework, in a process of its own; what is said where it does not work."""
    command = [sys.executable, __file__, "--reference", backend, network, "--turns", str(turns)]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"network": network, "way": REFERENCES[backend], "failed": said}
    return {"network": network, "way": REFERENCES[backend], **json.loads(done.stdout.splitlines()[-1])}


def _reference(backend: str, network: str, turns: int) -> None:
    """What that process does: print its figures as JSON."""
    import keras

    model = keras.saving.load_model(ZOO / f"{network}.keras", compile=False)
    if backend == "tensorflow":
        import tensorflow as tf

        function = tf.function(lambda pixels: model(pixels, training=False), jit_compile=False)
        device = ", ".join(one.device_type for one in tf.config.list_physical_devices())
    else:
        import jax

        values = [one.value for one in model.trainable_variables], [one.value for one in model.non_trainable_variables]
        compiled = jax.jit(lambda pixels: model.stateless_call(*values, pixels, training=False)[0])
        function, device = compiled, jax.default_backend()
    batch, taken = images(1), []
    for number in range(WARM_UP + turns * RUNS):
        begin = perf_counter_ns()
        np.asarray(function(batch)).argmax(axis=1)
        if number >= WARM_UP:
            taken.append(perf_counter_ns() - begin)
    print(json.dumps({"devices": device, **_figures(taken, [])}))


def judge(rows: list[dict[str, Any]]) -> list[str]:
    """The bounds that are not kept, as sentences."""
    p50 = {(row["network"], row["scheme"]): row["one_image"]["graph"]["p50_ms"] for row in rows}
    broken = []
    for network in dict.fromkeys(row["network"] for row in rows):
        fp32, fp16 = p50[network, "fp32"], p50[network, "fp16"]
        if fp32 > MAX_MS[network]:
            broken.append(f"{network} fp32: {fp32:.3f} ms where {MAX_MS[network]} is allowed")
        if fp16 >= fp32:
            broken.append(f"{network}: fp16 takes {fp16:.3f} ms, not less than fp32's {fp32:.3f}")
    return broken


def lines(row: dict[str, Any]) -> list[str]:
    """What is printed of a row."""
    title = f"{row['network']} {row['scheme']}"
    told = [f"{title}: nodes by provider {row['nodes']}"]
    for way, figures in row["one_image"].items():
        told.append(f"  {way:12} p50 {figures['p50_ms']:.3f} ms, p90 {figures['p90_ms']:.3f}")
        if "device_ms" in figures:
            told[-1] += f", device {figures['device_ms']:.3f} ms, transfer {figures['transfer_share']:.0%}"
    return told + [f"  batch {one['images']:3}: {one['images_per_s']:.1f} images/s" for one in row["batches"]]


def gpu_name() -> str | None:
    """Of the first NVIDIA GPU, with its driver; None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False)
    return found.stdout.splitlines()[0].strip() if found.returncode == 0 and found.stdout else None


def main() -> None:
    """Measure, print, record and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NETWORK", help=f"default: {', '.join(NETWORKS)}")
    parser.add_argument("--provider", default="cuda", choices=("cuda", "tensorrt", "cpu"))
    parser.add_argument("--json", type=Path, help="default: benchmarks/gpu/PROVIDER.json; none on the CPU")
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--reference", nargs=2, metavar=("BACKEND", "NETWORK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reference:
        _reference(*options.reference, options.turns)
        return
    rows, names = [], options.names or NETWORKS
    for network in names:
        for scheme in SCHEMES:
            rows.append(measure(network, scheme, options.provider, options.turns, options.batches))
            print("\n".join(lines(rows[-1])), flush=True)
    references = [reference(backend, network, options.turns) for network in names for backend in REFERENCES]
    print("\n".join(map(str, references)))
    on_gpu = options.provider != "cpu"
    broken = judge(rows) if on_gpu else []
    record = options.json or (RESULTS / f"{options.provider}.json" if on_gpu else None)
    if record is not None:
        figures = {"rows": rows, "references": references, "broken": broken}
        write_record(record, gpu=gpu_name(), onnxruntime=onnxruntime.__version__, provider=options.provider, **figures)
    if not on_gpu:
        print("On the CPU nothing is bound: the figures of a GPU await hardware.")
    if broken:
        sys.exit("Not kept: " + "; ".join(broken))


if __name__ == "__main__":
    main()
