"""How the machine is: clock rate, throttling, heat, memory, swap, disk and time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from edgeclf_device.doctor.finding import Finding
from edgeclf_device.health import Health, memory_mib, read_health

LOW_MEMORY_MIB, LOW_DISK_MIB = 256, 500
HOT_C = 80.0
"""A Raspberry Pi slows down from 80 °C; a Jetson and most processors above 85 °C."""

STEADY_GOVERNORS = {"performance", "schedutil"}
"""``schedutil`` follows the load within a millisecond; ``ondemand`` and ``powersave`` let a frame begin slowly."""

_GOVERNORS = "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
_THROTTLE_REMEDIES = {
    "under-voltage": "use the board's own power supply (Pi 4: 5.1 V 3 A, Pi 5: 5.1 V 5 A) and a short cable",
    "over-current": "use a stronger power supply or a lower power mode (nvpmodel)",
    "frequency capped": "cool the board, or raise arm_freq in config.txt if it was lowered",
    "throttled": "cool the board: a heat sink, a fan",
    "soft temperature limit": "cool the board: a heat sink, a fan",
}


def examine_machine(root: Path) -> Iterator[Finding]:
    """Look at everything of the machine that the system tells; nothing is said of the rest."""
    health = read_health(root)
    yield from _governor(health)
    yield from _throttling(health)
    yield from _temperature(health)
    yield from _memory(memory_mib(root))
    yield _disk()
    yield from _clock(root)


def _governor(health: Health) -> Iterator[Finding]:
    if health.governor is None:
        return
    at = "" if health.frequency_mhz is None else f", now at {health.frequency_mhz:.0f} MHz"
    steady = health.governor in STEADY_GOVERNORS
    yield Finding(
        subject="governor",
        level="ok" if steady else "note",
        detail=f"{health.governor}{at}" + ("" if steady else ": a frame after a pause is slower than the next ones"),
        remedy="" if steady else f"Where that matters: echo performance | sudo tee {_GOVERNORS}",
    )


def _throttling(health: Health) -> Iterator[Finding]:
    if health.throttled is None:
        return
    if not health.throttled:
        yield Finding(subject="throttling", level="ok", detail="none since the start")
        return
    remedies = {
        remedy: None
        for cause, remedy in _THROTTLE_REMEDIES.items()
        if any(said.startswith(cause) for said in health.throttled)
    }
    sentence = "; ".join(remedies)
    yield Finding(
        subject="throttling",
        level="note",
        detail=", ".join(health.throttled),
        remedy=f"{sentence[0].upper()}{sentence[1:]}; restart to see whether it comes again.",
    )


def _temperature(health: Health) -> Iterator[Finding]:
    if health.temperature_c is None:
        return
    hot = health.temperature_c >= HOT_C
    yield Finding(
        subject="temperature",
        level="note" if hot else "ok",
        detail=f"{health.temperature_c:.1f} °C",
        remedy="Cool the board: it slows down when it is hot." if hot else "",
    )


def _memory(mib: dict[str, int]) -> Iterator[Finding]:
    if "MemAvailable" in mib:
        low = mib["MemAvailable"] < LOW_MEMORY_MIB
        yield Finding(
            subject="memory",
            level="note" if low else "ok",
            detail=f"{mib['MemAvailable']} MiB available",
            remedy=f"Free some: an engine with a model takes up to {LOW_MEMORY_MIB} MiB." if low else "",
        )
    used = mib.get("SwapTotal", 0) - mib.get("SwapFree", 0)
    if used > 0:
        yield Finding(
            subject="swap",
            level="note",
            detail=f"{used} MiB of {mib['SwapTotal']} in use: what lies there comes back slowly",
            remedy="Stop what is not needed, or give the program a board with more memory.",
        )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free >> 20
    low = free < LOW_DISK_MIB
    return Finding(
        subject="disk",
        level="note" if low else "ok",
        detail=f"{free} MiB free in {Path.cwd()}",
        remedy=f"Free some: an engine takes up to {LOW_DISK_MIB} MiB to install." if low else "",
    )


def _clock(root: Path) -> Iterator[Finding]:
    """Said only where systemd-timesyncd serves the clock, for only it leaves a mark when it has set it."""
    service = root / "run/systemd/timesync"
    if service.is_dir() and not (service / "synchronized").exists():
        yield Finding(
            subject="clock",
            level="note",
            detail="not set from the network: times in logs may be wrong; ages and timeouts are not affected",
            remedy="Connect it once, or set it: sudo timedatectl set-time 'YYYY-MM-DD HH:MM:SS'",
        )
