from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from edgeclf_device import DependencyError, ModelError, UsageError
from edgeclf_device import choice as choice_module
from edgeclf_device.manifest import seal
from edgeclf_device.verify import verify


def outcomes(verification):
    return {(check.file, check.name): check.outcome for check in verification.checks}


def failed(verification):
    return [check for check in verification.checks if check.outcome == "failed"]


def test_a_whole_artifact_verifies(runnable):
    verification = verify(runnable)
    assert verification.ok
    assert {check.name for check in verification.checks} == {
        "digests", "engine", "golden input", "golden scores", "golden label",
    }  # fmt: skip
    assert {check.outcome for check in verification.checks} == {"ok"}
    verification.raise_if_failed()


def test_a_flipped_byte_anywhere_fails_and_names_the_file(tiny, kind, artifact, tmp_path):
    data = artifact.read_bytes()
    manifest = seal(tiny.manifest(kind), tiny.model(kind))
    start = data.index(manifest)
    boundaries = [0, len(tiny.model(kind)) - 1, len(tiny.model(kind)), start, start + len(manifest) - 1, len(data) - 1]
    rng = np.random.default_rng(3)
    damaged = tmp_path / f"damaged-{kind}"
    for place in [*boundaries, *rng.integers(0, len(data), 200).tolist()]:
        flipped = bytearray(data)
        flipped[place] ^= int(rng.integers(1, 256))
        damaged.write_bytes(flipped)
        (check,) = failed(verify(damaged))
        assert check.file == damaged.name
        assert "damaged" in check.detail


def test_a_failed_check_raises_with_its_file_and_name(artifact):
    artifact.write_bytes(artifact.read_bytes()[:-1])
    with pytest.raises(ModelError, match=f"{artifact.name}: digests"):
        verify(artifact).raise_if_failed()


def test_scores_beyond_the_tolerance_fail(tiny, kind, tmp_path):
    tiny.need_engine(kind)
    golden = tiny.manifest(kind).golden
    moved = tuple(score + 3 * golden.tolerance for score in golden.scores)
    path = tiny.write(tmp_path, kind, golden=dataclasses.replace(golden, scores=moved))
    assert [check.name for check in failed(verify(path))] == ["golden scores"]


def test_another_top_label_fails_even_within_the_tolerance(tiny, kind, tmp_path):
    tiny.need_engine(kind)
    golden = tiny.manifest(kind).golden
    path = tiny.write(tmp_path, kind, golden=dataclasses.replace(golden, scores=golden.scores[::-1], tolerance=1.0))
    (check,) = failed(verify(path))
    assert check.name == "golden label"
    assert tiny.labels[1] in check.detail
    assert tiny.labels[2] in check.detail


def test_a_golden_input_that_comes_out_otherwise_fails(tiny, kind, tmp_path):
    tiny.need_engine(kind)
    golden = tiny.manifest(kind).golden
    path = tiny.write(tmp_path, kind, golden=dataclasses.replace(golden, seed=golden.seed + 1))
    assert [check.name for check in failed(verify(path))] == ["golden input"]


def test_an_unknown_golden_generator_fails_with_the_remedy(tiny, kind, tmp_path):
    tiny.need_engine(kind)
    golden = tiny.manifest(kind).golden
    path = tiny.write(tmp_path, kind, golden=dataclasses.replace(golden, generator="fields-9"))
    (check,) = failed(verify(path))
    assert "upgrade" in check.detail


def test_a_bundle_verifies(tiny, bundle):
    for kind in tiny.kinds:
        tiny.need_engine(kind)
    verification = verify(bundle)
    assert verification.ok
    assert len(verification.checks) == 1 + 4 * 6
    assert verification.to_json()["ok"] is True


def test_a_missing_file_of_a_bundle_fails_and_the_others_are_checked(tiny, bundle):
    tiny.need_engine("w8a8.tflite")
    (bundle / "tiny-fp32.onnx").unlink()
    verification = verify(bundle)
    assert [(check.file, check.name) for check in failed(verification)] == [("tiny-fp32.onnx", "present")]
    assert outcomes(verification)["tiny-w8a8.tflite", "golden scores"] == "ok"


def test_an_artifact_exchanged_for_another_whole_one_fails_by_the_index(tiny, bundle):
    tiny.need_engine("w8a8.tflite")
    tiny.write(bundle, "w8a8.tflite", name="tiny-w8a8.tflite", provenance={"run": "another"})
    assert [(check.file, check.name) for check in failed(verify(bundle))] == [("tiny-w8a8.tflite", "index")]


def test_a_damaged_artifact_in_a_bundle_fails_by_index_and_digests(tiny, bundle):
    tiny.need_engine("w8a8.tflite")
    path = bundle / "tiny-w8a8.tflite"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert [check.name for check in failed(verify(bundle))] == ["index", "digests"]


@pytest.mark.parametrize("content", ["", "{", json.dumps({"format": [9, 0]})])
def test_a_damaged_index_fails(bundle, content):
    (bundle / "bundle.json").write_text(content)
    (check,) = failed(verify(bundle))
    assert check.name == "index"


def test_artifacts_whose_engine_is_not_installed_are_skipped_aloud(tiny, bundle, monkeypatch):
    from edgeclf_device import choice
    from edgeclf_device.verify import __dict__ as verify_names

    tiny.need_engine("fp32.onnx")
    only_onnx = lambda name: name == "onnxruntime"  # noqa: E731
    monkeypatch.setattr(choice, "installed", only_onnx)
    monkeypatch.setitem(verify_names, "installed", only_onnx)
    verification = verify(bundle)
    assert verification.ok
    skipped = [check for check in verification.checks if check.outcome == "skipped"]
    assert {check.file for check in skipped} == {"tiny-fp32.tflite", "tiny-w8a8.tflite"}
    assert all("litert is not installed" in check.detail for check in skipped)


def test_a_bundle_that_can_not_run_at_all_is_a_missing_dependency(bundle, monkeypatch):
    monkeypatch.setattr(choice_module, "installed", lambda name: False)
    with pytest.raises(DependencyError, match="no engine"):
        verify(bundle)


def test_an_engine_of_the_other_container_is_refused_for_an_artifact(tiny, tmp_path):
    with pytest.raises(UsageError, match="litert"):
        verify(tiny.write(tmp_path, "fp32.onnx"), engine="litert")


def test_a_path_where_nothing_is_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        verify(tmp_path / "nothing.onnx")
