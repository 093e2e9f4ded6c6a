"""Health is read from folders like those of the boards; the values are what such boards show."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter_ns

import pytest

from edgeclf_device import health
from edgeclf_device.health import explain_throttling, read_health

MEMINFO = (
    "MemTotal: 3884376 kB\nMemAvailable: 2097152 kB\nSwapTotal: 204800 kB\nSwapFree: 102400 kB\nHugePages_Total: 0\n"
)
CPU = "sys/devices/system/cpu/cpu0/cpufreq"
THERMAL, HWMON = "sys/class/thermal/thermal_zone", "sys/class/hwmon/hwmon"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def zones(*sensors: tuple[str, int]) -> dict[str, str]:
    return {
        f"{THERMAL}{index}/{name}": f"{value}\n"
        for index, (kind, millidegrees) in enumerate(sensors)
        for name, value in (("type", kind), ("temp", millidegrees))
    }


def vcgencmd(root: Path, answer: str, count: Path | None = None) -> None:
    command = tree(root, {"usr/bin/vcgencmd": f"#!/bin/sh\necho x >>{count or '/dev/null'}\necho {answer}\n"})
    (command / "usr/bin/vcgencmd").chmod(0o755)


@pytest.fixture(autouse=True)
def asked_anew():
    health._vcgencmd_bits.cache_clear()


def test_a_raspberry_pi_4_with_a_weak_supply(tmp_path):
    tree(
        tmp_path,
        {
            **zones(("cpu-thermal", 82777)),
            f"{CPU}/scaling_cur_freq": "1000000\n",
            f"{CPU}/scaling_governor": "ondemand\n",
            "proc/loadavg": "1.52 0.80 0.31 2/180 4711\n",
            "proc/meminfo": MEMINFO,
        },
    )
    vcgencmd(tmp_path, "throttled=0x50005")
    found = read_health(tmp_path)
    assert found.to_json() == {
        "temperature_c": 82.777,
        "throttled": (
            "under-voltage now",
            "throttled now",
            "under-voltage has occurred",
            "throttled has occurred",
        ),
        "frequency_mhz": 1000.0,
        "governor": "ondemand",
        "load_1_min": 1.52,
        "free_memory_mib": 2048,
    }


def test_a_raspberry_pi_5_that_is_well(tmp_path):
    sensors = {f"{HWMON}{index}/name": f"{name}\n" for index, name in enumerate(("cpu_thermal", "rp1_adc", "rpi_volt"))}
    tree(tmp_path, {**zones(("cpu-thermal", 51800)), **sensors, f"{HWMON}1/temp1_input": "58000\n"})
    vcgencmd(tmp_path, "throttled=0x0")
    found = read_health(tmp_path)
    assert (found.temperature_c, found.throttled) == (51.8, ())


def test_without_vcgencmd_an_older_kernel_tells_of_throttling(tmp_path):
    tree(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "80008\n"})
    assert read_health(tmp_path).throttled == ("soft temperature limit now", "soft temperature limit has occurred")


def test_a_vcgencmd_that_may_not_ask_is_no_answer(tmp_path):
    vcgencmd(tmp_path, "VCHI initialization failed")
    assert read_health(tmp_path).throttled is None


def test_a_jetson_nano_is_not_as_hot_as_its_power_chip_says(tmp_path):
    tree(tmp_path, zones(("AO-therm", 45500), ("CPU-therm", 37000), ("GPU-therm", 36000), ("PMIC-Die", 100000)))
    found = read_health(tmp_path)
    assert (found.temperature_c, found.throttled) == (37.0, None)


def test_a_jetson_orin_counts_over_currents_and_its_sleeping_sensors_do_no_harm(tmp_path):
    tree(
        tmp_path,
        {
            **zones(("gpu-thermal", 44000), ("cpu-thermal", 48500)),
            f"{HWMON}2/oc1_event_cnt": "0\n",
            f"{HWMON}2/oc3_event_cnt": "7\n",
        },
    )
    (tmp_path / f"{THERMAL}0/temp").unlink()
    found = read_health(tmp_path)
    assert (found.temperature_c, found.throttled) == (48.5, ("over-current has occurred",))


def test_a_pc_has_its_package_temperature_not_that_of_its_board(tmp_path):
    tree(tmp_path, zones(("acpitz", 27800), ("x86_pkg_temp", 63000)))
    assert read_health(tmp_path).temperature_c == 63.0


def test_an_amd_pc_has_no_zone_but_a_chip(tmp_path):
    tree(tmp_path, {f"{HWMON}0/name": "nvme\n", f"{HWMON}3/name": "k10temp\n", f"{HWMON}3/temp1_input": "45125\n"})
    assert read_health(tmp_path).temperature_c == 45.125


def test_what_the_system_does_not_tell_is_none(tmp_path):
    assert set(read_health(tmp_path).to_json().values()) == {None}


def test_vcgencmd_is_not_asked_for_every_look(tmp_path, monkeypatch):
    now_ns = [10**12]
    monkeypatch.setattr(health, "monotonic_ns", lambda: now_ns[0])
    vcgencmd(tmp_path, "throttled=0x0", tmp_path / "count")
    for _ in range(20):
        read_health(tmp_path)
        now_ns[0] += 200_000_000
    assert (tmp_path / "count").read_text().count("x") == 2


def test_every_bit_has_its_word():
    assert len(explain_throttling(0xF000F)) == 8
    assert explain_throttling(0x20000) == ("frequency capped has occurred",)
    assert explain_throttling(0) == ()


def test_this_machine_is_looked_at_quickly():
    spent_ns = []
    for _ in range(20):
        begin_ns = perf_counter_ns()
        found = read_health()
        spent_ns.append(perf_counter_ns() - begin_ns)
    assert found.free_memory_mib
    assert min(spent_ns) < 5e6
