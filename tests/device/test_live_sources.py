from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclf_device import DependencyError, UsageError, open_source
from edgeclf_device.errors import SystemStateError
from edgeclf_device.fakes import FakePicamera2, Fault, FaultyCamera
from edgeclf_device.sources import opencv
from edgeclf_device.sources.address import shown, without_user
from edgeclf_device.sources.capture import LostError, Shot, TornError
from edgeclf_device.sources.devices import holders, why_closed
from edgeclf_device.sources.live import Live
from edgeclf_device.sources.newest import Arrival, Limits, Newest, Pace, Repeats
from edgeclf_device.sources.picamera2 import from_boottime_ns

MS = 1_000_000
DETECTED_S, RECOVERED_S = 2.0, 5.0
QUICK = Limits(stall_ns=400 * MS, first_retry_ns=20 * MS, last_retry_ns=200 * MS)
IMAGE = np.zeros((8, 8, 3), np.uint8)


def faulty(camera: FaultyCamera, limits: Limits | None = QUICK) -> Live:
    return Live("faulty camera", "faulty", camera.open, limits=limits)


def until(condition, seconds=5.0):
    """Wait for what another thread brings about; the seconds it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, "it did not come to pass"
        time.sleep(0.005)
    return time.monotonic() - begin


def kinds(source):
    return [note.kind for note in source.take_notes()]


def shot(image=IMAGE, captured_ns=0, stamp=None):
    return Shot(image=image, color="rgb", captured_ns=captured_ns, stamp=stamp)


def arrival(captured_ns, arrived_ns, index=0):
    return Arrival(shot=shot(captured_ns=captured_ns), index=index, arrived_ns=arrived_ns)


# The logic, with times that are made up


@given(
    inference_ns=st.integers(1, 400 * MS),
    period_ns=st.integers(10 * MS, 50 * MS),
    way_share=st.floats(0, 0.18),
    jitters=st.lists(st.floats(0, 0.06), min_size=60, max_size=60),
)
@settings(max_examples=50, deadline=None)
def test_a_slow_consumer_never_reports_a_frame_older_than_inference_and_one_period(
    inference_ns, period_ns, way_share, jitters
):
    """A camera whose pictures are on the way for up to a quarter period, that way's unsteadiness included."""
    way_ns = int(way_share * period_ns)
    coming = [(n * period_ns, n * period_ns + way_ns + int(j * period_ns)) for n, j in enumerate(jitters)]
    newest, now_ns, last_index, index = Newest(), 0, -1, 0
    while True:
        while index < len(coming) and coming[index][1] <= now_ns:
            newest.put(arrival(*coming[index], index))
            index += 1
        if index == len(coming):
            break
        taken, wait_ns = newest.take(now_ns, period_ns=period_ns, stale_ns=1000 * MS)
        if taken is None:
            now_ns = coming[index][1] if wait_ns is None else min(coming[index][1], now_ns + wait_ns)
            continue
        assert taken.index > last_index
        last_index = taken.index
        now_ns += inference_ns
        assert now_ns - taken.shot.captured_ns <= inference_ns + period_ns


@given(st.lists(st.one_of(st.just("put"), st.just("take")), max_size=60))
def test_of_all_pictures_the_newest_is_taken_once_and_every_other_is_counted(actions):
    newest, put, taken = Newest(), 0, []
    for action in actions:
        if action == "put":
            newest.put(arrival(put, put, put))
            put += 1
        else:
            found, _ = newest.take(put, period_ns=0, stale_ns=1000)
            assert found is None or found.index == put - 1
            taken += [] if found is None else [found.index]
    assert taken == sorted(set(taken))
    held = newest.take(put, period_ns=0, stale_ns=1000)[0] is not None
    assert newest.dropped + len(taken) + held == put


def test_a_stale_picture_is_dropped_and_not_taken():
    newest = Newest()
    newest.put(arrival(0, 5 * MS))
    assert newest.take(1001 * MS, period_ns=33 * MS, stale_ns=1000 * MS) == (None, None)
    assert newest.dropped == 1


def test_a_successor_that_is_late_is_not_waited_for_longer_than_half_a_period():
    newest, period_ns = Newest(), 40 * MS
    newest.put(arrival(0, 4 * MS))
    assert newest.take(20 * MS, period_ns=period_ns, stale_ns=10**9)[0] is not None
    newest.put(arrival(0, 4 * MS))
    _, wait_ns = newest.take(40 * MS, period_ns=period_ns, stale_ns=10**9)
    assert wait_ns == 24 * MS
    assert newest.take(64 * MS, period_ns=period_ns, stale_ns=10**9)[0] is not None


