"""Models that were trained elsewhere: what they become, and what is refused before anything opens it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeclf.exporting import onnx_given, tflite_given
from edgeclf.exporting.convention import Convention
from edgeclf.exporting.file_subject import export_file, kind_of
from edgeclf.exporting.labels_file import read_labels
from edgeclf.exporting.preprocess_file import read_preprocess
from edgeclf.exporting.untrusted import check_keras_file, check_saved_model
from edgeclf_calibration.tflite_file import packed, read_file
from edgeclf_device.artifact import read_artifact
from edgeclf_device.errors import DataError, EdgeclfError, ModelError, SystemStateError, UsageError
from edgeclf_device.verify import verify

PLAIN = Path(__file__).parents[1] / "device" / "models" / "fp32.tflite"
SHAPE = (16, 20, 3)
PREPROCESS = 'height = 16\nwidth = 20\nchannels = "rgb"\n'
PIXELS = np.random.default_rng(0).integers(0, 256, (6, *SHAPE)).astype(np.uint8)
TORCH = Convention(scale=(1 / 58.4, 1 / 57.1, 1 / 57.4), offset=(-123.7 / 58.4, -116.3 / 57.1, -103.5 / 57.4))
IDENTITY = Convention(scale=(1.0, 1.0, 1.0), offset=(0.0, 0.0, 0.0))


@pytest.fixture
def files(tmp_path):
    """The labels, a preprocessing and photos of noise, as keywords of ``export_file``; the folder of the bundle."""
    (tmp_path / "labels.txt").write_text("null\none\ntwo\nthree\n", encoding="utf-8")
    (tmp_path / "preprocess.toml").write_text(PREPROCESS + "scale = 1\noffset = 0\n")
    (tmp_path / "photos").mkdir()
    draw = np.random.default_rng(1)
    for number in range(24):
        small = draw.integers(0, 256, (4, 5, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), cv2.resize(small, (40, 32)))
    return {"labels": tmp_path / "labels.txt", "preprocess": tmp_path / "preprocess.toml"}


@pytest.fixture
def out(tmp_path):
    (tmp_path / "bundles").mkdir()
    return tmp_path / "bundles" / "out"


def nothing_was_written(out: Path) -> bool:
    return list(out.parent.iterdir()) == []


def float_tflite() -> bytes:
    """The plain model without its cast and its scale: float32 in, logits out."""
    file = read_file(tflite_given.network_of(PLAIN.read_bytes(), SHAPE, 4, IDENTITY).model)
    (graph,) = file.subgraphs
    softmax = graph.operators.pop()
    graph.outputs = list(softmax.inputs)
    graph.tensors[graph.inputs[0]].shapeSignature = [-1, *SHAPE]
    return packed(file)


def run_tflite(model: bytes, batch: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    rows = []
    for image in batch:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.stack(rows)


def float_onnx(*, channels_first: bool = True, opset: int = 17) -> onnx.ModelProto:
    """A convolution, a mean and a matrix: a batch of any size in, logits out."""
    draw = np.random.default_rng(2)
    weights = {
        "kernel": draw.normal(0, 0.5, (6, 3, 3, 3)).astype(np.float32),
        "bias": draw.normal(0, 0.2, 6).astype(np.float32),
        "matrix": draw.normal(0, 2, (6, 4)).astype(np.float32),
    }
    turned = [] if channels_first else [helper.make_node("Transpose", ["x"], ["c"], perm=[0, 3, 1, 2])]
    nodes = [
        *turned,
        helper.make_node("Conv", ["x" if channels_first else "c", "kernel", "bias"], ["a"], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["row"]),
        helper.make_node("MatMul", ["row", "matrix"], ["y"]),
    ]
    sides = ["n", 3, "h", "w"] if channels_first else ["n", 16, 20, 3]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def softmax(rows: np.ndarray) -> np.ndarray:
    powers = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def with_logits(convention: Convention, *, bgr: bool = False) -> Convention:
    return Convention(scale=convention.scale, offset=convention.offset, bgr=bgr, logits=True)


@given(
    scale=st.lists(st.floats(0.001, 1), min_size=3, max_size=3),
    offset=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    bgr=st.booleans(),
)
def test_the_convolution_before_a_network_does_what_the_convention_says(scale, offset, bgr):
    convention = Convention(scale=tuple(scale), offset=tuple(offset), bgr=bgr)
    made = PIXELS.astype(np.float32) @ convention.matrix.T + np.array(offset, np.float32)
    np.testing.assert_allclose(made, convention.of(PIXELS), atol=1e-3)


@given(scale=st.floats(0.001, 1), zero_point=st.integers(0, 255), factor=st.floats(0.1, 1), term=st.floats(-2, 2))
def test_arithmetic_of_the_network_itself_goes_over_into_the_convention(scale, zero_point, factor, term):
    convention = Convention(scale=(scale,) * 3, offset=(-scale * zero_point,) * 3)
    assert convention.is_quantization
    expected = convention.of(PIXELS) * np.float32(factor) + np.float32(term)
    np.testing.assert_allclose(convention.then(factor, term).of(PIXELS), expected, atol=1e-3)


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("convention", [TORCH, Convention(scale=(1 / 128,) * 3, offset=(-127 / 128,) * 3)])
def test_a_float_tflite_model_takes_pixels_and_gives_the_scores_it_gave(convention, bgr):
    given = float_tflite()
    asked = with_logits(convention, bgr=bgr)
    expected = softmax(run_tflite(given, asked.of(PIXELS)))
    network = tflite_given.network_of(given, SHAPE, 4, asked)
    np.testing.assert_allclose(run_tflite(tflite_given.from_pixels(network), PIXELS), expected, atol=1e-5)


def test_a_tflite_model_with_its_channels_first_is_turned():
    file = read_file(float_tflite())
    (graph,) = file.subgraphs
    order = tflite_given._constant(file, "back", np.array([0, 2, 3, 1], np.int32), "INT32")
    first = tflite_given._tensor(file, "first", (3, 16, 20))
    tflite_given._prepend(file, "TRANSPOSE", [first, order], graph.inputs[0])
    graph.inputs = [first]
    given = packed(file)
    asked = with_logits(TORCH)
    expected = softmax(run_tflite(given, asked.of(PIXELS).transpose(0, 3, 1, 2)))
    network = tflite_given.network_of(given, SHAPE, 4, asked)
    assert network.channels_first
    np.testing.assert_allclose(run_tflite(tflite_given.from_pixels(network), PIXELS), expected, atol=1e-5)


def test_a_tflite_model_that_takes_pixels_keeps_its_own_scale_and_can_be_given_no_other():
    inside = Convention(scale=(1 / 128,) * 3, offset=(-127 / 128,) * 3, logits=True)
    model = tflite_given.from_pixels(tflite_given.network_of(float_tflite(), SHAPE, 4, inside))
    network = tflite_given.network_of(model, SHAPE, 4, IDENTITY)
    assert (network.convention.scale, network.convention.offset) == (inside.scale, inside.offset)
    np.testing.assert_array_equal(run_tflite(tflite_given.from_pixels(network), PIXELS), run_tflite(model, PIXELS))
    with pytest.raises(ModelError, match="takes uint8 pixels as they are"):
        tflite_given.network_of(model, SHAPE, 4, TORCH)


def test_a_quantized_onnx_model_is_refused_by_its_operator():
    with pytest.raises(ModelError, match=r"must be fp32, but it has .*Quantize"):
        onnx_given.from_pixels(PLAIN.with_name("w8a8.onnx").read_bytes(), SHAPE, 4, IDENTITY)


def test_a_quantized_tflite_model_is_refused_by_the_type_of_a_tensor():
    with pytest.raises(ModelError, match=r"must be fp32.*INT8"):
        tflite_given.network_of(PLAIN.with_name("w8a8.tflite").read_bytes(), SHAPE, 4, IDENTITY)


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize(("channels_first", "opset"), [(True, 17), (False, 17), (True, 11)])
def test_a_float_onnx_model_takes_pixels_and_gives_the_scores_it_gave(channels_first, opset, bgr):
    given = float_onnx(channels_first=channels_first, opset=opset).SerializeToString()
    asked = with_logits(TORCH, bgr=bgr)
    values = asked.of(PIXELS)
    before = onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])
    (expected,) = before.run(None, {"x": values.transpose(0, 3, 1, 2) if channels_first else values})
    made = onnxruntime.InferenceSession(
        onnx_given.from_pixels(given, SHAPE, 4, asked), providers=["CPUExecutionProvider"]
    )
    assert made.get_inputs()[0].shape == [1, *SHAPE]
    rows = [made.run(["scores"], {"image": image[np.newaxis]})[0][0] for image in PIXELS]
    np.testing.assert_allclose(rows, softmax(expected), atol=1e-5)


@pytest.mark.parametrize("name", ["net.tflite", "net.onnx"])
def test_a_users_model_becomes_a_verified_bundle_without_tensorflow(name, files, out, tmp_path):
    trap = tmp_path / "trap"
    for package in ("tensorflow", "keras", "tf2onnx"):
        (trap / package).mkdir(parents=True)
        (trap / package / "__init__.py").write_text("raise SystemExit('imported')")
    model = tmp_path / name
    if name == "net.onnx":
        onnx.save(float_onnx(), model, save_as_external_data=True, location="net.weights", size_threshold=0)
        assert (tmp_path / "net.weights").stat().st_size
    else:
        model.write_bytes(float_tflite())
    mean_std = "mean = [123.7, 116.3, 103.5]\nstd = [58.4, 57.1, 57.4]\n"
    files["preprocess"].write_text(PREPROCESS.replace("rgb", "bgr") + mean_std + 'outputs = "logits"\n')
    code = (
        "import sys; from pathlib import Path; from edgeclf.exporting.file_subject import export_file\n"
        "model, labels, preprocess, photos, out = map(Path, sys.argv[1:])\n"
        "export_file(model, out, labels=labels, preprocess=preprocess, calibration=photos)"
    )
    command = [sys.executable, "-c", code, model, *files.values(), tmp_path / "photos", out]
    environment = {**os.environ, "PYTHONPATH": str(trap)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    container = name.split(".")[1]
    assert sorted(file.name for file in out.iterdir()) == sorted(
        ["bundle.json", f"net-fp32.{container}", f"net-w8a8.{container}"]
    )
    assert verify(out).ok
    for scheme, least in (("fp32", 1), ("w8a8", 0.8)):
        artifact = read_artifact(out / f"net-{scheme}.{container}")
        assert artifact.manifest.labels == ("null", "one", "two", "three")
        assert (artifact.manifest.inputs[0].dtype, artifact.manifest.inputs[0].shape) == ("uint8", (1, *SHAPE))
        assert artifact.manifest.certificate.agreement >= least
        assert str(tmp_path).encode() not in (out / f"net-{scheme}.{container}").read_bytes()


def test_every_other_scheme_of_onnx_is_made_and_every_other_of_tflite_refused_with_the_reason(files, out, tmp_path):
    onnx.save(float_onnx(), tmp_path / "net.onnx")
    files["preprocess"].write_text(PREPROCESS + 'scale = 0.01\noffset = -1\noutputs = "logits"\n')
    made = export_file(tmp_path / "net.onnx", out, **files, schemes=["fp16", "w8a32"])
    assert [entry.file for entry in made.artifacts] == ["net-fp16.onnx", "net-w8a32.onnx"]
    with pytest.raises(UsageError, match=r"From a \.onnx file only \.onnx artifacts"):
        export_file(tmp_path / "net.onnx", tmp_path / "x", **files, formats=["tflite"])
    with pytest.raises(UsageError, match=r"w8a32 was asked for: only TensorFlow's converter"):
        export_file(tmp_path / "net.tflite", tmp_path / "x", **files, schemes=["w8a32"])
    with pytest.raises(UsageError, match="w8a8 must be calibrated with images, but net has none"):
        export_file(tmp_path / "net.onnx", tmp_path / "x", **files)
    assert not (tmp_path / "x").exists()


def test_calibration_images_are_chosen_by_what_the_network_shows_of_them(files, out, tmp_path):
    onnx.save(float_onnx(), tmp_path / "net.onnx")
    files["preprocess"].write_text(PREPROCESS + 'scale = 0.01\noffset = -1\noutputs = "logits"\n')
    asked = {"calibration": tmp_path / "photos", "schemes": ["w8a8"], "calibration_images": 8, "estimator": "mse"}
    made = export_file(tmp_path / "net.onnx", out, **files, **asked, calibration_method="extreme")
    record = read_artifact(made.path(made.artifacts[0])).manifest.calibration
    assert (record["method"], record["estimator"], len(record["digests"])) == ("extreme", "mse", 8)
    plain = export_file(tmp_path / "net.onnx", tmp_path / "plain", **files, **asked)
    other = read_artifact(plain.path(plain.artifacts[0])).manifest.calibration
    assert (other["method"], set(other["digests"]) == set(record["digests"])) == ("stratified", False)
    (tmp_path / "net.tflite").write_bytes(float_tflite())
    with pytest.raises(UsageError, match=r"looks at the network as \.onnx, but net\.tflite"):
        export_file(tmp_path / "net.tflite", tmp_path / "x", **files, **asked, calibration_method="extreme")


@pytest.mark.parametrize("name", ["net.tflite", "net.onnx"])
def test_another_number_of_labels_than_outputs_is_refused_with_both_numbers(name, files, out, tmp_path):
    model = tmp_path / name
    model.write_bytes(PLAIN.read_bytes() if name == "net.tflite" else float_onnx().SerializeToString())
    files["labels"].write_text("a\nb\nc\n")
    with pytest.raises(ModelError, match="There are 3 labels but the model has 4 outputs; write one label"):
        export_file(model, out, **files, schemes=["fp32"])
    assert nothing_was_written(out)


def test_logits_that_are_said_to_be_probabilities_are_refused(files, out, tmp_path):
    onnx.save(float_onnx(), tmp_path / "net.onnx")
    with pytest.raises(ModelError, match='outputs = "logits"'):
        export_file(tmp_path / "net.onnx", out, **files, schemes=["fp32"])
    assert nothing_was_written(out)


def test_another_size_than_the_models_is_refused_with_both(files, out, tmp_path):
    shutil.copy(PLAIN, tmp_path / "net.tflite")
    files["preprocess"].write_text('height = 20\nwidth = 16\nchannels = "rgb"\nscale = 1\noffset = 0\n')
    with pytest.raises(ModelError, match=r"\(1, 20, 16, 3\), but the model's input is \(1, 16, 20, 3\)"):
        export_file(tmp_path / "net.tflite", out, **files, schemes=["fp32"])
    assert nothing_was_written(out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "1 to .* bytes, but it has 0"),
        (b"\n\n", "holds 0"),
        (b"a\n\nb\n", "line 2 is empty"),
        (b"a\nb\na\n", "'a' stands there 2 times"),
        ("grün".encode("latin-1"), "must be UTF-8, but byte 2 is not"),
    ],
)
def test_labels_that_can_not_be_used_are_refused_with_the_place(text, message, tmp_path):
    (tmp_path / "labels.txt").write_bytes(text)
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / "labels.txt")


def test_labels_are_read_as_windows_writes_them(tmp_path):
    (tmp_path / "labels.txt").write_bytes("\ufeffgrün\r\nrot \r\n".encode())
    assert read_labels(tmp_path / "labels.txt") == ("grün", "rot")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("height = ", "must be TOML"),
        ("height = 16\nwidth = 20\nscale = 1\noffset = 0", "channels is needed"),
        (PREPROCESS, "scale and offset, or mean and std, but none is given"),
        (PREPROCESS + "scale = 1\nstd = 1", "but scale, std is given"),
        (PREPROCESS + "mean = [0.48, 0.45, 0.4]\nstd = [0.2, 0.2, 0.2]", "multiply a mean and std .* by 255"),
        (PREPROCESS + "mean = 0\nstd = 0", "std at least 1"),
        (PREPROCESS + "mean = [1, 2]\nstd = 1", "one finite number or 3"),
        (PREPROCESS + "scale = true\noffset = 0", "one finite number"),
        (PREPROCESS + "scale = 1\noffset = nan", "one finite number"),
        (PREPROCESS + "scale = 1\noffset = 0\nresize = 'nearest'", "but resize is given"),
        (PREPROCESS + "scale = 1\noffset = 0\noutputs = 'scores'", "one of probabilities, logits"),
        (PREPROCESS + "scale = 1\noffset = 0\ncrop = 'none'", "crop must be one of"),
        ('height = "16"\nwidth = 20\nchannels = "rgb"\nscale = 1\noffset = 0', "height must be an integer"),
    ],
)
def test_a_preprocessing_that_can_not_be_used_is_refused_by_the_field(text, message, tmp_path):
    (tmp_path / "preprocess.toml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_preprocess(tmp_path / "preprocess.toml")


def test_mean_and_std_are_scale_and_offset_and_blue_may_come_first(tmp_path):
    crop = 'crop = "center"\ncrop_fraction = 0.875\n'
    (tmp_path / "p.toml").write_text(PREPROCESS.replace("rgb", "bgr") + crop + "mean = [100, 110, 120]\nstd = 50\n")
    spec, convention = read_preprocess(tmp_path / "p.toml")
    assert (spec.channels, spec.crop, spec.crop_fraction) == ("rgb", "center", 0.875)
    assert convention.bgr
    assert not convention.logits
    np.testing.assert_allclose(convention.of(np.array([[30, 20, 10]], np.uint8)), [[-1.8, -1.8, -1.8]], rtol=1e-6)


# What may do harm


def external(tmp_path: Path, location: str, **more: str) -> Path:
    """A model whose matrix lies where ``location`` says."""
    proto = float_onnx()
    (matrix,) = (one for one in proto.graph.initializer if one.name == "matrix")
    data = matrix.raw_data
    matrix.ClearField("raw_data")
    matrix.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        matrix.external_data.add(key=key, value=value)
    (tmp_path / "model").mkdir()
    (tmp_path / "secret").write_bytes(data)
    path = tmp_path / "model" / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize(
    "place", ["../secret", "absolute", "sub/../../secret", "symlink", "hard link", "folder", "pipe"]
)
def test_weights_outside_the_models_folder_are_never_opened(place, files, out, tmp_path):
    path = external(tmp_path, str(tmp_path / "secret") if place == "absolute" else place)
    inside = path.parent / place
    match place:
        case "symlink":
            inside.symlink_to(tmp_path / "secret")
        case "hard link":
            inside.hardlink_to(tmp_path / "secret")
        case "folder":
            inside.mkdir()
        case "pipe":
            os.mkfifo(inside)
        case "sub/../../secret":
            (path.parent / "sub").mkdir()
    with pytest.raises(ModelError, match=r"own folder|a regular file with one name|Is a directory"):
        export_file(path, out, **files, schemes=["fp32"])
    assert nothing_was_written(out)


def test_weights_beside_the_model_are_read_and_truncated_ones_refused(tmp_path):
    path = external(tmp_path, "weights")
    shutil.copy(tmp_path / "secret", path.with_name("weights"))
    assert onnx_given.read_onnx(path) == float_onnx().SerializeToString()
    path.with_name("weights").write_bytes((tmp_path / "secret").read_bytes()[:-4])
    with pytest.raises(ModelError, match=r"must have 96 bytes, but it has 92"):
        onnx_given.read_onnx(path)


@pytest.mark.parametrize("entry", [{"offset": "1000"}, {"length": str(1 << 60)}, {"offset": "-8"}, {"offset": "x"}])
def test_weights_that_begin_or_end_outside_their_file_are_refused(entry, tmp_path):
    path = external(tmp_path, "weights", **entry)
    shutil.copy(tmp_path / "secret", path.with_name("weights"))
    with pytest.raises(ModelError, match=r"weights"):
        onnx_given.read_onnx(path)


@pytest.mark.parametrize("share", [0, 1, 40, 70, 99])
@pytest.mark.parametrize("name", ["net.tflite", "net.onnx"])
def test_a_truncated_file_is_refused(name, share, files, out, tmp_path):
    whole = PLAIN.read_bytes() if name == "net.tflite" else float_onnx().SerializeToString()
    (tmp_path / name).write_bytes(whole[: len(whole) * share // 100])
    with pytest.raises((ModelError, SystemStateError)) as caught:
        export_file(tmp_path / name, out, **files, schemes=["fp32"])
    assert caught.value.exit_code in (4, 5)
    assert nothing_was_written(out)


@pytest.mark.parametrize("name", ["net.tflite", "net.onnx", "net.keras"])
@pytest.mark.parametrize("thing", ["folder", "device", "pipe", "nothing"])
def test_what_is_no_file_is_refused_without_waiting_for_it(name, thing, files, out, tmp_path):
    path = tmp_path / name
    match thing:
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "pipe":
            os.mkfifo(path)
    with pytest.raises(ModelError, match=r"a folder|a device|a pipe|No such file"):
        export_file(path, out, **files, schemes=["fp32"])
    assert nothing_was_written(out)


def test_an_onnx_tensor_that_claims_a_size_it_has_not_is_refused(files, out, tmp_path):
    proto = float_onnx()
    del proto.graph.initializer[2].dims[:]
    proto.graph.initializer[2].dims.extend([1 << 40, 4])
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"must have 17592186044416 bytes, but it has 96"):
        export_file(tmp_path / "net.onnx", out, **files, schemes=["fp32"])
    assert nothing_was_written(out)


def test_an_onnx_operator_that_would_take_terabytes_is_refused(files, out, tmp_path):
    proto = float_onnx()
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1 << 40], np.int64), "many"))
    proto.graph.node.append(helper.make_node("ConstantOfShape", ["many"], ["huge"]))
    proto.graph.node.append(helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0))
    proto.graph.node.append(helper.make_node("Add", ["y", "most"], ["z"]))
    proto.graph.output[0].name = "z"
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(EdgeclfError) as caught:
        export_file(tmp_path / "net.onnx", out, **files, schemes=["fp32"])
    assert caught.value.exit_code in (4, 5)
    assert nothing_was_written(out)


def test_a_tflite_tensor_that_claims_a_huge_size_is_refused_and_takes_nobody_along(files, out, tmp_path):
    file = read_file(PLAIN.read_bytes())
    (graph,) = file.subgraphs
    weights = next(one for one in graph.tensors if list(one.shape) == [6, 3, 3, 3])
    weights.shape = [1 << 30, 3, 3, 3]
    (tmp_path / "net.tflite").write_bytes(packed(file))
    with pytest.raises(EdgeclfError) as caught:
        export_file(tmp_path / "net.tflite", out, **files, schemes=["fp32"])
    assert caught.value.exit_code in (4, 5)
    assert nothing_was_written(out)


def keras_file(path: Path, config: dict) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", b"\0" * 100)
    return path


def layers(*added: dict) -> dict:
    return {"module": "keras", "class_name": "Sequential", "config": {"layers": list(added)}}


LAMBDA = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": {"class_name": "__lambda__"}}}
FOREIGN = {"module": "edgeclf_evil", "class_name": "Layer", "config": {}, "registered_name": "Layer"}
ELSEWHERE = {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "elsewhere"}}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (LAMBDA, r"holds code \(a Lambda\)"),
        (FOREIGN, r"needs foreign code \(edgeclf_evil\.Layer\)"),
        (ELSEWHERE, r"holds code \(a TFSMLayer\)"),
        ({"module": "keras.layers", "class_name": "Wrapper", "config": {"layer": FOREIGN}}, "needs foreign code"),
    ],
)
def test_code_in_a_keras_file_is_refused_and_never_runs(layer, message, files, out, tmp_path, monkeypatch):
    (tmp_path / "edgeclf_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    path = keras_file(tmp_path / "net.keras", layers(layer))
    monkeypatch.setattr("edgeclf.exporting.request.find_spec", lambda name: object())
    with pytest.raises(ModelError, match=message):
        export_file(path, out, **files, schemes=["fp32"])
    assert not (tmp_path / "ran").exists()
    assert nothing_was_written(out)


def test_a_damaged_or_exploding_keras_file_is_refused(tmp_path):
    path = keras_file(tmp_path / "net.keras", layers())
    check_keras_file(path)
    whole = path.read_bytes()
    place = whole.rindex(b"PK\x01\x02")  # the last entry of the directory; its unpacked size is 24 bytes on
    path.write_bytes(whole[: place + 24] + struct.pack("<I", 0xFFFFFFF0) + whole[place + 28 :])
    with pytest.raises(ModelError, match="may unpack to"):
        check_keras_file(path)
    for length in (10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="damaged or of another kind"):
            check_keras_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "[" * 100_000)
    with pytest.raises(ModelError, match="reading it gave"):
        check_keras_file(path)


def test_a_saved_model_with_a_link_in_it_is_refused(tmp_path):
    folder = tmp_path / "saved"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"x")
    check_saved_model(folder)
    assert kind_of(folder) == "saved_model"
    (folder / "variables" / "variables.index").symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="regular files alone"):
        check_saved_model(folder)


def test_a_name_that_says_no_kind_is_refused_with_the_kinds(files, out, tmp_path):
    with pytest.raises(UsageError, match=r"\.keras, \.tflite or \.onnx file or the folder of a SavedModel"):
        export_file(tmp_path / "net.pt", out, **files)


# Keras and TensorFlow


@pytest.fixture(scope="session")
def saved_model(run_folder, tmp_path_factory) -> Path:
    """The SavedModel of the run's network."""
    folder = tmp_path_factory.mktemp("saved") / "klein"
    code = (
        "import keras, sys; model = keras.saving.load_model(sys.argv[1])\n"
        "image = keras.Input((32, 32, 3)); inner = keras.Model(model.layers[1].output, model.output)\n"
        "keras.Model(image, inner(image)).export(sys.argv[2], verbose=False)"
    )
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    subprocess.run([sys.executable, "-c", code, run_folder / "model.keras", folder], env=environment, check=True)
    return folder


