"""What a measurement ran on: recorded beside every figure, so that unlike machines are not compared."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeclf_device.choice import usable_cores
from edgeclf_device.health import read_line

CPU_INFO = Path("/proc/cpuinfo")
MODEL = Path("/proc/device-tree/model")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The machine and the versions.

    Attributes:
        board: model name of a single-board computer; None elsewhere.
        cpu: model name of the processor, as the system gives it.
        cores: number this process may use.
        architecture, system, python, numpy: as the interpreter reports them.
        governor: CPU frequency governor; None where the system doesn't tell.
        load_1_min: load average over the last minute; None where the system doesn't tell.
    """

    board: str | None
    cpu: str
    cores: int
    architecture: str
    system: str
    python: str
    numpy: str
    governor: str | None
    load_1_min: float | None

    def to_json(self) -> dict[str, Any]:
        """The environment as measurement files hold it."""
        return dict(vars(self))


def record_environment() -> Environment:
    """Look at this machine, now."""
    return Environment(
        board=read_line(MODEL) or None,
        cpu=_cpu_model(),
        cores=usable_cores(),
        architecture=platform.machine(),
        system=platform.platform(),
        python=platform.python_version(),
        numpy=np.__version__,
        governor=read_line(GOVERNOR) or None,
        load_1_min=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def _cpu_model() -> str:
    fields: dict[str, str] = {}
    for line in read_line(CPU_INFO).splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    # Arm kernels give no model name, but the numbers by which the core can be looked up.
    part = f"implementer {fields.get('CPU implementer')} part {fields.get('CPU part')}" if "CPU part" in fields else ""
    return fields.get("model name") or part or platform.processor() or "unknown"
