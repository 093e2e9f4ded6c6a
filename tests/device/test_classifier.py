from __future__ import annotations

import threading
from time import monotonic

import numpy as np
import pytest

from edgeclf_device import (
    Classifier,
    DataError,
    DependencyError,
    ModelError,
    PrepareSpec,
    Tensor,
    UsageError,
    write_artifact,
)
from edgeclf_device.classifier import as_batch, scores_of
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
        "NCHW": {"inputs": (Tensor(**{**vars(tensor), "layout": "NCHW"}),)},
        "window of 8": {"inputs": (Tensor(**{**vars(tensor), "window": 8}),)},
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
    tiny.need_engine(kind)
    model = bytearray(tiny.model(kind))
    broken = bytes(model[:8]) + bytes(len(model) - 8) if kind.endswith("tflite") else None
    if broken is None:
        broken = bytes(model).replace(b"Softmax", b"Sofdmax")
    path = tmp_path / f"broken-{kind}"
    write_artifact(path, broken, tiny.manifest(kind))
    with pytest.raises(ModelError, match="refuses"):
        Classifier.open(path)


def test_quantized_scores_are_dequantized_by_the_manifest():
    tensor = Tensor(
        name="", dtype="int8", shape=(1, 2), layout="NC", quantization=Quantization(scale=1 / 256, zero_point=-128)
    )
    assert scores_of(np.array([[127, -128]], np.int8), tensor).tolist() == [255 / 256, 0]


def test_a_float_input_holds_the_pixels_as_they_are():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    batch = as_batch(pixels, Tensor(name="", dtype="float32", shape=(1, 2, 2, 3), layout="NHWC"))
    assert batch.dtype == np.float32
    assert np.array_equal(batch[0], pixels)


