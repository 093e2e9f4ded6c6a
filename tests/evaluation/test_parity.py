"""Parity: sound artifacts keep their bounds in every way they can be run; a fault is named at its layer."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("ai_edge_litert")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("typer")

import onnx
from typer.testing import CliRunner

from edgeclf.cli import app
from edgeclf.evaluation import parity as parity_module
from edgeclf.evaluation.first_divergence import Network, first_divergence, layers, relative_error
from edgeclf.evaluation.parity import parity
from edgeclf.evaluation.parity_images import Images, synthetic_images
from edgeclf.evaluation.variants import bound_of, variant_scores, variants_of
from edgeclf_calibration.tflite_file import operators, packed, read_file
from edgeclf_device.artifact import read_artifact, write_artifact
from edgeclf_device.errors import DependencyError, ModelError, UsageError
from edgeclf_device.golden import GENERATOR, golden_input
from edgeclf_device.manifest import Container, Scheme

ROOT = Path(__file__).parents[2]
DEVICE_TESTS = ROOT / "tests" / "device" / "conftest.py"
TFLITE_KINDS = {"conv": "CONV_2D", "dense": "FULLY_CONNECTED"}
ONNX_KINDS = {"conv": "Conv", "dense": "Gemm"}
ONNX_WEIGHTS = {"conv": "kernel", "dense": "dense"}
RUNS_ANYWHERE = 3


@pytest.fixture(scope="module")
def tiny():
    """The tiny artifacts of the device's tests."""
    spec = importlib.util.spec_from_file_location("device_conftest", DEVICE_TESTS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Tiny()


@pytest.fixture(scope="module")
def image(tiny):
    return golden_input(GENERATOR, RUNS_ANYWHERE, tiny.shape)


@pytest.fixture
def files(tiny, tmp_path):
    return [tiny.write(tmp_path, kind) for kind in tiny.kinds]


def faulty_tflite(model: bytes, layer: str) -> bytes:
    """The same file with the weights of one layer weakened to a half: of the same shapes, and it runs."""
    file = read_file(model)
    (operator,) = (one for one in operators(file) if one.kind == TFLITE_KINDS[layer])
    weights = file.subgraphs[0].tensors[operator.inputs[1].index]
    is_float = operator.inputs[1].is_float
    values = np.frombuffer(bytes(file.buffers[weights.buffer].data), np.float32 if is_float else np.int8)
    changed = values / 2 if is_float else values // 2
    file.buffers[weights.buffer].data = np.frombuffer(changed.astype(values.dtype).tobytes(), np.uint8)
    return packed(file)


def faulty_onnx(model: bytes, layer: str) -> bytes:
    proto = onnx.load_from_string(model)
    (tensor,) = (one for one in proto.graph.initializer if one.name == ONNX_WEIGHTS[layer])
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) / 2, tensor.name))
    return proto.SerializeToString()


def network(model: bytes, container: Container, **options: str) -> Network:
    return Network(model=model, container=container, options=options)


@pytest.mark.parametrize("layer", ["conv", "dense"])
@pytest.mark.parametrize("scheme", ["fp32", "w8a8"])
def test_a_changed_weight_of_a_tflite_file_is_named_at_its_layer(tiny, image, scheme, layer):
    sound = tiny.model(f"{scheme}.tflite")
    found = first_divergence(
        network(sound, "tflite"), network(faulty_tflite(sound, layer), "tflite"), image, tolerance=0.1
    )
    assert found.kind == TFLITE_KINDS[layer]
    assert found.error > 0.1
    assert 1 <= found.place <= found.layers


def test_a_fault_that_crosses_the_tolerance_only_layers_later_is_named_where_it_is(tiny, image):
    sound = tiny.model("fp32.tflite")
    pair = [network(sound, "tflite"), network(faulty_tflite(sound, "conv"), "tflite")]
    errors = [
        relative_error(*(one.values for one in both))
        for both in zip(*(layers(one, image) for one in pair), strict=True)
    ]
    assert first_divergence(*pair, image, tolerance=errors[-1] / 2).kind == "CONV_2D"
    assert first_divergence(*pair, image, tolerance=max(errors)) is None


@pytest.mark.parametrize("layer", ["conv", "dense"])
def test_a_changed_weight_of_an_onnx_file_is_named_at_its_layer(tiny, image, layer):
    sound = tiny.model("fp32.onnx")
    found = first_divergence(network(sound, "onnx"), network(faulty_onnx(sound, layer), "onnx"), image, tolerance=1e-4)
    assert found.kind == ONNX_KINDS[layer]
    assert found.after == {"conv": "planes", "dense": "features"}[layer]


@pytest.mark.parametrize("layer", ["conv", "dense"])
def test_a_changed_weight_is_found_by_the_file_of_the_other_format(tiny, image, layer):
    sound = network(tiny.model("fp32.tflite"), "tflite")
    suspect = network(faulty_onnx(tiny.model("fp32.onnx"), layer), "onnx")
    assert first_divergence(suspect, sound, image, tolerance=1e-4).kind == ONNX_KINDS[layer]
    sound = network(tiny.model("fp32.onnx"), "onnx")
    suspect = network(faulty_tflite(tiny.model("fp32.tflite"), layer), "tflite")
    assert first_divergence(suspect, sound, image, tolerance=1e-4).kind == TFLITE_KINDS[layer]


