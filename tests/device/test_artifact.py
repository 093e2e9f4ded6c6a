from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeclf_device import (
    Classifier,
    ModelError,
    UsageError,
    _trailer_onnx,
    _trailer_tflite,
    read_artifact,
    write_artifact,
)
from edgeclf_device.artifact import TRAILERS, artifact_bytes
from edgeclf_device.certificate import ChangedImage, Changes, Paired
from edgeclf_device.manifest import MAX_MANIFEST_BYTES, Manifest, canonical_json, own_digest, seal
from edgeclf_device.verify import verify

CONTAINERS = ("fp32.tflite", "fp32.onnx")
RELEASED = Path(__file__).parent / "artifacts"
"""One artifact of each container and released format, written by the code of its time; never refreshed."""


def rewritten(tiny, kind, change):
    """The bytes of an artifact whose manifest object was changed and sealed again, digest and all."""
    model, manifest = tiny.model(kind), tiny.manifest(kind)
    value = json.loads(seal(manifest, model))
    change(value)
    value["manifest_sha256"] = own_digest(value)
    return with_manifest(tiny, kind, canonical_json(value))


def with_manifest(tiny, kind, manifest_bytes):
    model, manifest = tiny.model(kind), tiny.manifest(kind)
    return model + TRAILERS[manifest.container].build(model, manifest_bytes, manifest.labels)


def refusal(tmp_path, kind, data):
    path = tmp_path / f"x-{kind}"
    path.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        read_artifact(path)
    message = str(caught.value)
    assert path.name in message
    return message


def test_what_is_written_is_read(tiny, kind, artifact):
    read = read_artifact(artifact)
    assert read.manifest == tiny.manifest(kind)
    assert read.model == tiny.model(kind)
    assert read.raw["labels"] == list(tiny.labels)
    assert artifact.read_bytes().startswith(tiny.model(kind))


def test_two_artifacts_of_one_model_are_equal_in_every_byte(tiny, kind, artifact):
    assert artifact.read_bytes() == artifact_bytes(tiny.model(kind), tiny.manifest(kind))


def places(data, model_length, manifest):
    """200 random places and both sides of every boundary."""
    start = data.index(manifest)
    edges = {0, model_length, start, start + len(manifest), len(data), len(data) - 22}
    near = {edge + step for edge in edges for step in (-2, -1, 0, 1) if 0 <= edge + step < len(data)}
    return sorted(near | set(np.random.default_rng(0).integers(0, len(data), 200).tolist()))


