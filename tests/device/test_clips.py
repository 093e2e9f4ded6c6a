from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from edgeclf_device import (
    Classifier,
    ClipSpec,
    Frame,
    ModelError,
    PrepareSpec,
    Stream,
    UsageError,
    read_artifact,
    stream,
)
from edgeclf_device.bench import input_of, synthetic_frame
from edgeclf_device.cli import main
from edgeclf_device.clips import Sampler, frame_ns, sampled
from edgeclf_device.errors import DataError
from edgeclf_device.manifest import check_consistent
from edgeclf_device.sources import open_source
from edgeclf_device.text import artifact_lines
from edgeclf_device.verify import verify

SECOND = 1_000_000_000
RELEASED = Path(__file__).parent / "artifacts"


def of_rate(rate, count, fps):
    return sampled((frame_ns(index, rate) for index in range(count)), fps)


@pytest.mark.parametrize("rate", [8, 12, 15, 23.976, 24, 25, 29.97, 30, 50, 60, 120, 1000])
def test_the_same_moments_are_taken_at_every_rate(rate):
    places = of_rate(rate, round(4 * rate), 8.0)
    moments = np.array([frame_ns(place, rate) for place in places]) / SECOND
    late = moments - np.arange(len(moments)) / 8
    assert len(moments) >= 31
    assert late.min() >= -0.25 / 8 - 1e-9
    assert late.max() <= 1 / rate


def test_a_frame_of_a_slow_stream_stands_at_several_ticks():
    assert of_rate(4, 4, 8.0) == [0, 1, 1, 2, 2, 3, 3]


def test_a_camera_that_runs_at_the_rate_itself_may_jitter():
    draw = np.random.default_rng(0)
    moments = [round((index / 8 + jitter) * SECOND) for index, jitter in enumerate(draw.uniform(-0.012, 0.012, 200))]
    assert sampled(moments, 8.0) == list(range(200))


@pytest.mark.parametrize("jump_s", [-1.0, 3.2 / 8])
def test_a_gap_and_a_step_back_begin_anew(jump_s):
    sampler = Sampler(8.0)
    assert [sampler(round(index / 8 * SECOND)) for index in range(5)] == [1] * 5
    assert not sampler.anew
    assert sampler(round((4 / 8 + jump_s) * SECOND)) == 1
    assert sampler.anew


@pytest.mark.parametrize("field", [{"window": 1}, {"window": 257}, {"stride": 0}, {"fps": 0.0}, {"fps": math.nan}])
def test_what_can_not_be_a_window_is_refused_by_name(field):
    (name,) = field
    values = {"frame": PrepareSpec(height=8, width=8), "window": 4, "stride": 2, "fps": 8.0, **field}
    with pytest.raises(UsageError, match=f"clip.{name}"):
        ClipSpec(**values)


@pytest.fixture(params=["tflite", "onnx"])
def classify(request, tiny):
    tiny.need_engine(f"fp32.{request.param}")
    with Classifier.open(RELEASED / f"format-1.3.{request.param}", threads=1) as opened:
        yield opened


def ramp(count, *, rate=24.0, step=4.0, begin_ns=0):
    """Frames that grow brighter, or with a negative step darker."""
    for index in range(count):
        level = 50 + step * index + (96 if step < 0 else 0)
        image = np.full((20, 30, 3), level, np.uint8)
        moment_ns = begin_ns + frame_ns(index, rate)
        yield Frame(
            image=image, color="rgb", index=index, name=f"#{index}", capture_ms=0, captured_ns=0, moment_ns=moment_ns
        )


def results(classify, frames):
    window = Stream(classify)
    return [(frame.index, result) for frame in frames if (result := window(frame)) is not None]


def test_what_a_single_frame_does_not_tell_a_stream_does(classify):
    for step, label in ((4.0, "brighter"), (-4.0, "darker")):
        assert {result.label for _, result in results(classify, ramp(24, step=step))} == {label}


def test_decisions_come_when_the_window_is_full_and_then_every_stride(classify):
    assert (classify.clip.window, classify.clip.stride, classify.clip.fps) == (4, 2, 8.0)
    assert [index for index, _ in results(classify, ramp(24))] == [9, 15, 21]


def test_a_stream_and_one_call_with_its_window_answer_alike(classify):
    frames = list(ramp(24))
    (_, first), *_ = results(classify, frames)
    whole = classify(np.stack([frames[place].image for place in of_rate(24, 24, 8.0)[:4]]))
    np.testing.assert_array_equal(first.scores, whole.scores)


def test_the_classifier_keeps_nothing_between_streams_that_share_it(classify):
    alone = [result.scores for _, result in results(classify, ramp(24))]
    one, other = Stream(classify), Stream(classify)
    mixed = []
    for up, down in zip(ramp(24), ramp(24, step=-4.0), strict=True):
        mixed += [result.scores for result in (one(up),) if result is not None]
        other(down)
    np.testing.assert_array_equal(alone, mixed)


def test_no_window_spans_a_gap(classify):
    frames = [*ramp(9), *ramp(24, begin_ns=10 * SECOND)]
    assert [index for index, _ in results(classify, frames)] == [9, 15, 21]


def test_pictures_without_times_are_refused_with_the_remedy(classify, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((20, 30, 3), np.uint8))
    with open_source(str(tmp_path)) as source, pytest.raises(DataError, match="loop:FOLDER"):
        list(stream(classify, source))


def test_a_single_frame_is_refused_by_name_and_so_is_a_stream_of_a_model_of_images(classify, some_artifact):
    with pytest.raises(DataError, match="windows of 4 frames"):
        classify(np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(DataError, match=r"\(4, 8, 8, 1\)"):
        classify.prepared(np.zeros((4, 8, 8, 3), np.uint8))
    with Classifier.open(some_artifact) as single, pytest.raises(UsageError, match="single images"):
        Stream(single)


def test_an_artifact_of_clips_is_inspected_verified_and_measured(classify):
    assert verify(classify.path).ok
    lines = "\n".join(artifact_lines(classify.path.name, read_artifact(classify.path)))
    assert "4 frames at 8 a second (0.38 s), a decision every 2" in lines
    assert input_of(classify, synthetic_frame()).shape == (4, 720, 1280, 3)
    assert classify(input_of(classify, synthetic_frame())).label in classify.labels


@pytest.mark.parametrize("change", [{"fps": None}, {"window": 5}, {"stride": 0}, {"layout": "NHWC"}])
def test_a_manifest_whose_window_can_not_be_is_refused(change):
    manifest = read_artifact(RELEASED / "format-1.3.onnx").manifest
    wrong = dataclasses.replace(manifest, inputs=(dataclasses.replace(manifest.inputs[0], **change),))
    with pytest.raises(ModelError, match=r"[Ee]xport"):
        check_consistent(wrong)


def write_video(path, count):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 24, (30, 20))
    for frame in ramp(count):
        writer.write(frame.image)
    writer.release()
    return path


def test_the_command_classifies_a_video_and_names_the_last_frame_of_each_window(classify, tmp_path, capsys):
    path = write_video(tmp_path / "up.avi", 24)
    assert main(["classify", str(classify.path), "--source", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["up.avi#9", "up.avi#15", "up.avi#21"]
    assert all("brighter" in line for line in lines)


def test_a_video_shorter_than_a_window_is_bad_data(classify, tmp_path, capsys):
    path = write_video(tmp_path / "short.avi", 6)
    assert main(["classify", str(classify.path), "--source", str(path)]) == 3
    assert "4 frames at 8 a second" in capsys.readouterr().err
