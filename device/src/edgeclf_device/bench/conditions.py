"""How the machine is while samples are taken: counters that only rise, and states, looked at between the samples."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns
from typing import Any

from edgeclf_device.health import read_health, read_line

LOOK_EVERY_NS = 250_000_000
_COOLERS = ("Processor", "cpufreq", "thermal-cpufreq", "thermal-devfreq")
"""Beginnings of the types of cooling devices that slow a processor down; fans are none."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The machine at one moment; None, or nothing, wherever the system doesn't tell.

    Attributes:
        at_ns: when, by ``time.monotonic_ns()``.
        busy_s: what the cores that this process may use have worked since the start of the system, for whomever.
        own_s: what this process has, on whatever cores.
        stolen_s: what other machines on the same host took of these cores.
        frequencies_mhz: of each of these cores.
        temperature_c: of the processor.
        throttled: what holds the machine back now.
        throttle_events: how often something has held it back since its start.
        cooling_state: how far the processor is slowed down to cool it; 0 is not at all.
        swapped_pages: pages swapped in and out since the start, by whomever.
        major_faults: of this process: pages that it had to wait for the disk for.
    """

    at_ns: int
    busy_s: float | None
    own_s: float
    stolen_s: float | None
    frequencies_mhz: tuple[float, ...]
    temperature_c: float | None
    throttled: tuple[str, ...]
    throttle_events: int | None
    cooling_state: int | None
    swapped_pages: int | None
    major_faults: int

    def to_json(self) -> dict[str, Any]:
        """The look as measurement files hold it."""
        return {**vars(self), "frequencies_mhz": list(self.frequencies_mhz), "throttled": list(self.throttled)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Conditions:
        """What ``to_json`` gave."""
        several = {name: tuple(value[name]) for name in ("frequencies_mhz", "throttled")}
        return cls(**{**value, **several})


def look(root: Path = Path("/")) -> Conditions:
    """Look at the machine now: some small files, and ``vcgencmd`` where there is one.

    Args:
        root: the folder that holds ``proc``, ``sys`` and ``usr``.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    busy_s, stolen_s = _core_times(root, cores)
    own = resource.getrusage(resource.RUSAGE_SELF)
    health = read_health(root)
    frequencies = (_number(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq") for core in cores)
    return Conditions(
        at_ns=monotonic_ns(),
        busy_s=busy_s,
        own_s=own.ru_utime + own.ru_stime,
        stolen_s=stolen_s,
        frequencies_mhz=tuple(one / 1000 for one in frequencies if one is not None),
        temperature_c=health.temperature_c,
        throttled=tuple(one for one in health.throttled or () if one.endswith(" now")),
        throttle_events=_sum(
            *(root / "sys/devices/system/cpu").glob("cpu*/thermal_throttle/*_throttle_count"),
            *(root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"),
        ),
        cooling_state=_sum(
            *(
                device / "cur_state"
                for device in (root / "sys/class/thermal").glob("cooling_device*")
                if read_line(device / "type").startswith(_COOLERS)
            )
        ),
        swapped_pages=_swapped_pages(root),
        major_faults=own.ru_majflt,
    )


class Watch:
    """Looks at the machine at once, every quarter of a second when asked between samples, and when closed.

    Args:
        take: gives a look; another one for tests.
    """

    def __init__(self, take: Callable[[], Conditions] = look) -> None:
        self._take = take
        self._looks = [take()]
        self._due_ns = self._looks[0].at_ns + LOOK_EVERY_NS

    @property
    def looks(self) -> tuple[Conditions, ...]:
        """All looks so far, in the order taken."""
        return tuple(self._looks)

    def look_if_due(self, now_ns: int) -> None:
        """Look, unless the last look was less than a quarter of a second before ``now_ns``."""
        if now_ns >= self._due_ns:
            self._looks.append(self._take())
            self._due_ns = now_ns + LOOK_EVERY_NS

    def close(self) -> None:
        """Look a last time."""
        self._looks.append(self._take())


def _core_times(root: Path, cores: list[int]) -> tuple[float | None, float | None]:
    """(busy seconds, stolen seconds) of ``cores`` together, by /proc/stat (proc(5))."""
    wanted = {f"cpu{core}" for core in cores}
    rows = [line.split() for line in read_line(root / "proc/stat").splitlines()]
    times = [[int(one) for one in row[1:]] for row in rows if row and row[0] in wanted]
    if not times:
        return None, None
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are within user.
    busy = sum(sum(row[:3]) + sum(row[5:7]) for row in times)
    stolen = sum(row[7] for row in times if len(row) > 7)
    ticks = os.sysconf("SC_CLK_TCK")
    return busy / ticks, stolen / ticks


def _swapped_pages(root: Path) -> int | None:
    counts = dict(line.split() for line in read_line(root / "proc/vmstat").splitlines())
    return int(counts["pswpin"]) + int(counts["pswpout"]) if "pswpin" in counts else None


def _sum(*files: Path) -> int | None:
    found = [number for file in files if (number := _number(file)) is not None]
    return sum(found) if found else None


def _number(file: Path) -> int | None:
    try:
        return int(read_line(file))
    except ValueError:
        return None