def test_a_flipped_byte_anywhere_is_found_and_named(tiny, kind, artifact, tmp_path):
    data = artifact.read_bytes()
    model = tiny.model(kind)
    manifest = seal(tiny.manifest(kind), model)
    damaged = tmp_path / f"damaged-{kind}"
    rng = np.random.default_rng(1)
    for place in places(data, len(model), manifest):
        flipped = bytearray(data)
        flipped[place] ^= int(rng.integers(1, 256))
        damaged.write_bytes(flipped)
        with pytest.raises(ModelError) as caught:
            read_artifact(damaged)
        assert damaged.name in str(caught.value)
        assert "damaged" in str(caught.value), f"byte {place}: {caught.value}"


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_flipped_bit_in_any_byte_of_the_trailer_is_found(tiny, kind, artifact, tmp_path):
    data, damaged = artifact.read_bytes(), tmp_path / f"damaged-{kind}"
    for place in range(len(tiny.model(kind)), len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        damaged.write_bytes(flipped)
        with pytest.raises(ModelError):
            read_artifact(damaged)


def test_a_truncated_artifact_is_refused(tiny, kind, artifact, tmp_path):
    data = artifact.read_bytes()
    for length in (1, 7, 8, 100, len(tiny.model(kind)) - 1, len(tiny.model(kind)) + 1, len(data) - 22, len(data) - 1):
        refusal(tmp_path, kind, data[:length])


def test_a_zero_byte_artifact_is_refused(kind, tmp_path):
    assert "empty (0 bytes)" in refusal(tmp_path, kind, b"")


def test_a_model_without_a_manifest_is_refused(tiny, kind, tmp_path):
    assert "no manifest" in refusal(tmp_path, kind, tiny.model(kind))


def test_something_else_entirely_is_refused(kind, tmp_path):
    refusal(tmp_path, kind, b"not a model at all, only text" * 10)
    refusal(tmp_path, kind, bytes(1000))


def test_bytes_behind_the_trailer_are_refused(kind, artifact, tmp_path):
    for more in (b"\0", b"\n", b"more", artifact.read_bytes()):
        refusal(tmp_path, kind, artifact.read_bytes() + more)


def test_a_file_that_does_not_exist_is_refused(kind, tmp_path):
    with pytest.raises(ModelError, match="can't be read"):
        read_artifact(tmp_path / f"none-{kind}")


def test_a_file_of_another_name_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.tflite or \.onnx"):
        read_artifact(tmp_path / "model.h5")


def test_an_artifact_is_written_under_the_name_of_its_container_alone(tiny, tmp_path):
    with pytest.raises(UsageError, match=r"named \*\.onnx"):
        write_artifact(tmp_path / "model.tflite", tiny.model("fp32.onnx"), tiny.manifest("fp32.onnx"))


def test_a_renamed_artifact_is_refused(tiny, tmp_path):
    assert refusal(tmp_path, "fp32.onnx", tiny.write(tmp_path, "fp32.tflite").read_bytes())
    assert refusal(tmp_path, "fp32.tflite", tiny.write(tmp_path, "fp32.onnx").read_bytes())


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_newer_major_format_is_refused_with_the_remedy(tiny, kind, tmp_path):
    message = refusal(tmp_path, kind, rewritten(tiny, kind, lambda value: value.update(format=[2, 0])))
    assert "2.0" in message
    assert "upgrade edgeclf-device" in message


PAIRED = Paired(lost=4, gained=1, drop_interval_95=(-0.25, 1.25), mcnemar_p=0.375)
CHANGES = Changes(
    max_error=0.25,
    mean_error=0.001,
    images=7,
    per_class=((300, 4), (200, 2), (150, 1), (6, 0)),
    listed=(
        ChangedImage(sha256="a" * 64, before=0, after=3, true=3),
        ChangedImage(sha256="b" * 64, before=2, after=1, true=None),
    ),
)


def compared(tiny, kind):
    """The certificate of a tiny model with everything that format 1.2 added."""
    return dataclasses.replace(tiny.manifest(kind).certificate, paired=PAIRED, changes=CHANGES)


@pytest.mark.parametrize("container", ["tflite", "onnx"])
@pytest.mark.parametrize(("version", "reject_below"), [("1.0", None), ("1.1", 0.9), ("1.2", 0.9)])
def test_an_artifact_of_every_released_format_is_read_for_ever(tiny, container, version, reject_below, frame):
    path = RELEASED / f"format-{version}.{container}"
    read = read_artifact(path)
    assert read.raw["format"] == [int(part) for part in version.split(".")]
    kind = f"w8a8.{container}"
    certificate = tiny.manifest(kind).certificate if version < "1.2" else compared(tiny, kind)
    assert read.manifest == tiny.manifest(kind, reject_below=reject_below, certificate=certificate)
    tiny.need_engine(kind)
    with Classifier.open(path) as classify:
        result = classify(frame)
    assert result.accepted is (reject_below is None or result.score >= reject_below)
    assert verify(path).ok


@pytest.mark.parametrize("container", ["tflite", "onnx"])
def test_an_artifact_of_clips_of_the_format_that_began_them_is_read_for_ever(container):
    read = read_artifact(RELEASED / f"format-1.3.{container}")
    assert read.raw["format"] == [1, 3]
    assert (read.manifest.inputs[0].layout, read.manifest.inputs[0].shape) == ("NTHWC", (1, 4, 8, 8, 1))
    assert read.manifest.labels == ("brighter", "darker")


def test_a_comparison_with_the_original_is_written_and_read(tiny, kind, tmp_path):
    read = read_artifact(tiny.write(tmp_path, kind, certificate=compared(tiny, kind)))
    assert read.raw["format"] == [1, 3]
    assert (read.manifest.certificate.paired, read.manifest.certificate.changes) == (PAIRED, CHANGES)


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("paired", "lost", "four", "lost"),
        ("paired", "mcnemar_p", None, "mcnemar_p"),
        ("paired", "drop_interval_95", [1.0], "two numbers"),
        ("paired", "drop_interval_95", ["low", "high"], "drop_interval_95"),
        ("changes", "max_error", True, "max_error"),
        ("changes", "per_class", [[300, 4]], "1 classes but the model has 4 outputs"),
        ("changes", "per_class", [[300, 4], [200], [150, 1], [6, 0]], "pairs"),
        ("changes", "per_class", [[300, 4], [200, "2"], [150, 1], [6, 0]], "per_class"),
        ("changes", "listed", [{"sha256": "a", "before": 0, "after": 4, "true": None}], "from 0 to 3, but one has 4"),
        ("changes", "listed", [{"sha256": "a", "before": 0, "after": -1, "true": 9}], "from 0 to 3"),
        ("changes", "listed", [{"before": 0, "after": 1, "true": None}], "sha256"),
    ],
)
def test_a_comparison_that_can_not_be_is_refused(tiny, part, field, value, message, tmp_path):
    kind = "fp32.onnx"

    def change(whole):
        whole["certificate"] = compared(tiny, kind).to_json()
        whole["certificate"][part][field] = value

    assert message in refusal(tmp_path, kind, rewritten(tiny, kind, change))


