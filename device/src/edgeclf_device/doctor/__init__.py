"""Examine this machine: what edgeclf-device needs here, what is missing, and what to do about it."""

from __future__ import annotations

from pathlib import Path

from edgeclf_device.doctor.cameras import examine_cameras
from edgeclf_device.doctor.finding import Finding, Level
from edgeclf_device.doctor.machine import examine_machine
from edgeclf_device.doctor.software import examine_software

__all__ = ["Finding", "Level", "examine", "healthy"]


def examine(root: Path = Path("/")) -> list[Finding]:
    """Look at the processor, glibc, Python, NumPy, engines, OpenCV, cameras, clock rate, heat, memory, disk and time.

    Each engine builds a tiny interpreter in a child process, so that one that crashes becomes a finding, not a crash.
    Needs no rights; what it may not look at, it says.

    Args:
        root: the folder that holds ``dev``, ``proc``, ``sys`` and ``usr``.
    """
    return [*examine_software(root), *examine_cameras(root), *examine_machine(root)]


def healthy(findings: list[Finding]) -> bool:
    """Whether nothing keeps edgeclf-device from working here."""
    return all(finding.level != "problem" for finding in findings)
