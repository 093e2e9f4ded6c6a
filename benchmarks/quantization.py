"""int8 side by side with stock post-training quantization: EfficientNet-Lite0 with its ImageNet weights, both formats.

The same 200 unlabelled photos calibrate every way, 1,065 photos out of other packages judge it: how many keep the top
label that the fp32 file gives them, how far scores move, what share of the work is in int8, how fast it runs beside
stock (one process, in turn, one thread), how long making it took. Intervals are of photos drawn with replacement
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993): the crops of one photo are not independent.
Run: ``.venv/bin/python benchmarks/quantization.py``; a record goes to benchmarks/results/quantization.json. Fails where
a bound is not kept.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from photos import calibration_photos, judging_photos
from record import RESULTS, write_record

from edgeclf.cli.progress import Bars
from edgeclf.exporting.child import ENVIRONMENT
from edgeclf_calibration import Layer, int8_share, onnx_layers, quantize, tflite_layers
from edgeclf_calibration.answers import distance, scores_of
from edgeclf_calibration.recovery import recover
from edgeclf_device import PrepareSpec, load, prepare
from edgeclf_device.engines import open_engine
from edgeclf_device.manifest import Container
from edgeclf_device.progress import Progress

NETWORK = "efficientnet_lite0"
CONTAINERS: tuple[Container, ...] = ("tflite", "onnx")
STOCK, PLAIN, RECOVERED = "stock", "plain", "recovered"
THREADS = 2
HELD_OUT = 40
"""Of the calibration images: recovery chooses by them and calibrates with the others."""
SURE = 0.5
RESAMPLES = 10_000
ALTERNATIONS = 60
RUNS = 5
"""Of each model in each alternation."""

MIN_AGREEMENT = 0.86
AIM = 0.92
MAX_SECONDS = 600
"""Of processor time, for recovery in both formats together: by the clock it is no more where nothing else runs."""
MIN_INT8_SHARE = 0.99
MAX_LATENCY = 1.1
"""Times stock's."""

Pixels = NDArray[np.uint8]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Images:
    """Prepared images, uint8 (N, H, W, 3), and the number of the photo that each was cut from, (N,)."""

    pixels: Pixels = field(repr=False)
    photo: NDArray[np.int64] = field(repr=False)

    @property
    def photos(self) -> int:
        """How many photos they were cut from."""
        return len(np.unique(self.photo))

    def part(self, chosen: NDArray[np.bool_]) -> Images:
        """Those that are ``chosen``."""
        return Images(pixels=self.pixels[chosen], photo=self.photo[chosen])


@dataclass(frozen=True, kw_only=True)
class Made:
    """A model, how it was made, and how long that took: wall clock, and processor time of all threads."""

    way: str
    container: Container
    model: bytes = field(repr=False)
    wall_s: float
    processor_s: float


def read_images(folder: Path, spec: PrepareSpec) -> Images:
    """A folder of ``photos``: what precedes the last part of a file's name, the number of the crop, names the photo."""
    files = sorted(folder.glob("*.png"))
    _, photo = np.unique([file.stem.rpartition("-")[0] for file in files], return_inverse=True)
    return Images(pixels=np.stack([prepare(load(file), spec) for file in files]), photo=photo)


def held_out(images: Images) -> NDArray[np.bool_]:
    """Whether each image is held out: ``HELD_OUT`` are, all those of photos drawn with a fixed seed."""
    order = np.random.default_rng(0).permutation(images.photos)
    total = np.cumsum(np.bincount(images.photo)[order])
    return np.isin(images.photo, order[total <= HELD_OUT])


def fetched(folder: Path) -> PrepareSpec:
    """Write the network as fp32.tflite and fp32.onnx as edgeclf exports it; in a child process, with TensorFlow."""
    os.environ.update(ENVIRONMENT)
    import keras

    import edgeclf
    from edgeclf.exporting import convert

    run = edgeclf.fetch(NETWORK, out=folder / "run")
    network = keras.saving.load_model(folder / "run" / "model.keras", compile=False)
    source = convert.Source(keras_model=network, shape=run.spec.shape, folder=folder, calibration=None)
    (folder / "fp32.tflite").write_bytes(convert.tflite_fp32(source))
    (folder / "fp32.onnx").write_bytes(convert.onnx_fp32(source))
    return run.spec


