"""What is sent to a board: the lean runtime as it is installed here, artifacts, and the frames to measure with."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import edgeclf_device
from edgeclf_device.atomic import write_bytes
from edgeclf_device.bundle import resolve
from edgeclf_device.engines import MODULES
from edgeclf_device.errors import UsageError

FRAMES_FOLDER = "frames"
BOARD = Path(__file__).with_name("board.py")
"""The program that does on the board what is done there."""

_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A file and its SHA-256, under which it lies on the board."""

    file: Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Cargo:
    """What is the same for all hosts: what to send, and what to measure how.

    Attributes:
        runtime: see ``pack_runtime``.
        artifacts: each with whether it was given by itself, not in a bundle.
        frames, description: see ``pack_frames``; None and empty for the synthetic one.
        engines, threads, seconds, in_turn, arguments: see ``bench_remote``.
    """

    runtime: Sent
    artifacts: tuple[tuple[Sent, bool], ...]
    frames: Sent | None
    description: str
    engines: tuple[str, ...]
    threads: tuple[int, ...]
    seconds: float
    in_turn: bool
    arguments: tuple[str, ...]


def pack(
    paths: Sequence[Path],
    *,
    engines: Sequence[str],
    threads: Sequence[int],
    seconds: float,
    source: str | None,
    in_turn: bool,
    arguments: Sequence[str],
    work: Path,
) -> Cargo:
    """Everything that has to be sent, made in the folder ``work``.

    Raises:
        UsageError, ModelError, DataError: see ``bench_remote``.
    """
    if seconds <= 0 or not threads or min(threads) < 1 or not paths:
        raise UsageError(
            "Measuring on a host needs at least one artifact, threads of at least 1 and seconds above 0, but got "
            f"{len(paths)} paths, {list(threads)} and {seconds}."
        )
    if unknown := [engine for engine in engines if engine not in MODULES]:
        raise UsageError(f"The engines are {', '.join(MODULES)}, but {unknown[0]!r} was asked for.")
    frames, description = (None, "") if source is None else pack_frames(source, work)
    return Cargo(
        runtime=pack_runtime(work),
        artifacts=tuple((sent(file), not path.is_dir()) for path in paths for file in resolve(path)),
        frames=frames,
        description=description,
        engines=tuple(engines),
        threads=tuple(threads),
        seconds=seconds,
        in_turn=in_turn,
        arguments=tuple(arguments),
    )


def sent(file: Path) -> Sent:
    """``file`` with its digest."""
    return Sent(file=file, sha256=hashlib.sha256(file.read_bytes()).hexdigest())


def pack_runtime(folder: Path) -> Sent:
    """edgeclf_device and ``BOARD`` as a zip in ``folder``: pure Python, so a board with NumPy need not install them.

    It is packed from what is imported here, so host and board measure with the same code. Equal bytes for equal
    content: a board that keeps it is not sent it again.
    """
    package = Path(edgeclf_device.__file__).parent
    files = sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    members = [(str(Path(package.name) / file.relative_to(package)), file) for file in files]
    return _packed(folder / "runtime.zip", [*members, (BOARD.name, BOARD)])


def pack_frames(source: str, folder: Path) -> tuple[Sent, str]:
    """(the first frames of ``source`` as RGB arrays in a zip, their description), decoded here.

    So the board needs no OpenCV and not the files; what it measures begins after decoding, as always.

    Raises:
        DataError, DependencyError: as ``load_frames``.
    """
    import numpy as np

    from edgeclf_device.bench import load_frames

    frames, description = load_frames(source)
    unpacked = folder / FRAMES_FOLDER
    unpacked.mkdir()
    for number, frame in enumerate(frames):
        image = frame.image
        if frame.color == "bgr" and image.ndim == 3 and image.shape[2] >= 3:
            image = image[:, :, [2, 1, 0, *range(3, image.shape[2])]]
        np.save(unpacked / f"{number:02}.npy", np.ascontiguousarray(image))
    files = sorted(unpacked.iterdir())
    packed = _packed(folder / "frames.zip", ((f"{FRAMES_FOLDER}/{file.name}", file) for file in files))
    return packed, description


def _packed(archive: Path, members: Iterable[tuple[str, Path]]) -> Sent:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, file in members:
            entry = zipfile.ZipInfo(name, date_time=_DATE)
            entry.external_attr = 0o644 << 16
            made.writestr(entry, file.read_bytes(), compress_type=zipfile.ZIP_DEFLATED)
    write_bytes(archive, buffer.getvalue())
    return sent(archive)
