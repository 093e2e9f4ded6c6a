from __future__ import annotations

import io
import os
import sys
import time

import numpy as np
import pytest

from edgeclf_device import DataError, DependencyError, UsageError, open_source
from edgeclf_device import sources as sources_module
from edgeclf_device.sources import open_frames


def write_png(path, value=100, size=(12, 10)):
    cv2 = pytest.importorskip("cv2")
    path.parent.mkdir(parents=True, exist_ok=True)
    good, data = cv2.imencode(".png", np.full((*size, 3), (1, 2, value), np.uint8))
    assert good
    path.write_bytes(data.tobytes())


def write_video(path, frames=5):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MJPG video")
    for index in range(frames):
        writer.write(np.full((48, 64, 3), (250, 10, 20 * index), np.uint8))
    writer.release()
    return path


def test_a_folder_is_read_in_the_order_of_names_at_every_depth(tmp_path):
    for name in ("b.png", "a/z.png", "a/ä ひ.png", "c.txt"):
        write_png(tmp_path / name)
    np.save(tmp_path / "d.npy", np.zeros((4, 5, 3), np.uint8))
    with open_source(str(tmp_path)) as source:
        frames = list(source)
    assert [frame.name for frame in frames] == ["a/z.png", "a/ä ひ.png", "b.png", "d.npy"]
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert source.total == 4
    assert frames[0].color == "rgb"
    assert frames[0].image[0, 0].tolist() == [100, 2, 1]
    assert all(frame.capture_ms > 0 for frame in frames)


def test_an_unreadable_image_in_a_folder_is_listed_and_the_rest_is_read(tmp_path):
    write_png(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no image")
    np.save(tmp_path / "floats.npy", np.zeros((4, 4, 3)))
    np.save(tmp_path / "deep.npy", np.zeros((1, 4, 4, 3), np.uint8))
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY")
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(3))
    (tmp_path / "archive.npy").write_bytes(archive.getvalue())
    with open_source(str(tmp_path)) as source:
        assert [frame.name for frame in source] == ["good.png"]
    rejected = {entry.name: entry.reason for entry in source.rejected}
    assert set(rejected) == {"empty.png", "text.jpg", "floats.npy", "deep.npy", "torn.npy", "archive.npy"}
    assert "0 bytes" in rejected["empty.png"]
    assert "float64" in rejected["floats.npy"]


def test_a_header_that_promises_too_much_is_refused_before_memory_is_asked_for(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 4, 3)})
    (tmp_path / "huge.npy").write_bytes(buffer.getvalue() + b"\0" * 100)
    with open_source(str(tmp_path / "huge.npy")) as source, pytest.raises(DataError, match="huge"):
        list(source)


def test_a_single_image_that_can_not_be_read_is_an_error(tmp_path):
    pytest.importorskip("cv2")
    (tmp_path / "bad.png").write_text("no image")
    with open_source(str(tmp_path / "bad.png")) as source, pytest.raises(DataError, match=r"bad\.png"):
        list(source)


def test_a_numpy_frame_is_read_without_opencv(tmp_path):
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    np.save(tmp_path / "frame.npy", image)
    with open_source(str(tmp_path / "frame.npy")) as source:
        (frame,) = source
    assert np.array_equal(frame.image, image)


def test_a_video_gives_its_frames_in_bgr(tmp_path):
    path = write_video(tmp_path / "clip ü.avi")
    with open_source(str(path)) as source:
        frames = list(source)
    assert [frame.name for frame in frames] == [f"clip ü.avi#{index}" for index in range(5)]
    assert source.total == 5
    assert frames[0].color == "bgr"
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image[0, 0, 0] > 200
    assert all(frame.capture_ms > 0 for frame in frames)


@pytest.mark.parametrize("content", [b"", b"not a video", b"RIFF\x10\0\0\0AVI LIST"])
def test_a_damaged_or_empty_video_is_refused(tmp_path, content):
    pytest.importorskip("cv2")
    path = tmp_path / "bad.avi"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.avi"):
        open_source(str(path))


