"""Energy spent while samples are taken, where the hardware counts it or tells its power.

Each source covers something else, and its name says what: figures of different sources are not comparable.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic_ns
from typing import Any

from edgeclf_device.health import VCGENCMD_TIMEOUT_S, read_line

POWER_EVERY_NS = 500_000_000


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What was spent.

    Attributes:
        source: what told it, and what that covers.
        joules: spent between the first reading and the last.
        seconds: between these.
    """

    source: str
    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        """The mean power."""
        return self.joules / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """The energy as measurement files hold it."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """One source of figures.

    Attributes:
        source: see ``Energy``.
        read: joules counted so far where ``counts``, else the power in watts; None: it can't be read now.
        wraps_at: joules at which the counter begins anew.
        counts: whether it counts energy.
    """

    source: str
    read: Callable[[], float | None]
    counts: bool
    wraps_at: float = float("inf")


class Meter:
    """Reads a gauge at its begin, when asked between samples, and at its end.

    Args:
        gauge: None measures nothing.
    """

    def __init__(self, gauge: Gauge | None) -> None:
        self._gauge = gauge
        self._joules = 0.0
        self._begin_ns = self._last_ns = monotonic_ns()
        self._last = None if gauge is None else gauge.read()

    def tick(self) -> None:
        """Read, unless less than half a second has passed since the last reading."""
        if self._gauge is not None and monotonic_ns() - self._last_ns >= POWER_EVERY_NS:
            self.read()

    def read(self) -> None:
        """Read now and add what was spent since the last reading; a power by the trapezoidal rule."""
        if self._gauge is None or self._last is None:
            return
        now, found = monotonic_ns(), self._gauge.read()
        if found is None:
            self._last = None
            return
        if self._gauge.counts:
            spent = found - self._last
            self._joules += spent if spent >= 0 else spent + self._gauge.wraps_at
        else:
            self._joules += (self._last + found) / 2 * (now - self._last_ns) / 1e9
        self._last, self._last_ns = found, now

    @property
    def energy(self) -> Energy | None:
        """What was spent until the last reading; None where nothing tells it, or stopped telling it."""
        if self._gauge is None or self._last is None:
            return None
        return Energy(source=self._gauge.source, joules=self._joules, seconds=(self._last_ns - self._begin_ns) / 1e9)


@contextmanager
def metered(root: Path = Path("/")) -> Iterator[Meter]:
    """A meter over what the machine has, which reads a last time at the end."""
    meter = Meter(find_gauge(root))
    yield meter
    meter.read()


def find_gauge(root: Path = Path("/")) -> Gauge | None:
    """The first gauge that can be read: of a Jetson, a Raspberry Pi 5, or an x86 processor; None without any."""
    gauges = (gauge for find in (_ina3221, _pmic, _rapl) if (gauge := find(root)) is not None)
    return next((gauge for gauge in gauges if gauge.read() is not None), None)


def _rapl(root: Path) -> Gauge | None:
    """The first package's counter of Intel and AMD (Linux, Documentation/power/powercap); root alone may read it."""
    zone = root / "sys/class/powercap/intel-rapl:0"
    if not zone.is_dir():
        return None
    span = _number(zone / "max_energy_range_uj")
    return Gauge(
        source="RAPL, the processor's package",
        read=lambda: _scaled(zone / "energy_uj", 1e-6),
        counts=True,
        wraps_at=float("inf") if span is None else span * 1e-6,
    )


def _ina3221(root: Path) -> Gauge | None:
    """The rail of the whole module of a Jetson: millivolts times milliamperes (Linux, Documentation/hwmon/ina3221)."""
    for label in sorted((root / "sys/class/hwmon").glob("hwmon*/in*_label")):
        if read_line(label) in ("VDD_IN", "POM_5V_IN"):
            voltage = label.with_name(label.name.replace("_label", "_input"))
            current = label.with_name(re.sub(r"^in(\d+)_label$", r"curr\1_input", label.name))
            return Gauge(
                source=f"INA3221, the module's {read_line(label)}",
                read=partial(_product, voltage, current),
                counts=False,
            )
    return None


def _pmic(root: Path) -> Gauge | None:
    """All rails that the power controller of a Raspberry Pi 5 measures; not those of USB and of the 5 V pins."""
    command = root / "usr/bin/vcgencmd"
    if not command.is_file():
        return None
    return Gauge(
        source="PMIC, the rails of the board without USB and 5 V pins", read=lambda: _pmic_watts(command), counts=False
    )


def _pmic_watts(command: Path) -> float | None:
    try:
        answer = subprocess.run(
            [command, "pmic_read_adc"], capture_output=True, text=True, timeout=VCGENCMD_TIMEOUT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    amperes = dict(re.findall(r"(\w+)_A current\(\d+\)=([\d.]+)A", answer))
    volts = dict(re.findall(r"(\w+)_V volt\(\d+\)=([\d.]+)V", answer))
    rails = amperes.keys() & volts.keys()
    return sum(float(amperes[rail]) * float(volts[rail]) for rail in rails) if rails else None


def _product(voltage: Path, current: Path) -> float | None:
    volts, amperes = _scaled(voltage, 1e-3), _scaled(current, 1e-3)
    return None if volts is None or amperes is None else volts * amperes


def _scaled(file: Path, unit: float) -> float | None:
    number = _number(file)
    return None if number is None else number * unit


def _number(file: Path) -> int | None:
    try:
        return int(read_line(file))
    except ValueError:
        return None