def test_the_pace_is_the_median_interval_and_forgets_a_pause():
    pace = Pace()
    for captured_ns in (0, 10, 20, 30, 130, 140):
        pace.beat(captured_ns)
    assert pace.period_ns == 10
    pace.interrupt()
    pace.beat(100_000)
    assert pace.period_ns == 10


def test_a_repeat_is_the_same_pixels_and_the_same_stamp_or_no_stamp():
    noisy = IMAGE.copy()
    noisy[3, 5, 1] = 1  # no pixel of the sample
    repeats = Repeats()
    assert not repeats.is_repeat(shot())
    assert repeats.is_repeat(shot())
    assert not repeats.is_repeat(shot(noisy))
    stamped = Repeats()
    assert [stamped.is_repeat(shot(stamp=stamp)) for stamp in (1, 2, 2, 3)] == [False, False, True, False]


def test_a_still_scene_of_a_camera_that_stamps_its_pictures_is_live():
    class Still:
        number = 0

        def read(self):
            time.sleep(0.01)
            Still.number += 1
            return shot(IMAGE.copy(), time.monotonic_ns(), stamp=Still.number)

        def interrupt(self): ...
        def close(self): ...

    with Live("still", "still", Still, limits=QUICK) as source:
        assert len(list(itertools.islice(source, 50))) == 50
        assert source.status().faults == 0


def test_waits_between_tries_double_up_to_a_limit_and_begin_anew_after_a_long_life():
    limits = Limits()
    waits = list(itertools.accumulate(range(7), lambda wait, _: limits.next_retry_ns(wait, 0), initial=0))
    assert [wait // MS for wait in waits[1:]] == [100, 200, 400, 800, 1600, 2000, 2000]
    assert limits.next_retry_ns(2000 * MS, 3000 * MS) == 100 * MS


@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(0, 2**62))
def test_a_time_of_v4l2_is_believed_only_if_it_is_recent(position_ms, now_ns):
    stamp_ns = opencv.sensor_time_ns(position_ms, now_ns)
    assert stamp_ns is None or 0 <= now_ns - stamp_ns <= 2_000_000_000
    assert opencv.sensor_time_ns(5000.0, 5_100_000_000) == 5_000_000_000


# A camera with faults: each is seen in time and survived


@pytest.mark.parametrize(
    ("kind", "limits", "seconds"),
    [("stall", None, 1.8), ("stall", QUICK, 1), ("block", QUICK, 1), ("unplug", QUICK, 1), ("repeat", QUICK, 1)],
)
def test_a_fault_is_detected_and_recovered_from_in_time(kind, limits, seconds):
    camera = FaultyCamera(fps=100)
    with faulty(camera, limits) as source:
        frames = iter(source)
        last = [next(frames).index for _ in range(20)][-1]
        camera.inject(Fault(kind=kind, seconds=seconds))
        until(lambda: source.status().faults, DETECTED_S)
        status = source.status()
        assert (status.state, bool(status.detail), status.fps) == ("stalled", True, 0.0)
        until(lambda: source.status().recoveries, RECOVERED_S)
        frame = next(frames)
        assert time.monotonic_ns() - frame.captured_ns < 1000 * MS
        assert frame.index > last
        assert source.status().state == "live"
    assert {"opened", "recovery"} <= set(kinds(source))


def test_a_torn_picture_is_left_out_and_counted():
    camera = FaultyCamera(fps=200, script={10: Fault(kind="torn", pictures=3)})
    with faulty(camera) as source:
        frames = list(itertools.islice(source, 30))
        status = source.status()
    assert len(frames) == 30
    assert (status.torn, status.faults) == (3, 0)
    assert kinds(source).count("torn") == 1


def test_endless_torn_pictures_are_a_stall():
    camera = FaultyCamera(fps=200, script={10: Fault(kind="torn", pictures=10**9)})
    with faulty(camera) as source:
        until(lambda: source.status().state == "stalled")
        assert "damaged" in source.status().detail


