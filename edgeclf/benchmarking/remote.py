"""Measure artifacts on boards over ssh: probe, send, measure detached from the link, fetch, clean up.

A board needs Python, NumPy and an engine, and nothing of edgeclf: the runtime is sent along, so that host and board
measure with the same code. A measurement goes on while the link is down, and is fetched when it is back.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeclf.benchmarking.cargo import Cargo, pack
from edgeclf.benchmarking.probe import Board, no_engine, probe
from edgeclf.benchmarking.run import Job, Measured, Run
from edgeclf.benchmarking.ssh import Host, check_name, connected
from edgeclf.benchmarking.sweep import with_one_engine
from edgeclf_device.artifact import container_of
from edgeclf_device.engines import ENGINES_OF
from edgeclf_device.errors import EdgeclfError, UsageError
from edgeclf_device.progress import Progress, no_progress


@dataclass(frozen=True, kw_only=True)
class HostsMeasured(Measured):
    """What several hosts gave, in the order of the hosts, and each host that failed with its error."""

    failures: tuple[tuple[str, EdgeclfError], ...]


def bench_hosts(
    hosts: Sequence[str],
    paths: Sequence[Path],
    *,
    engines: Sequence[str] = (),
    threads: Sequence[int] = (1,),
    seconds: float = 10.0,
    source: str | None = None,
    in_turn: bool = False,
    arguments: Sequence[str] = (),
    host_python: str = "python3",
    keep: bool = False,
    config: Path | None = None,
    progress: Progress = no_progress,
    tell: Callable[[str], None] = lambda _: None,
) -> HostsMeasured:
    """``bench_remote`` on several hosts at the same time. One that fails takes nothing from the others.

    Ctrl-C ends and cleans up all of them.

    Raises:
        UsageError: a name that can't be a host's, one given twice, or what ``bench_remote`` raises it for.
        DataError, ModelError: ``source`` or a path is not usable.
    """
    for name in hosts:
        check_name(name)
    if len(set(hosts)) != len(hosts) or not hosts:
        raise UsageError(f"Each host must be named once, but {', '.join(hosts) or 'none'} were given.")
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="edgeclf-") as work:
        cargo = pack(
            paths,
            engines=engines,
            threads=threads,
            seconds=seconds,
            source=source,
            in_turn=in_turn,
            arguments=arguments,
            work=Path(work),
        )

        opened: list[Host] = []

        def one(name: str) -> Measured:
            with connected(name, config=config) as host:
                opened.append(host)
                return _bench(host, cargo, host_python=host_python, keep=keep, progress=progress, tell=tell, stop=stop)

        with concurrent.futures.ThreadPoolExecutor(len(hosts)) as pool:
            futures = {name: pool.submit(one, name) for name in hosts}
            try:
                while concurrent.futures.wait(futures.values(), timeout=0.2).not_done:
                    pass
            except BaseException:
                stop.set()
                for host in opened:  # what is being sent ends at once; cleaning up connects again
                    host.disconnect()
                raise
    errors = {name: future.exception() for name, future in futures.items()}
    for error in errors.values():
        if error is not None and not isinstance(error, EdgeclfError):
            raise error
    whole = _together(future.result() for name, future in futures.items() if errors[name] is None)
    return HostsMeasured(
        measurements=whole.measurements,
        comparisons=whole.comparisons,
        failures=tuple((name, error) for name, error in errors.items() if isinstance(error, EdgeclfError)),
    )


def bench_remote(
    host: Host,
    paths: Sequence[Path],
    *,
    engines: Sequence[str] = (),
    threads: Sequence[int] = (1,),
    seconds: float = 10.0,
    source: str | None = None,
    in_turn: bool = False,
    arguments: Sequence[str] = (),
    host_python: str = "python3",
    keep: bool = False,
    progress: Progress = no_progress,
    tell: Callable[[str], None] = lambda _: None,
) -> Measured:
    """Measure artifacts on a board.

    Args:
        host: see ``connected``.
        paths: artifacts or bundles; of a bundle, every artifact that the board has an engine for.
        engines: each that executes an artifact; none: what ``tune`` kept on the board, else the preferred one there.
        threads: to compute with; each artifact is measured once with each.
        seconds: how long to take samples of each artifact, each time, at most.
        source: frames to measure with, decoded here; None takes the synthetic one.
        in_turn: measure each artifact in turn with the first one, which tells the faster.
        arguments: further ones of ``edgeclf-device bench`` there, for example ``--offline`` or ``--no-cold-start``.
        host_python: of the board, for example that of a virtual environment; ~/ is the home there.
        keep: leave what was sent and what was measured on the board.
        progress: shows the measurements as they are finished.
        tell: is told what the user should know meanwhile.

    Raises:
        UsageError: a number that must be positive is not, or an engine that does not exist.
        ModelError, DataError: a path or ``source`` is not usable, here or on the board.
        DependencyError: the board is out of reach or refuses, or lacks Python, NumPy or an engine.
        SystemStateError: the board could not do it: no space, the measurement was killed or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="edgeclf-") as work:
        cargo = pack(
            paths,
            engines=engines,
            threads=threads,
            seconds=seconds,
            source=source,
            in_turn=in_turn,
            arguments=arguments,
            work=Path(work),
        )
        return _bench(host, cargo, host_python=host_python, keep=keep, progress=progress, tell=tell)


