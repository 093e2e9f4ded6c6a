"""What the doctor finds, and how it asks a child process."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]

CHILD_TIMEOUT_S = 60


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


def in_child(subject: str, code: str, meaning: str, install: str) -> Finding:
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
