"""The whole road: train, export, classify and keep what is hard, review it, train again."""

from __future__ import annotations

import contextlib
import csv
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edgeclf.cli import app
from edgeclf_device.hard_record import read_record

EDGECLF = [sys.executable, "-m", "edgeclf"]


def run(folder, *arguments):
    command = [*EDGECLF, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=600, check=False)


def write(path, seed, base):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (np.random.default_rng(seed).integers(0, 100, (40, 50, 3)) + base).astype(np.uint8)
    cv2.imencode(".png", pixels)[1].tofile(path)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_what_a_device_found_hard_is_reviewed_and_trained_on(reviewing, tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    monkeypatch.setenv("EDGECLF_CACHE", str(tmp_path / "cache"))
    photos, belt = tmp_path / "photos", tmp_path / "belt"
    for index in range(20):
        write(photos / "dunkel" / f"{index}.png", index, 0)
        write(photos / "hell" / f"{index}.png", 100 + index, 130)
    for index in range(16):  # from dark to bright: the middle is hard
        write(belt / f"{index:02}.png", 200 + index, index * 10)
    train = ("train", photos, "--backbone", "cnn", "--image-size", 32, "--epochs", 6)
    first = run(tmp_path, *train, "--out", "run")
    assert first.returncode == 0, first.stderr
    made = run(tmp_path, "export", "run", "--out", "bundle", "--format", "onnx", "--scheme", "fp32")
    assert made.returncode == 0, made.stderr
    kept = run(tmp_path, "classify", "bundle", "--source", belt, "--keep-hard", "kept", "--keep-frames", 4)
    assert kept.returncode == 0, kept.stderr
    hard = tmp_path / "kept"
    names = {path.name: read_record(path).name for path in hard.glob("*.png")}
    assert 1 <= len(names) <= 4

    person = reviewing(hard, out=photos, labels=None)
    answer = person.next()
    assert [one["label"] for one in answer["classes"]] == ["dunkel", "hell"]
    while (image := answer["image"]) is not None:
        bright = int(Path(names[image["name"]]).stem) > 6
        answer = person.decide(image["number"], "hell" if bright else "dunkel")
    assert answer["decided"] == len(names)
    person.page.close()

    again = run(tmp_path, *train, "--out", "run2")
    assert again.returncode == 0, again.stderr
    with (tmp_path / "run2" / "splits.csv").open(newline="") as file:
        rows = {Path(row["path"]).name: row["label"] for row in csv.DictReader(file)}
    assert len(rows) == 20 + len(names), "names of both classes are the same but for the new ones"
    for name, source in names.items():
        assert rows[name] == ("hell" if int(Path(source).stem) > 6 else "dunkel")


# ---- the command


@contextlib.contextmanager
def command(tmp_path, *arguments):
    """`edgeclf review` as a process, once it says where its page is."""
    with subprocess.Popen(
        [*EDGECLF, "review", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, process.stderr.readline()
        finally:
            process.kill()


def test_ctrl_c_ends_it_and_says_how_far_it_is(hard, labels, tmp_path):
    arguments = (hard, "--out", tmp_path / "out", "--labels", labels, "--serve", "127.0.0.1:0")
    with command(tmp_path, *arguments) as (process, said):
        assert said.startswith("review page: http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("0 of 4 decided, 4 left; train with ")


@pytest.mark.parametrize(
    ("code", "words", "arguments"),
    [
        (3, "holds no images", ("empty", "--out", "out")),
        (3, "must be a folder", ("nowhere", "--out", "out")),
        (3, "'a/b' holds a slash", ("hard", "--out", "out", "--labels", "labels.txt")),
        (2, "must lie apart", ("hard", "--out", "hard")),
        (2, "can be reached from other machines", ("hard", "--out", "out", "--serve", "0.0.0.0:0")),
        (2, "HOST:PORT", ("hard", "--out", "out", "--serve", "8081")),
        (4, "torn.onnx", ("hard", "--out", "out", "--model", "torn.onnx")),
    ],
)
def test_what_can_not_be_reviewed_is_said_in_a_sentence_with_its_exit_code(
    hard, tmp_path, monkeypatch, code, words, arguments
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "labels.txt").write_text("a/b\n")
    (tmp_path / "torn.onnx").write_bytes(b"torn")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["review", *arguments])
    assert done.exit_code == code, done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
