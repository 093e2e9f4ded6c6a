"""What the runtime's benchmarks measure with: stock EfficientNet-Lite0 in int8, and decoded frames of a video."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

from benchmarks.record import RESULTS
from edgeclf.data.cache import default_folder
from edgeclf_device import Classifier, open_source, prepare
from edgeclf_device.preprocess import Color

NETWORK = "efficientnet_lite0"
CACHE = default_folder().with_name("edgeclf-benchmarks")
CONTAINER_OF = {"litert": "tflite", "onnxruntime": "onnx"}
WIDTH, HEIGHT, FRAMES = 1280, 720, 16
PAN_PIXELS = 16

Frame = NDArray[np.uint8]


def options(description: str | None, record: str, alternations: int) -> argparse.ArgumentParser:
    """What every benchmark of ways that take turns is told: where its record goes, which bundle, how many turns."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, default=RESULTS / record)
    parser.add_argument("--bundle", type=Path, help="of EfficientNet-Lite0; made and kept in the cache if not given")
    parser.add_argument("--alternations", type=int, default=alternations)
    return parser


def require_kept(rows: Iterable[dict[str, Any]]) -> None:
    """End with an error where a bound was not kept."""
    if not all(row["kept"] for row in rows):
        sys.exit("A bound was not kept; see above.")


def lite0(engine: str, bundle: Path | None = None) -> Path:
    """The w8a8 artifact for ``engine`` in ``bundle``, or in one that is exported once and kept in the cache."""
    folder = bundle or CACHE / NETWORK
    if not (folder / "bundle.json").is_file():
        sys.path.insert(0, str(Path(__file__).parents[1]))  # where the other benchmarks find each other
        from photos import calibration_photos

        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            run, made = Path(work, "run"), Path(work, "bundle")
            choice = ["--scheme", "w8a8", "--format", "tflite", "--format", "onnx"]
            photos = ["--calibration", calibration_photos()]
            for command in (["fetch", NETWORK, "--out", run], ["export", run, "--out", made, *choice, *photos]):
                subprocess.run([sys.executable, "-m", "edgeclf", *command], check=True)
            made.rename(folder)
    return folder / f"{NETWORK}-w8a8.{CONTAINER_OF[engine]}"


def video_frames() -> list[Frame]:
    """Decoded frames of a video, each uint8 (720, 1280, 3) BGR: a camera that pans over a real photo."""
    photo = np.ascontiguousarray(load_sample_image("china.jpg")[..., ::-1])
    wide = WIDTH + PAN_PIXELS * FRAMES
    large = cv2.resize(photo, (wide, wide * photo.shape[0] // photo.shape[1]), interpolation=cv2.INTER_CUBIC)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "pan.avi"))
        writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 30, (WIDTH, HEIGHT))
        for step in range(FRAMES):
            left = PAN_PIXELS * step
            writer.write(np.ascontiguousarray(large[:HEIGHT, left : left + WIDTH]))
        writer.release()
        with open_source(path) as source:
            frames = list(islice(source, FRAMES))
    assert [(frame.image.shape, frame.color) for frame in frames] == [((HEIGHT, WIDTH, 3), "bgr")] * FRAMES
    return [frame.image for frame in frames]


def bare(classify: Classifier, color: Color = "bgr") -> Callable[[Frame], Any]:
    """What a program without a runtime would do: ``prepare`` and the engine's own calls, nothing decided."""
    spec, infer = classify.manifest.preprocessing, calls(classify)
    return lambda frame: infer(prepare(frame, spec, color=color)[np.newaxis])


def calls(classify: Classifier) -> Callable[[NDArray[Any]], Any]:
    """The engine's own calls for a batch of one, without any of ours.

    On the very interpreter or session of ``classify``: two of them differ by more than what is to be measured.
    """
    if classify.engine.name == "litert":
        interpreter = classify.engine._interpreter  # noqa: SLF001
        given, wanted = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

        def litert(batch: NDArray[Any]) -> Any:
            interpreter.set_tensor(given, batch)
            interpreter.invoke()
            return interpreter.get_tensor(wanted)

        return litert
    session, name = classify.engine._session, classify.engine.input_name  # noqa: SLF001
    outputs = [classify.engine.output_name]

    def onnxruntime(batch: NDArray[Any]) -> Any:
        return session.run(outputs, {name: batch})[0]

    return onnxruntime
