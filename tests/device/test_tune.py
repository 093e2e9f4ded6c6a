from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclf_device import Classifier, DependencyError, ModelError, UsageError, write_artifact
from edgeclf_device import tune as tune_module
from edgeclf_device.bench import load_frames, sample
from edgeclf_device.choice import default_threads, usable_cores
from edgeclf_device.engines import ENGINES_OF, PACKAGES, installed, open_engine
from edgeclf_device.state import TUNING, engine_version, tuned, write_state
from edgeclf_device.tune import forget, thread_counts, tune
from edgeclf_device.tuning import judge, tuning_lines


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLF_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(tune_module, "TURN_NS", 1)  # one frame a turn
    return tmp_path / "state"


def names(*threads):
    return [("litert", "1.0", count) for count in threads]


def test_every_engine_and_number_of_threads_is_measured_and_the_choice_is_kept(runnable, tiny, kind):
    tuning = tune(runnable, seconds_per_candidate=0.01)
    (found,) = tuning.artifacts
    engines = [name for name in ENGINES_OF[kind.split(".")[1]] if installed(name)]
    assert [(trial.engine, trial.threads) for trial in found.trials] == [
        (engine, threads) for engine in engines for threads in thread_counts(usable_cores())
    ]
    assert found.accuracy == 0.87
    assert tuning.preferred == runnable.name
    assert found.kept is not None
    assert found.notes == ()
    kept = tuned(found.digest)
    assert kept is not None
    assert (kept.engine, kept.threads) == (found.chosen.engine, found.chosen.threads)
    assert all(trial.median_ms > 0 for trial in found.trials)
    for trial in found.trials:
        low, high = trial.interval_ms
        assert low <= trial.median_ms <= high