def test_sound_files_of_one_network_have_no_diverging_layer(tiny, image):
    tflite, other = network(tiny.model("fp32.tflite"), "tflite"), network(tiny.model("fp32.onnx"), "onnx")
    assert first_divergence(tflite, other, image, tolerance=1e-4) is None
    assert first_divergence(other, tflite, image, tolerance=1e-4) is None


@pytest.mark.parametrize("kind", ["fp32.tflite", "w8a8.tflite", "fp32.onnx", "w8a8.onnx"])
def test_the_exposed_layers_end_with_the_scores_of_the_untouched_model(tiny, image, kind, tmp_path):
    """Else what is compared layer by layer would not be what the engine runs."""
    artifact = read_artifact(tiny.write(tmp_path, kind))
    container = artifact.manifest.container
    for variant in variants_of(container):
        if variant.engine == "tflite-runtime":
            continue
        (expected,) = variant_scores(artifact, variant, image[np.newaxis], description="")
        *_, last = layers(Network(model=artifact.model, container=container, options=variant.options), image)
        np.testing.assert_allclose(last.values[0], expected, atol=1e-6)


def test_every_artifact_keeps_its_bounds_in_every_way_to_run_it(files):
    made = parity(files, images=12)
    assert not made.broken
    assert {pair.artifact for pair in made.pairs} == {file.name for file in files}
    assert all(pair.images == 12 for pair in made.pairs)


def test_no_variant_is_left_out_silently(files):
    made = parity(files, images=1)
    for file in files:
        names = [variant.name for variant in variants_of(read_artifact(file).manifest.container)]
        pairs = [pair.variant for pair in made.pairs if pair.artifact == file.name]
        absent = [one.variant for one in made.absent if one.artifact == file.name]
        assert sorted([names[0], *pairs, *absent]) == sorted(names)
    assert all(one.reason for one in made.absent)