def test_a_change_of_resolution_is_noted_and_the_frames_go_on():
    camera = FaultyCamera(fps=200, script={10: Fault(kind="resize", size=(64, 48))})
    with faulty(camera) as source:
        shapes = {frame.image.shape for frame in itertools.islice(source, 30)}
        status = source.status()
    assert shapes == {(240, 320, 3), (48, 64, 3)}
    assert (status.size, status.faults) == ((64, 48), 0)
    assert any("320×240" in note.text and "64×48" in note.text for note in source.take_notes())


def test_pictures_that_come_slowly_are_no_fault():
    camera = FaultyCamera(fps=100, script={10: Fault(kind="slow", pictures=5, seconds=0.1)})
    with faulty(camera, None) as source:
        list(itertools.islice(source, 30))
        assert source.status().faults == 0


def test_reads_that_never_return_are_left_behind_up_to_a_number_and_this_is_said():
    camera = FaultyCamera(fps=200)
    limits = Limits(stall_ns=60 * MS, open_ns=100 * MS, first_retry_ns=MS, last_retry_ns=20 * MS, stuck=2)
    threads = threading.active_count()
    with faulty(camera, limits) as source:
        for _ in range(3):
            camera.inject(Fault(kind="block", seconds=60))
        until(lambda: "stuck" in source.status().detail)
        assert camera.openings == 2
        time.sleep(0.1)
        assert camera.openings == 2
        assert [note.level for note in source.take_notes() if note.kind == "stuck"].count("error") == 1
        camera.release()
        until(lambda: source.status().state == "live")
    until(lambda: threading.active_count() == threads)


def test_a_slow_consumer_gets_the_newest_frame_and_the_rest_is_dropped():
    with open_source("synthetic:64x48@100") as source:
        frames = iter(source)
        next(frames)
        time.sleep(0.3)
        woken_ns = time.monotonic_ns()
        frame = next(frames)
        assert frame.captured_ns > woken_ns - 1000 * MS
        assert frame.index > 1
        assert source.status().dropped


def test_nobody_gets_the_last_frame_of_a_camera_that_died_long_ago():
    camera = FaultyCamera(fps=200)
    with faulty(camera) as source:
        frames = iter(source)
        next(frames)
        camera.inject(Fault(kind="unplug", seconds=0.8))
        until(lambda: source.status().state == "stalled")
        died_ns = time.monotonic_ns()
        time.sleep(0.4)
        assert next(frames).captured_ns > died_ns
        assert source.status().recoveries


def test_a_frame_is_read_only_because_others_may_look_at_it():
    with open_source("synthetic:64x48@100") as source:
        frame = next(iter(source))
        with pytest.raises(ValueError, match="read-only"):
            frame.image[0, 0] = 1


def test_close_from_another_thread_ends_an_iteration_that_waits():
    camera = FaultyCamera(fps=200)
    with faulty(camera) as source:
        camera.inject(Fault(kind="stall", seconds=30))
        threading.Timer(0.2, source.close).start()
        begin = time.monotonic()
        list(source)
        assert time.monotonic() - begin < 15
        assert source.status().state == "ended"


def test_a_source_that_was_not_entered_says_so_and_one_is_entered_once():
    source = open_source("synthetic:64x48")
    with pytest.raises(UsageError, match="with"):
        next(iter(source))
    with source:
        pass
    with pytest.raises(UsageError, match="once"):
        source.__enter__()


def test_the_first_opening_that_fails_is_an_error_and_leaves_no_thread():
    def refuse():
        raise LostError("It is gone.")

    def crash():
        raise RuntimeError("segment 7\nof the driver")

    threads = threading.active_count()
    with pytest.raises(DependencyError, match="It is gone"), Live("camera", "c", refuse):
        pass
    with pytest.raises(SystemStateError, match="segment 7"), Live("camera", "c", crash):
        pass
    with (
        pytest.raises(DependencyError, match="No picture came"),
        Live(
            "camera",
            "c",
            lambda: FaultyCamera(fps=0.01, script={0: Fault(kind="stall", seconds=9)}).open(),
            limits=Limits(open_ns=100 * MS),
        ),
    ):
        pass
    until(lambda: threading.active_count() == threads)


