from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from edgeclf_device.certificate import Changes, Paired
from edgeclf_device.cli import main
from edgeclf_device.engines import ENGINES_OF, PACKAGES
from edgeclf_device.terminal import stderr_progress

NO_SOCKETS = (
    "import socket, sys\n"
    "def refuse(*_, **__): raise AssertionError('a socket was opened')\n"
    "socket.socket = socket.create_connection = socket.getaddrinfo = refuse\n"
    "from edgeclf_device.cli import main\n"
    "path, source = sys.argv[1:]\n"
    "for command in (['inspect', path], ['verify', path], ['classify', path, '--source', source]):\n"
    "    assert main(command) == 0, command\n"
)


@pytest.fixture
def frames(tmp_path):
    """A folder of frames that need no OpenCV, with names beyond ASCII."""
    folder = tmp_path / "Bilder ひび"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for name in ("a.npy", "größe.npy", "ひ.npy"):
        np.save(folder / name, rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    return folder


def test_0_inspect_prints_labels_preprocessing_and_digests(tiny, kind, artifact, capsys):
    assert main(["inspect", str(artifact)]) == 0
    printed = capsys.readouterr().out
    for expected in (*tiny.labels, kind.split(".")[0], "16×20 rgb", "center 0.875", "accuracy 0.8700", "images 200"):
        assert expected in printed
    assert "SHA-256" in printed


def test_0_inspect_shows_how_an_artifact_differs_from_the_original(tiny, tmp_path, capsys):
    kind = "fp32.onnx"
    certificate = dataclasses.replace(
        tiny.manifest(kind).certificate,
        paired=Paired(lost=4, gained=1, drop_interval_95=(-0.25, 1.25), mcnemar_p=0.375),
        changes=Changes(max_error=0.25, mean_error=0.001, images=7, per_class=((164, 7),) * 4, listed=()),
    )
    assert main(["inspect", str(tiny.write(tmp_path, kind, certificate=certificate))]) == 0
    printed = capsys.readouterr().out
    assert "drop              95 % interval -0.25 to +1.25 points; 4 images lost, 1 gained, McNemar p 0.38\n" in printed
    assert "7 of 656 images have another label; scores are off by at most 0.25, by 0.001 on average\n" in printed
    assert main(["inspect", str(tiny.write(tmp_path, kind))]) == 0
    assert "McNemar" not in capsys.readouterr().out


def test_0_inspect_prints_the_manifest_as_json(tiny, artifact, capsys):
    assert main(["inspect", "--json", str(artifact)]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["format"] == [1, 0]
    assert value["bundle"] is None
    assert value["artifacts"][0]["manifest"]["labels"] == list(tiny.labels)


def test_0_inspect_takes_a_bundle(bundle, capsys):
    assert main(["inspect", "--json", str(bundle)]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["bundle"]["name"] == "tiny"
    assert len(value["artifacts"]) == 4


def test_0_verify_says_verified(runnable, capsys):
    assert main(["verify", str(runnable)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "verified"


def test_0_classify_prints_a_line_for_each_frame(tiny, runnable, frames, capsys):
    assert main(["classify", str(runnable), "--source", str(frames)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["a.npy", "größe.npy", "ひ.npy"]
    assert all(any(label in line for label in tiny.labels) and " ms" in line for line in lines)
    assert "→" in lines[0]  # the first decision, and then those that change


def test_0_classify_stops_at_max_frames_and_shows_the_top(tiny, some_artifact, frames, capsys):
    assert main(["classify", str(some_artifact), "--source", str(frames), "--max-frames", "1", "--top", "4"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert all(label in line for label in tiny.labels)


def test_0_classify_writes_json_lines(tiny, some_artifact, frames, tmp_path, capsys):
    assert main(["classify", str(some_artifact), "--source", str(frames), "--json-lines", "-"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["name"] for event in events] == ["a.npy", "größe.npy", "ひ.npy"]
    assert all(event["label"] in tiny.labels and set(event["timing_ms"]) >= {"capture", "total"} for event in events)
    log = tmp_path / "events.jsonl"
    assert main(["classify", str(some_artifact), "--source", str(frames), "--json-lines", str(log)]) == 0
    assert len(log.read_text(encoding="utf-8").splitlines()) == 3
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_0_classify_and_inspect_say_what_is_not_accepted(tiny, some_artifact, frames, tmp_path, capsys):
    path = tiny.write(tmp_path, f"w8a8{some_artifact.suffix}", name=f"unsure{some_artifact.suffix}", reject_below=1.0)
    for artifact, threshold, accepted in ((some_artifact, "none", True), (path, "score 1.0000", False)):
        assert main(["classify", str(artifact), "--source", str(frames)]) == 0
        assert all(("not accepted" not in line) is accepted for line in capsys.readouterr().out.splitlines())
        assert main(["classify", str(artifact), "--source", str(frames), "--json-lines", "-"]) == 0
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [event["accepted"] for event in events] == [accepted] * 3
        assert main(["inspect", str(artifact)]) == 0
        assert re.search(f"reject below +{threshold}$", capsys.readouterr().out, re.MULTILINE)


def test_0_an_unreadable_image_is_listed_and_the_others_are_classified(some_artifact, frames, capsys):
    (frames / "b.npy").write_bytes(b"torn")
    assert main(["classify", str(some_artifact), "--source", str(frames)]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert "b.npy" in captured.err


def test_0_bench_prints_percentiles_of_every_stage(some_artifact, capsys):
    assert main(["bench", str(some_artifact), "--iterations", "5"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("p50", "p90", "p99", "prepare", "infer", "decide", "total"))


def test_0_bench_prints_raw_samples_as_json(some_artifact, frames, capsys):
    assert main(["bench", str(some_artifact), "--iterations", "5", "--json", "--source", str(frames)]) == 0
    (value,) = json.loads(capsys.readouterr().out)["measurements"]
    assert len(value["samples_ns"]["infer"]) == 5
    assert value["input"].startswith("3 frames of folder")


def test_0_bench_measures_two_in_turn_and_keeps_limits(some_artifact, capsys):
    path = str(some_artifact)
    assert main(["bench", path, path, "--seconds", "0.05", "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert made["verdict"] in ("faster", "slower", "undecided")
    assert main(["bench", path, "--iterations", "5", "--no-cold-start", "--max-p90-ms", "0.000001"]) == 6
    assert "p90 must be at most" in capsys.readouterr().err


def test_0_bench_explains_the_time(some_artifact, capsys):
    assert main(["bench", str(some_artifact), "--explain", "--threads", "1"]) == 0
    assert "Instruction sets" in capsys.readouterr().out


def test_0_bench_refuses_two_scenarios(some_artifact):
    with pytest.raises(SystemExit) as end:
        main(["bench", str(some_artifact), "--offline", "--rate", "30"])
    assert end.value.code == 2


def test_0_doctor_finds_this_machine_fit(some_artifact, capsys):
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["healthy"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["fly"], ["inspect"], ["classify", "x.onnx"], ["classify", "x.onnx", "--source", "s", "--top", "0"],
        ["bench", "x.onnx", "--threads", "many"],
    ],
)  # fmt: skip
def test_2_a_wrong_command_line(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_help_and_messages_go_by_the_name_of_the_program(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["classify", "--help"], program="edgeclf")
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: edgeclf classify")
    assert main(["inspect", str(tmp_path / "none.onnx")], program="edgeclf") == 4
    assert capsys.readouterr().err.startswith("edgeclf: ")


def test_2_an_unknown_engine(artifact, capsys):
    assert main(["verify", str(artifact), "--engine", "caffe"]) == 2
    assert "litert, onnxruntime" in capsys.readouterr().err


def test_3_a_source_that_is_not_there(some_artifact, tmp_path, capsys):
    assert main(["classify", str(some_artifact), "--source", str(tmp_path / "none")]) == 3
    assert "supported are" in capsys.readouterr().err


def test_3_an_empty_folder(some_artifact, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["classify", str(some_artifact), "--source", str(tmp_path / "empty")]) == 3
    assert "holds no images" in capsys.readouterr().err


def test_3_a_folder_without_one_readable_image(some_artifact, tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "torn.npy").write_bytes(b"torn")
    assert main(["classify", str(some_artifact), "--source", str(tmp_path / "bad")]) == 3
    assert "torn.npy" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["inspect"], ["verify"], ["bench"], ["classify", "--source", "frames"]])
def test_4_a_damaged_artifact(kind, artifact, frames, capsys, command):
    data = bytearray(artifact.read_bytes())
    data[len(data) // 3] ^= 255
    artifact.write_bytes(data)
    command = [str(frames) if word == "frames" else word for word in command]
    assert main([command[0], str(artifact), *command[1:]]) == 4
    captured = capsys.readouterr()
    assert "damaged" in captured.out + captured.err
    assert artifact.name in captured.out + captured.err


def test_4_a_truncated_and_a_zero_byte_artifact(kind, artifact, capsys):
    for data in (artifact.read_bytes()[:500], b""):
        artifact.write_bytes(data)
        assert main(["inspect", str(artifact)]) == 4
        assert main(["verify", str(artifact)]) == 4
    capsys.readouterr()


def test_4_a_model_without_a_manifest(tiny, kind, tmp_path, capsys):
    path = tmp_path / kind
    path.write_bytes(tiny.model(kind))
    assert main(["inspect", str(path)]) == 4
    assert "no manifest" in capsys.readouterr().err


def test_4_no_artifact_at_all(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "none.onnx")]) == 4
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["w8a8.tflite", "w8a8.onnx"])
@pytest.mark.parametrize("command", ["verify", "classify", "bench"])
def test_5_a_missing_engine_names_the_extra(tiny, kind, artifact, frames, child, command):
    packages = {PACKAGES[name] for name in ENGINES_OF[kind.split(".")[1]]}
    block = (
        "import sys, importlib.abc\n"
        "class Block(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {packages!r}: raise ModuleNotFoundError(f'No module named {{name!r}}')\n"
        "sys.meta_path.insert(0, Block())\n"
        "from edgeclf_device.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    more = ["--source", frames] if command == "classify" else []
    done = child(block, command, artifact, *more)
    assert done.returncode == 5, done.stderr
    assert f'pip install "edgeclf-device[{tiny.engine(kind)}]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_5_no_space_for_the_output(some_artifact, frames, child):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    code = "import sys; from edgeclf_device.cli import main; sys.exit(main(sys.argv[1:]))"
    done = child(code, "classify", some_artifact, "--source", frames, "--json-lines", "/dev/full")
    assert done.returncode == 5, done.stderr
    assert "No space left" in done.stderr
    assert "lacks 3 events" in done.stderr
    assert len(done.stdout.splitlines()) == 3  # the inference went on
    assert "Traceback" not in done.stderr


def test_5_an_event_log_that_can_not_be_opened(some_artifact, frames, tmp_path, capsys):
    log = tmp_path / "no folder" / "events.jsonl"
    assert main(["classify", str(some_artifact), "--source", str(frames), "--json-lines", str(log)]) == 5
    assert "events.jsonl" in capsys.readouterr().err


def test_130_ctrl_c(some_artifact, child):
    code = (
        "import os, signal, sys, threading\n"
        "from edgeclf_device.cli import main\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "sys.exit(main(['bench', sys.argv[1], '--seconds', '60']))\n"
    )
    done = child(code, some_artifact)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_a_reader_that_goes_away_is_no_error_to_shout_about(bundle, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "edgeclf_device", "inspect", bundle],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 141
    assert err == b""


def test_nothing_opens_a_socket(runnable, frames, child):
    done = child(NO_SOCKETS, runnable, frames)
    assert done.returncode == 0, done.stderr


def test_a_file_name_beyond_the_terminal_s_alphabet_is_shown_escaped(tiny, tmp_path, child):
    path = tiny.write(tmp_path, "fp32.onnx", name="größe-ひ.onnx")
    code = "import sys; from edgeclf_device.cli import main; sys.exit(main(sys.argv[1:]))"
    done = child(code, "inspect", path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"gr\xf6\xdfe-\u3072.onnx" in done.stdout


def test_json_is_utf_8_whatever_the_terminal_s_alphabet(tiny, tmp_path):
    path = tiny.write(tmp_path, "fp32.onnx")
    done = subprocess.run(
        [sys.executable, "-m", "edgeclf_device", "inspect", "--json", path],
        capture_output=True, check=True, cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert json.loads(done.stdout.decode("utf-8"))["artifacts"][0]["manifest"]["labels"] == list(tiny.labels)


def test_the_artifact_is_left_as_it_is(runnable, frames, capsys):
    before = runnable.read_bytes(), runnable.stat().st_mtime_ns
    for command in (["inspect"], ["verify"], ["classify", "--source", str(frames)], ["bench", "--iterations", "2"]):
        assert main([command[0], str(runnable), *command[1:]]) == 0
    assert (runnable.read_bytes(), runnable.stat().st_mtime_ns) == before
    assert sorted(item.name for item in runnable.parent.iterdir()) == sorted([runnable.name, frames.name])


def test_a_terminal_gets_a_progress_line_that_is_wiped_at_the_end(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = stderr_progress()
    assert list(progress(range(3), "Verifying", 3)) == [0, 1, 2]
    shown = capsys.readouterr().err
    assert "Verifying: 1 of 3" in shown
    assert shown.endswith("\r\x1b[K")


def test_no_terminal_gets_no_progress(some_artifact, capsys):
    assert main(["bench", str(some_artifact), "--iterations", "2"]) == 0
    assert "Measuring" not in capsys.readouterr().err


def test_0_sigterm_ends_a_live_classification_within_a_second(some_artifact, tmp_path):
    log = tmp_path / "events.jsonl"
    command = [sys.executable, "-m", "edgeclf_device", "classify", some_artifact, "--source", "synthetic:64x48@30"]
    with subprocess.Popen([*map(str, command), "--json-lines", str(log)], stdout=subprocess.PIPE, text=True) as child:
        assert "synthetic#" in child.stdout.readline()
        child.terminate()
        assert child.wait(timeout=5) == 0
    events = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert events
    assert events[0]["decision"]["changed"]


def test_2_a_page_beyond_loopback_needs_more_than_its_address(some_artifact, frames, capsys):
    pytest.importorskip("uvicorn")
    assert main(["classify", str(some_artifact), "--source", str(frames), "--serve", "0.0.0.0:0"]) == 2
    assert "--allow-remote" in capsys.readouterr().err


def test_0_the_page_is_served_while_frames_are_classified(some_artifact):
    pytest.importorskip("uvicorn")
    command = [sys.executable, "-m", "edgeclf_device", "classify", some_artifact, "--source", "synthetic:64x48@30"]
    arguments = [*map(str, command), "--serve", "127.0.0.1:0"]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        url = next(line.split()[-1] for line in child.stderr if line.startswith("live page: "))
        with urllib.request.urlopen(url + "events", timeout=20) as events:  # noqa: S310 - on loopback
            shown = next(line for line in events if line.startswith(b"data:") and b'"label"' in line)
        assert json.loads(shown[5:])["label"]
        child.terminate()
        assert child.wait(timeout=5) == 0


def test_a_rule_steadies_the_decisions(some_artifact, frames, tmp_path):
    log = tmp_path / "events.jsonl"
    rule = ["--decide", "vote:3", "--json-lines", str(log)]
    assert main(["classify", str(some_artifact), "--source", str(frames), *rule]) == 0
    decided = [json.loads(line)["decision"]["label"] for line in log.read_text("utf-8").splitlines()]
    assert decided[0] is None  # one frame of three is no majority
    assert main(["classify", str(some_artifact), "--source", str(frames), "--decide", "vote"]) == 2


def test_0_a_label_that_is_not_allowed_never_wins(tiny, some_artifact, frames, capsys):
    for label in tiny.labels[:2]:
        assert main(["classify", str(some_artifact), "--source", str(frames), "--allow", label]) == 0
        assert all(f"  {label} " in line for line in capsys.readouterr().out.splitlines())
    assert main(["classify", str(some_artifact), "--source", str(frames), "--allow", "no such"]) == 2
