"""Validity: every planted disturbance is found, quiet machines are believed."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from edgeclf_device.bench.conditions import LOOK_EVERY_NS, Conditions, Watch, look
from edgeclf_device.bench.energy import Gauge, Meter, find_gauge, metered
from edgeclf_device.bench.steady import change_point, steady
from edgeclf_device.bench.validity import judge

SEEDS = 60
SAMPLES = 3000


def times(seed, *, alike=0.7, count=SAMPLES):
    """Nanoseconds of frames on a quiet machine: neighbours are alike, and some are disturbed."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, count)
    series = np.empty(count)
    series[0] = noise[0]
    for index in range(1, count):
        series[index] = alike * series[index - 1] + np.sqrt(1 - alike**2) * noise[index]
    spikes = (rng.random(count) < 0.02) * rng.pareto(1.5, count)
    return np.round(5e6 * np.exp(0.03 * series) * (1 + 0.5 * spikes)).astype(np.int64)


def quiet_looks(seed, count=21):
    """A look every half second: two cores, one of them ours, others at 1 to 4 % of a core, the clock within 1 %."""
    rng = np.random.default_rng(seed)
    others = np.cumsum(rng.uniform(0.005, 0.02, count))
    return tuple(
        Conditions(
            at_ns=round(5e8 * index),
            busy_s=1000 + 0.5 * index + others[index],
            own_s=10 + 0.5 * index,
            stolen_s=5 + 0.002 * index,
            frequencies_mhz=(float(rng.uniform(2380, 2400)), float(rng.choice([600, 2390]))),
            temperature_c=55 + float(rng.uniform(0, 2)),
            throttled=(),
            throttle_events=3,
            cooling_state=0,
            swapped_pages=700,
            major_faults=40,
        )
        for index in range(count)
    )


def planted(looks, begin, **changes):
    """The looks from ``begin`` on with other values; a callable makes them of the old one and its number."""
    return tuple(
        one
        if index < begin
        else dataclasses.replace(one, **{key: made(getattr(one, key), index - begin) for key, made in changes.items()})
        for index, one in enumerate(looks)
    )


def kinds(looks, samples):
    return {doubt.kind: doubt.level for doubt in judge(looks, samples)}


def test_quiet_runs_are_believed():
    flagged = [seed for seed in range(200) if judge(quiet_looks(seed), times(seed))]
    assert len(flagged) <= 10, flagged


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("throttling", {"throttled": lambda _, __: ("under-voltage now",)}),
        ("throttling", {"throttle_events": lambda old, _: old + 1}),
        ("throttling", {"cooling_state": lambda _, __: 2}),
        ("frequency", {"frequencies_mhz": lambda old, _: tuple(0.7 * one for one in old)}),
        ("load", {"busy_s": lambda old, since: old + 0.5 * since}),
        ("load", {"busy_s": lambda old, since: old + 0.5 * min(since, 3)}),  # a second and a half of another program
        ("stolen", {"stolen_s": lambda old, since: old + 0.15 * since}),
        ("swapping", {"swapped_pages": lambda old, since: old + 300 * since, "major_faults": lambda old, s: old + s}),
    ],
)
def test_every_planted_disturbance_is_found(kind, changes):
    for seed in range(SEEDS):
        begin = 2 + seed % 14
        looks = planted(quiet_looks(seed), begin, **changes)
        assert kinds(looks, times(seed)).get(kind) == "invalid", (kind, seed)


@pytest.mark.parametrize("change", [1.12, 1.3, 0.85])
def test_a_time_that_changes_for_good_is_found(change):
    for seed in range(SEEDS):
        samples = times(seed)
        place = SAMPLES // 4 + (seed * 37) % (SAMPLES // 2)
        samples[place:] = np.round(samples[place:] * change)
        assert kinds(quiet_looks(seed), samples).get("drift") == "invalid", seed


def test_a_slow_drift_is_found():
    for seed in range(SEEDS):
        samples = np.round(times(seed) * np.linspace(1, 1.12, SAMPLES)).astype(np.int64)
        assert "drift" in kinds(quiet_looks(seed), samples), seed


def test_what_others_do_a_little_of_makes_unstable_not_invalid():
    looks = planted(quiet_looks(1), 0, busy_s=lambda old, since: old + 0.1 * since)
    assert kinds(looks, times(1)) == {"load": "unstable"}
    looks = planted(quiet_looks(1), 10, frequencies_mhz=lambda old, _: tuple(0.9 * one for one in old))
    assert kinds(looks, times(1)) == {"frequency": "unstable"}


def test_a_doubt_says_what_was_seen_and_what_to_do():
    (doubt,) = judge(planted(quiet_looks(2), 5, throttled=lambda _, __: ("throttled now",)), times(2))
    assert "throttled, at 5" in doubt.detail
    assert "°C" in doubt.detail
    assert doubt.remedy


def test_a_system_that_tells_nothing_is_not_doubted():
    empty = dataclasses.replace(
        quiet_looks(0)[0],
        busy_s=None, stolen_s=None, frequencies_mhz=(), temperature_c=None, throttle_events=None, cooling_state=None,
        swapped_pages=None,
    )  # fmt: skip
    assert not judge((empty, dataclasses.replace(empty, at_ns=2_000_000_000)), times(0))


