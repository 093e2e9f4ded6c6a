"""Write what arm64 is compared with: ``python make_reference.py FOLDER``, on x86-64 with everything installed.

FOLDER gets ``artifacts/`` (EfficientNet-Lite0 with ImageNet weights, a new head trained on drawings, exported to every
scheme by edgeclf itself, and the tiny models of tests/device), ``images/`` and ``reference.json``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
from arm64_cases import digest, frames, prepare_cases
from numpy.typing import NDArray

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

from edgeclf_device import Classifier, load, prepare

TESTS = Path(__file__).parents[1]
LABELS = ("glatt", "waagrecht", "senkrecht", "kariert")
PER_LABEL, KEPT = 24, 2
SIZE = 64
SCHEMES = ("fp32", "fp16", "w8a32", "w8a8")


def main(folder: Path) -> None:
    """Write everything."""
    os.environ["EDGECLF_CACHE"] = str(folder / "cache")
    images, artifacts = folder / "images", folder / "artifacts"
    images.mkdir(parents=True)
    write_drawings(folder / "drawings", images)
    write_pictures(images)
    write_lite0(folder, artifacts)
    write_tiny(artifacts)
    reference = {
        "prepare": prepared(),
        "decode": {file.name: digest(load(file)) for file in sorted(images.iterdir())},
        "scores": {file.name: scores(file, images) for file in sorted(artifacts.glob("*-*.*"))},
    }
    (folder / "reference.json").write_text(json.dumps(reference), encoding="utf-8")
    for unwanted in ("cache", "drawings", "run"):
        shutil.rmtree(folder / unwanted, ignore_errors=True)


def draw(label: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Noise with dark lines across it, down it, both or neither."""
    image = rng.integers(60, 196, (70, 84, 3)).astype(np.uint8)
    if label & 1:
        image[::6] //= 3
    if label & 2:
        image[:, ::6] //= 3
    return image


def write_drawings(folder: Path, kept: Path) -> None:
    """A folder of drawings for each label to train on; ``kept`` gets some more that are not trained on."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(LABELS):
        (folder / name).mkdir(parents=True)
        for number in range(PER_LABEL):
            write(folder / name / f"{number}.png", draw(label, rng))
        for number in range(KEPT):
            write(kept / f"drawing-{name}-{number}.png", draw(label, rng))


def write_pictures(folder: Path) -> None:
    """One picture in every file format, sampling and depth that a decoder treats otherwise."""
    import cv2

    rng = np.random.default_rng(1)
    smooth = cv2.resize(rng.integers(0, 256, (9, 12, 3)).astype(np.uint8), (131, 97), interpolation=cv2.INTER_CUBIC)
    noisy = rng.integers(0, 256, (53, 71, 3)).astype(np.uint8)
    for name, image in (("smooth", smooth), ("noisy", noisy)):
        for quality in (30, 75, 95):
            write(folder / f"{name}-{quality}.jpg", image, cv2.IMWRITE_JPEG_QUALITY, quality)
        write(folder / f"{name}-progressive.jpg", image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
        for sampling in ("411", "420", "422", "440", "444"):
            factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
            write(folder / f"{name}-{sampling}.jpg", image, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor)
        write(folder / f"{name}-grey.jpg", image[..., 0])
        write(folder / f"{name}-grey.png", image[..., 0])
        write(folder / f"{name}-16-bit.png", image.astype(np.uint16) * 257)
        write(folder / f"{name}-alpha.png", np.dstack([image, image[..., 0]]))
        for suffix in ("png", "bmp", "tiff", "webp"):
            write(folder / f"{name}.{suffix}", image)


def write(file: Path, image: NDArray[Any], *options: int) -> None:
    """Encode an image by OpenCV into the format that the file's suffix names."""
    import cv2

    good, data = cv2.imencode(file.suffix, image, options)
    assert good, file
    data.tofile(file)


def write_lite0(folder: Path, artifacts: Path) -> None:
    """Train and export as a user would, at 64×64 pixels, for emulated processors are slow."""
    from edgeclf import export, train
    from edgeclf.training.config import FitConfig, TrainConfig

    config = TrainConfig(
        name="lite0", data=str(folder / "drawings"), image_size=SIZE, seed=0, train=FitConfig(epochs=1)
    )
    train(config, out=folder / "run")
    export(folder / "run", artifacts, schemes=SCHEMES, formats=("tflite", "onnx"))


def write_tiny(artifacts: Path) -> None:
    """The four tiny artifacts of tests/device."""
    source = importlib.util.spec_from_file_location("tiny", TESTS / "device" / "conftest.py")
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    for kind in module.KINDS:
        module.Tiny().write(artifacts, kind)


def prepared() -> dict[str, list[str]]:
    """Digests of every case's image and of what both implementations make of it."""
    return dict(starmap(_prepared, ((case.name, case) for case in prepare_cases())))


def _prepared(name: str, case: Any) -> tuple[str, list[str]]:
    numpy, opencv = (
        digest(prepare(case.image, case.spec, color=case.color, backend=backend)) for backend in ("numpy", "cv2")
    )
    assert numpy == opencv, name
    return name, [digest(case.image), numpy]


def scores(artifact: Path, images: Path) -> list[list[float]]:
    """An artifact's scores for every frame."""
    with Classifier.open(artifact, threads=1) as classify:
        return [classify(frame).scores.tolist() for frame in frames(images)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
