"""Tiny real artifacts: the committed models of make_models.py with manifests of their own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeclf_device import Certificate, Golden, Manifest, PrepareSpec, Quantization, Tensor, write_artifact
from edgeclf_device.bundle import write_bundle_index
from edgeclf_device.engines import ENGINES_OF, PACKAGES, installed_engine
from edgeclf_device.golden import GENERATOR, golden_input
from edgeclf_device.quantization import dequantize

HERE = Path(__file__).parent
SHAPE = (16, 20, 3)
LABELS = ("intact", "Riß", "dunkle Zelle", "ひび割れ")
OUTPUT = Quantization(scale=1 / 256, zero_point=0)
SEED = 5
KINDS = ("fp32.tflite", "w8a8.tflite", "fp32.onnx", "w8a8.onnx")
INPUT_NAMES = {"tflite": "serve_frame:0", "onnx": "image"}


class Tiny:
    """Makes manifests and artifacts of the tiny models."""

    shape, labels, kinds, output = SHAPE, LABELS, KINDS, OUTPUT

    @staticmethod
    def model(kind: str) -> bytes:
        return (HERE / "models" / kind).read_bytes()

    @staticmethod
    def need_engine(kind: str) -> None:
        """Skip the test where no engine of this kind is installed."""
        container = kind.split(".")[1]
        engine = installed_engine(container)
        if engine is None:
            pytest.skip(f"none of {', '.join(ENGINES_OF[container])} is installed")
        pytest.importorskip(PACKAGES[engine])

    @staticmethod
    def engine(kind: str) -> str:
        """The preferred engine of this kind, installed or not."""
        return ENGINES_OF[kind.split(".")[1]][0]

    @staticmethod
    def manifest(kind: str, **changes: object) -> Manifest:
        scheme, container = kind.split(".")
        quantized = scheme == "w8a8"
        scores = json.loads((HERE / "golden" / "scores.json").read_text())[kind]
        pixels = golden_input(GENERATOR, SEED, SHAPE)
        manifest = Manifest(
            name="tiny",
            container=container,
            scheme=scheme,
            labels=LABELS,
            preprocessing=PrepareSpec(height=SHAPE[0], width=SHAPE[1], crop="center", crop_fraction=0.875),
            inputs=(Tensor(name=INPUT_NAMES[container], dtype="uint8", shape=(1, *SHAPE), layout="NHWC"),),
            outputs=(
                Tensor(
                    name="scores",
                    dtype="uint8" if quantized else "float32",
                    shape=(1, len(LABELS)),
                    layout="NC",
                    quantization=OUTPUT if quantized else None,
                ),
            ),
            golden=Golden(
                generator=GENERATOR,
                seed=SEED,
                input_sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
                scores=tuple(scores),
                tolerance=1 / 256 if quantized else 1e-5,
            ),
            certificate=Certificate(
                split="test",
                images=656,
                accuracy=0.87,
                reference_accuracy=0.875,
                drop_points=0.5,
                agreement=0.98,
                max_drop_points=1.0,
                engine="litert 2.3.0",
            ),
            calibration={"images": 200, "seed": 0},
            provenance={"run_sha256": "0" * 64, "versions": {"edgeclf": "0.1.0"}},
        )
        return dataclasses.replace(manifest, **changes)

    def write(self, folder: Path, kind: str, name: str | None = None, **changes: object) -> Path:
        path = folder / (name or f"tiny-{kind}")
        write_artifact(path, self.model(kind), self.manifest(kind, **changes))
        return path

    @staticmethod
    def scores_from_engine(kind: str) -> list[float]:
        from edgeclf_device.engines import open_engine

        engine = open_engine(Tiny.model(kind), kind.split(".")[1])
        output = engine.run(golden_input(GENERATOR, SEED, (1, *SHAPE)))[0]
        return [float(score) for score in (dequantize(output, OUTPUT) if kind.startswith("w8a8") else output)]


@pytest.fixture(autouse=True, scope="session")
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What ``tune`` kept on this machine has no say in the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECLF_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def tiny(refresh_golden: bool) -> Tiny:
    if refresh_golden:
        scores = {kind: Tiny.scores_from_engine(kind) for kind in KINDS}
        (HERE / "golden" / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    return Tiny()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def artifact(tiny: Tiny, kind: str, tmp_path: Path) -> Path:
    """One artifact of each kind, its engine installed or not."""
    return tiny.write(tmp_path, kind)


@pytest.fixture
def runnable(tiny: Tiny, kind: str, tmp_path: Path) -> Path:
    """One artifact of each kind whose engine is installed."""
    tiny.need_engine(kind)
    return tiny.write(tmp_path, kind)


@pytest.fixture
def some_artifact(tiny: Tiny, tmp_path: Path) -> Path:
    """One artifact that can run here, of whichever container."""
    for kind in ("w8a8.tflite", "w8a8.onnx"):
        if installed_engine(kind.split(".")[1]):
            return tiny.write(tmp_path, kind)
    pytest.skip("no engine is installed")


@pytest.fixture
def bundle(tiny: Tiny, tmp_path: Path) -> Path:
    """A bundle of all four."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for kind in KINDS:
        tiny.write(folder, kind)
    write_bundle_index(folder, name="tiny", created="2026-01-01T00:00:00+00:00")
    return folder


@pytest.fixture
def frame() -> np.ndarray:
    """A uint8 RGB frame of an odd size."""
    return np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)


@pytest.fixture
def child(tmp_path: Path):
    """Run Python code in a child process; returns the finished process with its text."""

    def run(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
            timeout=120,
            check=False,
        )

    return run