@pytest.mark.parametrize("kind", CONTAINERS)
def test_an_unknown_field_of_a_newer_minor_format_is_ignored(tiny, kind, tmp_path):
    def change(value):
        value.update(format=[1, 7], season="winter")
        value["golden"]["mood"] = 1
        value["preprocessing"]["mood"] = 1

    path = tmp_path / f"newer-{kind}"
    path.write_bytes(rewritten(tiny, kind, change))
    read = read_artifact(path)
    assert read.manifest == tiny.manifest(kind)
    assert read.raw["season"] == "winter"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", ["a", "b", "c"], "3 labels but the model has 4 outputs"),
        ("labels", ["a", "b", "c", "a"], "differ from each other"),
        ("labels", ["a", "b", "c", ""], "not empty"),
        ("labels", ["a", "b", "c", "d\ne"], "one line"),
        ("labels", [1, 2, 3, 4], "labels"),
        ("format", [1], "two integers"),
        ("scheme", "w1a1", "scheme"),
        ("reject_below", 1.5, "from 0 to 1"),
        ("reject_below", "high", "reject_below"),
        ("reject_below", True, "reject_below"),
        ("name", 3, "name"),
        ("inputs", [], "one input"),
        ("golden", {}, "scores"),
        ("preprocessing", {}, "lacks"),
        ("provenance", None, "provenance"),
        ("model_bytes", 1, "1 bytes"),
        ("model_sha256", "0" * 64, "SHA-256"),
    ],
)
@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_manifest_that_is_sealed_but_wrong_is_refused(tiny, kind, field, value, message, tmp_path):
    assert message in refusal(tmp_path, kind, rewritten(tiny, kind, lambda whole: whole.update({field: value})))


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_missing_field_is_named(tiny, kind, tmp_path):
    for field in tiny.manifest(kind).to_json():
        if field not in ("certificate", "reject_below"):
            assert field in refusal(tmp_path, kind, rewritten(tiny, kind, lambda value, field=field: value.pop(field)))


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_key_given_twice_is_refused(tiny, kind, tmp_path):
    sealed = seal(tiny.manifest(kind), tiny.model(kind))
    doubled = sealed.replace(b'{"calibration"', b'{"labels":["w","x","y","z"],"calibration"', 1)
    assert doubled != sealed
    refusal(tmp_path, kind, with_manifest(tiny, kind, doubled))


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_manifest_not_in_canonical_form_is_refused(tiny, kind, tmp_path):
    value = json.loads(seal(tiny.manifest(kind), tiny.model(kind)))
    refusal(tmp_path, kind, with_manifest(tiny, kind, json.dumps(value, indent=1).encode()))


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b"NaN"])
@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_manifest_that_is_no_json_object_is_refused(tiny, kind, content, tmp_path):
    refusal(tmp_path, kind, with_manifest(tiny, kind, content))


@pytest.mark.parametrize("kind", CONTAINERS)
def test_an_oversized_manifest_is_refused_before_it_is_parsed(tiny, kind, tmp_path):
    message = refusal(tmp_path, kind, with_manifest(tiny, kind, b" " * (MAX_MANIFEST_BYTES + 1)))
    assert str(MAX_MANIFEST_BYTES) in message


def test_a_compressed_trailer_is_refused(tiny, tmp_path):
    model, manifest = tiny.model("fp32.tflite"), tiny.manifest("fp32.tflite")
    whole = io.BytesIO(model)
    whole.seek(0, io.SEEK_END)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", seal(manifest, model))
        archive.writestr("labels.txt", "\n".join(manifest.labels))
    assert "compressed" in refusal(tmp_path, "fp32.tflite", whole.getvalue())


def test_a_trailer_with_other_labels_than_the_manifest_is_refused(tiny, tmp_path):
    kind = "fp32.tflite"
    model, manifest = tiny.model(kind), tiny.manifest(kind)
    swapped = (*manifest.labels[1:], manifest.labels[0])
    data = model + _trailer_tflite.build(model, seal(manifest, model), swapped)
    assert "The trailer is damaged" in refusal(tmp_path, kind, data)