def _bench(
    host: Host,
    cargo: Cargo,
    *,
    host_python: str,
    keep: bool,
    progress: Progress,
    tell: Callable[[str], None],
    stop: threading.Event | None = None,
) -> Measured:
    board = probe(host, host_python)
    tell(f"{host.name}: {board}")
    jobs = _jobs(host, board, cargo, tell)
    if cargo.in_turn:
        jobs = _in_turn(jobs)
    run = Run(host=host, python=board.executable, name=f"run-{uuid.uuid4().hex}", stop=stop or threading.Event())
    try:
        run.send(jobs, cargo)
        run.start(jobs, cargo)
        ended = progress(run.codes(len(jobs), tell), f"Measuring on {host.name}", len(jobs))
        return _together(
            run.fetch(number, job, code, cargo) for number, (job, code) in enumerate(zip(jobs, ended, strict=True))
        )
    finally:
        if keep:
            tell(f"{host.name}: kept {run.name} in ${{XDG_CACHE_HOME:-~/.cache}}/edgeclf-bench")
        else:
            run.clean(tell)


def _together(parts: Iterable[Measured]) -> Measured:
    several = list(parts)
    return Measured(
        measurements=tuple(taken for part in several for taken in part.measurements),
        comparisons=tuple(made for part in several for made in part.comparisons),
    )


def _in_turn(jobs: Sequence[Job]) -> list[Job]:
    """Each artifact with the first one that the same engine executes, for each number of threads."""
    paired = []
    for count in dict.fromkeys(job.threads for job in jobs):
        for _, (base, *others) in with_one_engine([(job, job.engine) for job in jobs if job.threads == count]):
            paired += [dataclasses.replace(base, artifacts=base.artifacts + other.artifacts) for other in others]
    return paired


def _jobs(host: Host, board: Board, cargo: Cargo, tell: Callable[[str], None]) -> list[Job]:
    """What this board can measure; what it can't of a bundle is told."""
    jobs: list[Job] = []
    missing: set[str] = set()
    for number, (artifact, alone) in enumerate(cargo.artifacts):
        able = ENGINES_OF[container_of(artifact.file)]
        wanted = [engine for engine in cargo.engines if engine in able] if cargo.engines else list(able)
        if alone and not wanted:
            raise UsageError(
                f"{artifact.file.name} runs on {' or '.join(able)}, but --engine {', '.join(cargo.engines)} was given; "
                "leave --engine out or name another."
            )
        there = [engine for engine in wanted if engine in board.engines]
        absent = set(wanted) - set(there)
        if absent and (cargo.engines or not there):
            missing |= absent if cargo.engines else {able[0]}
            if alone:
                raise no_engine(host, board, min(missing))
        if not there:
            tell(f"{host.name}: skipped, no engine to run it: {artifact.file}")
        place = f"artifacts/{number}/{artifact.file.name}"
        jobs += [
            Job(artifacts=((artifact, place),), engine=engine, threads=count)
            for engine in (there if cargo.engines else [None] if there else [])
            for count in cargo.threads
        ]
    if missing and (cargo.engines or not jobs):
        raise no_engine(host, board, min(missing))
    if not jobs:
        names = ", ".join(artifact.file.name for artifact, _ in cargo.artifacts)
        raise UsageError(f"{' and '.join(cargo.engines)} executes none of {names}; name other engines or artifacts.")
    return jobs
