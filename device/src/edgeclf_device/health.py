"""How the machine is: temperature, throttling, clock, load and memory, as far as the system tells."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import monotonic_ns
from typing import Any

PROCESSOR_ZONES = (
    "cpu-thermal",  # Raspberry Pi, Jetson Orin
    "cpu_thermal",
    "CPU-therm",  # Jetson Nano, TX2 and Xavier
    "soc-thermal",
    "soc_thermal",
    "x86_pkg_temp",
)
"""Types of thermal zones that measure the processor. Others may be a battery, a radio or a constant (PMIC-Die)."""

PROCESSOR_SENSORS = ("cpu_thermal", "coretemp", "k10temp", "zenpower")
"""Names of hwmon chips whose first temperature is the processor's."""

THROTTLE_CAUSES = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
"""What the firmware of a Raspberry Pi says by bits: bit n now, bit n + 16 at some time since the start."""

VCGENCMD_EVERY_NS = 2_000_000_000
VCGENCMD_TIMEOUT_S = 2.0
_CPU0 = "sys/devices/system/cpu/cpu0/cpufreq"


@dataclass(frozen=True, kw_only=True)
class Health:
    """The machine's state; None wherever the system doesn't tell.

    Attributes:
        temperature_c: of the processor.
        throttled: what holds the board back, each ending in ``now`` or ``has occurred`` (since the start); empty where
            nothing does. Known of a Raspberry Pi, and of a Jetson whose over-current events are counted.
        frequency_mhz: of the first core.
        governor: CPU frequency governor of the first core.
        load_1_min: processes that ran or wanted to, average over the last minute.
        free_memory_mib: what programs may still take without swapping.
    """

    temperature_c: float | None
    throttled: tuple[str, ...] | None
    frequency_mhz: float | None
    governor: str | None
    load_1_min: float | None
    free_memory_mib: int | None

    def to_json(self) -> dict[str, Any]:
        """The state as JSON shows it."""
        return dict(vars(self))


def read_health(root: Path = Path("/")) -> Health:
    """Look at the machine now: a few small files, and ``vcgencmd`` at most every two seconds.

    Args:
        root: the folder that holds ``proc``, ``sys`` and ``usr``.
    """
    kilohertz = _number(root / _CPU0 / "scaling_cur_freq")
    load = read_line(root / "proc/loadavg").split()
    available = memory_mib(root).get("MemAvailable")
    return Health(
        temperature_c=_temperature(root),
        throttled=_throttled(root),
        frequency_mhz=None if kilohertz is None else kilohertz / 1000,
        governor=read_line(root / _CPU0 / "scaling_governor") or None,
        load_1_min=float(load[0]) if load else None,
        free_memory_mib=available,
    )


def explain_throttling(bits: int) -> tuple[str, ...]:
    """The causes in the word that ``vcgencmd get_throttled`` gives, those of now first."""
    times = ((0, "now"), (16, "has occurred"))
    return tuple(
        f"{cause} {when}" for shift, when in times for bit, cause in THROTTLE_CAUSES.items() if bits >> bit + shift & 1
    )


def memory_mib(root: Path = Path("/")) -> dict[str, int]:
    """``/proc/meminfo`` in MiB by field, for example ``MemAvailable`` and ``SwapTotal``; empty where there is none."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines)
    return {name.rstrip(":"): int(count) // 1024 for name, count, *unit in fields if unit == ["kB"]}


def read_line(path: Path) -> str:
    """A small file of the kernel's as text, without its ending; nothing where it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:  # also of a sensor whose part of the chip sleeps
        return ""


def _temperature(root: Path) -> float | None:
    zones = {read_line(zone / "type"): zone / "temp" for zone in (root / "sys/class/thermal").glob("thermal_zone*")}
    chips = {read_line(chip / "name"): chip / "temp1_input" for chip in (root / "sys/class/hwmon").glob("hwmon*")}
    sensors = (
        *(zones[kind] for kind in PROCESSOR_ZONES if kind in zones),
        *(chips[name] for name in PROCESSOR_SENSORS if name in chips),
    )
    values = (_number(sensor) for sensor in sensors)
    return next((value / 1000 for value in values if value is not None), None)


def _throttled(root: Path) -> tuple[str, ...] | None:
    bits = _pi_bits(root)
    if bits is not None:
        return explain_throttling(bits)
    counts = [_number(file) for file in (root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")]
    if not counts:
        return None
    return ("over-current has occurred",) if any(counts) else ()


def _pi_bits(root: Path) -> int | None:
    """The firmware's word: of ``vcgencmd``, else of the kernel, where older ones show it to everyone."""
    bits = _vcgencmd_bits(root / "usr/bin/vcgencmd", monotonic_ns() // VCGENCMD_EVERY_NS)
    if bits is not None:
        return bits
    files = (root / "sys/devices/platform").glob("soc*/*firmware*/get_throttled")
    return next((word for file in files if (word := _hexadecimal(read_line(file))) is not None), None)


@lru_cache(maxsize=1)
def _vcgencmd_bits(command: Path, period: int) -> int | None:  # noqa: ARG001 - a new period asks again
    """What ``vcgencmd get_throttled`` answers (``throttled=0x50005``); None without it, or without the right to ask."""
    try:
        answer = subprocess.run(
            [command, "get_throttled"], capture_output=True, text=True, timeout=VCGENCMD_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return _hexadecimal(answer.stdout.partition("=")[2])


def _hexadecimal(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None


def _number(path: Path) -> int | None:
    try:
        return int(read_line(path))
    except ValueError:
        return None