def stock_tflite(folder: Path, pixels: Pixels) -> Made:
    """TensorFlow's converter on the SavedModel: full int8, uint8 at both ends; in the same child process."""
    import keras
    import tensorflow as tf

    network = keras.saving.load_model(folder / "run" / "model.keras", compile=False)

    def make() -> bytes:
        archive = keras.export.ExportArchive()
        archive.track(network)
        signature = [tf.TensorSpec((1, *pixels.shape[1:]), "uint8", name="image")]
        archive.add_endpoint("serve", lambda image: network(image, training=False), input_signature=signature)
        archive.write_out(str(folder / "saved_model"), verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model"), signature_keys=["serve"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in pixels)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
        model: bytes = converter.convert()
        return model

    return timed(STOCK, "tflite", make)


def stock_onnx(folder: Path, pixels: Pixels) -> Made:
    """ONNX Runtime's ``quantize_static``: QDQ, min-max, uint8 activations, int8 weights with a scale per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._images = iter(pixels)

        def get_next(self) -> dict[str, Pixels] | None:
            image = next(self._images, None)
            return None if image is None else {"image": image[np.newaxis]}

    def make() -> bytes:
        ready, out = folder / "preprocessed.onnx", folder / "stock.onnx"
        quant_pre_process(folder / "fp32.onnx", ready, skip_symbolic_shape=True)  # all shapes are static
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(ready, out, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **types)
        return out.read_bytes()

    return timed(STOCK, "onnx", make)


def timed(way: str, container: Container, make: Callable[[], bytes]) -> Made:
    """Call ``make`` and time it."""
    wall, processor = time.perf_counter(), time.process_time()
    model = make()
    seconds = {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}
    return Made(way=way, container=container, model=model, **seconds)


def make_all(folder: Path, progress: Progress) -> tuple[list[Made], Images, dict[str, Any]]:
    """Every way in both formats, the images to judge by, and what is to be told of the calibration."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        spec = child.submit(fetched, folder).result()
        images = read_images(calibration_photos(), spec)
        made = [child.submit(stock_tflite, folder, images.pixels).result()]
    made.append(stock_onnx(folder, images.pixels))
    apart = held_out(images)
    choosing, calibrating = images.part(apart), images.part(~apart)
    options = {"threads": THREADS, "progress": progress}
    attempts = {}
    for container in CONTAINERS:
        fp32 = (folder / f"fp32.{container}").read_bytes()

        def recovered() -> bytes:
            found = recover(fp32, container, calibrating.pixels, choosing.pixels, **options)  # noqa: B023
            attempts[container] = [one.to_json() for one in found.attempts]  # noqa: B023
            return found.model

        made.append(timed(PLAIN, container, lambda: quantize(fp32, container, images.pixels, **options)))  # noqa: B023
        made.append(timed(RECOVERED, container, recovered))
    counts = {"images": len(images.pixels), "photos": images.photos, "recovery_chooses_by": int(apart.sum())}
    return made, read_images(judging_photos(), spec), {"calibration": counts, "attempts": attempts}


def interval(values: NDArray[Any], images: Images) -> Interval:
    """95 % interval of the mean of ``values``, one for each image, by the bootstrap over photos."""
    sums, sizes = np.bincount(images.photo, values), np.bincount(images.photo)
    drawn = np.random.default_rng(0).integers(0, len(sizes), (RESAMPLES, len(sizes)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), (0.025, 0.975))
    return float(low), float(high)


def share_in_int8(made: Made, fp32: bytes) -> float:
    """Share of the multiply-accumulates that the file, as it was written, has in int8."""
    if made.container == "tflite":
        layers, in_float = tflite_layers(fp32), tflite_layers(made.model)  # of the latter, what computes in float
        return 1 - _work(in_float) / _work(layers)
    import onnx

    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(made.model))
    layers = onnx_layers(proto.SerializeToString())
    maker = {name: node for node in proto.graph.node for name in node.output}
    rounded = {node.input[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}

    def is_int8(name: str) -> bool:
        """An engine fuses a layer between its DequantizeLinear and its QuantizeLinear."""
        data, weights = (maker.get(one) for one in maker[name].input[:2])
        return name in rounded and all(one and one.op_type == "DequantizeLinear" for one in (data, weights))

    work = [layer for layer in layers if layer.multiply_accumulates]
    return int8_share(work, [layer.name for layer in work if not is_int8(layer.name)])


def _work(layers: tuple[Layer, ...]) -> int:
    return sum(layer.multiply_accumulates for layer in layers)


def latencies(made: list[Made], pixels: Pixels) -> dict[str, dict[str, Any]]:
    """By way: milliseconds on one thread and times stock's, medians over alternations, and the ratio's quartiles."""
    engines = {one.way: open_engine(one.model, one.container, threads=1) for one in made}
    ways = list(engines)
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(ALTERNATIONS + 1):
        for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
            begin = time.perf_counter()
            for image in pixels[turn * RUNS : (turn + 1) * RUNS]:
                engines[way].run(image[np.newaxis])
            taken[way].append(1000 * (time.perf_counter() - begin) / RUNS)
    times = {way: np.array(values[1:]) for way, values in taken.items()}  # the first alternation warms up
    ratios = {way: np.quantile(values / times[STOCK], (0.25, 0.5, 0.75)).tolist() for way, values in times.items()}
    return {
        way: {
            "latency_ms": float(np.median(times[way])),
            "latency_of_stock": ratios[way][1],
            "latency_of_stock_quartiles": ratios[way][::2],
        }
        for way in ways
    }


def judge(made: list[Made], fp32: bytes, images: Images) -> list[dict[str, Any]]:
    """A row for each model of one format, the first of which is stock's."""
    container = made[0].container
    reference = scores_of(fp32, container, images.pixels, threads=THREADS)
    sure = reference.max(axis=1) > SURE
    times = latencies(made, images.pixels)
    rows: list[dict[str, Any]] = []
    stock = np.zeros(len(sure), np.bool_)
    for one in made:
        scores = scores_of(one.model, container, images.pixels, threads=THREADS)
        same = scores.argmax(axis=1) == reference.argmax(axis=1)
        stock = stock if rows else same
        gain = same.astype(np.float64) - stock
        rows.append(
            {
                "container": container,
                "way": one.way,
                "agreement": float(same.mean()),
                "agreement_interval_95": interval(same, images),
                "gain": float(gain.mean()),
                "gain_interval_95": interval(gain, images),
                "agreement_where_sure": float(same[sure].mean()),
                "distance": distance(scores, reference),
                "int8_share": share_in_int8(one, fp32),
                **times[one.way],
                "bytes": len(one.model),
                "wall_s": one.wall_s,
                "processor_s": one.processor_s,
            }
        )
    return rows


def show(row: dict[str, Any]) -> str:
    """One line of the table."""
    low, high = row["agreement_interval_95"]
    better = "" if row["way"] == STOCK else "{:+.3f} ({:+.3f} to {:+.3f})".format(row["gain"], *row["gain_interval_95"])
    return (
        f"{row['container']:6} {row['way']:9}  {row['agreement']:.3f} ({low:.3f} to {high:.3f})  {better:25}"
        f"{row['agreement_where_sure']:7.4f}  {row['distance']:.3f} {row['int8_share']:8.2%} {row['latency_ms']:7.2f}"
        f" {row['latency_of_stock']:6.3f} {row['bytes'] / 1e6:6.2f} {row['wall_s']:6.0f} {row['processor_s']:6.0f}"
    )


def broken(rows: list[dict[str, Any]]) -> list[str]:
    """A sentence for each bound that recovery does not keep."""
    ours = [row for row in rows if row["way"] == RECOVERED]
    seconds = sum(row["processor_s"] for row in ours)
    checks = {
        f"agreement must be at least {MIN_AGREEMENT}": min(row["agreement"] for row in ours) >= MIN_AGREEMENT,
        "recovery must be better than stock": min(row["gain_interval_95"][0] for row in ours) > 0,
        f"both formats may take {MAX_SECONDS} s of processor time, not {seconds:.0f}": seconds <= MAX_SECONDS,
        f"at least {MIN_INT8_SHARE:.0%} must be int8": min(row["int8_share"] for row in ours) >= MIN_INT8_SHARE,
        f"latency may be {MAX_LATENCY} of stock's": max(row["latency_of_stock"] for row in ours) <= MAX_LATENCY,
    }
    return [sentence for sentence, kept in checks.items() if not kept]


def main() -> None:
    """Print the table, write the record, and fail where a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "quantization.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, Bars() as progress:
        folder = Path(temporary)
        made, images, told = make_all(folder, progress)
        rows = []
        for container in CONTAINERS:
            of_format = [one for one in made if one.container == container]
            rows += judge(of_format, (folder / f"fp32.{container}").read_bytes(), images)
    print(f"{NETWORK}: top label as fp32's on {len(images.pixels)} images of {images.photos} photos, 95 % intervals")
    print(
        f"{'format':6} {'way':9}  {'same label':22}  {'more than stock':25}{'sure':>7}  dist. {'int8':>8} {'ms':>7} "
        f"{'times':>6} {'MB':>6} {'s':>6} {'cpu s':>6}"
    )
    for row in rows:
        print(show(row))
    missed = broken(rows)
    aim = min(row["agreement"] for row in rows if row["way"] == RECOVERED) >= AIM
    print(f"aim of {AIM} in both formats: {'reached' if aim else 'not reached'}")
    sizes = {"judging": {"images": len(images.pixels), "photos": images.photos}, **told}
    write_record(arguments.json, network=NETWORK, threads=THREADS, latency_threads=1, **sizes, rows=rows)
    sys.exit("; ".join(missed) if missed else 0)


if __name__ == "__main__":
    main()
