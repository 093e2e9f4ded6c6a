"""Every error edgeclf raises on purpose: one base, the matching builtin, and the exit code of the command line."""

from __future__ import annotations

from typing import ClassVar


class EdgeclfError(Exception):
    """Base of all deliberate errors. The message says the constraint, what was received, and the remedy."""

    exit_code: ClassVar[int] = 1


def first_line(error: BaseException) -> str:
    """The first line of what another package's ``error`` says, or the name of its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class UsageError(EdgeclfError, ValueError):
    """The call itself is wrong: an option, a combination of options, an output folder that is not empty."""

    exit_code = 2


class DataError(EdgeclfError, ValueError):
    """Images, labels or listings can't be used as given."""

    exit_code = 3


class ModelError(EdgeclfError, ValueError):
    """A run, model, artifact or bundle is damaged, of an unknown format, or inconsistent with itself."""

    exit_code = 4


class DependencyError(EdgeclfError, ImportError):
    """A package, engine or device that this call needs is not here; the message names the extra to install."""

    exit_code = 5


class SystemStateError(EdgeclfError, OSError):
    """The machine can't do it now: disk full, no permission, a child process that crashed or timed out."""

    exit_code = 5


class GateError(EdgeclfError, RuntimeError):
    """Everything ran, and a gate the user set (accuracy, parity, latency) was not met."""

    exit_code = 6
