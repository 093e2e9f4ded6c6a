"""What a training writes down while it runs: TensorBoard's events, and a checkpoint after every epoch.

Both lie in a folder beside the run, ``RUN.unfinished``, that goes away when the run is complete; after an interruption
``--resume`` goes on from it. A checkpoint is one ``.npz`` file of plain arrays, replaced in one step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.atomic import os_errors_explained, write_bytes
from edgeclf_device.errors import ModelError, UsageError

Weights = list[NDArray[Any]]

CHECKPOINT = "checkpoint.npz"
EVENTS = "tensorboard"
_GROUPS = ("start", "trained", "optimizer", "best")


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One line of history.csv. The probe counts as one epoch: the images pass through the network once.

    Attributes:
        phase: ``probe``, ``upper``, ``all`` or ``qat``.
        epoch: counted from 1 over all phases.
        learning_rate: at its end.
        seconds: that it took.
        waiting: share of them that the training waited for its input.
        accepted: share of the unlabelled images shown that were learnt from; 0 where there are none.
    """

    phase: str
    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float
    waiting: float
    accepted: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that a training needs to go on as if it had never stopped.

    Attributes:
        identity: of the configuration and the data that it belongs to.
        phase: position in the plan.
        done: epochs of that phase that are done.
        history: of all phases.
        best_loss, best: lowest validation loss in the phase, and the trained part's weights at it.
        start: the whole network's weights when the phase began.
        trained: the trained part's weights now; empty where ``done`` is 0.
        optimizer: its variables now; empty where ``done`` is 0.
    """

    identity: str
    phase: int
    done: int
    history: Sequence[EpochRecord]
    best_loss: float
    best: Weights = field(repr=False)
    start: Weights = field(repr=False)
    trained: Weights = field(repr=False)
    optimizer: Weights = field(repr=False)


class Journal:
    """Keeps the records and the checkpoints of one training in ``folder``, which appears with the first of them."""

    def __init__(self, folder: Path, identity: str, *, found: Checkpoint | None = None) -> None:
        self.folder = folder
        self.identity = identity
        self.found = found
        self.history: list[EpochRecord] = list(found.history) if found else []
        self._writer: Any = None

    def record(self, one: EpochRecord) -> None:
        """Add a line to the history and to TensorBoard's events."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.history.append(one)
        with os_errors_explained(self.folder):
            if self._writer is None:
                self._writer = EventFileWriter(str(self.folder / EVENTS))
            values = [
                Summary.Value(tag=f"{name}/{part}", simple_value=getattr(one, f"{prefix}{name}"))
                for name in ("loss", "accuracy")
                for part, prefix in (("training", ""), ("validation", "val_"))
            ]
            values += [
                Summary.Value(tag=f"training/{name}", simple_value=getattr(one, name))
                for name in ("learning_rate", "seconds", "waiting", "accepted")
            ]
            self._writer.add_event(Event(wall_time=time.time(), step=one.epoch, summary=Summary(value=values)))
            self._writer.flush()

    def save(self, **state: Any) -> None:
        """Replace the checkpoint; ``state`` are the fields of ``Checkpoint`` but identity and history.

        Raises:
            SystemStateError: the disk is full or can't be written.
        """
        one = Checkpoint(identity=self.identity, history=self.history, **state)
        plain = {
            "identity": one.identity,
            "phase": one.phase,
            "done": one.done,
            "best_loss": one.best_loss,
            "history": [dataclasses.asdict(record) for record in one.history],
        }
        arrays = {f"{group}{place:05}": value for group in _GROUPS for place, value in enumerate(getattr(one, group))}
        buffer = io.BytesIO()
        np.savez(buffer, plain=np.array(json.dumps(plain)), **arrays)
        with os_errors_explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self.folder / CHECKPOINT, buffer.getvalue())

    def finish(self, run: Path) -> None:
        """Move the events into the folder ``run``."""
        if self._writer is not None:
            self._writer.close()
        if (self.folder / EVENTS).is_dir():
            shutil.copytree(self.folder / EVENTS, run / EVENTS)

    def remove(self) -> None:
        """Remove the folder: the run is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)


def folder_of(out: Path) -> Path:
    """The folder beside the run ``out`` that an unfinished training of it keeps."""
    whole = out.absolute()
    return whole.with_name(f"{whole.name}.unfinished")


def open_journal(out: Path, identity: str, *, resume: bool) -> Journal:
    """Begin the journal of the run ``out``, or with ``resume`` go on with the one that is there.

    Raises:
        UsageError: an unfinished training is there and ``resume`` is not asked for, the other way round, or it is of
            another configuration or other images.
        ModelError: the checkpoint is damaged.
    """
    folder = folder_of(out)
    path = folder / CHECKPOINT
    if not resume:
        require_none(out)
        shutil.rmtree(folder, ignore_errors=True)  # events alone: interrupted before the first checkpoint
        return Journal(folder, identity)
    found = read_checkpoint(path)
    if found.identity != identity:
        raise UsageError(
            f"{folder} was begun with another configuration or other images; give the same ones to go on, or remove "
            "that folder to begin anew."
        )
    return Journal(folder, identity, found=found)


@contextlib.contextmanager
def kept_if_useful(out: Path) -> Iterator[None]:
    """After a failure, remove the unfinished training of ``out`` if there is no checkpoint in it to go on from."""
    try:
        yield
    except BaseException:
        if not (folder_of(out) / CHECKPOINT).is_file():
            shutil.rmtree(folder_of(out), ignore_errors=True)
        raise


def require_none(out: Path) -> None:
    """Check that no unfinished training of ``out`` would be lost.

    Raises:
        UsageError: there is one.
    """
    folder = folder_of(out)
    if (folder / CHECKPOINT).is_file():
        raise UsageError(
            f"{folder} holds an interrupted training; add --resume to go on with it, or remove that folder to begin "
            "anew."
        )


def require_one(out: Path) -> None:
    """Check that there is an unfinished training of ``out`` to go on with.

    Raises:
        UsageError: there is none.
    """
    if not (folder_of(out) / CHECKPOINT).is_file():
        raise UsageError(f"There is nothing to resume: {folder_of(out) / CHECKPOINT} does not exist; omit --resume.")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in it is ever executed.

    Raises:
        ModelError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            plain: dict[str, Any] = json.loads(str(arrays["plain"]))
            groups: dict[str, Any] = {
                group: [arrays[name] for name in sorted(arrays.files) if name.startswith(group)] for group in _GROUPS
            }
        history = [EpochRecord(**record) for record in plain.pop("history")]
        return Checkpoint(history=history, **plain, **groups)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"The checkpoint {path} is damaged ({error}); remove its folder and train again.") from error