def test_scores_are_of_the_frame_however_late_they_are_asked_for(runnable, frame):
    frames = [frame, 255 - frame, frame // 3, frame[::-1]]
    with Classifier.open(runnable) as classify:
        expected = [classify(one).scores for one in frames]
        late = [classify(one) for one in frames]
        late_together = classify.many(frames)
    for results in (late, late_together):
        assert all(np.array_equal(one.scores, scores) for one, scores in zip(results, expected, strict=True))
        memories = [one.output for one in results] + [one.scores for one in results]
        for place, memory in enumerate(memories):
            assert not any(np.shares_memory(memory, other) for other in memories[place + 1 :])


def test_a_changed_frame_changes_no_result(runnable, frame):
    with Classifier.open(runnable) as classify:
        expected = classify(frame).scores
        given = frame.copy()
        result = classify(given)
        given[:] = 0
        assert np.array_equal(result.scores, expected)


def test_frames_of_any_strides_give_what_their_copies_give(runnable, frame):
    wide = np.repeat(np.repeat(frame, 2, axis=0), 2, axis=1)
    views = [
        wide[::2, ::2],
        wide[10:50, 20:80],
        np.asfortranarray(frame),
        frame[::-1, ::-1],
        frame[..., :1],
        frame[..., 0],
    ]
    with Classifier.open(runnable) as classify:
        for view in views:
            plain = classify(np.ascontiguousarray(view)).scores
            assert np.array_equal(classify(view).scores, plain)
        read_only = frame.copy()
        read_only.flags.writeable = False
        assert np.array_equal(classify(read_only).scores, classify(frame).scores)
        alpha = np.dstack([frame, frame[..., 0]])
        assert np.array_equal(classify(alpha).scores, classify(frame).scores)
        grey = classify(frame[..., 0]).scores
        assert np.array_equal(classify(np.dstack([frame[..., 0]] * 3)).scores, grey)


def test_many_frames_of_any_size_get_what_each_gets_alone(runnable, frame):
    frames = [frame, frame[:40, :30], 255 - frame, np.repeat(frame, 3, axis=0)]
    with Classifier.open(runnable) as classify:
        alone = [classify(one, color="bgr") for one in frames]
        together = classify.many(iter(frames), color="bgr")
        assert classify.many([]) == []
    assert [one.label for one in together] == [one.label for one in alone]
    assert all(np.array_equal(one.scores, other.scores) for one, other in zip(together, alone, strict=True))
    assert all(list(one.timing_ms) == ["prepare", "infer", "decide"] for one in together)


@pytest.fixture(params=["fp32.onnx", "w8a8.onnx"])
def open_batch(request, tiny, tmp_path):
    """An .onnx artifact that takes any number of images."""
    onnx = pytest.importorskip("onnx")
    tiny.need_engine(request.param)
    proto = onnx.load_from_string(tiny.model(request.param))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    path = tmp_path / "open.onnx"
    write_artifact(path, proto.SerializeToString(), tiny.manifest(request.param))
    return path


def test_an_open_batch_is_one_call_of_the_engine(open_batch, frame, monkeypatch):
    frames = [frame, frame[:40, :30], 255 - frame]
    with Classifier.open(open_batch) as classify:
        assert classify.engine.open_batch
        alone = [classify(one) for one in frames]
        shapes = []
        run = classify.engine.run
        monkeypatch.setattr(classify.engine, "run", lambda batch: shapes.append(batch.shape) or run(batch))
        together = classify.many(frames)
        assert shapes == [(3, *classify.manifest.preprocessing.shape)]
        assert classify.many([]) == []
        with pytest.raises(DataError):
            classify.many([frame, frame.astype(float)])
    for one, other in zip(together, alone, strict=True):
        assert one.label == other.label
        assert np.abs(one.scores - other.scores).max() <= 1e-6
    with pytest.raises(UsageError, match="closed"):
        classify.many(frames)


def test_a_static_batch_is_not_open(runnable):
    with Classifier.open(runnable) as classify:
        assert not classify.engine.open_batch


def test_only_allowed_labels_compete(tiny, runnable, frame):
    with Classifier.open(runnable) as classify:
        free = classify(frame)
    losers = [label for label, _ in free.top(4)[1:]]
    with Classifier.open(runnable, allow=losers[::-1]) as classify:
        for result in (classify(frame), *classify.many([frame])):
            assert (result.label, result.score) == free.top(4)[1]
            assert result.top(10) == free.top(4)[1:]
            assert np.array_equal(result.scores, free.scores)
            assert result.labels == tiny.labels


def test_the_reject_threshold_judges_the_best_of_the_allowed(tiny, kind, tmp_path, frame):
    tiny.need_engine(kind)
    with Classifier.open(tiny.write(tmp_path, kind)) as classify:
        (_, first), (label, second), *_ = classify(frame).top(4)
    assert first > second
    path = tiny.write(tmp_path, kind, reject_below=first)
    with Classifier.open(path) as classify:
        assert classify(frame).accepted
    with Classifier.open(path, allow=[label]) as classify:
        result = classify(frame)
        assert (result.label, result.score, result.accepted) == (label, second, False)


@pytest.mark.parametrize(
    ("allow", "message"),
    [(["intakt"], "near it: intact"), (["intact", "xyz"], "'xyz' is none of its 4"), ([], "one label or more")],
)
def test_an_allow_list_that_names_no_label_of_the_model_is_refused(some_artifact, allow, message):
    with pytest.raises(UsageError, match=message):
        Classifier.open(some_artifact, allow=allow)


def test_one_text_is_no_allow_list(some_artifact):
    with pytest.raises(UsageError, match="list"):
        Classifier.open(some_artifact, allow="intact")


def test_no_caller_keeps_the_others_from_their_turn(some_artifact, frame):
    served = [0, 0, 0]
    end = monotonic() + 60

    with Classifier.open(some_artifact, threads=1) as classify:

        def work(index):
            while min(served) < 3 and monotonic() < end:
                classify(frame)
                served[index] += 1

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(served))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert min(served) >= 3, served


def test_closing_waits_for_the_frame_in_another_thread(some_artifact, frame):
    classify = Classifier.open(some_artifact)
    outcomes = []

    def work():
        try:
            while True:
                outcomes.append(classify(frame).label)
        except UsageError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not outcomes:
        pass
    classify.close()
    for thread in threads:
        thread.join()
    assert sum("closed" in outcome for outcome in outcomes) == 3


def test_options_of_the_engine_reach_it(tiny, tmp_path):
    pytest.importorskip("ai_edge_litert")
    path = tiny.write(tmp_path, "fp32.tflite")
    with pytest.raises(DependencyError, match=r"libnowhere\.so"):
        Classifier.open(path, options={"delegate": "libnowhere.so"})
    with pytest.raises(UsageError, match="kernels = xnnpack"):
        Classifier.open(path, options={"provider": "cpu"})
