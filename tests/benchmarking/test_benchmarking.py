"""Sweeps, the choice between what they measured, and their report, on the tiny models of the device's tests."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from edgeclf.benchmarking.recommend import pareto, recommend, recommendation_lines
from edgeclf.benchmarking.report import write_report
from edgeclf.benchmarking.sweep import Ways, compare_all, find, sweep, with_one_engine
from edgeclf.cli import main
from edgeclf.cli.tables import bench_table
from edgeclf_device import DataError, UsageError
from edgeclf_device.bench import Plan, compare_with, read_measurements, write_measurements
from edgeclf_device.bench.text import names
from edgeclf_device.bench.validity import Doubt
from edgeclf_device.bundle import write_bundle_index

SHORT = Plan(iterations=30, warmup=2)
ARTIFACTS = Path(__file__).parents[1] / "device" / "artifacts"


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory):
    """Artifacts of both formats, two of each."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    folder.mkdir()
    for suffix in (".tflite", ".onnx"):
        source = next(ARTIFACTS.glob(f"*{suffix}")).read_bytes()
        for name in ("first", "second"):
            (folder / f"{name}{suffix}").write_bytes(source)
    write_bundle_index(folder, name="tiny", created="2026-01-01T00:00:00+00:00")
    return folder


@pytest.fixture(scope="module")
def measured(tiny_bundle):
    return sweep(find([tiny_bundle]), plan=SHORT)


def test_what_is_measured_in_turn_shares_an_engine():
    both = [("a", "one"), ("a", "two"), ("b", "one"), ("b", "two"), ("c", "two")]
    assert with_one_engine(both) == [("one", ["a", "b"]), ("two", ["a", "b", "c"])]
    assert with_one_engine([("a", None), ("a", None)]) == [(None, ["a", "a"])]
    assert with_one_engine([("a", "one"), ("b", "two"), ("c", "two")]) == [("two", ["b", "c"])]
    with pytest.raises(UsageError, match="share an engine, but --engine one, two"):
        with_one_engine([("a", "one"), ("b", "two")])


def made(measurement, name, ms, accuracy, *, threads=1, doubts=()):
    """The measurement of another artifact: 100 samples of ``ms``."""
    return dataclasses.replace(
        measurement,
        artifact=name,
        samples_ns={stage: [round(ms * 1e6)] * 100 for stage in measurement.samples_ns},
        accuracy=accuracy,
        accuracy_images=1000,
        threads=threads,
        doubts=doubts,
    )


@pytest.fixture
def choices(measured):
    slow, quick, poor = (("slow", 30, 0.98), ("quick", 12, 0.96), ("poor", 5, 0.90))
    return [made(measured[0], *one) for one in (slow, quick, poor)]


def test_every_combination_is_measured(tiny_bundle):
    found = find([tiny_bundle], ["litert", "onnxruntime"])
    taken = sweep(found, Ways(threads=(1, 2)), plan=SHORT)
    assert {(one.container, one.engine, one.threads) for one in taken} == {
        ("tflite", "litert", 1),
        ("tflite", "litert", 2),
        ("onnx", "onnxruntime", 1),
        ("onnx", "onnxruntime", 2),
    }


def test_an_engine_that_executes_none_of_them_is_refused(tiny_bundle):
    with pytest.raises(UsageError, match="onnxruntime executes none"):
        find([next(tiny_bundle.glob("*.tflite"))], ["onnxruntime"])


def test_artifacts_are_compared_with_the_first(tiny_bundle):
    files = sorted(tiny_bundle.glob("*.tflite"))
    comparisons = compare_all(find(files), seconds=0.1)
    assert [one.base.artifact for one in comparisons] == [files[0].name] * (len(files) - 1)


def test_the_fastest_that_is_accurate_enough_is_taken(choices):
    assert recommend(choices, max_ms=20, min_accuracy=0.95).taken.artifact == "quick"
    assert recommend(choices, min_accuracy=0.97).taken.artifact == "slow"
    assert recommend(choices, max_ms=40).taken.artifact == "slow"
    assert recommend(choices).taken.artifact == "slow"


def test_where_nothing_keeps_the_limits_the_nearest_is_said(choices):
    found = recommend(choices, max_ms=10, min_accuracy=0.97)
    assert found.taken is None
    assert [one.artifact for one in found.nearest] == ["poor", "slow"]
    text = "\n".join(recommendation_lines(found))
    assert "Nothing measured keeps p90 at most 10 ms and accuracy at least 97 %" in text
    assert "  poor (20×16) on " in text
    none = recommend(choices, max_ms=1, min_accuracy=0.99)
    assert [one.artifact for one in none.nearest] == ["poor", "slow"]


def test_invalid_measurements_are_not_recommended(choices):
    doubt = Doubt(kind="load", level="invalid", detail="", remedy="")
    spoiled = [dataclasses.replace(one, doubts=(doubt,)) for one in choices]
    with pytest.raises(DataError, match="all 3 are INVALID"):
        recommend(spoiled)
    assert recommend([*spoiled[:2], choices[2]]).taken.artifact == "poor"


