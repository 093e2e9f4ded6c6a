"""The host's command line as a user meets it: in a process of its own, judged by exit code and words."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

EDGECLF = [sys.executable, "-m", "edgeclf"]
ARTIFACT = str(Path(__file__).parents[1] / "device" / "artifacts" / "format-1.1.onnx")


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    return {**os.environ, "EDGECLF_CACHE": str(tmp_path_factory.mktemp("cache")), "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.fixture
def edgeclf(environment, tmp_path):
    def run(*arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [*EDGECLF, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=timeout, check=False
        )

    return run


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """Two classes with names that are not ASCII, and one file that is no image."""
    import cv2

    folder = tmp_path_factory.mktemp("Bilder") / "prüfung"
    draw = np.random.default_rng(0)
    for label, base in (("hell ☀", 130), ("dünkel", 0)):
        (folder / label).mkdir(parents=True)
        for number in range(16):
            pixels = (draw.integers(0, 100, (40, 50, 3)) + base).astype(np.uint8)
            cv2.imencode(".png", pixels)[1].tofile(folder / label / f"ü {number}.png")
    (folder / "dünkel" / "kaputt.jpg").write_bytes(b"not a picture")
    return folder


SMALL = ["--backbone", "cnn", "--image-size", 32, "--epochs", 1]


@pytest.fixture(scope="session")
def road(images, tmp_path_factory, environment) -> Path:
    """A folder with `run` and `bundle`, made by the commands themselves."""
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("road")
    for arguments in (
        ["train", images, "--out", "run", *SMALL],
        ["export", "run", "--out", "bundle", "--max-drop", 100],
    ):
        command = [*EDGECLF, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
        assert done.returncode == 0, done.stderr
        if arguments[0] == "train":
            assert "left out: dünkel/kaputt.jpg" in done.stderr
    return folder


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_imports_no_framework(arguments):
    code = (
        "import sys; from edgeclf.cli import main; sys.argv[1:] = sys.argv[1:]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'tensorflow', 'keras', 'cv2', 'sklearn', 'matplotlib', 'onnx', 'onnxruntime', 'ai_edge_litert'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["--version"], ["inspect", ARTIFACT, "--json"], ["inspect", "--help"]],
)
def test_exit_141_without_a_word_where_nobody_reads_the_output(arguments, environment):
    reader, writer = os.pipe()
    os.close(reader)  # so that the first byte meets a closed pipe, as a later one does after `| head`
    buffered = {name: value for name, value in environment.items() if name != "PYTHONUNBUFFERED"}
    with os.fdopen(writer) as output:
        done = subprocess.run(
            [*EDGECLF, *arguments], stdout=output, stderr=subprocess.PIPE, text=True, env=buffered, check=False
        )
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.tensorflow
def test_inspect_imports_no_framework(road):
    code = (
        "import sys; from edgeclf.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'tensorflow', 'keras', 'cv2', 'onnx', 'onnxruntime', 'ai_edge_litert'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, "inspect", str(road / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "hell ☀" in done.stdout


@pytest.mark.tensorflow
def test_the_three_commands_give_a_run_a_report_and_a_bundle(road):
    assert sorted(path.suffix for path in (road / "bundle").iterdir()) == [
        ".json",
        ".onnx",
        ".onnx",
        ".tflite",
        ".tflite",
    ]
    report = (road / "run" / "report.html").read_text()
    for words in ("prüfung-w8a8.tflite", "hell ☀", "kaputt.jpg", "<svg", "validation"):
        assert words in report
    assert "http://" not in report.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


@pytest.mark.tensorflow
def test_evaluate_gives_the_run_and_its_artifacts_the_certified_accuracy(road, edgeclf, tmp_path):
    out = tmp_path / "found.json"
    done = edgeclf("evaluate", road / "bundle", road / "run", "--json", out)
    assert done.returncode == 0, done.stderr
    evaluations = json.loads(out.read_text())["evaluations"]
    listed = json.loads(edgeclf("inspect", road / "bundle", "--json").stdout)["artifacts"]
    certified = {item["file"]: item["manifest"]["certificate"]["accuracy"] for item in listed}
    assert {made["model"]: made["metrics"]["accuracy"] for made in evaluations} == certified
    assert edgeclf("evaluate", road / "run", road / "run").returncode == 0


@pytest.mark.tensorflow
def test_bench_and_classify_and_verify_take_a_bundle(road, edgeclf, images, tmp_path):
    out = tmp_path / "measured.json"
    done = edgeclf("bench", road / "bundle", "--seconds", 0.2, "--json", out)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(out.read_text())["measurements"]) == 4
    done = edgeclf("bench", road / "bundle", "--seconds", 0.1, "--engine", "litert")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("skipped, no engine to run it") == 2
    done = edgeclf("classify", road / "bundle", "--source", images, "--max-frames", 3)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert edgeclf("verify", road / "bundle").returncode == 0


def test_exit_2_for_an_unknown_option_and_for_an_output_folder_that_is_not_empty(edgeclf, images, tmp_path):
    assert edgeclf("train", images, "--colour", "blue").returncode == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    done = edgeclf("train", images, "--out", "full")
    assert done.returncode == 2
    assert "holds 1 entries" in done.stderr
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_exit_2_for_an_output_folder_that_can_not_be_renamed_to_and_before_any_work(edgeclf, images, tmp_path):
    done = edgeclf("train", images, "--out", ".")
    assert done.returncode == 2
    assert "current folder" in done.stderr


@pytest.mark.tensorflow
def test_evaluate_takes_a_folder_of_one_class_and_names_what_it_left_out(road, images, edgeclf, tmp_path):
    (tmp_path / "some" / "dünkel").mkdir(parents=True)
    for name in ("ü 0.png", "kaputt.jpg"):
        (tmp_path / "some" / "dünkel" / name).write_bytes((images / "dünkel" / name).read_bytes())
    done = edgeclf("evaluate", road / "bundle", tmp_path / "some", "--engine", "onnxruntime")
    assert done.returncode == 0, done.stderr
    assert "left out: dünkel/kaputt.jpg" in done.stderr
    (tmp_path / "some" / "dünkel").rename(tmp_path / "some" / "grün")
    assert edgeclf("evaluate", road / "bundle", tmp_path / "some").returncode == 3


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_run_without_a_test_part_is_judged_on_its_validation_images(images, edgeclf, tmp_path):
    shares = ["--set", "split.train=0.5", "--set", "split.val=0.5", "--set", "split.test=0"]
    done = edgeclf("train", images, "--out", "run", *SMALL, *shares)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("val accuracy")
    assert re.search(r"Accuracy on the \d+ validation images", (tmp_path / "run" / "report.html").read_text())


def test_exit_3_for_data_that_can_not_be_used(edgeclf, images, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "one" / "only").mkdir(parents=True)
    for file in sorted((images / "dünkel").glob("*.png"))[:4]:
        (tmp_path / "one" / "only" / file.name).write_bytes(file.read_bytes())
    for data, words in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "empty", "none was found"),
        (tmp_path / "one", "two classes"),
    ):
        done = edgeclf("train", data, "--out", "run")
        assert done.returncode == 3, done.stderr
        assert words in done.stderr
    done = edgeclf("train", images, "--out", "run", "--strict")
    assert done.returncode == 3
    assert "kaputt.jpg" in done.stderr
    assert not (tmp_path / "run").exists()


def test_exit_4_for_a_model_that_is_none(edgeclf, tmp_path):
    (tmp_path / "empty.tflite").write_bytes(b"")
    for arguments in (["verify", "empty.tflite"], ["inspect", "empty.tflite"], ["bench", "empty.tflite"]):
        done = edgeclf(*arguments)
        assert done.returncode == 4, done.stderr
        assert "0 bytes" in done.stderr + done.stdout
    (tmp_path / "norun").mkdir()
    assert edgeclf("export", "norun", "--out", "bundle").returncode == 4


def test_exit_5_where_tensorflow_is_missing(images, environment, tmp_path):
    code = (
        "import importlib.util, sys; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'keras' else find(name, *rest)\n"
        "from edgeclf.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "train", str(images), "--out", "run"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 5, done.stderr
    assert "edgeclf[tensorflow]" in done.stderr


@pytest.mark.tensorflow
def test_exit_6_where_an_artifact_is_beyond_the_gate(road, environment, tmp_path):
    # The gate itself is real; the road's toy model loses nothing, so the reference is raised above what it reached.
    code = (
        "import edgeclf.exporting.measure as measure, dataclasses; real = measure.certify\n"
        "import edgeclf.exporting.export as export\n"
        "export.certify = lambda *a, **k: dataclasses.replace(real(*a, **k), drop_points=5.0)\n"
        "from edgeclf.cli import main; main()"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "export",
        str(road / "run"),
        "--out",
        "b",
        "--format",
        "tflite",
        "--scheme",
        "fp32",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 6, done.stderr
    assert "beyond the gate" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.tensorflow
@pytest.mark.parametrize("command", ["train", "export"])
def test_exit_130_after_ctrl_c_and_nothing_half_written(command, road, images, environment, tmp_path):
    arguments = {
        "train": ["train", images, "--out", "out", *SMALL[:-1], 5000],
        "export": ["export", road / "run", "--out", "out"],
    }
    with subprocess.Popen(
        [*EDGECLF, *map(str, arguments[command])], stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as process:
        deadline = time.monotonic() + 60
        while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
    # A training may have come as far as its first checkpoint.
    assert [path.name for path in tmp_path.iterdir()] in ([], ["out.unfinished"])


@pytest.mark.tensorflow
@pytest.mark.parametrize("command", ["train", "export"])
def test_exit_5_where_the_disk_is_full_and_nothing_half_written(command, road, images, edgeclf, small_disk):
    arguments = {"train": [images, *SMALL], "export": [road / "run", "--format", "onnx"]}
    done = edgeclf(command, *arguments[command], "--out", small_disk / "out")
    assert done.returncode == 5, done.stderr
    assert "free" in done.stderr
    assert list(small_disk.iterdir()) == []


def test_quickstart_never_replaces_a_folder_that_is_not_its_own(edgeclf, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"mine")
    done = edgeclf("quickstart", "--out", "mine")
    assert done.returncode == 2, done.stderr
    assert "CC BY-NC-SA" in done.stderr
    assert (tmp_path / "mine" / "photo.jpg").read_bytes() == b"mine"
