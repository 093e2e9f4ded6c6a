"""Files and folders that appear whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgeclf_device.errors import SystemStateError, UsageError


@contextlib.contextmanager
def os_errors_explained(path: Path) -> Iterator[None]:
    """Turn an OSError while writing ``path`` (disk full, no permission) into a SystemStateError that names it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, SystemStateError):
            raise
        reason = error.strerror or str(error)
        raise SystemStateError(
            f"{path} could not be written: {reason}. Nothing was left behind; "
            "free space or choose another place, and run the same command again."
        ) from error


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, replacing it in one step; on any failure the old file, if any, is untouched.

    Raises:
        SystemStateError: the system refused (disk full, permission).
    """
    with os_errors_explained(path):
        import tempfile  # 3 ms that a classifier, which only reads, need not pay for

        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes 0600, but a model file is for everyone to read.
            Path(temporary).chmod(0o666 & ~_umask())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _fsync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 with ``write_bytes``."""
    write_bytes(path, text.encode("utf-8"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; rename it to ``path`` at the end, remove it on any exception.

    ``path`` may exist only as an empty folder.

    Raises:
        UsageError: ``path`` is a file or a folder with something in it.
        SystemStateError: the system refused (disk full, permission).
    """
    require_empty(path)
    with os_errors_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        import tempfile  # 3 ms that a classifier, which only reads, need not pay for

        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        temporary.chmod(0o777 & ~_umask())
    try:
        with os_errors_explained(path):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _fsync(file)
            _fsync(temporary)
            if path.exists():
                path.rmdir()
            temporary.rename(path)
            _fsync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def require_empty(path: Path) -> None:
    """Check that ``path`` can become an output folder: it does not exist, or is an empty folder.

    Raises:
        UsageError: it is a file, or a folder with something in it.
    """
    if path.is_dir():
        if path.resolve() == Path.cwd() or path.is_mount():
            raise UsageError(
                f"The output folder is made beside its place and then renamed to it, but {path} is the current folder "
                "or a mount point, which can't be replaced; name a new folder inside it with --out."
            )
        with os_errors_explained(path):
            entries = sum(1 for _ in path.iterdir())
        if entries:
            raise UsageError(
                f"The output folder must be new or empty, but {path} holds {entries} entries; "
                "name another with --out or remove it yourself."
            )
    elif path.exists():
        raise UsageError(f"The output must be a folder, but {path} is a file; name another with --out.")
