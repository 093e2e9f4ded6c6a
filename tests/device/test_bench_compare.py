"""Comparing: verdicts on simulated times with noise as real machines have it, and on real ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgeclf_device import DataError, GateError, UsageError
from edgeclf_device.bench import (
    Plan,
    bench,
    compare,
    compare_with,
    comparison_lines,
    gate,
    read_comparison,
    read_measurements,
    unpaired_ratio,
    write_measurements,
)
from edgeclf_device.bench.comparing import MIN_ROUNDS, ORDER, ratio_interval, round_ratios, verdict

ROUNDS, BLOCKS, FRAMES = 60, len(ORDER), 5
DRAWS = 100


def times(rng, count, alike):
    """Autocorrelated times with a heavy tail, on a level that wanders."""
    noise = rng.normal(0, 1, count)
    series = np.empty(count)
    series[0] = noise[0]
    for index in range(1, count):
        series[index] = alike * series[index - 1] + np.sqrt(1 - alike**2) * noise[index]
    spikes = (rng.random(count) < 0.05) * rng.pareto(1.5, count)
    wander = 1 + 0.03 * np.cumsum(rng.normal(0, 1, count)) / np.sqrt(count)
    return np.exp(0.05 * series) * (1 + 0.5 * spikes) * wander


def called(seed, ratio, alike):
    blocks = times(np.random.default_rng(seed), ROUNDS * BLOCKS * FRAMES, alike).reshape(ROUNDS, BLOCKS, FRAMES)
    blocks[:, np.array(ORDER) == 1] *= ratio
    return verdict(ratio_interval(round_ratios(np.median(blocks, axis=2)), 0.99))


@pytest.mark.parametrize("alike", [0.0, 0.7, 0.95])
def test_equal_times_are_undecided_in_95_of_100_cases(alike):
    verdicts = [called(seed, 1.0, alike) for seed in range(DRAWS)]
    assert verdicts.count("undecided") >= 95


@pytest.mark.parametrize("alike", [0.0, 0.7, 0.95])
@pytest.mark.parametrize(("ratio", "expected"), [(1.03, "slower"), (1 / 1.03, "faster")])
def test_3_percent_are_called_in_90_of_100_cases(alike, ratio, expected):
    verdicts = [called(1000 + seed, ratio, alike) for seed in range(DRAWS)]
    assert verdicts.count(expected) >= 90


def test_the_ratio_of_a_round_is_free_of_a_drift_that_is_even():
    level = np.exp(0.01 * np.arange(80)).reshape(10, BLOCKS)  # each block slower than the one before
    planted = np.where(np.array(ORDER) == 1, 1.1, 1.0)
    assert round_ratios(level * planted) == pytest.approx(np.full(10, 1.1))


def test_few_rounds_have_no_interval_and_no_verdict():
    assert ratio_interval(np.full(MIN_ROUNDS - 1, 2.0), 0.99) is None
    assert verdict(None) == "undecided"
    assert ratio_interval(np.full(MIN_ROUNDS, 2.0), 0.99) == (2.0, 2.0)


def test_one_measurement_has_one_interval():
    ratios = np.random.default_rng(3).normal(1, 0.02, 50)
    assert ratio_interval(ratios, 0.99) == ratio_interval(ratios, 0.99)
    low, high = ratio_interval(ratios, 0.99)
    inner_low, inner_high = ratio_interval(ratios, 0.95)
    assert low < inner_low < np.median(ratios) < inner_high < high


def test_two_artifacts_are_compared_in_turn(runnable):
    made = compare(runnable, runnable, seconds=0.4, threads=1, precision=0.2)
    assert made.rounds >= MIN_ROUNDS
    assert made.base.artifact == made.other.artifact
    assert len(made.base.samples_ns["total"]) >= 2 * made.rounds
    for one in (made.base, made.other):  # the other's time is not in its frames per second
        assert one.frames_per_second == pytest.approx(1e9 / np.mean(one.samples_ns["total"]))
    assert made.interval_99[0] <= made.ratio <= made.interval_99[1]
    assert json.loads(json.dumps(made.to_json()))["verdict"] == made.verdict
    assert made.verdict in " ".join(comparison_lines(made))


@pytest.mark.parametrize("arguments", [{"seconds": 0}, {"precision": 0}, {"frames": []}])
def test_a_comparison_that_can_not_be_made_is_refused(some_artifact, arguments):
    with pytest.raises(UsageError, match="compare needs"):
        compare(some_artifact, some_artifact, **arguments)


@pytest.fixture
def taken(some_artifact):
    """A real measurement whose times are those of a quiet machine: what a busy one does to a verdict is told above."""
    made = bench(some_artifact, plan=Plan(iterations=200, warmup=20))
    noise = np.random.default_rng(5).normal(1, 0.02, 200)
    return changed(
        made,
        samples_ns={stage: [round(1e6 * one) for one in noise] for stage in made.samples_ns},
    )


def slowed(measurement, factor):
    return changed(
        measurement,
        samples_ns={stage: [round(one * factor) for one in row] for stage, row in measurement.samples_ns.items()},
    )


def changed(measurement, **fields):
    return type(measurement)(**{**vars(measurement), **fields})


def test_a_stored_measurement_is_compared_with_a_new_one(taken, tmp_path):
    file = tmp_path / "old.json"
    write_measurements(file, [taken])
    earlier = read_measurements(file)
    assert earlier == [taken]
    assert compare_with(earlier, taken).verdict == "undecided"
    assert compare_with(earlier, slowed(taken, 3)).verdict == "slower"
    assert compare_with(earlier, slowed(taken, 1 / 3)).verdict == "faster"


def test_a_comparison_is_read_as_it_was_written(taken, tmp_path):
    file = tmp_path / "pair.json"
    made = unpaired_ratio(taken, changed(slowed(taken, 2), artifact="other.onnx"))
    write_measurements(file, [made.base, made.other], [made])
    assert read_comparison(file) == made
    value = json.loads(file.read_text())
    swapped = {**value, "measurements": value["measurements"][::-1]}
    for bad, said in (
        (swapped, "must be of other.onnx"),
        ({**value, "comparisons": []}, "two measurements and their comparison"),
        ({**value, "comparisons": [{**value["comparisons"][0], "interval_95": [1]}]}, "not a comparison"),
    ):
        file.write_text(json.dumps(bad))
        with pytest.raises(DataError, match=said):
            read_comparison(file)


def test_unlike_machines_and_ways_are_not_compared(taken):
    other = type(taken.environment)(**{**vars(taken.environment), "cpu": "Cortex-A76"})
    for unlike in (changed(taken, environment=other), changed(taken, input="32 photos")):
        with pytest.raises(DataError, match=r"Cortex-A76|32 photos"):
            compare_with([taken], unlike)
    with pytest.raises(DataError, match="nothing to be compared"):
        compare_with([changed(taken, artifact="other.onnx")], taken)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"measurements": [{}]}'])
def test_a_file_that_holds_no_measurements_is_refused(tmp_path, content):
    (tmp_path / "old.json").write_text(content)
    with pytest.raises(DataError, match=r"old\.json"):
        read_measurements(tmp_path / "old.json")
    with pytest.raises(DataError, match="can't be read"):
        read_measurements(tmp_path / "missing.json")


def test_limits_that_are_broken_are_named_and_others_pass(taken):
    quiet = changed(taken, doubts=())
    p90 = quiet.percentiles_ms("total")["p90"]
    gate([quiet], max_p90_ms=p90)
    with pytest.raises(GateError, match="p90 must be at most"):
        gate([quiet], max_p90_ms=p90 * 0.99)
    slower = unpaired_ratio(quiet, slowed(quiet, 3))
    gate([], [slower], max_regression_percent=400)
    with pytest.raises(GateError, match="at most 10 % slower"):
        gate([], [slower], max_regression_percent=10)


def test_an_invalid_measurement_keeps_no_limit(taken):
    from edgeclf_device.bench.validity import Doubt

    doubt = Doubt(kind="load", level="invalid", detail="", remedy="")
    gate([changed(taken, doubts=(doubt,))])
    with pytest.raises(GateError, match="INVALID"):
        gate([changed(taken, doubts=(doubt,))], max_p90_ms=1e9)