def test_a_second_onnx_record_of_ours_is_refused(tiny, tmp_path):
    kind = "fp32.onnx"
    model, manifest = tiny.model(kind), tiny.manifest(kind)
    record = _trailer_onnx.build(model, seal(manifest, model), manifest.labels)
    refusal(tmp_path, kind, model + record + record)


def test_the_tflite_trailer_is_an_ordinary_zip(tiny, tmp_path):
    path = tiny.write(tmp_path, "fp32.tflite")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", "labels.txt"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("labels.txt").decode().splitlines() == list(tiny.labels)
        assert json.loads(archive.read("manifest.json"))["name"] == "tiny"


def test_unzip_prints_the_manifest(tiny, tmp_path):
    path = tiny.write(tmp_path, "fp32.tflite")
    try:
        done = subprocess.run(["unzip", "-p", path, "manifest.json"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("unzip is not installed")
    assert json.loads(done.stdout)["labels"] == list(tiny.labels)


@pytest.mark.parametrize("kind", ["fp32.tflite", "w8a8.tflite"])
def test_a_stock_litert_interpreter_opens_the_artifact_from_its_path(tiny, kind, artifact):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(model_path=str(artifact))
    interpreter.allocate_tensors()
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, *tiny.shape]


@pytest.mark.parametrize("kind", ["fp32.onnx", "w8a8.onnx"])
def test_a_stock_onnxruntime_session_opens_the_artifact_and_shows_the_manifest(tiny, kind, artifact):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(artifact), providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map["edgeclf.manifest"]
    assert json.loads(found)["labels"] == list(tiny.labels)


@pytest.mark.parametrize("kind", ["fp32.onnx", "w8a8.onnx"])
def test_the_onnx_checker_accepts_the_artifact(kind, artifact):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(artifact)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.key for entry in model.metadata_props] == ["edgeclf.manifest"]


def paths_of(value, prefix=()):
    """Every place in a JSON value."""
    yield prefix
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in children:
        yield from paths_of(item, (*prefix, key))


ODD_VALUES = (
    None,
    True,
    -1,
    0,
    10**400,
    1e308,
    "",
    "x" * 50,
    [],
    [None],
    {},
    {"scale": 10**400, "zero_point": 10**400},
)


def test_a_sealed_manifest_with_any_odd_value_anywhere_is_read_or_refused(tiny, tmp_path):
    kind = "w8a8.onnx"
    whole = json.loads(seal(tiny.manifest(kind), tiny.model(kind)))
    path = tmp_path / f"odd-{kind}"
    read = 0
    for place in paths_of(whole):
        for odd in ODD_VALUES if place else ():
            value = json.loads(json.dumps(whole))
            holder = value
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = odd
            value["manifest_sha256"] = own_digest(value)
            path.write_bytes(with_manifest(tiny, kind, canonical_json(value)))
            try:
                read_artifact(path)
                read += 1
            except ModelError as error:
                assert path.name in str(error)  # noqa: PT017 - most are refused, a few are harmless
    assert read < 200


def test_a_comparison_with_any_odd_value_anywhere_is_read_or_refused(tiny):
    kind = "w8a8.onnx"
    whole = dataclasses.replace(tiny.manifest(kind), certificate=compared(tiny, kind)).to_json()
    read = 0
    for part in ("paired", "changes"):
        for place in paths_of(whole["certificate"][part], (part,)):
            for odd in ODD_VALUES:
                value = json.loads(json.dumps(whole))
                holder = value["certificate"]
                for key in place[:-1]:
                    holder = holder[key]
                holder[place[-1]] = odd
                try:
                    seal(Manifest.from_json(value), tiny.model(kind))
                    read += 1
                except ModelError:
                    pass
    assert 0 < read < 200


def test_scrambled_trailers_are_refused_and_never_crash_the_reader(tiny, kind, artifact, tmp_path):
    data, length = artifact.read_bytes(), len(tiny.model(kind))
    path = tmp_path / f"scrambled-{kind}"
    rng = np.random.default_rng(11)
    for _ in range(300):
        scrambled = bytearray(data)
        for _ in range(rng.integers(1, 6)):
            place = int(rng.integers(length - 4, len(scrambled)))
            cut = rng.bytes(int(rng.integers(0, 5)))
            scrambled[place : place + int(rng.integers(0, 5))] = cut
        if scrambled == data:
            continue
        path.write_bytes(scrambled)
        with pytest.raises(ModelError):
            read_artifact(path)