def test_candidates_take_turns_forwards_and_backwards(some_artifact, monkeypatch):
    monkeypatch.setattr(tune_module, "usable_cores", lambda: 4)
    order = []

    def recorded(classify, frame):
        order.append((classify.engine.name, classify.threads))
        return sample(classify, frame)

    monkeypatch.setattr(tune_module, "sample", recorded)
    (found,) = tune(some_artifact, seconds_per_candidate=0.001).artifacts
    candidates = [(trial.engine, trial.threads) for trial in found.trials]
    assert len(candidates) >= 3
    turns = order[3 * len(candidates) :: 2]  # behind the warm-up; two frames a turn, one of them measured
    assert order[3 * len(candidates) + 1 :: 2] == turns
    rounds = len(turns) // len(candidates)
    assert rounds >= 8
    assert rounds % 2 == 0
    assert turns == (candidates + candidates[::-1]) * (rounds // 2)
    assert set(Counter(turns).values()) == {rounds} == {len(trial.turns_ns) for trial in found.trials}


def test_a_bundle_is_tuned_whole_but_its_scheme_is_chosen_as_ever(bundle, tiny):
    for kind in tiny.kinds:
        tiny.need_engine(kind)
    tuning = tune(bundle, seconds_per_candidate=0.01)
    assert [found.artifact for found in tuning.artifacts] == [f"tiny-{kind}" for kind in sorted(tiny.kinds)]
    assert tuning.preferred == "tiny-w8a8.tflite"
    assert all(tuned(found.digest) for found in tuning.artifacts)
    assert sorted(file.name for file in bundle.iterdir()) == sorted(["bundle.json", *(f"tiny-{k}" for k in tiny.kinds)])
    lines = list(tuning_lines(tuning))
    assert sum("accuracy 87.00 %" in line for line in lines) == 4
    assert sum(line.endswith("  chosen") for line in lines) == 4
    assert "tiny-w8a8.tflite" in lines[-1]


def test_given_frames_are_measured_and_named(some_artifact, tmp_path):
    np.save(tmp_path / "frame.npy", np.zeros((30, 40, 3), np.uint8))
    frames, description = load_frames(str(tmp_path / "frame.npy"))
    tuning = tune(some_artifact, seconds_per_candidate=0.01, frames=frames, description=description)
    assert tuning.input == "1 frames of image frame.npy"


def test_a_tuning_is_versioned_json(some_artifact):
    value = json.loads(json.dumps(tune(some_artifact, seconds_per_candidate=0.01).to_json()))
    assert value["format"] == [1, 0]
    (found,) = value["artifacts"]
    assert len(found["artifact_sha256"]) == 64
    assert set(found["chosen"]) == {"engine", "threads"}
    assert len(found["trials"][0]["turns_ns"]) >= 8
    assert found["kept"].endswith(".json")


def test_what_was_tuned_can_be_forgotten(bundle, tiny):
    for kind in tiny.kinds:
        tiny.need_engine(kind)
    tuning = tune(bundle / "tiny-w8a8.tflite", seconds_per_candidate=0.01)
    assert forget(bundle) == ["tiny-w8a8.tflite"]
    assert tuned(tuning.artifacts[0].digest) is None
    assert forget(bundle) == []


def test_without_a_state_folder_the_result_is_still_told(some_artifact, monkeypatch):
    monkeypatch.setenv("EDGECLF_STATE", "/proc/edgeclf")
    tuning = tune(some_artifact, seconds_per_candidate=0.01)
    (found,) = tuning.artifacts
    assert found.kept is None
    assert "EDGECLF_STATE" in found.notes[0]
    assert any("EDGECLF_STATE" in line for line in tuning_lines(tuning))


def test_an_engine_that_refuses_is_left_out_and_said(some_artifact, monkeypatch):
    def moody(model, container, *, engine, threads):
        if engine == "broken":
            raise ModelError("It refuses the model.")
        return open_engine(model, container, engine=engine, threads=threads)

    container = some_artifact.suffix[1:]
    monkeypatch.setitem(ENGINES_OF, container, (*ENGINES_OF[container], "broken"))
    monkeypatch.setitem(PACKAGES, "broken", "json")
    monkeypatch.setattr(tune_module, "open_engine", moody)
    tuning = tune(some_artifact, seconds_per_candidate=0.01)
    (found,) = tuning.artifacts
    assert [refused.engine for refused in found.refused] == ["broken"]
    assert {trial.engine for trial in found.trials} == {some_engine(some_artifact)}
    assert any("broken can't run it: It refuses the model." in line for line in tuning_lines(tuning))


def some_engine(path):
    with Classifier.open(path) as classify:
        return classify.engine.name


def test_a_model_that_every_engine_refuses_is_an_error(tiny, tmp_path):
    tiny.need_engine("fp32.onnx")
    path = tmp_path / "broken.onnx"
    write_artifact(path, tiny.model("fp32.onnx").replace(b"Softmax", b"Sofdmax"), tiny.manifest("fp32.onnx"))
    with pytest.raises(ModelError, match="refuses"):
        tune(path, seconds_per_candidate=0.01)


def test_without_an_engine_the_command_that_brings_one_is_said(some_artifact, monkeypatch):
    monkeypatch.setattr(tune_module, "installed", lambda engine: False)
    with pytest.raises(DependencyError, match="pip install"):
        tune(some_artifact)


@pytest.mark.parametrize("arguments", [{"seconds_per_candidate": 0}, {"seconds_per_candidate": -1}, {"frames": []}])
def test_numbers_out_of_range_are_refused(some_artifact, arguments):
    with pytest.raises(UsageError):
        tune(some_artifact, **arguments)


def test_the_numbers_of_threads_are_the_powers_of_two_up_to_the_cores():
    assert {cores: thread_counts(cores) for cores in (1, 2, 3, 4, 6, 8)} == {
        1: [1],
        2: [1, 2],
        3: [1, 2],
        4: [1, 2, 4],
        6: [1, 2, 4],
        8: [1, 2, 4, 8],
    }


def noisy(*medians, rounds=20, spread=0.02, drift=None):
    """int64 (candidates, rounds) that scatter round the medians; ``drift`` meets all alike, as a clock does."""
    scatter = np.random.default_rng(7).normal(1, spread, (len(medians), rounds))
    return (np.array(medians)[:, np.newaxis] * scatter * (1 if drift is None else drift) * 1e6).astype(np.int64)


def test_the_clearly_fastest_is_chosen_whatever_its_threads():
    trials, chosen = judge(names(1, 2, 4), noisy(9, 5, 3))
    assert chosen.threads == 4
    assert [trial.verdict for trial in trials] == ["slower", "slower", "fastest"]


def test_of_undecided_ones_the_fewest_threads_are_chosen():
    trials, chosen = judge(names(1, 2, 4), noisy(9, 5.001, 5))
    assert trials[0].verdict == "slower"
    assert {trial.verdict for trial in trials[1:]} == {"fastest", "undecided"}
    assert chosen.threads == 2


def test_a_clock_that_slows_down_for_all_alike_hides_no_difference():
    drift = np.linspace(1, 3, 20)
    trials, chosen = judge(names(1, 2), noisy(5, 4.5, drift=drift))
    assert chosen.threads == 2
    assert trials[0].verdict == "slower"
    low, high = trials[0].interval_ms
    assert high / low > 1.2  # apart, the two would have been undecided


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(1, 10**9), min_size=8, max_size=8), min_size=1, max_size=5))
def test_the_choice_is_never_a_slower_one_and_never_has_more_threads_than_an_undecided_one(turns):
    threads = [1 << index for index in range(len(turns))]
    trials, chosen = judge(names(*threads), np.array(turns))
    assert chosen.verdict != "slower"
    assert chosen.threads == min(trial.threads for trial in trials if trial.verdict != "slower")
    assert [trial.verdict for trial in trials].count("fastest") == 1
    assert judge(names(*threads), np.array(turns)) == (trials, chosen)


def kept(path, **changes):
    with Classifier.open(path, threads=1) as classify:
        name, digest = classify.engine.name, classify.artifact.digest
    write_state(TUNING, digest, {"engine": name, "engine_version": engine_version(name), "threads": 3, **changes})
    return name


def test_a_tuned_artifact_is_opened_as_tune_found_best_unless_the_caller_says_otherwise(runnable):
    name = kept(runnable)
    with Classifier.open(runnable) as classify:
        assert (classify.engine.name, classify.threads) == (name, 3)
    with Classifier.open(runnable, engine=name) as classify:
        assert classify.threads == 3
    with Classifier.open(runnable, threads=1) as classify:
        assert classify.threads == 1


def test_what_was_tuned_for_another_version_of_the_engine_does_not_count(runnable):
    kept(runnable, engine_version="0.0.1")
    with Classifier.open(runnable) as classify:
        assert classify.threads == default_threads()
