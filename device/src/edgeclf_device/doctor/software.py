"""What is installed: architecture, C library, Python, NumPy, engines, providers of a GPU, OpenCV."""

from __future__ import annotations

import importlib.util
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from edgeclf_device.doctor.finding import Finding, in_child
from edgeclf_device.engines import MODULES, install_command, installed

ARCHITECTURES = {"x86_64", "AMD64", "aarch64", "arm64"}
MIN_PYTHON, MAX_PYTHON = (3, 10), (3, 13)
MIN_GLIBC = (2, 28)
"""What the packages of the engines, NumPy and OpenCV are built for (manylinux_2_28). Raspberry Pi OS bookworm has
2.36, JetPack 5 has 2.31, JetPack 4 has 2.27."""

NUMPY_1_ONLY = "tflite-runtime"
_PROBE = "from edgeclf_device.engines.probe import probe; print(probe({engine!r}))"
_PROBE_PROVIDER = "from edgeclf_device.engines.probe import probe; print(probe('onnxruntime', provider={provider!r}))"
_GPUS = ("dev/nvidiactl", "dev/nvhost-gpu", "dev/nvgpu")
"""There where NVIDIA's driver is loaded; the latter two on a Jetson."""

_OPENCV = "import cv2; print(cv2.__version__)"


def examine_software(root: Path = Path("/")) -> list[Finding]:
    """Look at the architecture, glibc, Python, NumPy, every engine, providers and OpenCV; children run side by side."""
    with ThreadPoolExecutor() as pool:
        opencv = pool.submit(_opencv)
        providers = pool.map(_provider, ("cuda", "tensorrt") if _wants_providers(root) else ())
        engines = list(pool.map(_engine, MODULES))
        found = list(providers)
    return [_architecture(), _glibc(), _python(), _numpy(), *_judged(engines), *found, opencv.result()]


def _architecture() -> Finding:
    machine = platform.machine()
    bits = 64 if sys.maxsize > 1 << 32 else 32
    if machine in ARCHITECTURES and bits == 64:
        return Finding(subject="architecture", level="ok", detail=f"{machine}, {platform.platform()}")
    return Finding(
        subject="architecture",
        level="problem",
        detail=f"{machine} with a {bits}-bit Python: the engines have no packages for it",
        remedy="Install a 64-bit system (Raspberry Pi OS 64-bit) with its own Python.",
    )


def _glibc() -> Finding:
    name, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    needed = ".".join(map(str, MIN_GLIBC))
    if name == "glibc" and numbers >= MIN_GLIBC:
        return Finding(subject="glibc", level="ok", detail=f"{version} (packages need {needed})")
    return Finding(
        subject="glibc",
        level="note",
        detail=f"{name or 'another C library'} {version}".strip() + f", but the engines' packages need glibc {needed}",
        remedy="Install a newer system: Raspberry Pi OS bookworm or trixie, JetPack 5 or 6, Debian 10, Ubuntu 20.04.",
    )


def _python() -> Finding:
    version = sys.version_info[:2]
    if MIN_PYTHON <= version <= MAX_PYTHON:
        return Finding(subject="Python", level="ok", detail=platform.python_version())
    supported = f"{'.'.join(map(str, MIN_PYTHON))} to {'.'.join(map(str, MAX_PYTHON))}"
    return Finding(
        subject="Python",
        level="problem",
        detail=f"{platform.python_version()}, but {supported} are supported",
        remedy=f"Make a virtual environment with a Python from {supported}.",
    )


def _numpy() -> Finding:
    if np.__version__.startswith("1.") or not (NUMPY_1_ONLY in MODULES and installed(NUMPY_1_ONLY)):
        return Finding(subject="NumPy", level="ok", detail=np.__version__)
    return Finding(
        subject="NumPy",
        level="note",
        detail=f"{np.__version__}, but {NUMPY_1_ONLY} is built for the binary interface of NumPy 1",
        remedy='Where it is wanted: pip install "numpy<2" "opencv-python-headless<4.12"',
    )


def _judged(engines: list[Finding]) -> list[Finding]:
    """One engine that works is enough; without any, each is a problem."""
    if any(finding.level == "ok" for finding in engines):
        return engines
    return [
        Finding(subject=finding.subject, level="problem", detail=finding.detail, remedy=finding.remedy)
        for finding in engines
    ]


def _engine(name: str) -> Finding:
    subject, install = f"engine {name}", install_command(name)
    if not installed(name):
        return Finding(subject=subject, level="note", detail="not installed", remedy=f"If it is wanted: {install}")
    return in_child(subject, _PROBE.format(engine=name), "runs a model", install)


def _wants_providers(root: Path) -> bool:
    """Whether there is a GPU that ONNX Runtime could compute with."""
    return installed("onnxruntime") and any((root / place).exists() for place in _GPUS)


def _provider(name: str) -> Finding:
    install = 'pip uninstall onnxruntime; pip install "edgeclf-device[onnxruntime-gpu]"'
    return in_child(f"provider {name}", _PROBE_PROVIDER.format(provider=name), "every node on the GPU", install)


def _opencv() -> Finding:
    install = 'pip install "edgeclf-device[camera]"'
    if importlib.util.find_spec("cv2") is None:
        detail = "not installed: .npy frames only, and preprocessing is slower (its bytes are the same)"
        return Finding(
            subject="OpenCV", level="note", detail=detail, remedy=f"If images or videos are wanted: {install}"
        )
    return in_child("OpenCV", _OPENCV, "images, videos and fast preprocessing", install)
