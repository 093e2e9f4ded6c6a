"""Runs a module in a child process that may crash, hang or be killed, and turns each of these into one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

from edgeclf.exporting.job import error_of
from edgeclf_device.errors import SystemStateError

_TAIL_LINES = 12
_TAIL_BYTES = 16 << 10
_NOISE = ("WARNING: All log messages before absl", "I0000", "W0000")
_END = ""


@contextlib.contextmanager
def child(
    module: str, argument: str, *, task: str, timeout_s: float, environment: Mapping[str, str] | None = None
) -> Iterator[Iterator[dict[str, Any]]]:
    """Run ``python -m module argument`` and give an iterator over the JSON objects it prints, as it prints them.

    The child is gone when the context ends, however it ends: it has a process group of its own, which is killed.
    It also ends by itself when its standard input closes, that is when this process dies.

    Args:
        module: to run.
        argument: its one command-line argument.
        task: what it does, for messages, for example ``the converter``.
        timeout_s: how long it may take in all.
        environment: variables to set beside those of this process.

    Raises, from the iterator:
        EdgeclfError: what the child sent as its error.
        SystemStateError: it crashed, was killed, failed without a word or took longer than ``timeout_s``; the message
            ends in the last lines of its standard error.
    """
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", module, argument],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            encoding="utf-8",
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            yield _answers(process, stderr, task, timeout_s)
        finally:
            _kill(process)


def _answers(
    process: subprocess.Popen[str], stderr: IO[bytes], task: str, timeout_s: float
) -> Iterator[dict[str, Any]]:
    """Each object the child prints, until it ends well; a thread reads: a silent child can't outwait the limit."""
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    deadline = time.monotonic() + timeout_s
    try:
        while (line := lines.get(timeout=_left_s(deadline))).endswith("\n"):
            answer: dict[str, Any] = json.loads(line)
            error = error_of(answer)
            if error is not None:
                raise error
            yield answer
        code = process.wait(timeout=_left_s(deadline))
    except (queue.Empty, subprocess.TimeoutExpired):
        raise SystemStateError(
            f"{task.capitalize()} may take {timeout_s:g} s, but it had not finished by then and was ended; "
            f"quiet the machine or allow more time.{_tail(stderr)}"
        ) from None
    if code:
        raise SystemStateError(_failure(task, code) + _tail(stderr))


def _left_s(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _read(pipe: IO[str], lines: queue.Queue[str]) -> None:
    for line in pipe:
        lines.put(line)
    lines.put(_END)


def _kill(process: subprocess.Popen[str]) -> None:
    """End the child and everything it started, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it had ended already
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _failure(task: str, code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        if -code == signal.SIGKILL:
            return f"{task.capitalize()} was killed ({name}), most likely for want of memory; free some and try again."
        return f"{task.capitalize()} crashed with {name}; another scheme or format may work."
    return f"{task.capitalize()} ended with code {code}."


def _tail(stderr: IO[bytes]) -> str:
    """The last lines of the child's standard error, on lines of their own."""
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - _TAIL_BYTES))
    lines = stderr.read().decode("utf-8", "replace").splitlines()
    telling = [line for line in lines if not line.startswith(_NOISE)]
    return "".join(f"\n  | {line}" for line in telling[-_TAIL_LINES:])
