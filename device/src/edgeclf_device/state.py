"""The state folder: what this board has found out about artifacts, kept outside of bundles, which stay read-only.

Everything in it can be found out again. So what can't be read, is damaged, or comes from another board or version is
left aside, with a note for those who want one, and a board without a writable folder works all the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgeclf_device.atomic import write_text
from edgeclf_device.engines import MODULES, installed
from edgeclf_device.errors import SystemStateError

FORMAT = (1, 0)
"""Major and minor of what is written; what has another major is left aside."""

MAX_FILE_BYTES = 1 << 20
TUNING = "tuning"
"""The kind of state that ``tune`` keeps."""

Tell = Callable[[str], None]
"""Is given a note, in a sentence."""

DISTRIBUTIONS = {
    "litert": ("ai-edge-litert",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tflite-runtime": ("tflite-runtime",),
}
"""What an engine may be installed as."""


def ignore(note: str) -> None:
    """Takes a note and does nothing with it."""
    del note


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """An engine, with its version, and the number of threads it computes with."""

    engine: str
    engine_version: str
    threads: int


def state_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where state is kept; None: nowhere, for there is no home either. The folder need not exist yet.

    ``$EDGECLF_STATE``, else the first of ``$STATE_DIRECTORY`` (systemd's), else ``$XDG_STATE_HOME/edgeclf``, else
    ``~/.local/state/edgeclf``; an empty variable counts as none.
    """
    if own := environment.get("EDGECLF_STATE"):
        return Path(own)
    if services := environment.get("STATE_DIRECTORY"):
        return Path(services.split(":")[0])
    shared = Path(environment.get("XDG_STATE_HOME", ""))
    if shared.is_absolute():  # any other is to be ignored, as the XDG Base Directory Specification has it
        return shared / "edgeclf"
    try:
        return Path.home() / ".local" / "state" / "edgeclf"
    except RuntimeError:
        return None


@lru_cache(maxsize=1)
def board() -> str:
    """12 hexadecimal digits that stand for this board: its model, or else its processor; cores to use; architecture."""
    from edgeclf_device.environment import record_environment

    found = record_environment()
    parts = (found.board or found.cpu, str(found.cores), found.architecture)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def read_state(kind: str, digest: str, *, tell: Tell = ignore) -> dict[str, Any] | None:
    """What is kept about an artifact on this board; None: nothing that can be used. Never fails.

    Args:
        kind: what about.
        digest: SHA-256 of the artifact's model bytes.
        tell: is told why something that is there can't be used.
    """
    folder = state_folder()
    if folder is None:
        return None
    try:
        if not _folder_of(folder, kind, digest).is_dir():  # saves looking at the board where there is nothing
            return None
        path = _path_of(folder, kind, digest)
        data = path.read_bytes() if path.stat().st_size <= MAX_FILE_BYTES else b""
        return _checked(json.loads(data), kind, digest)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        tell(f"What is kept about this artifact in {folder} is left aside: {_why(error)}.")
        return None


def write_state(kind: str, digest: str, value: Mapping[str, Any], *, tell: Tell = ignore) -> Path | None:
    """Keep ``value``, which must fit JSON, in place of what was kept before: where. None: it can't be kept.

    Args:
        kind, digest: as for ``read_state``.
        value: what to keep.
        tell: is told why it can't be kept.
    """
    folder = state_folder()
    if folder is None:
        tell("Nothing is kept, because this user has no home folder; set EDGECLF_STATE to a folder.")
        return None
    path = _path_of(folder, kind, digest)
    record = {"format": list(FORMAT), "kind": kind, "digest": digest, "board": board(), "value": dict(value)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    except (OSError, ValueError) as error:
        tell(f"Nothing is kept, because {folder} can't be written: {_why(error)}; set EDGECLF_STATE to another folder.")
        return None
    return path


def forget_state(kind: str, digest: str) -> bool:
    """Remove what is kept about an artifact on this board; whether there was anything.

    Raises:
        SystemStateError: the system refused.
    """
    folder = state_folder()
    if folder is None:
        return False
    path = _path_of(folder, kind, digest)
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise SystemStateError(f"{path} can't be removed: {error.strerror}; remove it yourself.") from error
    with contextlib.suppress(OSError):  # other boards may have theirs in it
        path.parent.rmdir()
    return True


def tuned(digest: str, *, tell: Tell = ignore) -> EngineChoice | None:
    """The engine and threads that ``tune`` chose for an artifact on this board; None: none that holds. Never fails.

    A choice no longer holds when its engine is no longer installed or of another version.

    Args:
        digest: SHA-256 of the artifact's model bytes.
        tell: is told why a choice that is there does not hold.
    """
    value = read_state(TUNING, digest, tell=tell)
    if value is None:
        return None
    engine, measured, threads = value.get("engine"), value.get("engine_version"), value.get("threads")
    if not (isinstance(engine, str) and isinstance(measured, str) and type(threads) is int and threads >= 1):
        tell("The engine that was tuned for this artifact is left aside: its record is damaged; run tune again.")
        return None
    now = engine_version(engine)
    if now != measured:
        is_now = f"is {now} now" if now else "is no longer installed"
        tell(f"The engine that was tuned for this artifact, {engine} {measured}, {is_now}; run tune again.")
        return None
    return EngineChoice(engine=engine, engine_version=measured, threads=threads)


def engine_version(engine: str) -> str | None:
    """The version of an engine's package, which is not imported; None: no such engine, or it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    if engine not in MODULES or not installed(engine):
        return None
    for name in DISTRIBUTIONS[engine]:
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return "unknown"


def _folder_of(folder: Path, kind: str, digest: str) -> Path:
    return folder / kind / digest


def _path_of(folder: Path, kind: str, digest: str) -> Path:
    return _folder_of(folder, kind, digest) / f"{board()}.json"


def _checked(record: Any, kind: str, digest: str) -> dict[str, Any]:
    """The value of a record that is of this format, kind, digest and board; raises ValueError of any other."""
    if not isinstance(record, dict) or not isinstance(record.get("value"), dict):
        raise ValueError("it is no record")  # noqa: TRY004 - all of its faults are of one kind
    form = record.get("format")
    if not (isinstance(form, list) and form[:1] == [FORMAT[0]]):
        raise ValueError(f"its format is {form!r:.40}, but this version reads {FORMAT[0]}")
    if (record.get("kind"), record.get("digest"), record.get("board")) != (kind, digest, board()):
        raise ValueError("it is of another artifact or board")
    value: dict[str, Any] = record["value"]
    return value


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return (
        "it is not JSON"
        if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError, RecursionError))
        else str(error)
    )