def test_few_samples_are_not_said_to_drift():
    assert not judge(quiet_looks(0), np.array([5_000_000]))


def _spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system has no /proc/stat")
def test_a_real_program_beside_is_found():
    beside = multiprocessing.get_context("fork").Process(target=_spin, args=(1.6,))
    beside.start()
    watch = Watch()
    while beside.is_alive():
        time.sleep(0.05)
        watch.look_if_due(time.monotonic_ns())
    watch.close()
    beside.join()
    assert kinds(watch.looks, times(0)).get("load") == "invalid"


def test_a_look_reads_what_the_system_tells(tmp_path):
    core = min(os.sched_getaffinity(0))
    for name, content in {
        "proc/stat": f"cpu  1 1 1 1 1 1 1 1\ncpu{core} 100 10 40 5000 9 6 4 8 3 0\ncpu999 1 1 1 1 1 1 1 1\n",
        "proc/vmstat": "pgfault 9\npswpin 3\npswpout 4\n",
        f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq": "1500000",
        f"sys/devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count": "2",
        "sys/class/hwmon/hwmon3/oc1_event_cnt": "1",
        "sys/class/thermal/cooling_device0/type": "Processor",
        "sys/class/thermal/cooling_device0/cur_state": "3",
        "sys/class/thermal/cooling_device1/type": "pwm-fan",
        "sys/class/thermal/cooling_device1/cur_state": "4",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    found = look(tmp_path)
    ticks = os.sysconf("SC_CLK_TCK")
    assert (found.busy_s, found.stolen_s) == (160 / ticks, 8 / ticks)
    assert found.frequencies_mhz == (1500.0,)
    assert (found.throttle_events, found.cooling_state, found.swapped_pages) == (3, 3, 7)
    assert Conditions.from_json(found.to_json()) == found


def test_a_watch_looks_only_when_it_is_time():
    taken = iter(quiet_looks(0))
    watch = Watch(lambda: next(taken))
    for now_ns in range(0, 3 * LOOK_EVERY_NS, LOOK_EVERY_NS // 5):
        watch.look_if_due(now_ns)
    watch.close()
    assert len(watch.looks) == 1 + 2 + 1


def test_the_last_change_of_a_level_is_found_and_warm_up_waits_for_it():
    settling = times(4, count=400)
    settling[:150] *= 2
    assert change_point(settling.astype(float)) == pytest.approx(150, abs=3)
    assert change_point(times(4, count=400).astype(float)) is None
    assert steady(settling)
    assert not steady(settling[:200])


def test_joules_of_a_counter_go_on_where_it_begins_anew():
    readings = iter([95.0, 99.0, 3.0])
    meter = Meter(Gauge(source="counter", read=lambda: next(readings), counts=True, wraps_at=100.0))
    meter.read()
    meter.read()
    assert meter.energy.joules == pytest.approx(8)


def test_power_is_summed_over_time():
    meter = Meter(Gauge(source="power", read=lambda: 4.0, counts=False))
    time.sleep(0.05)
    meter.read()
    assert meter.energy.watts == pytest.approx(4, rel=1e-6)
    assert 0.15 < meter.energy.joules < 2


def test_a_gauge_that_falls_silent_gives_no_energy():
    readings = iter([1.0, None, 2.0])
    meter = Meter(Gauge(source="counter", read=lambda: next(readings), counts=True))
    meter.read()
    meter.read()
    assert meter.energy is None


JETSON = "sys/class/hwmon/hwmon2"
GAUGES = {
    "rapl": (
        {
            "sys/class/powercap/intel-rapl:0/energy_uj": "2500000",
            "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850",
        },
        2.5,
        "RAPL",
    ),
    "jetson": (
        {
            f"{JETSON}/in1_label": "VDD_IN",
            f"{JETSON}/in1_input": "5000",
            f"{JETSON}/curr1_input": "1200",
            f"{JETSON}/in2_label": "VDD_SOC",
            f"{JETSON}/in2_input": "5000",
            f"{JETSON}/curr2_input": "300",
        },
        6.0,
        "VDD_IN",
    ),
    "pi": (
        {
            "usr/bin/vcgencmd": """#!/bin/sh
echo ' VDD_CORE_A current(7)=2.00000000A'
echo ' 3V3_SYS_A current(1)=0.50000000A'
echo ' VDD_CORE_V volt(15)=0.80000000V'
echo ' 3V3_SYS_V volt(9)=3.30000000V'
echo ' EXT5V_V volt(24)=5.10000000V'
"""
        },
        2 * 0.8 + 0.5 * 3.3,
        "PMIC",
    ),
}


@pytest.mark.parametrize("kind", GAUGES)
def test_every_kind_of_gauge_is_read(tmp_path, kind):
    files, expected, name = GAUGES[kind]
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
        (tmp_path / path).chmod(0o755)
    gauge = find_gauge(tmp_path)
    assert name in gauge.source
    assert gauge.read() == pytest.approx(expected)


def test_without_a_gauge_there_is_no_energy(tmp_path):
    with metered(tmp_path) as meter:
        meter.tick()
    assert meter.energy is None
