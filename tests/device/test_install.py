"""What a device user gets: pip into an empty environment, its size, and frames classified with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "quickstart" / "bundle"
NOT_WANTED = ("tensorflow", "keras", "typer", "rich", "cv2", "PIL")
MAX_MB = {"litert": 130, "onnxruntime": 145}
KIND = {"litert": "w8a8.tflite", "onnxruntime": "w8a8.onnx"}

pytestmark = pytest.mark.slow


class Environment:
    """An environment made with the standard library's venv and filled by pip, as a user would do it."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        self.bin = folder / "bin"
        (self.site_packages,) = folder.glob("lib/python*/site-packages")

    def install(self, extra: str) -> None:
        subprocess.run(
            [self.bin / "python", "-m", "pip", "install", "--quiet", f"{ROOT / 'device'}[{extra}]"], check=True
        )

    def megabytes(self, *, bytecode: bool) -> float:
        """Size of site-packages without pip and setuptools, which venv itself puts there.

        ``bytecode`` counts the __pycache__ folders, which pip fills unless told --no-compile, and uv does not.
        """
        own = {"pip", "setuptools", "_distutils_hack", "pkg_resources"}
        files = (
            file
            for entry in self.site_packages.iterdir()
            if entry.name.split("-")[0] not in own
            for file in ([entry] if entry.is_file() else entry.rglob("*"))
        )
        counted = (file for file in files if file.is_file() and (bytecode or file.suffix != ".pyc"))
        return sum(file.stat().st_size for file in counted) / 1e6

    def classify(self, artifact: Path, source: Path) -> list[dict]:
        done = subprocess.run(
            [self.bin / "edgeclf-device", "classify", artifact, "--source", source, "--json-lines", "-"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


def pictures(folder: Path) -> tuple[Path, Path]:
    """A JPEG and a short video."""
    import cv2

    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    jpeg, video = folder / "frame.jpg", folder / "clip.avi"
    assert cv2.imwrite(str(jpeg), image)
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
    for shift in range(7):
        writer.write(np.roll(image, 5 * shift, axis=1))
    writer.release()
    return jpeg, video


def artifacts(tiny, engine: str, tmp_path: Path) -> list[Path]:
    """A tiny artifact and, where `make quickstart` has been run, the quickstart's own."""
    kind = KIND[engine]
    own = QUICKSTART / f"solar-{kind}"
    return [tiny.write(tmp_path, kind), *([own] if own.is_file() else [])]


@pytest.mark.parametrize("engine", ["litert", "onnxruntime"])
def test_an_empty_environment_with_one_engine_is_small_and_classifies(engine, tmp_path, tiny):
    environment = Environment(tmp_path / "venv")
    environment.install(engine)
    present = [name for name in NOT_WANTED if (environment.site_packages / name).exists()]
    assert present == []
    size_mb, compiled_mb = environment.megabytes(bytecode=False), environment.megabytes(bytecode=True)
    print(f"edgeclf-device[{engine}]: {size_mb:.1f} MB installed, {compiled_mb:.1f} MB with compiled bytecode")
    assert size_mb <= MAX_MB[engine]
    frame = tmp_path / "frame.npy"
    np.save(frame, np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    for artifact in artifacts(tiny, engine, tmp_path):
        (event,) = environment.classify(artifact, frame)
        assert event["label"]
        assert 0 <= event["score"] <= 1
    environment.install(f"{engine},camera")
    jpeg, video = pictures(tmp_path)
    for artifact in artifacts(tiny, engine, tmp_path):
        assert len(environment.classify(artifact, jpeg)) == 1
        assert len(environment.classify(artifact, video)) == 7


def test_each_built_wheel_imports_in_an_empty_environment(tmp_path):
    names = ("edgeclf_device", "edgeclf_calibration", "edgeclf")
    wheels = {name: sorted((ROOT / "dist").glob(f"{name}-*.whl")) for name in names}
    if not all(wheels.values()):
        pytest.skip("no wheels in dist/: run `make wheels`")
    environment = Environment(tmp_path / "venv")
    files = [found[-1] for found in wheels.values()]
    subprocess.run([environment.bin / "python", "-m", "pip", "install", "--quiet", *files], check=True)
    done = subprocess.run([environment.bin / "edgeclf", "--help"], capture_output=True, text=True, check=True)
    assert "quickstart" in done.stdout
    assert (environment.site_packages / "edgeclf" / "report" / "report.html.j2").is_file()
    code = "import edgeclf_device, edgeclf_calibration; print(edgeclf_device.__version__)"
    done = subprocess.run([environment.bin / "python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.1.0"
    assert (environment.site_packages / "edgeclf_device" / "py.typed").is_file()
