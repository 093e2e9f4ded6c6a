from __future__ import annotations

import json
from time import perf_counter, sleep

import numpy as np
import pytest

from edgeclf_device import DataError, SystemStateError, UsageError
from edgeclf_device.bench import (
    STAGES,
    Plan,
    bench,
    load_frames,
    measure,
    measurement_from_json,
    percentile_texts,
    remarks,
    sample,
    synthetic_frame,
)
from edgeclf_device.bench.cold_start import cold_start
from edgeclf_device.bench.compare import compare_openers
from edgeclf_device.classifier import Classifier
from edgeclf_device.environment import record_environment


def test_every_stage_has_a_raw_sample_of_every_frame(runnable):
    measurement = bench(runnable, plan=Plan(iterations=40, warmup=3), threads=1)
    assert list(measurement.samples_ns) == list(STAGES)
    assert {len(samples) for samples in measurement.samples_ns.values()} == {40}
    for prepare, infer, decide, total in zip(*measurement.samples_ns.values(), strict=True):
        assert 0 < prepare + infer + decide <= total
    assert measurement.threads == 1
    assert measurement.warmup == 3
    assert "synthetic" in measurement.input
    assert "1280×720" in measurement.input


def test_percentiles_are_samples_that_were_taken(some_artifact):
    measurement = bench(some_artifact, plan=Plan(iterations=30, warmup=5))
    taken = {value / 1e6 for value in measurement.samples_ns["infer"]}
    found = measurement.percentiles_ms("infer")
    assert set(found.values()) <= taken
    assert found["p50"] <= found["p90"] <= found["p99"] <= found["p99.9"]


def test_the_median_stands_within_its_interval_and_rare_percentiles_need_more_samples(some_artifact):
    measurement = bench(some_artifact, plan=Plan(iterations=60, warmup=5))
    found = measurement.intervals_ms("total")
    assert found["p50"][0] <= measurement.percentiles_ms("total")["p50"] <= found["p50"][1]
    assert found["p99.9"] is None
    median, interval, *_, rarest = percentile_texts(measurement, "total")
    low, high = map(float, interval.split(" to "))
    assert low <= float(median) <= high
    assert rarest == "–"


def test_time_bounds_a_measurement_without_iterations(some_artifact):
    measurement = bench(some_artifact, plan=Plan(seconds=0.2, warmup=1))
    spent = sum(measurement.samples_ns["total"]) / 1e9
    assert 0.02 < spent < 1


def test_a_measurement_is_versioned_json_with_its_environment(some_artifact):
    value = json.loads(json.dumps(bench(some_artifact, plan=Plan(iterations=5, warmup=0)).to_json()))
    assert value["format"] == [2, 1]
    assert value["interval_95_ms"]["total"]["p99.9"] is None
    assert value["scheme"] == "w8a8"
    assert len(value["artifact_sha256"]) == 64
    assert set(value["environment"]) >= {"cpu", "cores", "python", "numpy", "system", "load_1_min"}
    assert value["engine_version"]
    assert set(value["summary_ms"]) == set(STAGES)
    assert len(value["samples_ns"]["total"]) == 5


