from __future__ import annotations

import json
import shutil

import pytest

from edgeclf_device import DependencyError, ModelError, UsageError, read_bundle, write_bundle_index
from edgeclf_device import choice as choice_module
from edgeclf_device.bundle import MAX_INDEX_BYTES, resolve
from edgeclf_device.choice import choose


def changed_index(bundle, change):
    index = bundle / "bundle.json"
    value = json.loads(index.read_text())
    change(value)
    index.write_text(json.dumps(value))


def test_an_index_is_read_as_it_was_written(bundle):
    read = read_bundle(bundle)
    assert read.name == "tiny"
    assert read.created == "2026-01-01T00:00:00+00:00"
    assert sorted(entry.scheme for entry in read.artifacts) == ["fp32", "fp32", "w8a8", "w8a8"]
    assert resolve(bundle) == [bundle / entry.file for entry in read.artifacts]
    assert json.loads((bundle / "bundle.json").read_text()) == read.to_json()


def test_an_artifact_stands_for_itself(artifact):
    assert resolve(artifact) == [artifact]


def test_the_creation_time_is_the_present_in_utc(bundle):
    assert write_bundle_index(bundle, name="tiny").created.endswith("+00:00")


def test_a_folder_without_artifacts_is_no_bundle(tmp_path):
    with pytest.raises(ModelError, match="at least one"):
        write_bundle_index(tmp_path, name="none")
    with pytest.raises(ModelError, match="not a bundle"):
        resolve(tmp_path)


def test_a_path_where_nothing_is_is_refused(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        resolve(tmp_path / "nothing")


def test_a_file_that_is_no_artifact_is_refused(tmp_path):
    (tmp_path / "model.h5").touch()
    with pytest.raises(UsageError):
        resolve(tmp_path / "model.h5")


def test_a_missing_file_is_named(bundle):
    (bundle / "tiny-fp32.onnx").unlink()
    with pytest.raises(ModelError, match=r"tiny-fp32\.onnx"):
        resolve(bundle)


@pytest.mark.parametrize(
    "name", ["../secret.onnx", "/etc/model.onnx", "a/b.onnx", "..", ".", "", "a\\b.onnx", "a\0.onnx"]
)
def test_a_name_that_is_a_path_is_refused(bundle, name):
    changed_index(bundle, lambda value: value["artifacts"][0].update(file=name))
    with pytest.raises(ModelError, match="plain name"):
        resolve(bundle)


def test_a_link_out_of_the_bundle_is_not_followed(bundle, tmp_path):
    outside = tmp_path / "outside.onnx"
    shutil.move(bundle / "tiny-fp32.onnx", outside)
    (bundle / "tiny-fp32.onnx").symlink_to(outside)
    with pytest.raises(ModelError, match="link"):
        resolve(bundle)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "3", '"x"', "[" * 50_000, '{"format":[1,0]}', "\0"])
def test_a_malformed_index_is_refused(bundle, content):
    (bundle / "bundle.json").write_text(content)
    with pytest.raises(ModelError, match=r"bundle\.json"):
        read_bundle(bundle)


def test_an_index_that_is_not_text_is_refused(bundle):
    (bundle / "bundle.json").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ModelError, match="not JSON"):
        read_bundle(bundle)


def test_an_oversized_index_is_refused(bundle):
    (bundle / "bundle.json").write_text(" " * (MAX_INDEX_BYTES + 1))
    with pytest.raises(ModelError, match=str(MAX_INDEX_BYTES)):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(format=[2, 0]),
        lambda value: value.update(format="1.0"),
        lambda value: value.update(artifacts=[]),
        lambda value: value["artifacts"].append(value["artifacts"][0]),
        lambda value: value["artifacts"][0].pop("sha256"),
        lambda value: value["artifacts"][0].update(bytes="many"),
        lambda value: value["artifacts"][0].update(scheme="w1a1"),
        lambda value: value["artifacts"][0].update(container="tflite", file="x.onnx"),
        lambda value: value.update(artifacts=[3]),
    ],
)
def test_an_index_at_odds_with_the_format_is_refused(bundle, change):
    changed_index(bundle, change)
    with pytest.raises(ModelError, match=r"bundle\.json"):
        read_bundle(bundle)


def test_unknown_fields_of_a_newer_minor_format_are_ignored(bundle):
    changed_index(bundle, lambda value: value.update(format=[1, 9], colour="blue"))
    assert len(read_bundle(bundle).artifacts) == 4


@pytest.fixture
def engines(monkeypatch):
    """Say which engines are installed."""
    return lambda *names: monkeypatch.setattr(choice_module, "installed", lambda name: name in names)


def test_int8_in_tflite_is_chosen_first(bundle, engines):
    engines("litert", "onnxruntime")
    assert choose(bundle).path.name == "tiny-w8a8.tflite"
    assert choose(bundle).engine == "litert"


def test_only_what_an_installed_engine_executes_is_chosen(bundle, engines):
    engines("onnxruntime")
    assert choose(bundle).path.name == "tiny-w8a8.onnx"


def test_the_scheme_goes_before_the_container(bundle, engines):
    engines("litert", "onnxruntime")
    changed_index(bundle, lambda value: value["artifacts"].pop(-1 if "w8a8.tfl" in str(value["artifacts"][-1]) else 0))
    names = {entry.file for entry in read_bundle(bundle).artifacts}
    expected = "tiny-w8a8.tflite" if "tiny-w8a8.tflite" in names else "tiny-w8a8.onnx"
    assert choose(bundle).path.name == expected


def test_a_named_engine_narrows_the_choice(bundle, engines):
    engines("litert", "onnxruntime")
    assert choose(bundle, engine="onnxruntime").path.name == "tiny-w8a8.onnx"


def test_no_installed_engine_is_a_missing_dependency_with_the_command(bundle, engines):
    engines()
    with pytest.raises(DependencyError, match=r"pip install .*\[litert\].* or .*\[onnxruntime\]"):
        choose(bundle)


def test_an_unknown_engine_is_a_usage_error(bundle, artifact):
    for path in (bundle, artifact):
        with pytest.raises(UsageError, match="litert, onnxruntime"):
            choose(path, engine="caffe")
