"""What the first label of a process costs: each time a new process, the files already in the system's memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns
from typing import Any

from edgeclf_device.errors import SystemStateError
from edgeclf_device.health import read_line

_CHILD = "import time; began = time.monotonic_ns(); from edgeclf_device.bench.cold_start import _child; _child(began)"
TIMEOUT_S = 300


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """One process, from its start to its first labels.

    Attributes:
        start_ns: until Python runs.
        import_ns: until the packages are loaded.
        open_ns: until the classifier is open.
        first_ns: the first frame's classification.
        second_ns: the second's: what the first one has more, it does once.
        peak_bytes: memory of the process, at most (VmHWM); None where the system doesn't tell.
    """

    start_ns: int
    import_ns: int
    open_ns: int
    first_ns: int
    second_ns: int
    peak_bytes: int | None

    @property
    def first_label_ns(self) -> int:
        """From the process's start to the first label."""
        return self.start_ns + self.import_ns + self.open_ns + self.first_ns

    def to_json(self) -> dict[str, Any]:
        """The start as measurement files hold it."""
        return dict(vars(self))


def cold_start(path: Path, *, engine: str, threads: int, options: Mapping[str, str]) -> ColdStart:
    """Start a process that classifies the synthetic frame twice.

    Raises:
        SystemStateError: it fails, or takes longer than five minutes.
    """
    given = json.dumps([str(path), engine, threads, dict(options)])
    begin = monotonic_ns()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, given], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        raise SystemStateError(
            f"A new process must classify one frame with {path.name}, but it ended with {error.returncode}: "
            f"{said[-1] if said else 'it said nothing'}; run edgeclf-device doctor."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SystemStateError(
            f"A new process must classify one frame with {path.name} within {TIMEOUT_S} s, but it did not; "
            "run edgeclf-device doctor."
        ) from error
    found = json.loads(done.stdout)
    return ColdStart(start_ns=found.pop("began") - begin, **found)


def _child(began: int) -> None:
    """What the new process does; ``began`` and its parent's clock are the system's monotonic one."""
    from edgeclf_device.bench.frames import input_of, synthetic_frame
    from edgeclf_device.classifier import Classifier

    imported = monotonic_ns()
    path, engine, threads, options = json.loads(sys.argv[1])
    with Classifier.open(path, engine=engine, threads=threads, options=options) as classify:
        opened = monotonic_ns()
        image = input_of(classify, synthetic_frame())
        times = [monotonic_ns()]
        for _ in range(2):
            classify(image)
            times.append(monotonic_ns())
        found = {
            "began": began,
            "import_ns": imported - began,
            "open_ns": opened - imported,
            "first_ns": times[1] - times[0],
            "second_ns": times[2] - times[1],
            "peak_bytes": peak_bytes(),
        }
    sys.stdout.write(json.dumps(found))


def peak_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """The most memory that this process has held; getrusage's figure would begin at the parent's."""
    fields = dict(line.partition(":")[::2] for line in read_line(status).splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024 if "VmHWM" in fields else None
