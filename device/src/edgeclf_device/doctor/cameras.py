"""Which cameras this machine has, whether this process may use them, and who else does."""

from __future__ import annotations

import errno
import getpass
import importlib.util
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgeclf_device.doctor.finding import Finding, in_child
from edgeclf_device.health import read_line

QUERYCAP = 0x80685600
"""VIDIOC_QUERYCAP of linux/videodev2.h: ``_IOR('V', 0, struct v4l2_capability)``, whose 104 bytes are CAPABILITY's."""

CAPABILITY = struct.Struct("=16s32s32sIII12x")
CAPTURE, MEMORY_TO_MEMORY, DEVICE_CAPS = 0x1 | 0x1000, 0x8000 | 0x4000, 0x80000000

RAW_DRIVERS = {"unicam": "picamera2:", "rp1-cfe": "picamera2:", "tegra-video": "csi:0"}
"""Drivers whose nodes give what the sensor sees, before it is a picture, and the source that makes pictures of it."""

NO_CAMERAS = {"bcm2835-isp", "pispbe"}
"""Drivers of image processors, whose nodes look like those of a camera."""

_PICAMERAS = (
    "from picamera2 import Picamera2; "
    "print(', '.join(c['Model'] for c in Picamera2.global_camera_info()) or 'no camera found')"
)


@dataclass(frozen=True, kw_only=True)
class Node:
    """What a /dev/video* says of itself: its driver, its name, and whether it captures pictures."""

    driver: str
    card: str
    captures: bool


def examine_cameras(root: Path) -> Iterator[Finding]:
    """Look at every /dev/video*, and at what a Raspberry Pi and a Jetson need for their own cameras."""
    paths = sorted((root / "dev").glob("video[0-9]*"), key=lambda path: int(path.name[5:]))
    found = {finding.subject: finding for path in paths for finding in _examined(path, root)}
    board = read_line(root / "proc/device-tree/model")
    if board.startswith("Raspberry Pi"):
        found["picamera2"] = _picamera2()
    elif (root / "etc/nv_tegra_release").exists():
        found["nvargus-daemon"] = _argus(root)
    yield from found.values()
    if not found:
        yield Finding(
            subject="camera",
            level="note",
            detail="none: there is no /dev/video* that captures",
            remedy="If one is wanted: plug it in and look at `sudo dmesg | tail`; videos and streams need none.",
        )


def capability(answer: bytes) -> Node:
    """What VIDIOC_QUERYCAP answered, 104 bytes."""
    driver, card, _, _, of_all, of_node = CAPABILITY.unpack(answer)
    bits = of_node if of_all & DEVICE_CAPS else of_all
    return Node(
        driver=driver.partition(b"\0")[0].decode(errors="replace"),
        card=card.partition(b"\0")[0].decode(errors="replace"),
        captures=bool(bits & CAPTURE) and not bits & MEMORY_TO_MEMORY,
    )


def _examined(path: Path, root: Path) -> Iterator[Finding]:
    """What is to be said of one node; nothing of one that captures no pictures."""
    subject = f"camera /dev/{path.name}"
    try:
        node = _query(path)
    except OSError as error:
        detail, remedy = _refusal(path, error)
        yield Finding(subject=subject, level="note", detail=detail, remedy=remedy)
        return
    if not node.captures or node.driver in NO_CAMERAS:
        return
    if node.driver in RAW_DRIVERS:
        yield Finding(
            subject=f"camera {node.driver}",  # once for all its nodes
            level="ok",
            detail=f"gives raw sensor data; its pictures come from --source {RAW_DRIVERS[node.driver]}",
        )
        return
    holders = _holders(path, root)
    yield Finding(
        subject=subject,
        level="note" if holders else "ok",
        detail=f"{node.card} ({node.driver})" + (f", held by {', '.join(holders)}" if holders else ""),
        remedy="A camera serves one program at a time: stop that one first." if holders else "",
    )


def _query(path: Path) -> Node:
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        answer = bytearray(CAPABILITY.size)
        fcntl.ioctl(descriptor, QUERYCAP, answer)
        return capability(bytes(answer))
    finally:
        os.close(descriptor)


def _refusal(path: Path, error: OSError) -> tuple[str, str]:
    """(why the camera can't be opened, what to do) in sentences."""
    if error.errno in {errno.EACCES, errno.EPERM}:
        group, members = _group(path)
        user = _user()
        if user in members:
            return f"{user} was added to the group {group} after logging in", "Log out and in again."
        return (
            f"{user} may not open it: the group {group} may",
            f"sudo usermod -aG {group} {user}, then log out and in again.",
        )
    if error.errno == errno.EBUSY:
        return "another program holds it", "Stop that program; `sudo fuser -v " + str(path) + "` names it."
    return f"it does not answer: {error.strerror}", "Plug it in again and look at `sudo dmesg | tail`."


def _group(path: Path) -> tuple[str, list[str]]:
    """(name, members) of the group that a file belongs to; a number where the system knows none, as in a container."""
    import grp

    number = path.stat().st_gid
    try:
        entry = grp.getgrgid(number)
    except KeyError:
        return str(number), []
    return entry.gr_name, entry.gr_mem


def _user() -> str:
    """Name of the user who runs this; a number where the system knows none."""
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return str(os.getuid())


def _holders(path: Path, root: Path) -> list[str]:
    """Programs that hold the node open, as far as this process may see: its own user's, or all as root."""
    device = path.stat().st_rdev
    found = []
    for process in sorted((root / "proc").glob("[0-9]*")):
        if process.name == str(os.getpid()):
            continue
        with suppress(OSError):  # it ended, or it is another user's
            if any(_is_device(file, device) for file in (process / "fd").iterdir()):
                found.append(f"{read_line(process / 'comm')} (process {process.name})")
    return found


def _is_device(file: Path, device: int) -> bool:
    with suppress(OSError):
        return device != 0 and file.stat().st_rdev == device
    return False


def _picamera2() -> Finding:
    install = (
        "sudo apt install python3-picamera2, and make the environment with `python3 -m venv --system-site-packages`"
    )
    if importlib.util.find_spec("picamera2") is None:
        return Finding(
            subject="picamera2",
            level="note",
            detail="not importable here: cameras on the ribbon cable can't be used",
            remedy=f"If one is wanted: {install}",
        )
    finding = in_child("picamera2", _PICAMERAS, "cameras on the ribbon cable", install)
    if "no camera found" not in finding.detail:
        return finding
    return Finding(
        subject="picamera2",
        level="note",
        detail="no camera found on the ribbon cable",
        remedy="If there is one: switch off, seat the cable, and look at `rpicam-hello --list-cameras`.",
    )


def _argus(root: Path) -> Finding:
    """The daemon through which a Jetson's ribbon cameras are reached."""
    running = any(read_line(file) == "nvargus-daemon" for file in (root / "proc").glob("[0-9]*/comm"))
    return Finding(
        subject="nvargus-daemon",
        level="ok" if running else "note",
        detail="runs: cameras on the ribbon cable" if running else "does not run: csi: has no pictures without it",
        remedy="" if running else "If csi: is wanted: sudo systemctl restart nvargus-daemon",
    )