@pytest.fixture
def drawings(tmp_path) -> dict[str, Path]:
    (tmp_path / "labels.txt").write_text("Fläche\ngerändert\n", encoding="utf-8")
    (tmp_path / "p.toml").write_text('height = 32\nwidth = 32\nchannels = "rgb"\nscale = 1\noffset = 0\n')
    return {"labels": tmp_path / "labels.txt", "preprocess": tmp_path / "p.toml"}


@pytest.mark.tensorflow
def test_a_keras_file_becomes_the_artifacts_that_its_run_becomes(run_folder, images, drawings, out):
    made = export_file(run_folder / "model.keras", out, **drawings, calibration=images)
    assert [entry.file for entry in made.artifacts] == [
        *("model-fp32.tflite", "model-w8a8.tflite", "model-fp32.onnx", "model-w8a8.onnx"),
    ]
    for entry in made.artifacts:
        certificate = read_artifact(made.path(entry)).manifest.certificate
        assert (certificate.split, certificate.images) == ("held-out", 30)
        assert certificate.agreement >= 0.9
        assert certificate.reference_accuracy >= 0.9


@pytest.mark.tensorflow
def test_a_saved_model_with_float_input_gives_the_scores_of_the_keras_file(
    run_folder, saved_model, images, drawings, out, tmp_path
):
    drawings["preprocess"].write_text(
        'height = 32\nwidth = 32\nchannels = "rgb"\nmean = [127, 127, 127]\nstd = [128, 128, 128]\n'
    )
    made = export_file(saved_model, out, **drawings, calibration=images, formats=["tflite"])
    assert [entry.file for entry in made.artifacts] == ["klein-fp32.tflite", "klein-w8a8.tflite"]
    certificates = [read_artifact(made.path(entry)).manifest.certificate for entry in made.artifacts]
    assert min(one.agreement for one in certificates) >= 0.9
    assert certificates[0].reference_accuracy >= 0.9


