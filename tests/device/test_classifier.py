from __future__ import annotations

import threading

import numpy as np
import pytest

from edgeclf_device import Classifier, DataError, ModelError, PrepareSpec, Tensor, UsageError
from edgeclf_device.classifier import as_batch, decide
from edgeclf_device.quantization import Quantization


def test_a_frame_gets_a_label_with_its_score_and_times(tiny, runnable, frame):
    with Classifier.open(runnable, threads=1) as classify:
        result = classify(frame)
    assert result.label in tiny.labels
    assert result.scores.shape == (4,)
    assert result.scores.dtype == np.float32
    assert result.score == result.scores.max()
    assert result.scores.sum() == pytest.approx(1, abs=0.02)
    assert list(result.timing_ms) == ["prepare", "infer", "decide"]
    assert all(spent > 0 for spent in result.timing_ms.values())


def test_the_four_artifacts_of_one_model_agree(tiny, tmp_path, frame):
    scores = []
    for kind in tiny.kinds:
        tiny.need_engine(kind)
        with Classifier.open(tiny.write(tmp_path, kind)) as classify:
            scores.append(classify(frame).scores)
    for other in scores[1:]:
        assert np.abs(other - scores[0]).max() < 0.02


def test_an_opencv_frame_gives_what_its_rgb_frame_gives(runnable, frame):
    with Classifier.open(runnable) as classify:
        assert np.array_equal(classify(frame).scores, classify(frame[..., ::-1], color="bgr").scores)


def test_the_top_labels_come_in_order(runnable, frame):
    with Classifier.open(runnable) as classify:
        result = classify(frame)
    ranked = result.top(10)
    assert len(ranked) == 4
    assert ranked[0] == (result.label, result.score)
    assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
    with pytest.raises(UsageError, match="at least 1"):
        result.top(0)


def test_a_label_is_accepted_from_the_reject_threshold_upwards(tiny, kind, tmp_path, frame):
    tiny.need_engine(kind)
    with Classifier.open(tiny.write(tmp_path, kind)) as classify:
        plain = classify(frame)
    assert plain.accepted
    above = float(np.nextafter(plain.score, 2))
    for threshold, accepted in ((0.0, True), (plain.score, True), (above, False), (1.0, plain.score == 1)):
        with Classifier.open(tiny.write(tmp_path, kind, reject_below=threshold)) as classify:
            result = classify(frame)
        assert result.accepted is accepted
        assert (result.label, result.score) == (plain.label, plain.score)


def test_a_bundle_opens_its_preferred_artifact(tiny, bundle, frame):
    tiny.need_engine("w8a8.tflite")
    with Classifier.open(str(bundle)) as classify:
        assert classify.path.name == "tiny-w8a8.tflite"
        assert classify(frame).label in tiny.labels


def test_a_closed_classifier_refuses(some_artifact, frame):
    classify = Classifier.open(some_artifact)
    classify.close()
    classify.close()
    with pytest.raises(UsageError, match="closed"):
        classify(frame)


def test_what_is_no_frame_is_refused_and_the_next_frame_is_served(some_artifact, frame):
    with Classifier.open(some_artifact) as classify:
        with pytest.raises(DataError):
            classify(frame.astype(np.float32))
        assert classify(frame).label


def test_results_of_earlier_frames_stay_as_they_were(runnable, frame):
    with Classifier.open(runnable) as classify:
        first = classify(frame)
        before = first.scores.copy()
        classify(255 - frame)
    assert np.array_equal(first.scores, before)


def test_calls_from_several_threads_are_served_one_after_the_other(runnable, frame):
    frames = [frame, 255 - frame, frame // 3, frame[::-1]]
    with Classifier.open(runnable) as classify:
        expected = [classify(one).scores for one in frames]
        failures = []

        def work(index):
            found = [classify(frames[index]).scores for _ in range(30)]
            failures.extend(index for scores in found if not np.array_equal(scores, expected[index]))

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(frames))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_than_one_thread_is_refused(some_artifact, threads):
    with pytest.raises(UsageError, match="threads"):
        Classifier.open(some_artifact, threads=threads)


def test_an_engine_of_the_other_container_is_refused(tiny, tmp_path):
    with pytest.raises(UsageError, match="onnxruntime"):
        Classifier.open(tiny.write(tmp_path, "fp32.tflite"), engine="onnxruntime")


def test_a_manifest_at_odds_with_the_engine_is_refused(tiny, kind, tmp_path):
    tiny.need_engine(kind)
    (tensor,) = tiny.manifest(kind).inputs
    (output,) = tiny.manifest(kind).outputs
    narrow = (1, 16, 18, 3)
    cases = {
        "input": {"inputs": (Tensor(**{**vars(tensor), "dtype": "float32"}),)},
        "output": {"outputs": (Tensor(**{**vars(output), "dtype": "int8"}),)},
        "input is uint8 (1, 16, 18, 3)": {
            "inputs": (Tensor(**{**vars(tensor), "shape": narrow}),),
            "preprocessing": PrepareSpec(height=16, width=18),
        },
        "NTHWC": {"inputs": (Tensor(**{**vars(tensor), "layout": "NTHWC", "window": 8}),)},
        "plain|pixels": {
            "inputs": (Tensor(**{**vars(tensor), "quantization": Quantization(scale=0.5, zero_point=3)}),)
        },
    }
    for number, (message, changes) in enumerate(cases.items()):
        path = tiny.write(tmp_path, kind, name=f"odd{number}.{kind.split('.')[1]}", **changes)
        with pytest.raises(ModelError) as caught:
            Classifier.open(path)
        assert any(part in str(caught.value) for part in message.split("|"))
        assert path.name in str(caught.value)


def test_a_model_that_its_engine_refuses_is_a_model_error(tiny, kind, tmp_path):
    from edgeclf_device import write_artifact

    tiny.need_engine(kind)
    model = bytearray(tiny.model(kind))
    broken = bytes(model[:8]) + bytes(len(model) - 8) if kind.endswith("tflite") else None
    if broken is None:
        broken = bytes(model).replace(b"Softmax", b"Sofdmax")
    path = tmp_path / f"broken-{kind}"
    write_artifact(path, broken, tiny.manifest(kind))
    with pytest.raises(ModelError, match="refuses"):
        Classifier.open(path)


def test_of_equal_scores_the_first_label_wins():
    tensor = Tensor(name="", dtype="float32", shape=(1, 3), layout="NC")
    _, best = decide(np.array([[0.2, 0.4, 0.4]], np.float32), tensor)
    assert best == 1


def test_quantized_scores_are_dequantized_by_the_manifest():
    tensor = Tensor(
        name="", dtype="int8", shape=(1, 2), layout="NC", quantization=Quantization(scale=1 / 256, zero_point=-128)
    )
    scores, best = decide(np.array([[127, -128]], np.int8), tensor)
    assert scores.tolist() == [255 / 256, 0]
    assert best == 0


def test_a_float_input_holds_the_pixels_as_they_are():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    batch = as_batch(pixels, Tensor(name="", dtype="float32", shape=(1, 2, 2, 3), layout="NHWC"))
    assert batch.dtype == np.float32
    assert np.array_equal(batch[0], pixels)
