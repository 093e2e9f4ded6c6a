"""The wire for other languages: raw frames on stdin, JSON lines on stdout, and the example in C that speaks it."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic, monotonic_ns

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclf_device import Classifier, DataError, UsageError
from edgeclf_device.sources.raw_frames import RawFrames, open_stdin

EXAMPLES = Path(__file__).parents[2] / "device" / "examples"
WIDTH, HEIGHT = 83, 61
COMMAND = (sys.executable, "-m", "edgeclf_device", "classify")


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def pipe():
    """(the end that a RawFrames reads, a file to write frames to)."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as frames:
        yield reading, frames
    os.close(reading)


def written(frames: io.BufferedWriter, data: bytes) -> threading.Thread:
    """Write from a thread, as the other process would, and end."""

    def write() -> None:
        frames.write(data)
        frames.close()

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize(("pixels", "channels", "color"), [("rgb", 3, "rgb"), ("bgr", 3, "bgr"), ("grey", 1, "rgb")])
def test_frames_arrive_as_they_were_written(pipe, pixels, channels, color):
    reading, frames = pipe
    sent = np.random.default_rng(1).integers(0, 256, (5, 240, 320, channels), np.uint8)
    before_ns = monotonic_ns()
    thread = written(frames, sent.tobytes())
    with RawFrames(reading, width=320, height=240, pixels=pixels) as source:
        got = list(source)
        status = source.status()
    thread.join()
    assert np.array_equal(np.stack([frame.image for frame in got]), sent)
    assert [(frame.index, frame.color) for frame in got] == [(index, color) for index in range(5)]
    assert all(before_ns < frame.captured_ns < monotonic_ns() for frame in got)
    assert (status.state, status.captured, status.size) == ("ended", 5, (320, 240))


@given(cut=st.integers(min_value=1, max_value=3 * 4 * 3 - 1), whole=st.integers(min_value=0, max_value=3))
def test_a_pipe_that_ends_within_a_frame_is_an_error(cut, whole):
    reading, writing = os.pipe()
    os.write(writing, bytes(whole * 36 + cut))
    os.close(writing)
    with RawFrames(reading, width=4, height=3, pixels="rgb") as source:
        taken = iter(source)
        for _ in range(whole):
            next(taken)
        with pytest.raises(DataError, match=f"ended after {cut} of frame {whole}"):
            next(taken)
    os.close(reading)


def test_closing_ends_a_wait_for_the_next_frame(pipe):
    with RawFrames(pipe[0], width=4, height=3, pixels="rgb") as source:
        timer = threading.Timer(0.1, source.close)
        timer.start()
        assert list(source) == []
    source.close()  # again, after its end


@pytest.mark.parametrize("rest", ["", "640x480", "640x480:yuv", "0x480:rgb", "640x99999:rgb", "640x480:rgb:rgb"])
def test_a_size_that_is_none_is_refused_with_an_example(rest):
    with pytest.raises(UsageError, match="for example stdin:640x480:bgr"):
        open_stdin(rest)


