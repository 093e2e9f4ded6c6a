"""Which artifact of a bundle to run, and on which engine: a rule that needs no hardware to be tested."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeclf_device.artifact import container_of, require_artifact
from edgeclf_device.engines import ENGINES_OF, MODULES, install_command, installed, installed_engine
from edgeclf_device.errors import DependencyError, UsageError
from edgeclf_device.manifest import Container, Scheme

SCHEMES: tuple[Scheme, ...] = ("w8a8", "w8a32", "fp16", "fp32", "w8a16")
"""The preferred scheme first: by the speed and size to expect on a device."""

CONTAINERS: tuple[Container, ...] = ("tflite", "onnx")
"""The preferred container first, among artifacts of one scheme."""

MAX_DEFAULT_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An artifact and the engine to run it on; None leaves the engine to the container's preference."""

    path: Path
    engine: str | None


def choose(path: Path, *, engine: str | None = None) -> Choice:
    """Choose what to run: ``path`` itself where it is an artifact, else the best artifact of the bundle.

    In a bundle: of the artifacts that an installed engine can execute (``engine`` alone, where it is named), the first
    by ``SCHEMES``, then by ``CONTAINERS``, then by the order of the index.

    Raises:
        ModelError: see ``bundle.resolve``.
        UsageError: an unknown engine, or one that can execute no artifact of the bundle.
        DependencyError: the bundle holds artifacts, but no engine that executes them is installed.
    """
    if engine is not None and engine not in MODULES:
        raise UsageError(f"The engines are {', '.join(MODULES)}, but {engine!r} was asked for.")
    if not path.is_dir():
        return Choice(path=path, engine=engine or installed_engine(require_artifact(path)))
    from edgeclf_device.bundle import read_bundle, resolve  # what a single artifact need not wait for

    paths, entries = resolve(path), read_bundle(path).artifacts
    if engine is not None:
        entries = tuple(entry for entry in entries if engine in ENGINES_OF[entry.container])
        if not entries:
            names = ", ".join(item.name for item in paths)
            raise UsageError(f"The engine {engine} executes none of {names}; leave --engine out or name another.")
    usable = [(entry, name) for entry in entries for name in _engines(entry.container, engine) if installed(name)]
    if not usable:
        wanted = sorted({engine or ENGINES_OF[entry.container][0] for entry in entries})
        commands = " or ".join(map(install_command, wanted))
        raise DependencyError(f"{path} holds artifacts, but no engine that executes them is installed: {commands}.")
    entry, name = min(usable, key=lambda pair: rank(pair[0].scheme, pair[0].container))
    return Choice(path=path / entry.file, engine=name)


def runnable(path: Path, *, engine: str | None = None) -> tuple[list[Path], list[Path]]:
    """(the artifacts of ``path`` that can run here, those that can't for want of an engine).

    ``engine`` alone counts where it is named. An artifact given by itself always counts as runnable, so that whoever
    opens it says what is missing.

    Raises:
        as ``choose``.
    """
    choose(path, engine=engine)
    if not path.is_dir():
        return [path], []
    from edgeclf_device.bundle import resolve

    good: list[Path] = []
    bad: list[Path] = []
    for file in resolve(path):
        able = any(
            installed(name) for name in _engines(container_of(file), engine) if name in ENGINES_OF[container_of(file)]
        )
        (good if able else bad).append(file)
    return good, bad


def rank(scheme: Scheme, container: Container) -> tuple[int, int]:
    """Sort key of an artifact: the smaller is preferred."""
    return SCHEMES.index(scheme), CONTAINERS.index(container)


def usable_cores() -> int:
    """Number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """Threads to compute with where the caller names none: the cores this process may use, at most four.

    Beyond four a small network gains little, and a device has a camera and a program to serve as well.
    """
    return min(MAX_DEFAULT_THREADS, usable_cores())


def engine_and_threads(
    digest: str, *, engine: str | None, threads: int | None, preferred: str | None
) -> tuple[str | None, int]:
    """(engine, threads) for an artifact: what the caller names, else what ``tune`` kept for it, else the defaults."""
    if engine is not None and threads is not None:
        return engine, threads
    from edgeclf_device.state import tuned  # which is slow to load, and not asked here

    kept = tuned(digest)
    if kept is None or engine not in (None, kept.engine):
        return engine or preferred, default_threads() if threads is None else threads
    return kept.engine, kept.threads if threads is None else threads


def _engines(container: Container, engine: str | None) -> Sequence[str]:
    return ENGINES_OF[container] if engine is None else (engine,)
