"""Hard frames on a real disk: which are kept, in what form, and what a full or broken one costs."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgeclf_device import Classifier, SystemStateError, load
from edgeclf_device.classifier import Reading, Result
from edgeclf_device.cli import main
from edgeclf_device.decisions import Decision
from edgeclf_device.hard_frames import Limits
from edgeclf_device.hard_record import kept_frame, read_record, record_of
from edgeclf_device.keeping import KeepHard
from edgeclf_device.sources import Frame
from edgeclf_device.streaming import Event

try:
    import cv2
except ImportError:
    cv2 = None

SUFFIX = ".npy" if cv2 is None else ".png"
SECOND = 1_000_000_000
BASE_NS = time.monotonic_ns() - 1000 * SECOND
EACH = Limits(apart_frames=1)


def picture(seed, shape=(48, 64, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def event(score, index=0, *, image=None, color="rgb", at_s=None):
    """A frame of a look of its own, of which ``score`` is said."""
    return Event(
        frame=Frame(
            image=picture(index) if image is None else image,
            color=color,
            index=index,
            name=f"camera#{index}",
            capture_ms=1.0,
            captured_ns=BASE_NS + round((index / 30 if at_s is None else at_s) * SECOND),
        ),
        result=Result(
            label="a/b ひび",
            score=score,
            accepted=True,
            output=np.array([score, 1 - score], np.float32),
            reading=Reading(labels=("a/b ひび", "c")),
            spent_ns=(1, 1, 1),
        ),
        decision=Decision(label="a/b ひび", score=score, changed=False, since_ns=0),
        age_ms=2.0,
        total_ms=1.0,
    )


def kept_in(folder):
    """The kept images by name: what lies there is nothing but pairs of image and record."""
    images = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    assert sorted(folder.iterdir()) == sorted([*images, *map(record_of, images)])
    return images


def scores_in(folder):
    return sorted(round(read_record(path).score, 3) for path in kept_in(folder))


def written(keep):
    """Wait until the thread has done what it was given."""
    with keep._news:
        assert keep._news.wait_for(lambda: keep._waiting is None, 60)


@pytest.mark.parametrize(
    ("color", "channels"), [("rgb", 3), ("bgr", 3), ("rgb", 4), ("bgr", 4), ("rgb", 1), ("rgb", None)]
)
def test_a_kept_frame_is_what_the_model_saw_to_the_pixel(tmp_path, color, channels):
    image = picture(1, (31, 47) if channels is None else (31, 47, channels))
    with KeepHard(tmp_path, artifact="0" * 64) as keep:
        keep(event(0.6, image=image, color=color))
    (path,) = kept_in(tmp_path)
    shown = load(path)
    expected = image if channels is None else image[:, :, :3] if color == "rgb" else image[:, :, 2::-1]
    expected = expected.reshape(31, 47, -1)
    assert (shown.reshape(31, 47, -1)[:, :, : expected.shape[2]] == expected).all()


def test_the_record_beside_it_says_what_was_seen(tmp_path):
    with KeepHard(tmp_path, artifact="ab" * 32, source="camera 0") as keep:
        keep(event(0.6, 7))
    (path,) = kept_in(tmp_path)
    record = json.loads(record_of(path).read_text("utf-8"))
    assert record["format"] == [1, 0]
    assert (record["label"], record["name"], record["index"]) == ("a/b ひび", "camera#7", 7)
    assert record["score"] == pytest.approx(0.6)
    assert [one["label"] for one in record["top"]] == ["a/b ひび", "c"]
    assert (record["measure"], record["artifact"], record["source"]) == ("margin", "ab" * 32, "camera 0")
    assert record["unsure"] == pytest.approx(0.8)
    assert record["time"].endswith("+00:00")
    assert read_record(path).to_json() == record
    assert kept_frame(path).size_bytes == sum(one.stat().st_size for one in tmp_path.iterdir())


def test_of_each_moment_the_least_sure_frame_is_kept_and_sure_ones_never(tmp_path):
    with KeepHard(tmp_path, artifact="") as keep:
        for index, score in enumerate([0.9, 0.6, 0.7] + [0.99] * 57 + [0.8, 0.75] + [0.99] * 100):
            keep(event(score, index))
            if index in (60, 130):
                written(keep)
    assert scores_in(tmp_path) == [0.6, 0.75]


def test_a_moment_ends_by_time_or_by_frames_whichever_comes_first(tmp_path):
    with KeepHard(tmp_path / "slow", artifact="") as keep:
        for index in range(3):
            keep(event(0.6, index, at_s=3 * index))
            written(keep)
    assert len(kept_in(tmp_path / "slow")) == 3, "a camera of a frame in 3 seconds"
    with KeepHard(tmp_path / "fast", artifact="") as keep:
        for index in range(0, 180, 20):
            keep(event(0.6, index, at_s=0))
            written(keep)
    assert len(kept_in(tmp_path / "fast")) == 3, "a video that is read faster than it was filmed"


def test_a_static_scene_does_not_fill_the_folder(tmp_path):
    with KeepHard(tmp_path, artifact="", limits=EACH) as keep:
        for index in range(20):
            noise = np.random.default_rng(index).integers(0, 3, (48, 64, 3), np.uint8)
            keep(event(0.7 - index / 100, index, image=picture(0) // 2 + noise))
    assert scores_in(tmp_path) == [0.51]


def test_the_least_sure_of_all_stay_also_over_a_restart(tmp_path):
    limits = Limits(frames=3, apart_frames=1)
    for run in range(2):
        with KeepHard(tmp_path, artifact="", limits=limits) as keep:
            for index, score in enumerate([0.9, 0.55, 0.8, 0.7]):
                keep(event(score - run / 100, run * 10 + index))
            assert keep.lost == 0
    assert scores_in(tmp_path) == [0.54, 0.55, 0.69]


def test_the_folder_stays_below_its_bytes(tmp_path):
    with KeepHard(tmp_path, artifact="", limits=Limits(size_bytes=40_000, apart_frames=1)) as keep:
        for index in range(12):
            keep(event(0.9 - index / 100, index))
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert 20_000 < total <= 40_000
    assert min(scores_in(tmp_path)) == 0.79


def test_frames_that_a_person_took_away_make_room_and_other_files_are_let_be(tmp_path):
    (tmp_path / "mine.png").write_bytes(b"mine")
    (tmp_path / "notes.json").write_text("{}")
    with KeepHard(tmp_path, artifact="", limits=Limits(frames=1, apart_frames=1)) as keep:
        keep(event(0.55, 0))
        keep(event(0.9, 1))
        keep(event(0.9, 2))
        (path,) = [one for one in tmp_path.iterdir() if one.suffix == SUFFIX and one.name != "mine.png"]
        path.unlink()
        record_of(path).unlink()
        keep(event(0.9, 3))
    assert sorted(one.name for one in tmp_path.iterdir())[-2:] == ["mine.png", "notes.json"]
    assert keep.kept == 1


def test_what_a_power_cut_left_half_written_is_removed_at_the_next_start(tmp_path):
    with KeepHard(tmp_path, artifact="") as keep:
        keep(event(0.6))
    (path,) = kept_in(tmp_path)
    (tmp_path / f".{path.name}.k3x9q_2v").write_bytes(b"half")
    record_of(path).with_name("20260101T000000.000Z-00000000.json").write_text("{}")
    with KeepHard(tmp_path, artifact="") as keep:
        assert keep.kept == 1
    assert kept_in(tmp_path) == [path]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": [2, 0]}', b"x" * 70_000, b'{"format": [1, 0]}'])
def test_a_frame_with_a_damaged_record_counts_and_goes_first(tmp_path, damage):
    with KeepHard(tmp_path, artifact="") as keep:
        keep(event(0.51))
    (path,) = kept_in(tmp_path)
    record_of(path).write_bytes(damage)
    assert read_record(path) is None
    assert kept_frame(path).unsure == 0
    with KeepHard(tmp_path, artifact="", limits=Limits(frames=1)) as keep:
        keep(event(0.9, 1))
    assert scores_in(tmp_path) == [0.9]


def test_a_full_disk_costs_kept_frames_and_never_the_inference(small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(52 << 10))  # three pages are free: enough by count, and too little for two files
    folder = small_disk / "hard"
    with KeepHard(folder, artifact="", limits=Limits(apart_frames=1, free_bytes=0)) as keep:
        for index in range(4):
            keep(event(0.6, index))
        keep.close()
        (note,) = keep.take_notes()
        assert (note.level, "No space left on device. Classifying goes on" in note.text) == ("error", True)
        assert keep.lost == 4
        assert kept_in(folder) == [], "nothing half-written, no record without its image"
    ballast.unlink()
    with KeepHard(folder, artifact="", limits=Limits(apart_frames=1, free_bytes=0)) as keep:
        keep(event(0.6))
    assert len(kept_in(folder)) == 1


def test_space_is_left_free_and_it_is_said_when_frames_are_kept_again(small_disk):
    folder = small_disk / "hard"
    limits = Limits(apart_frames=1, free_bytes=30 << 10)
    with KeepHard(folder, artifact="", limits=limits) as keep:
        (small_disk / "ballast").write_bytes(bytes(32 << 10))
        keep(event(0.6, 0))
        keep(event(0.6, 1))
        written(keep)
        (small_disk / "ballast").unlink()
        keep(event(0.6, 2))
    first, second = keep.take_notes()
    assert "would be left free" in first.text
    assert (second.level, "kept in" in second.text) == ("info", True)
    assert (len(kept_in(folder)), keep.lost) == (2, 1)


def test_a_slow_disk_makes_the_moment_longer_and_the_loop_waits_for_nothing(tmp_path, monkeypatch):
    write, done = KeepHard._write, threading.Event()

    def slow(*arguments):
        done.wait()
        write(*arguments)

    monkeypatch.setattr(KeepHard, "_write", slow)
    with KeepHard(tmp_path, artifact="") as keep:
        for index in range(0, 600, 10):
            keep(event(0.9 - index / 2000, index))
        done.set()
    assert scores_in(tmp_path) == [0.605, 0.875]


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_5_a_folder_that_can_not_be_written(tmp_path, kind):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemStateError, match=r"Hard frames can't be kept in .*; choose another place"):
        KeepHard(tmp_path / "file" / ("" if kind == "file" else "hard"), artifact="")


def test_without_opencv_a_frame_is_kept_as_an_array_in_rgb(tmp_path, child):
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from edgeclf_device.keeping import _encoded\n"
        "for name in sys.argv[1:]:\n"
        "    suffix, data = _encoded(np.load(name), Path(name).stem)\n"
        "    Path(name).with_suffix('.kept' + suffix).write_bytes(data)\n"
    )
    image = picture(5, (7, 9, 4))
    files = [tmp_path / "rgb.npy", tmp_path / "bgr.npy"]
    np.save(files[0], image)
    np.save(files[1], image[:, :, [2, 1, 0, 3]])
    done = child(code, *files)
    assert done.returncode == 0, done.stderr
    for path in files:
        assert (load(path.with_suffix(".kept.npy")) == image).all()


# ---- the command


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(12):
        np.save(folder / f"{index:02}.npy", picture(index, (61, 83, 3)))
    return folder


def test_classify_keeps_the_least_sure_of_a_folder_and_says_so(some_artifact, photos, tmp_path, capsys):
    folder = tmp_path / "hard"
    arguments = ["classify", str(some_artifact), "--source", str(photos), "--keep-hard", str(folder)]
    assert main([*arguments, "--keep-frames", "4", "--keep-unsure", "0"]) == 0
    assert f"at most 4 and 256 MiB of what the camera sees are kept in {folder}; nothing" in capsys.readouterr().err
    with Classifier.open(some_artifact) as classify:
        margins = {}
        for path in photos.iterdir():
            (_, first), (_, second) = classify(np.load(path)).top(2)
            margins[path.name] = first - second
        records = [read_record(path) for path in kept_in(folder)]
        assert {record.artifact for record in records} == {classify.artifact.digest}
    assert len(records) == 4
    assert max(margins[record.name] for record in records) <= sorted(margins.values())[3] + 1e-6


def test_2_a_model_of_video_is_unsure_of_windows_and_no_single_frame_is_kept(photos, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    clips = Path(__file__).parent / "artifacts" / "format-1.3.onnx"
    arguments = ["classify", str(clips), "--source", str(photos), "--keep-hard", str(tmp_path / "hard")]
    assert main(arguments) == 2
    assert (
        "keeps single frames to be labelled, but format-1.3.onnx is unsure of windows of 4" in capsys.readouterr().err
    )
    assert not (tmp_path / "hard").exists()


def test_nothing_is_kept_unless_asked_for(some_artifact, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["classify", str(some_artifact), "--source", str(photos)]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert "hard frames" not in capsys.readouterr().err


def test_5_frames_that_could_not_be_kept_are_said_at_the_end(some_artifact, photos, small_disk, capsys):
    arguments = ["classify", str(some_artifact), "--source", str(photos), "--keep-hard", str(small_disk / "hard")]
    assert main([*arguments, "--keep-unsure", "0"]) == 5
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 12, "every frame is classified"
    assert "less than 128 MiB would be left free" in said.err
    assert "lacks 12 hard frames" in said.err


@pytest.mark.parametrize("option", [("--keep-unsure", "2"), ("--keep-frames", "0"), ("--keep-measure", "variance")])
def test_2_options_out_of_range(some_artifact, photos, tmp_path, option, capsys):
    arguments = ["classify", str(some_artifact), "--source", str(photos), "--keep-hard", str(tmp_path / "hard")]
    try:
        code = main([*arguments, *option])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert not (tmp_path / "hard").exists()


def test_5_a_folder_that_the_command_can_not_write_is_said_before_the_first_frame(some_artifact, photos, capsys):
    arguments = ["classify", str(some_artifact), "--source", str(photos), "--keep-hard", os.devnull]
    assert main(arguments) == 5
    assert capsys.readouterr().out == ""