def test_an_engine_that_is_not_installed_is_listed_with_the_extra_that_brings_it(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    made = parity(files, images=1)
    onnx_variants = [one for one in made.absent if one.artifact.endswith(".onnx")]
    assert len(onnx_variants) == 2 * len(variants_of("onnx"))
    assert all("edgeclf-device[onnxruntime]" in one.reason for one in onnx_variants)


def test_a_single_way_to_run_an_artifact_is_no_parity(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"edgeclf-device\[onnxruntime\]"):
        parity([file for file in files if file.suffix == ".onnx"], images=1)


def _keras_scores(tiny, tmp_path, monkeypatch, artifact: Path) -> None:
    """Let the images of a run come with scores, as its Keras model would have given them: those of ``artifact``."""

    def source(*_: object, count: int, **__: object):
        def images(one):
            pixels = synthetic_images(one, count).pixels
            sound = read_artifact(artifact)
            scores = variant_scores(sound, variants_of(sound.manifest.container)[0], pixels, description="")
            return Images(pixels=pixels, description="test images", keras=scores)

        return images

    monkeypatch.setattr(parity_module, "image_source", source)


@pytest.mark.parametrize("layer", ["conv", "dense"])
def test_an_artifact_of_another_network_is_named_at_its_layer_with_exit_code_6(tiny, tmp_path, monkeypatch, layer):
    good = tiny.write(tmp_path, "fp32.tflite")
    bad = tmp_path / "bad.onnx"
    write_artifact(bad, faulty_onnx(tiny.model("fp32.onnx"), layer), tiny.manifest("fp32.onnx"))
    _keras_scores(tiny, tmp_path, monkeypatch, good)
    report = tmp_path / "parity.json"
    ended = CliRunner().invoke(app, ["parity", str(good), str(bad), "--images", "3", "--json", str(report)])
    assert ended.exit_code == 6, ended.output
    assert f"({ONNX_KINDS[layer]}, " in " ".join(ended.output.split())
    made = json.loads(report.read_text(encoding="utf-8"))
    assert (made["format"], made["kept"]) == ([1, 0], False)
    broken = [pair for pair in made["pairs"] if not pair["kept"]]
    assert {(pair["artifact"], pair["against"]) for pair in broken} == {("bad.onnx", "keras")}
    assert {pair["divergence"]["kind"] for pair in broken if pair["divergence"]} == {ONNX_KINDS[layer]}


def test_sound_artifacts_keep_their_bounds_against_keras(tiny, files, tmp_path, monkeypatch):
    _keras_scores(tiny, tmp_path, monkeypatch, files[0])
    made = parity(files, images=8)
    against = [pair for pair in made.pairs if pair.against == "keras"]
    assert not made.broken
    assert {pair.artifact for pair in against} == {file.name for file in files}
    assert all(pair.agreement > 0.8 for pair in against)


def test_kernels_that_are_apart_are_named_at_the_first_layer_that_differs(tiny, tmp_path, monkeypatch):
    """With a bound of nothing at all, the rounding of float kernels is the fault to be found."""
    exact = bound_of("threads", "tflite", "w8a8")
    monkeypatch.setattr(parity_module, "bound_of", lambda *_: exact)
    made = parity([tiny.write(tmp_path, "fp32.tflite")], images=12)
    assert {pair.variant for pair in made.broken} >= {"litert reference ×1"}
    assert all(pair.divergence or pair.note for pair in made.broken)
    kinds = {pair.divergence.kind for pair in made.broken if pair.divergence}
    assert kinds
    assert kinds <= {"CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX", "MUL"}


def test_tflite_runtime_runs_in_the_python_that_has_it(tiny, tmp_path, monkeypatch, image):
    package = tmp_path / "elsewhere" / "tflite_runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text("from ai_edge_litert.interpreter import Interpreter\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    made = parity([tiny.write(tmp_path, "w8a8.tflite")], images=3, tflite_runtime=Path(sys.executable))
    (pair,) = (pair for pair in made.pairs if pair.variant == "tflite-runtime ×1")
    assert (pair.max_error, pair.agreement) == (0, 1)


@pytest.mark.parametrize("python", ["no-such-python", None])
def test_a_python_without_tflite_runtime_is_a_reason(tiny, tmp_path, python):
    made = parity([tiny.write(tmp_path, "fp32.tflite")], images=1, tflite_runtime=python and tmp_path / python)
    (one,) = made.absent
    assert (one.variant, "tflite-runtime" in one.reason) == ("tflite-runtime ×1", True)


def test_a_run_and_other_images_at_once_are_refused(files):
    with pytest.raises(UsageError, match="--run and --data"):
        parity(files, run=Path("run"), data=Path("data"))
    with pytest.raises(UsageError, match="--images 0"):
        parity(files, images=0)


def test_a_damaged_artifact_is_an_error_not_a_missing_engine(files):
    data = files[0].read_bytes()
    files[0].write_bytes(data[:-40])
    with pytest.raises(ModelError):
        parity(files, images=1)


def test_synthetic_images_begin_with_the_golden_input_and_are_all_different(tiny, tmp_path):
    artifact = read_artifact(tiny.write(tmp_path, "fp32.tflite"))
    golden = artifact.manifest.golden
    pixels = synthetic_images(artifact, 32).pixels
    assert (pixels.shape, pixels.dtype) == ((32, *tiny.shape), np.uint8)
    np.testing.assert_array_equal(pixels[0], golden_input(golden.generator, golden.seed, tiny.shape))
    assert len({one.tobytes() for one in pixels}) == 32


_values = arrays(np.float32, (3, 4), elements=st.floats(-1e3, 1e3, width=32))


@given(_values, _values, st.sampled_from([0.25, 2.0, 64.0]))
def test_the_relative_error_is_0_for_equal_layers_alone_and_does_not_depend_on_their_scale(first, second, factor):
    assert relative_error(first, first) == 0
    error = relative_error(first, second)
    assert (error == 0) == bool((first == second).all())
    if np.abs(first[first != 0]).min(initial=1) > 1e-20:
        assert relative_error(first * factor, second * factor) == pytest.approx(error, rel=1e-6)


def test_a_layer_of_nans_diverges(tiny, image):
    sound = tiny.model("fp32.onnx")
    proto = onnx.load_from_string(sound)
    (tensor,) = (one for one in proto.graph.initializer if one.name == "dense_bias")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.nan, np.float32), tensor.name))
    found = first_divergence(network(sound, "onnx"), network(proto.SerializeToString(), "onnx"), image, tolerance=1e9)
    assert found.kind == "Gemm"


def _documented(page: str) -> set[tuple[str, ...]]:
    return {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in page.splitlines() if line[:1] == "|"}


def test_the_reference_shows_every_bound_of_the_table():
    rows = _documented((ROOT / "docs" / "reference" / "parity.md").read_text(encoding="utf-8"))
    shown = {(cells[0], cells[1]): cells for cells in rows}
    for scheme in get_args(Scheme):
        for container in get_args(Container):
            if (container, scheme) == ("onnx", "w8a16"):
                continue
            for pairing, first in (("kernels", f".{container}, same file"), ("keras", "Keras")):
                bound = bound_of(pairing, container, scheme)
                cells = shown[first, f"`{scheme}`"]
                assert cells[2:5] == (f"{bound.max_error:g}", f"{bound.distance:g}", f"{bound.layer:g}")
                assert cells[5] == bound.reason


def test_the_reference_names_every_field_of_the_json(files):
    page = (ROOT / "docs" / "reference" / "parity.md").read_text(encoding="utf-8")
    made = parity(files[:1], images=1).to_json()
    names = {*made, *made["pairs"][0], *made["pairs"][0]["bound"], *made["absent"][0]}
    assert not [name for name in names if not re.search(rf"`{name}`|\"{name}\"", page)]


def test_the_command_opens_no_framework():
    code = "import sys, edgeclf.evaluation.parity; print({'tensorflow', 'keras', 'torch'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