def test_a_video_cut_short_behind_its_header_is_refused_or_ends(tmp_path):
    path = write_video(tmp_path / "cut.avi", frames=20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    try:
        with open_source(str(path)) as source:
            assert len(list(source)) < 20
    except DataError as error:
        assert "cut.avi" in str(error)  # noqa: PT017 - which of the two depends on the decoder


def test_files_can_be_given_one_by_one(tmp_path):
    for name in ("b.npy", "a.npy"):
        np.save(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    with open_frames([tmp_path / "b.npy", tmp_path / "a.npy"]) as source:
        assert [frame.name for frame in source] == [f"{tmp_path}/b.npy", f"{tmp_path}/a.npy"]
    with pytest.raises(DataError, match="empty"):
        open_frames([])


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("spec", ["nothing", "notes.txt", "gopher://127.0.0.1/stream", "x" * 5000, ""])
def test_an_unknown_source_is_refused_and_told_what_is_supported(tmp_path, spec):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="supported are"):
        open_source(str(tmp_path / spec) if spec and ":" not in spec else spec or str(tmp_path / "x"))


def test_a_kind_can_be_named(tmp_path):
    np.save(tmp_path / "frame.npy", np.zeros((4, 4, 3), np.uint8))
    with open_source(f"image:{tmp_path / 'frame.npy'}") as source:
        assert len(list(source)) == 1
    with pytest.raises(DataError, match="must be a folder"):
        open_source(f"folder:{tmp_path / 'frame.npy'}")


def test_a_path_that_is_there_wins_over_a_kind_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "video:1"
    folder.mkdir()
    np.save(folder / "frame.npy", np.zeros((4, 4, 3), np.uint8))
    with open_source("video:1") as source:
        assert [frame.name for frame in source] == ["frame.npy"]


def test_the_error_for_an_unknown_source_lists_every_kind_and_no_password():
    with pytest.raises(DataError) as caught:
        open_source("ftp://admin:secret@camera/stream")
    assert all(kind in str(caught.value) for kind in sources_module.KINDS)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        "v4l2:/dev/video0?sise=1x1",
        "v4l2:/dev/video0?size=0x9",
        "v4l2:0?size=640x480&size=1x1",
        "v4l2:0?fps=0",
        "v4l2:0?fps=nan",
        "v4l2:0?format=TEXT",
        "csi:one",
        "csi:0?flip=8",
        "picamera2:0?size=big",
        "synthetic:640",
        "synthetic:640x480@0",
        "http://",
        "rtsp://:554/stream",
        "http://camera:port/stream",
    ],
)
def test_an_option_or_address_that_is_not_understood_is_a_usage_error(spec):
    with pytest.raises(UsageError, match=spec.partition(":")[0]):
        open_source(spec)


def test_what_ends_counts_its_frames_and_has_nothing_to_note(tmp_path):
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, np.zeros((4, 6, 3), np.uint8))
    with open_source(str(tmp_path)) as source:
        assert source.status().state == "starting"
        frame = next(iter(source))
        assert 0 <= time.monotonic_ns() - frame.captured_ns < 60e9
        assert (source.status().state, source.status().captured, source.status().size) == ("live", 1, (6, 4))
        assert source.take_notes() == []
    assert source.status().state == "ended"


def test_a_kind_added_to_the_registry_is_open_at_once(monkeypatch):
    made = sources_module.Images("fake", [])
    monkeypatch.setitem(sources_module.KINDS, "fake", lambda rest: made if rest == "0" else None)
    assert open_source("fake:0") is made


def test_images_without_opencv_are_a_missing_dependency(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DependencyError, match="camera"):
        open_source(str(tmp_path))


def test_a_file_name_that_is_no_text_is_read(tmp_path):
    name = os.fsdecode(b"caf\xe9.npy")
    try:
        np.save(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    with open_source(str(tmp_path)) as source:
        assert [frame.name for frame in source] == [name]
