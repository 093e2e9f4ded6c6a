"""What was decided, a line each as it happens, so that a review goes on where it was interrupted."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeclf_device.errors import SystemStateError

JOURNAL = "review.jsonl"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a person decided of one image.

    Attributes:
        image: its absolute path.
        label: None: of no class.
        file: where its copy lies, relative to the journal's folder; None where there is none.
        sha256: of the copy; empty where there is none.
        made: whether the copy was put there by this decision.
    """

    image: str
    label: str | None
    file: str | None = None
    sha256: str = ""
    made: bool = False


class Journal:
    """The decisions of a folder. A context manager; one process at a time holds it.

    A line that was cut off by a power cut counts as never written.

    Attributes:
        decisions: by the image's path, the oldest first.

    Raises:
        SystemStateError: it can't be written, or another review holds it.
    """

    def __init__(self, folder: Path) -> None:
        import fcntl

        self.path = folder / JOURNAL
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise SystemStateError(f"{self.path} can't be written: {error.strerror}; choose another OUT.") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise SystemStateError(
                f"One review at a time may write to {folder}, and another does; use its page, or end it first."
            ) from error
        self.decisions: dict[str, Decision] = {}
        data = self.path.read_bytes()
        for line in data.splitlines():
            self._apply(line)
        self._torn = bool(data) and not data.endswith(b"\n")

    def add(self, decision: Decision) -> None:
        """Write a decision down.

        Raises:
            SystemStateError: the system refused (disk full); nothing is written.
        """
        self._append(asdict(decision))
        self.decisions[decision.image] = decision

    def take_back(self, image: str) -> None:
        """Write down that the decision on an image no longer holds.

        Raises:
            SystemStateError: as for ``add``.
        """
        self._append({"image": image, "undone": True})
        del self.decisions[image]

    def close(self) -> None:
        """Let go of it. Closing twice does no harm."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _append(self, value: dict[str, Any]) -> None:
        line = (b"\n" if self._torn else b"") + json.dumps(value).encode() + b"\n"
        size = None
        try:
            size = os.fstat(self._file).st_size
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            if size is not None:
                os.ftruncate(self._file, size)
            raise SystemStateError(f"{self.path} can't be written: {error.strerror}; free space.") from error
        self._torn = False

    def _apply(self, line: bytes) -> None:
        try:
            value = json.loads(line)
            if value.get("undone"):
                self.decisions.pop(value["image"], None)
                return
            decision = Decision(**value)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return
        file = decision.file
        if file is None or not (Path(file).is_absolute() or ".." in Path(file).parts):
            self.decisions[decision.image] = decision