def test_what_a_driver_raises_later_is_survived_for_ever():
    tries = itertools.count()

    class Crashing(FaultyCamera):
        def open(self):
            if 0 < next(tries) < 6:
                raise RuntimeError("out of memory in the driver")
            return super().open()

    camera = Crashing(fps=200, script={10: Fault(kind="unplug")})
    with faulty(camera) as source:
        list(itertools.islice(source, 30))
        assert source.status().recoveries == 1
        assert sum("out of memory" in note.text for note in source.take_notes()) == 1


# Devices


def test_a_missing_v4l2_device_is_an_error_that_names_it():
    pytest.importorskip("cv2")
    with pytest.raises(DependencyError, match=r"/dev/video987 .* not there"), open_source("v4l2:987"):
        pass


def test_a_file_that_is_no_camera_is_an_error_that_says_so(tmp_path):
    pytest.importorskip("cv2")
    (tmp_path / "video0").touch()
    with pytest.raises(DependencyError, match="can't be opened as a camera"), open_source(f"v4l2:{tmp_path}/video0"):
        pass


def test_a_busy_device_names_who_has_it(tmp_path):
    device = tmp_path / "video0"
    device.touch()
    assert holders(device) == []
    with subprocess.Popen(
        [sys.executable, "-c", f"f = open({str(device)!r}); print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        other.stdout.readline()
        assert f"(process {other.pid})" in holders(device)[0]
        assert str(other.pid) in str(why_closed(device))
        assert "end the other" in str(why_closed(device))
        other.stdin.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_device_that_this_user_may_not_open_names_the_group(tmp_path):
    (tmp_path / "video0").touch(mode=0o000)
    assert "usermod -aG video" in str(why_closed(tmp_path / "video0"))


class Cv2Capture:
    """A cv2.VideoCapture: ``frames`` are what grab and retrieve give, with the position in milliseconds."""

    def __init__(self, frames):
        self.frames, self.released = iter(frames), False

    def grab(self):
        self.now = next(self.frames, None)
        return self.now is not None

    def get(self, _):
        return self.now[1]

    def retrieve(self):
        return self.now[0] is not None, self.now[0]

    def release(self):
        self.released = True


def test_opencv_gives_the_time_of_v4l2s_buffer_and_tells_torn_from_lost():
    half_a_frame_ago_ms = time.monotonic_ns() / 1e6 - 16
    camera = Cv2Capture([(IMAGE, half_a_frame_ago_ms), (None, 0.0), (IMAGE, 0.0)])
    capture = opencv.OpenCVCapture(camera, lambda: "It was unplugged.", stamps="sensor")
    first = capture.read()
    assert first.captured_ns == round(half_a_frame_ago_ms * 1e6) == first.stamp
    with pytest.raises(TornError):
        capture.read()
    begin_ns = time.monotonic_ns()
    untimed = capture.read()
    assert untimed.captured_ns >= begin_ns
    assert untimed.stamp is None
    with pytest.raises(LostError, match="unplugged"):
        capture.read()
    capture.close()
    assert camera.released


def test_opencv_that_says_true_with_an_old_frame_after_an_unplug_is_seen_through():
    now_ms = time.monotonic_ns() / 1e6
    frames = [(IMAGE + index, now_ms + index) for index in range(3)]

    def opened():
        old = itertools.chain(frames, itertools.repeat(frames[-1], 200))
        paced = (time.sleep(0.005) or frame for frame in old)
        return opencv.OpenCVCapture(Cv2Capture(paced), lambda: "Gone.", stamps="none")

    with Live("camera", "camera", opened, limits=QUICK) as source:
        until(lambda: source.status().state == "stalled")
        assert source.status().captured == 3
        assert source.status().repeated > 10


def test_csi_without_gstreamer_says_which_opencv_to_take():
    cv2 = pytest.importorskip("cv2")
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer")
    with pytest.raises(DependencyError, match="JetPack"), open_source("csi:0"):
        pass


def test_the_csi_pipeline_keeps_one_frame():
    pipeline = opencv.csi_pipeline(1, 1280, 720, 29.97, 2)
    assert "sensor-id=1 " in pipeline
    assert "framerate=29970/1000" in pipeline
    assert pipeline.endswith("appsink drop=true max-buffers=1 sync=false")


def test_an_rtsp_stream_that_is_not_there_is_an_error_without_its_password():
    pytest.importorskip("cv2")
    source = open_source("rtsp://admin:s3cret@127.0.0.1:9/live?token=hidden")
    assert source.description == "stream rtsp://127.0.0.1:9/live"
    with pytest.raises(DependencyError, match="can't be opened") as caught, source:
        pass
    assert "s3cret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("password", ["plain", "p/w", "p@w", "p#w", "p?w", "p:w"])
def test_no_form_of_a_password_is_shown(password):
    assert password not in shown(f"rtsp://user:{password}@camera:554/live?pwd={password}")


def test_name_and_password_are_taken_from_a_url():
    assert without_user("http://a%40b:c%2Fd@[::1]:80/x?y=1") == ("http://[::1]:80/x?y=1", "a@b", "c/d")
    assert without_user("http://camera/x") == ("http://camera/x", None, "")


# Raspberry Pi


def test_picamera2_gives_the_sensors_time_and_bgr(monkeypatch):
    module = FakePicamera2(way_ms=20)
    monkeypatch.setitem(sys.modules, "picamera2", module)
    with open_source("picamera2:?size=64x48&fps=100") as source:
        frames = list(itertools.islice(source, 5))
        assert source.description == "Raspberry Pi camera 0"
    assert all(frame.color == "bgr" and frame.image.shape == (48, 64, 3) for frame in frames)
    assert all(frame.capture_ms > 15 for frame in frames)
    assert frames[0].name == "picamera0#0"
    assert module.opened[0].closed
    assert module.opened[0].configuration["controls"] == {"FrameRate": 100.0}


def test_a_silent_libcamera_is_recovered_from_when_it_speaks_again(monkeypatch):
    module = FakePicamera2()
    monkeypatch.setitem(sys.modules, "picamera2", module)
    with open_source("picamera2:0?size=64x48&fps=50") as source:
        next(iter(source))
        module.silent = True
        until(lambda: source.status().state == "stalled", DETECTED_S)
        module.silent = False
        until(lambda: source.status().state == "live", RECOVERED_S)


def test_a_raspberry_pi_without_a_camera_or_with_a_busy_one_is_an_error(monkeypatch):
    module = FakePicamera2(cameras=1)
    monkeypatch.setitem(sys.modules, "picamera2", module)
    with pytest.raises(DependencyError, match="not found"), open_source("picamera2:1"):
        pass
    module.Picamera2(0)
    with pytest.raises(DependencyError, match="no other program"), open_source("picamera2:0"):
        pass


def test_without_the_package_picamera2_the_error_says_where_it_comes_from(monkeypatch):
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(DependencyError, match="apt install python3-picamera2"), open_source("picamera2:"):
        pass


def test_a_time_of_boottime_becomes_one_of_the_monotonic_clock():
    boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert abs(time.monotonic_ns() - 50 * MS - from_boottime_ns(boot_ns - 50 * MS)) < 500 * MS
    assert from_boottime_ns(boot_ns + 10**12) <= time.monotonic_ns()


# Played cameras


def test_a_synthetic_camera_keeps_its_pace_and_moves():
    with open_source("synthetic:64x48@100") as source:
        frames = list(itertools.islice(source, 20))
        assert source.status().size == (64, 48)
    seconds = (frames[-1].captured_ns - frames[0].captured_ns) / 1e9
    assert seconds == pytest.approx((frames[-1].index - frames[0].index) / 100, rel=0.5)
    assert not np.array_equal(frames[0].image, frames[1].image)


def test_a_folder_is_looped_at_the_pace_told(tmp_path):
    for value in range(3):
        np.save(tmp_path / f"{value}.npy", np.full((4, 6, 3), value, np.uint8))
    with open_source(f"loop:{tmp_path}?fps=200") as source:
        values = [int(frame.image[0, 0, 0]) for frame in itertools.islice(source, 12)]
        assert source.status().repeated == 0
    assert set(values) == {0, 1, 2}


def test_one_image_over_and_over_is_a_live_source(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((4, 6, 3), np.uint8))
    with open_source(f"loop:{tmp_path / 'one.npy'}?fps=100") as source:
        assert len(list(itertools.islice(source, 10))) == 10


def test_a_video_is_looped_at_its_own_pace(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = Path(tmp_path / "what? yes.avi")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 50, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MJPG video")
    for index in range(5):
        writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
    writer.release()
    with open_source(f"loop:{path}") as source:
        frames = list(itertools.islice(source, 12))
        assert source.status().fps == pytest.approx(50, rel=0.3)
    assert len({int(frame.image.mean()) // 20 for frame in frames}) >= 3