def test_real_frames_are_measured_in_turn_and_named(some_artifact, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(3):
        np.save(folder / f"{index}.npy", np.full((30 + index, 40, 3), index, np.uint8))
    (folder / "torn.npy").write_bytes(b"x")
    frames, description = load_frames(str(folder))
    assert description == "3 frames of folder frames"
    measurement = bench(some_artifact, frames=frames, description=description, plan=Plan(iterations=7, warmup=0))
    assert len(measurement.samples_ns["capture"]) == 3
    assert measurement.input == description


def test_a_source_without_a_readable_frame_is_refused(tmp_path):
    (tmp_path / "torn.npy").write_bytes(b"x")
    with pytest.raises(DataError, match="torn"):
        load_frames(str(tmp_path))


@pytest.mark.parametrize(
    "numbers",
    [{"iterations": 0}, {"seconds": 0}, {"warmup": -1}, {"seconds": -1.5}, {"precision": 0}, {"cold_starts": -1}],
)
def test_numbers_out_of_range_are_refused(numbers):
    with pytest.raises(UsageError, match=next(iter(numbers))):
        Plan(**numbers)


@pytest.mark.parametrize(
    "arguments",
    [
        {"frames": []},
        {"threads": 0},
        {"scenario": "fixed-rate"},
        {"scenario": "fixed-rate", "rate_fps": 0},
        {"rate_fps": 30},
    ],
)
def test_arguments_that_can_not_be_measured_are_refused(some_artifact, arguments):
    with pytest.raises(UsageError):
        bench(some_artifact, **arguments)


def test_a_measurement_ends_once_its_median_is_known_well_enough(some_artifact):
    begin = perf_counter()
    measurement = bench(some_artifact, plan=Plan(seconds=60, precision=0.5, warmup=5))
    assert perf_counter() - begin < 30
    assert measurement.wall_ns >= 1e9
    low, high = measurement.intervals_ms("total")["p50"]
    assert (high - low) / 2 <= 0.5 * measurement.percentiles_ms("total")["p50"]


def test_frames_of_a_fixed_rate_wait_for_those_before_them(some_artifact, monkeypatch):
    def slow(classify, frame):
        taken = sample(classify, frame)
        sleep(0.02)
        return taken

    monkeypatch.setattr(measure, "sample", slow)
    measurement = bench(some_artifact, scenario="fixed-rate", rate_fps=100, plan=Plan(iterations=10, warmup=0))
    latency_ms = np.array(measurement.samples_ns["latency"]) / 1e6
    # Each takes 20 ms, and the next comes after 10: every one waits 10 ms more than the one before.
    assert (np.diff(latency_ms) > 5).all()
    assert latency_ms[-1] > 100


def test_a_rate_that_can_be_kept_is_kept(some_artifact):
    measurement = bench(some_artifact, scenario="fixed-rate", rate_fps=50, plan=Plan(iterations=20, warmup=5))
    assert measurement.rate_fps == 50
    assert 0.3 < measurement.wall_ns / 1e9 < 2
    for total, latency in zip(measurement.samples_ns["total"], measurement.samples_ns["latency"], strict=True):
        assert latency >= total


def test_offline_all_frames_are_given_at_once(runnable, tmp_path):
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", np.full((30, 40, 3), index, np.uint8))
    frames, description = load_frames(str(tmp_path))
    measurement = bench(
        runnable, scenario="offline", frames=frames, description=description, plan=Plan(iterations=7, warmup=0)
    )
    assert len(measurement.samples_ns["total"]) == 7
    assert measurement.frames_per_second > 0


def test_a_new_process_is_timed_from_its_start_to_its_first_label(some_artifact):
    measurement = bench(some_artifact, plan=Plan(iterations=5, warmup=0, cold_starts=2))
    assert len(measurement.cold_starts) == 2
    for start in measurement.cold_starts:
        assert min(start.start_ns, start.import_ns, start.open_ns, start.first_ns, start.second_ns) > 0
        assert start.first_label_ns < 60e9
        assert start.peak_bytes is None or 5e6 < start.peak_bytes < 2e9
    assert any("first label" in line for line in remarks(measurement))


def test_a_process_that_fails_says_why(tmp_path):
    with pytest.raises(SystemStateError, match="missing"):
        cold_start(tmp_path / "missing.onnx", engine="onnxruntime", threads=1, options={})


def test_a_measurement_is_read_again_as_it_was_written(some_artifact):
    taken = bench(some_artifact, plan=Plan(iterations=5, warmup=0, cold_starts=1))
    assert measurement_from_json(json.loads(json.dumps(taken.to_json()))) == taken


@pytest.mark.parametrize("value", [{}, [], None, {"format": [1, 1]}, {"format": [2, 0]}])
def test_what_is_no_measurement_is_refused(value):
    with pytest.raises(DataError, match="measur"):
        measurement_from_json(value)


def test_the_synthetic_frame_is_always_the_same():
    first, second = synthetic_frame(), synthetic_frame()
    assert first.image.shape == (720, 1280, 3)
    assert np.array_equal(first.image, second.image)


def test_one_sample_can_be_taken_alone(some_artifact):
    with Classifier.open(some_artifact) as classify:
        assert set(sample(classify, synthetic_frame())) == set(STAGES)


def test_what_carrying_to_a_device_takes_is_sampled_compared_and_told_as_a_share(some_artifact):
    def opener():
        classify = Classifier.open(some_artifact)
        classify.engine.transfer_ns = 1000
        return classify

    with opener() as classify:
        assert sample(classify, synthetic_frame())["transfer"] == 1000
    taken = compare_openers((opener, opener), seconds=0.1).other
    assert measurement_from_json(json.loads(json.dumps(taken.to_json()))) == taken
    infer = taken.percentiles_ms("infer")["p50"]
    assert f"0.001 ms carry input and output to the device and back ({0.001 / infer:.0%})" in " ".join(remarks(taken))


def test_the_environment_names_this_machine():
    environment = record_environment()
    assert environment.cpu
    assert environment.cores >= 1
    assert json.dumps(environment.to_json())