@pytest.mark.tensorflow
def test_a_custom_operator_and_a_truncated_saved_model_are_refused(saved_model, drawings, out, tmp_path):
    drawings["preprocess"].write_text('height = 32\nwidth = 32\nchannels = "rgb"\nmean = 127\nstd = 128\n')
    custom, cut = tmp_path / "custom", tmp_path / "cut"
    for folder in (custom, cut):
        shutil.copytree(saved_model, folder)
    graph = (custom / "saved_model.pb").read_bytes()
    assert b"Relu6" in graph
    (custom / "saved_model.pb").write_bytes(graph.replace(b"Relu6", b"Evil6"))
    data = cut / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    for folder in (custom, cut):
        with pytest.raises(ModelError, match=r"can't be loaded as a SavedModel"):
            export_file(folder, out, **drawings, schemes=["fp32"], formats=["tflite"])
        assert nothing_was_written(out)


@pytest.mark.tensorflow
def test_a_lambda_layer_that_keras_itself_saved_is_refused_and_never_runs(drawings, out, tmp_path):
    code = (
        "import keras, sys; from pathlib import Path\n"
        "def code(x, ran=sys.argv[2]): open(ran, 'w').close(); return x\n"
        "image = keras.Input((32, 32, 3)); x = keras.layers.Lambda(code, output_shape=(32, 32, 3))(image)\n"
        "scores = keras.layers.Dense(2, activation='softmax')(keras.layers.Flatten()(x))\n"
        "made = keras.Model(image, scores); made(keras.ops.zeros((1, 32, 32, 3))); made.save(sys.argv[1])\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    path, ran = tmp_path / "net.keras", tmp_path / "ran"
    subprocess.run([sys.executable, "-c", code, path, ran], env=environment, check=True)
    ran.unlink()
    with pytest.raises(ModelError, match=r"holds code \(a Lambda\)"):
        export_file(path, out, **drawings, schemes=["fp32"])
    assert not ran.exists()
    assert nothing_was_written(out)


@pytest.mark.tensorflow
def test_a_truncated_keras_file_and_wrong_labels_are_refused(run_folder, drawings, out, tmp_path):
    whole = (run_folder / "model.keras").read_bytes()
    (tmp_path / "net.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged or of another kind"):
        export_file(tmp_path / "net.keras", out, **drawings, schemes=["fp32"])
    drawings["labels"].write_text("a\nb\nc\n")
    with pytest.raises(ModelError, match="There are 3 labels but the model has 2 outputs"):
        export_file(run_folder / "model.keras", out, **drawings, schemes=["fp32"], formats=["tflite"])
    assert nothing_was_written(out)
