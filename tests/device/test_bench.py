from __future__ import annotations

import json

import numpy as np
import pytest

from edgeclf_device import DataError, UsageError
from edgeclf_device.bench import STAGES, bench, load_frames, sample, synthetic_frame
from edgeclf_device.classifier import Classifier
from edgeclf_device.environment import record_environment
from edgeclf_device.text import percentile_texts


def test_every_stage_has_a_raw_sample_of_every_frame(runnable):
    measurement = bench(runnable, iterations=40, warmup=3, threads=1)
    assert list(measurement.samples_ns) == list(STAGES)
    assert {len(samples) for samples in measurement.samples_ns.values()} == {40}
    for prepare, infer, decide, total in zip(*measurement.samples_ns.values(), strict=True):
        assert 0 < prepare + infer + decide <= total
    assert measurement.threads == 1
    assert measurement.warmup == 3
    assert "synthetic" in measurement.input
    assert "1280×720" in measurement.input


def test_percentiles_are_samples_that_were_taken(some_artifact):
    measurement = bench(some_artifact, iterations=30)
    taken = {value / 1e6 for value in measurement.samples_ns["infer"]}
    found = measurement.percentiles_ms("infer")
    assert set(found.values()) <= taken
    assert found["p50"] <= found["p90"] <= found["p99"] <= found["p99.9"]


def test_the_median_stands_within_its_interval_and_rare_percentiles_need_more_samples(some_artifact):
    measurement = bench(some_artifact, iterations=60)
    found = measurement.intervals_ms("total")
    assert found["p50"][0] <= measurement.percentiles_ms("total")["p50"] <= found["p50"][1]
    assert found["p99.9"] is None
    median, interval, *_, rarest = percentile_texts(measurement, "total")
    low, high = map(float, interval.split(" to "))
    assert low <= float(median) <= high
    assert rarest == "–"


def test_time_bounds_a_measurement_without_iterations(some_artifact):
    measurement = bench(some_artifact, seconds=0.2, warmup=1)
    spent = sum(measurement.samples_ns["total"]) / 1e9
    assert 0.02 < spent < 1


def test_a_measurement_is_versioned_json_with_its_environment(some_artifact):
    value = json.loads(json.dumps(bench(some_artifact, iterations=5).to_json()))
    assert value["format"] == [1, 1]
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
    measurement = bench(some_artifact, frames=frames, description=description, iterations=7)
    assert measurement.input == description


def test_a_source_without_a_readable_frame_is_refused(tmp_path):
    (tmp_path / "torn.npy").write_bytes(b"x")
    with pytest.raises(DataError, match="torn"):
        load_frames(str(tmp_path))


@pytest.mark.parametrize(
    "arguments", [{"iterations": 0}, {"seconds": 0}, {"warmup": -1}, {"frames": []}, {"threads": 0}, {"seconds": -1.5}]
)
def test_numbers_out_of_range_are_refused(some_artifact, arguments):
    with pytest.raises(UsageError):
        bench(some_artifact, **arguments)


def test_the_synthetic_frame_is_always_the_same():
    first, second = synthetic_frame(), synthetic_frame()
    assert first.image.shape == (720, 1280, 3)
    assert np.array_equal(first.image, second.image)


def test_one_sample_can_be_taken_alone(some_artifact):
    with Classifier.open(some_artifact) as classify:
        assert set(sample(classify, synthetic_frame())) == set(STAGES)


def test_the_environment_names_this_machine():
    environment = record_environment()
    assert environment.cpu
    assert environment.cores >= 1
    assert json.dumps(environment.to_json())
