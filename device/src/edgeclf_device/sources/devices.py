"""Video devices of this machine, and why one of them can't be opened."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edgeclf_device.errors import DependencyError


def video_devices() -> list[Path]:
    """The video device nodes, ``/dev/video*`` by number; not every one of them gives pictures."""
    return sorted(Path("/dev").glob("video[0-9]*"), key=lambda path: (len(path.name), path.name))


def holders(device: Path) -> list[str]:
    """Who has ``device`` open, as far as this user may see: ``motion (process 812)``."""
    found = []
    real = os.path.realpath(device)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # of another user, or gone meanwhile
            if any(os.path.realpath(handle) == real for handle in (process / "fd").iterdir()):
                found.append(f"{(process / 'comm').read_text().strip()} (process {process.name})")
    return sorted(found)


def why_closed(device: Path) -> DependencyError:
    """The error for a device that can't be opened: it says whether it is missing, forbidden, busy or no camera."""
    if not device.exists():
        there = ", ".join(map(str, video_devices())) or "none at all"
        return DependencyError(
            f"{device} must be a camera, but it is not there; there are: {there}. Check the cable, or name another one."
        )
    if not os.access(device, os.R_OK | os.W_OK):
        return DependencyError(
            f"{device} must be readable and writable, but this user may not open it: "
            "sudo usermod -aG video $USER, then log in again."
        )
    if users := holders(device):
        return DependencyError(f"{device} is in use by {' and '.join(users)}; one program at a time: end the other.")
    return DependencyError(
        f"{device} can't be opened as a camera: it gives no pictures (many cameras have a second node that gives "
        "none), or a program of another user has it (sudo fuser -v shows it); try another /dev/video*."
    )
