"""Examine this machine: what edgeclf-device needs here, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edgeclf_device.engines import MODULES, installed

Level = Literal["ok", "note", "problem"]

ARCHITECTURES = {"x86_64", "AMD64", "aarch64", "arm64"}
MIN_PYTHON, MAX_PYTHON = (3, 10), (3, 13)
LOW_MEMORY_MIB, LOW_DISK_MIB = 256, 500
CHILD_TIMEOUT_S = 60
_PROBE = "from edgeclf_device.engines.probe import probe; print(probe({engine!r}))"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    ``problem`` keeps edgeclf-device from working here, ``note`` limits it. ``remedy`` is empty where nothing is to do.
    """

    subject: str
    level: Level
    detail: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """The finding as ``doctor --json`` prints it."""
        return dict(vars(self))


def examine() -> list[Finding]:
    """Look at the processor, Python, NumPy, every engine, OpenCV, memory and disk.

    Each engine builds a tiny interpreter in a child process, so that one that crashes becomes a finding, not a crash.
    """
    return [_architecture(), _python(), _numpy(), *_engines(), _opencv(), *_memory(), _disk()]


def healthy(findings: list[Finding]) -> bool:
    """Whether nothing keeps edgeclf-device from working here."""
    return all(finding.level != "problem" for finding in findings)


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
    return Finding(subject="NumPy", level="ok", detail=np.__version__)


def _engines() -> Iterator[Finding]:
    findings = [_engine(name) for name in MODULES]
    if any(finding.level == "ok" for finding in findings):
        yield from findings
        return
    for finding in findings:
        yield Finding(subject=finding.subject, level="problem", detail=finding.detail, remedy=finding.remedy)


def _engine(name: str) -> Finding:
    subject, install = f"engine {name}", f'pip install "edgeclf-device[{name}]"'
    if not installed(name):
        return Finding(subject=subject, level="note", detail="not installed", remedy=f"If it is wanted: {install}")
    return _in_child(subject, _PROBE.format(engine=name), "runs a model", install)


def _opencv() -> Finding:
    install = 'pip install "edgeclf-device[camera]"'
    if importlib.util.find_spec("cv2") is None:
        detail = "not installed: .npy frames only, and preprocessing is slower (its bytes are the same)"
        return Finding(
            subject="OpenCV", level="note", detail=detail, remedy=f"If images or videos are wanted: {install}"
        )
    return _in_child("OpenCV", "import cv2; print(cv2.__version__)", "images, videos and fast preprocessing", install)


def _in_child(subject: str, code: str, meaning: str, install: str) -> Finding:
    """Run Python code in a child process: its output is the detail, a death becomes a sentence."""
    try:
        child = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        detail = f"installed, but it did not come up within {CHILD_TIMEOUT_S} s"
        return Finding(subject=subject, level="note", detail=detail, remedy=f"Install it again: {install}")
    if child.returncode == 0:
        return Finding(subject=subject, level="ok", detail=f"{child.stdout.strip()}: {meaning}")
    detail, remedy = explain_death(child.returncode, child.stderr, install)
    return Finding(subject=subject, level="note", detail=detail, remedy=remedy)


def explain_death(returncode: int, stderr: str, install: str) -> tuple[str, str]:
    """(what happened to the child process, what to do) in sentences."""
    if returncode == -signal.SIGILL:
        return (
            "installed, but built for a newer processor: it dies of an illegal instruction",
            f"Take an older or newer release of the package, or another engine ({install}).",
        )
    if returncode < 0:
        name = signal.Signals(-returncode).name
        return f"installed, but it crashes with {name} when it loads a model", f"Install it again: {install}"
    last = stderr.strip().splitlines()[-1] if stderr.strip() else f"exit code {returncode}"
    return f"installed, but it does not work: {last}", f"Install a version that fits this NumPy and Python: {install}"


def _memory() -> Iterator[Finding]:
    available = _available_mib()
    if available is None:
        return
    low = available < LOW_MEMORY_MIB
    yield Finding(
        subject="memory",
        level="note" if low else "ok",
        detail=f"{available} MiB available",
        remedy=f"Free some: an engine with a model takes up to {LOW_MEMORY_MIB} MiB." if low else "",
    )


def _available_mib() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free >> 20
    low = free < LOW_DISK_MIB
    return Finding(
        subject="disk",
        level="note" if low else "ok",
        detail=f"{free} MiB free in {Path.cwd()}",
        remedy=f"Free some: an engine takes up to {LOW_DISK_MIB} MiB to install." if low else "",
    )
