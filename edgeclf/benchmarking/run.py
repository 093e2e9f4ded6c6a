"""The work of one call on one board: what is sent, started, waited for, fetched and cleaned up."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edgeclf.benchmarking.cargo import BOARD, FRAMES_FOLDER, Cargo, Sent
from edgeclf.benchmarking.probe import answer
from edgeclf.benchmarking.ssh import Host, patiently
from edgeclf_device.bench import Comparison, Measurement, read_comparison, read_measurements
from edgeclf_device.errors import DataError, DependencyError, EdgeclfError, ModelError, SystemStateError, UsageError

POLL_S = 1.0
RECONNECT_S = 300.0
"""How long a link that dropped is waited for."""
CLEANUP_S = 20.0
"""How long it is waited for where only the cleaning up is left."""
PATIENCE_S = 600.0
"""How long one measurement may take beyond its seconds: opening the model and the warm-up, on a slow board."""

Result = TypeVar("Result")


class StoppedError(Exception):
    """The user ended it meanwhile; never shown."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a board measured, and what it compared in turn."""

    measurements: tuple[Measurement, ...]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of ``edgeclf-device bench``: an artifact measured alone, or two in turn.

    Attributes:
        artifacts: one or two, each with its place in the run's folder.
        engine: None lets the board choose.
        threads: to compute with.
    """

    artifacts: tuple[tuple[Sent, str], ...]
    engine: str | None
    threads: int

    @property
    def arguments(self) -> list[str]:
        """Of the call, in the folder of the runtime."""
        places = [f"../{place}" for _, place in self.artifacts]
        return [*([] if self.engine is None else [f"--engine={self.engine}"]), f"--threads={self.threads}", *places]

    def limit_s(self, cargo: Cargo) -> float:
        """How long it may take."""
        return cargo.seconds * len(self.artifacts) + PATIENCE_S


@dataclass(frozen=True, kw_only=True)
class Run:
    """The work of one call on one board. Its name is chosen here, so that everything may be said twice."""

    host: Host
    python: str
    name: str
    stop: threading.Event
    uploaded: set[str] = field(default_factory=set)

    def send(self, jobs: Sequence[Job], cargo: Cargo) -> None:
        """Send what the board has not whole, and put it where it is used."""
        artifacts = {place: artifact for job in jobs for artifact, place in job.artifacts}
        needed = {one.sha256: one.file for one in (cargo.runtime, *artifacts.values(), *filter(None, [cargo.frames]))}
        links = [[artifact.sha256, place] for place, artifact in artifacts.items()]
        frames = None if cargo.frames is None else cargo.frames.sha256
        for _ in range(3):  # another run that ends may take a file away in between
            there = self._ask("prepare", files=sorted(needed))
            for digest in sorted(set(needed) - set(there["have"])):
                self.uploaded.add(digest)
                self._patiently(functools.partial(self.host.put, needed[digest], f"{there['folder']}/{digest}"))
            torn = self._ask("stage", runtime=cargo.runtime.sha256, artifacts=links, frames=frames)["torn"]
            if not torn:
                return
        raise SystemStateError(
            f"{self.host.name} must hold what was sent, but {len(torn)} files are not whole there after three tries; "
            "check its storage."
        )

    def start(self, jobs: Sequence[Job], cargo: Cargo) -> None:
        """Start measuring, detached from the link."""
        frames = [] if cargo.frames is None else ["--source", f"../{FRAMES_FOLDER}"]
        common = [*cargo.arguments, *frames, f"--seconds={cargo.seconds}"]
        self._ask(
            "start",
            jobs=[[*common, *job.arguments] for job in jobs],
            limits_s=[job.limit_s(cargo) for job in jobs],
        )

    def codes(self, count: int, tell: Callable[[str], None]) -> Iterator[int]:
        """The exit code of each measurement as it is finished.

        Raises:
            SystemStateError: the board ended them before they were finished.
        """
        given, waiting = 0, False
        while given < count:
            found = self._ask("poll")
            yield from found["codes"][given:]
            given = len(found["codes"])
            if given == count:
                return
            if not found["lives"]:
                raise SystemStateError(
                    f"{self.host.name} must measure until it is done, but that ended early: the board was restarted or "
                    f"short of memory; look at `dmesg` there and run it again. {found['log']}".strip()
                )
            if not found["began"] and not waiting:
                waiting = True
                tell(f"{self.host.name}: waiting, another measurement is going on there")
            self._pause(POLL_S)

    def fetch(self, number: int, job: Job, code: int, cargo: Cargo) -> Measured:
        """What ``job``, of this number, measured; it ended with ``code``.

        Raises:
            EdgeclfError: of the kind that the code stands for.
        """
        lies = self._ask("result", number=number)
        if code != 0:
            raise self._failure(code, lies["stderr"], job.limit_s(cargo))
        with tempfile.TemporaryDirectory(prefix="edgeclf-") as folder:
            file = Path(folder) / "measurement.json"
            self._patiently(functools.partial(self.host.get, lies["file"], file))
            try:
                if len(job.artifacts) == 1:
                    (taken,) = read_measurements(file)
                    return Measured(measurements=(self._taken(taken, cargo),), comparisons=())
                made = read_comparison(file)
            except (DataError, ValueError) as error:
                raise SystemStateError(
                    f"{self.host.name} must give what it measured as JSON and nothing else, but did not ({error}); its "
                    "login scripts must print nothing where there is no terminal."
                ) from error
        base, other = self._taken(made.base, cargo), self._taken(made.other, cargo)
        compared = dataclasses.replace(made, base=base, other=other)
        return Measured(measurements=(base, other), comparisons=(compared,))

    def _taken(self, taken: Measurement, cargo: Cargo) -> Measurement:
        """A measurement of this board, under its name."""
        named = dataclasses.replace(taken, host=self.host.name)
        if cargo.frames is None:
            return named
        # They were decoded here: what the board took to read them says nothing of it.
        samples = {stage: values for stage, values in taken.samples_ns.items() if stage != "capture"}
        return dataclasses.replace(named, input=cargo.description, samples_ns=samples)

    def clean(self, tell: Callable[[str], None]) -> None:
        """End what still runs, and remove what this call brought. What can't be removed is told, not raised."""
        try:
            until = time.monotonic() + CLEANUP_S
            patiently(functools.partial(self._ask_once, "clean", files=sorted(self.uploaded)), until=until)
        except EdgeclfError as error:
            tell(
                f"{self.host.name}: could not be cleaned up; remove {self.name} in "
                f"${{XDG_CACHE_HOME:-~/.cache}}/edgeclf-bench there. {error}"
            )

    def _failure(self, code: int, stderr: str, limit_s: float) -> EdgeclfError:
        if code < 0:
            return SystemStateError(
                f"A measurement on {self.host.name} must end by itself within {limit_s:g} s, but was ended by signal "
                f"{-code}: it took too long or the board is short of memory. {stderr}".strip()
            )
        kinds: dict[int, type[EdgeclfError]] = {
            kind.exit_code: kind for kind in (UsageError, DataError, ModelError, DependencyError)
        }
        said = stderr.splitlines()[-1] if stderr else "nothing"
        return kinds.get(code, SystemStateError)(f"{self.host.name} could not measure; it said: {said}")

    def _ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        return self._patiently(functools.partial(self._ask_once, verb, **arguments))

    def _ask_once(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Have the board do a verb of ``board.py``."""
        command = [self.python, "-", verb, json.dumps({"run": self.name, **arguments})]
        return answer(self.host, self.host.run(command, stdin=_program().encode()))

    def _patiently(self, action: Callable[[], Result]) -> Result:
        return patiently(action, until=time.monotonic() + RECONNECT_S, wait=self._pause)

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise StoppedError


@functools.cache
def _program() -> str:
    return BOARD.read_text(encoding="utf-8")