def expected(artifact: Path, frames: np.ndarray, color: str = "rgb") -> list[tuple[str, float]]:
    with Classifier.open(artifact, threads=1) as classify:
        return [(result.label, result.score) for result in (classify(frame, color=color) for frame in frames)]


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_a_parent_feeds_frames_and_reads_a_line_for_each(some_artifact, color):
    frames = pictures(4)
    source = f"stdin:{WIDTH}x{HEIGHT}:{color}"
    with subprocess.Popen(
        [*COMMAND, some_artifact, "--source", source, "--json-lines", "-", "--threads", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        events = []
        for frame in frames:  # in step: the line for a frame is there before the next frame is
            child.stdin.write(frame.tobytes())
            child.stdin.flush()
            events.append(json.loads(child.stdout.readline()))
        child.stdin.close()
        assert child.stdout.read() == b""
    assert child.returncode == 0
    assert [(event["label"], pytest.approx(event["score"])) for event in events] == expected(
        some_artifact, frames, color
    )
    assert [event["index"] for event in events] == [0, 1, 2, 3]


def test_a_frame_cut_short_is_bad_data(some_artifact):
    done = subprocess.run(
        [*COMMAND, some_artifact, "--source", f"stdin:{WIDTH}x{HEIGHT}:rgb", "--json-lines", "-"],
        input=pictures(2).tobytes()[:-1],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 1
    assert b"stdin ended after" in done.stderr


@pytest.mark.parametrize("after", [0, 1])
def test_sigterm_ends_it_within_a_second(some_artifact, after):
    with subprocess.Popen(
        [*COMMAND, some_artifact, "--source", f"stdin:{WIDTH}x{HEIGHT}:rgb", "--json-lines", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        for frame in pictures(1 + after):
            child.stdin.write(frame.tobytes())
            child.stdin.flush()
            child.stdout.readline()
        begin = monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=10) == 0
        assert monotonic() - begin < 5  # a second is the aim; a busy machine may take longer
        assert b"Traceback" not in child.stderr.read()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is here, so the example was not compiled")
    program = tmp_path_factory.mktemp("c") / "classify"
    options = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wconversion", "-O1", "-g")
    checked = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    subprocess.run([compiler, *options, *checked, "-o", program, EXAMPLES / "classify.c"], check=True)
    return program


def from_c(program: Path, folder: Path, artifact: Path, data: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run the example; the ``edgeclf-device`` it starts is this environment's."""
    command = folder / "edgeclf-device"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgeclf_device "$@"\n')
    command.chmod(0o755)
    return subprocess.run(
        [program, artifact, str(WIDTH), str(HEIGHT)],
        input=data,
        capture_output=True,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "ASAN_OPTIONS": "detect_leaks=0"},
        timeout=120,
        check=False,
    )


def test_the_example_in_c_says_what_the_library_says(compiled, tmp_path, some_artifact):
    frames = pictures(6)
    done = from_c(compiled, tmp_path, some_artifact, frames.tobytes())
    assert done.returncode == 0, done.stderr
    said = [line.rsplit(" ", 1) for line in done.stdout.decode().splitlines()]
    assert [(label, float(score)) for label, score in said] == [
        (label, pytest.approx(score, abs=6e-4)) for label, score in expected(some_artifact, frames)
    ]


def test_the_example_in_c_gives_the_exit_code_of_a_child_that_refuses(compiled, tmp_path):
    done = from_c(compiled, tmp_path, tmp_path / "missing.tflite", pictures(2).tobytes())
    assert done.returncode == 4
    assert b"missing.tflite" in done.stderr


AWKWARD = [
    {"label": 'a "quoted" \\ back/slash', "score": 0.5},
    {"score": 0.25, "label": "tab\tnew\nline"},
    {"top": [{"label": "not this one", "score": 1}], "name": '"label": "nor this"', "label": "this", "score": 0.75},
    {"x": {"label": "}", "y": [[], {}]}, "label": "Riß ひび 🌞", "score": 1e-07, "label ": "no"},
    {"label": "", "score": 0},
]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_the_example_in_c_reads_any_json_that_python_writes(compiled, tmp_path, ascii_only):
    """In place of edgeclf-device stands a child that answers with awkward lines."""
    lines = [json.dumps(value, ensure_ascii=ascii_only) for value in AWKWARD]
    (tmp_path / "lines").write_text("\n".join(lines) + "\n")
    child = tmp_path / "edgeclf-device"
    child.write_text(f'#!/bin/sh\ncat "{tmp_path}/lines"\ncat >/dev/null\n')
    child.chmod(0o755)
    done = subprocess.run(
        [compiled, "model", "1", "1"],
        input=bytes(3 * len(AWKWARD)),
        capture_output=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        timeout=60,
        check=False,
    )
    wanted = "".join(f"{value['label']} {value['score']:.3f}\n" for value in AWKWARD)
    assert (done.returncode, done.stdout.decode()) == (0, wanted), done.stderr


@pytest.mark.parametrize(
    "line", ["", "nonsense", "{", '{"label"', '{"label": 3, "score": 1}', '{"label": "\\u12', "[]"]
)
def test_the_example_in_c_refuses_what_is_no_answer(compiled, tmp_path, line):
    child = tmp_path / "edgeclf-device"
    (tmp_path / "line").write_text(line + "\n")
    child.write_text(f'#!/bin/sh\ncat "{tmp_path}/line"\ncat >/dev/null\nexit 0\n')
    child.chmod(0o755)
    done = subprocess.run(
        [compiled, "model", "1", "1"],
        input=bytes(3),
        capture_output=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout == b""
    assert b"not understood" in done.stderr


def test_the_camera_demo_says_what_is_decided(some_artifact):
    frames = np.repeat(pictures(1), 6, axis=0)
    done = subprocess.run(
        [sys.executable, EXAMPLES / "camera_demo.py", some_artifact, f"stdin:{WIDTH}x{HEIGHT}:rgb"],
        input=frames.tobytes(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ((label, _),) = set(expected(some_artifact, frames))
    assert done.stdout.decode().splitlines()[-1].startswith(f"{label}  ")