def test_what_nothing_beats_is_on_the_front(choices, measured):
    beaten = made(measured[0], "beaten", 13, 0.95)
    unjudged = dataclasses.replace(beaten, artifact="unjudged", accuracy=None)
    assert [one.artifact for one in pareto([*choices, beaten, unjudged])] == ["poor", "quick", "slow"]
    doubt = Doubt(kind="load", level="invalid", detail="", remedy="")
    spoiled = dataclasses.replace(choices[1], doubts=(doubt,))
    assert [one.artifact for one in pareto([choices[0], spoiled, choices[2]])] == ["poor", "slow"]


def test_the_report_is_one_page_with_a_picture(choices, tmp_path):
    page = tmp_path / "report.html"
    write_report(page, choices)
    text = page.read_text()
    assert "<svg" in text
    assert "quick" in text
    assert "http" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")
    write_report(page, [dataclasses.replace(one, accuracy=None, accuracy_images=None) for one in choices])
    assert "Time and accuracy" not in page.read_text()


def test_where_input_sizes_differ_each_is_named_with_its_own(choices, tmp_path, capsys):
    file, page, advice = tmp_path / "m.json", tmp_path / "m.html", tmp_path / "r.json"
    assert names(choices) == ["slow", "quick", "poor"]
    several = [*choices, dataclasses.replace(choices[0], height=96, width=128, artifact="slow")]
    assert names(several)[::3] == ["slow 20×16", "slow 128×96"]
    bench_table(several)
    assert "slow 128×96" in capsys.readouterr().out
    write_report(page, several)
    assert "slow 128×96" in page.read_text()
    write_measurements(file, several)
    again = read_measurements(file)
    assert [(one.width, one.height) for one in again] == [(20, 16)] * 3 + [(128, 96)]
    assert compare_with(again, several[3]).base == several[3]
    with pytest.raises(DataError, match="nothing to be compared"):
        compare_with(again, dataclasses.replace(several[3], width=64))
    advice.write_text(json.dumps(recommend(several[3:]).to_json()))
    assert json.loads(advice.read_text())["taken"]["width"] == 128


def test_the_table_fits_100_columns_and_cuts_no_figure(measured, capsys):
    slow = made(measured[0], "a-rather-long-name-of-an-artifact-w8a8.onnx", 1234.5678, 0.9)
    bench_table([dataclasses.replace(slow, engine="tflite-runtime", threads=16)])
    table = capsys.readouterr().out.split("Medians")[0]
    assert max(map(len, table.splitlines())) <= 100
    assert "…" not in table
    assert "1234.6 to 1234.6" in table
    assert "tflite-runtime ×16" in table


def test_no_process_is_announced_where_none_is_started(run, tiny_bundle, capsys):
    artifact = next(tiny_bundle.glob("*.tflite"))
    assert run("bench", artifact, "--seconds", 0.05, "--no-cold-start") == 0
    told = capsys.readouterr()
    assert "Measuring" in told.err
    assert "Starting" not in told.err


@pytest.fixture
def run(monkeypatch):
    """The command line's exit code."""

    def go(*arguments):
        monkeypatch.setattr(sys, "argv", ["edgeclf", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0

    return go


def test_recommend_reads_a_file_of_bench_and_says_what_is_nearest(run, choices, tmp_path, capsys):
    file, out = tmp_path / "m.json", tmp_path / "r.json"
    write_measurements(file, choices)
    assert read_measurements(file) == choices
    assert run("recommend", file, "--max-ms", 20, "--min-accuracy", 0.95, "--json", out) == 0
    assert "quick" in capsys.readouterr().out
    assert json.loads(out.read_text())["taken"]["artifact"] == "quick"
    assert run("recommend", file, "--max-ms", 1) == 6
    assert "Nothing measured keeps" in capsys.readouterr().out
    assert run("recommend", file, "--min-accuracy", 95) == 2


def test_bench_keeps_what_it_measured_where_it_can_not_be_compared(run, tiny_bundle, choices, tmp_path, capsys):
    earlier, now = tmp_path / "earlier.json", tmp_path / "now.json"
    write_measurements(earlier, choices)
    artifact = next(tiny_bundle.glob("*.tflite"))
    options = ("--seconds", 0.05, "--no-cold-start", "--json", now)
    assert run("bench", artifact, "--compare", earlier, *options) == 3
    assert "nothing to be compared" in capsys.readouterr().err
    assert len(read_measurements(now)) == 1


def test_bench_exits_6_where_a_limit_is_broken(run, tiny_bundle, tmp_path, capsys):
    artifact = next(tiny_bundle.glob("*.tflite"))
    assert run("bench", artifact, "--seconds", 0.05, "--no-cold-start", "--max-p90-ms", 0.000001) == 6
    assert "p90 must be at most" in capsys.readouterr().err


def test_bench_with_two_artifacts_says_which_is_faster(run, tiny_bundle, tmp_path, capsys):
    files = sorted(tiny_bundle.glob("*.tflite"))
    page = tmp_path / "b.html"
    assert run("bench", *files, "--seconds", 0.05, "--html", page) == 0
    shown = capsys.readouterr().out
    assert any(word in shown for word in ("faster", "slower", "undecided"))
    assert "Compared" in page.read_text()
