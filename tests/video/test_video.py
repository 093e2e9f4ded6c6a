"""The whole road of a classifier of clips: training, refusals, export, evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("cv2")

from make_clips import LABELS, SETTINGS, write_clips

from edgeclf.training.augment import filmstrips
from edgeclf.training.config import AugmentConfig, load_config
from edgeclf.training.train import resolve, train
from edgeclf_device import Classifier, ClipSpec, UsageError, open_source, read_artifact, stream
from edgeclf_device.verify import verify


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECLF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


def config_of(folder, *more):
    return load_config(overrides=[*SETTINGS, f"data={json.dumps(str(folder))}", "name=ramps", *more])


@pytest.fixture(scope="session")
def run(clips, tmp_path_factory):
    pytest.importorskip("tensorflow")
    return train(config_of(clips), out=tmp_path_factory.mktemp("run") / "run")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("clip.window=1", "clip.window must be at least 2"),
        ("train.qat=true", "train.qat .* LSTM"),
        ("augment.hue=0.1", "augment.hue varies single images"),
        ("augment.motion_blur=0.1", "augment.motion_blur"),
        ("model.frame_backbone=cnn_lstm", "model.frame_backbone must be one of cnn, efficientnet"),
        ("clip.fps=0", "clip.fps must be above 0"),
        ("weights=imagenet", "weights of cnn_lstm"),
    ],
)
def test_what_can_not_be_with_clips_is_refused_by_name_before_any_work(setting, message, tmp_path):
    if "frame_backbone" in setting or "imagenet" in setting:
        pytest.importorskip("keras")
    with pytest.raises(UsageError, match=message):
        resolve(config_of(tmp_path, setting))


def test_a_network_of_images_takes_no_window(tmp_path):
    with pytest.raises(UsageError, match=r"clip\.window must be 1 .* cnn was given 8"):
        resolve(load_config(overrides=["backbone=cnn", f"data={json.dumps(str(tmp_path))}", "clip.window=8"]))


def test_a_flip_is_off_unless_asked_for_because_it_turns_directions_round():
    assert not load_config(overrides=["backbone=cnn_lstm"]).augment.flip_horizontal


def test_frames_stand_side_by_side_in_a_filmstrip():
    clip = np.arange(3, dtype=np.uint8)[None, :, None, None, None] * np.ones((1, 3, 2, 2, 1), np.uint8)
    assert filmstrips(clip)[0, 0, :, 0].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.tensorflow
def test_all_frames_of_a_clip_vary_alike():
    pytest.importorskip("tensorflow")
    from edgeclf.training.augment import Augmenter

    frame = np.random.default_rng(0).integers(0, 256, (6, 1, 16, 16, 3), dtype=np.uint8)
    config = AugmentConfig(shift=0.2, rotation=20.0, zoom=0.2)
    augment = Augmenter(config, shape=(5, 16, 16, 3), classes=2, seed=0)
    varied, _ = augment(np.repeat(frame, 5, axis=1), np.eye(2, dtype=np.float32)[[0, 1] * 3], key=(0, 0))
    assert varied.shape == (6, 5, 16, 16, 3)
    assert (varied == varied[:, :1]).all()
    assert (varied[:, 0] != frame[:, 0]).any(axis=(1, 2, 3)).all()


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_run_of_clips_tells_what_no_single_frame_does(run):
    assert run.labels == LABELS
    assert isinstance(run.spec, ClipSpec)
    assert run.metrics["splits"]["test"]["accuracy"] >= 0.875


@pytest.mark.tensorflow
@pytest.mark.slow
def test_every_artifact_keeps_the_accuracy_on_streams_and_two_exports_are_equal(run, tmp_path):
    from edgeclf.evaluation.evaluate import evaluate
    from edgeclf.exporting.export import export

    bundle = export(run.folder, tmp_path / "bundle", max_drop=15)
    again = export(run.folder, tmp_path / "again", max_drop=15)
    assert verify(bundle.folder).ok
    assert [one.metrics["accuracy"] for one in evaluate(bundle.folder, run.folder)] == [1.0] * 4
    for entry in bundle.artifacts:
        path = bundle.path(entry)
        assert path.read_bytes() == again.path(entry).read_bytes()
        clip = read_artifact(path).manifest.clip
        assert (clip.window, clip.stride, clip.fps) == (4, 2, 8.0)
        with Classifier.open(path) as classify:
            for file in run.files("test"):
                with open_source(str(file)) as source:
                    assert next(event.result.label for event in stream(classify, source)) == file.parent.name
    with pytest.raises(UsageError, match="--c-header is for models of single images"):
        export(run.folder, tmp_path / "header", c_header=True)
    with pytest.raises(UsageError, match="--dynamic-batch is for models of single images"):
        export(run.folder, tmp_path / "batch", dynamic_batch=True)
