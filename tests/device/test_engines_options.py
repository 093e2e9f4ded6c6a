"""What can be chosen of an engine changes how it calculates, never what the model is; nothing is taken instead."""

from __future__ import annotations

import shutil
import subprocess
import sys
import types
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import pytest

from edgeclf_device import DependencyError, ModelError, UsageError
from edgeclf_device.engines import (
    ENGINES_OF,
    MODULES,
    OPTIONS,
    PACKAGES,
    chosen_options,
    install_command,
    installed_engine,
    onnx_providers,
    open_engine,
)
from edgeclf_device.engines.onnxruntime import open_session
from edgeclf_device.golden import GENERATOR, golden_input

AZURE = "AzureExecutionProvider"
"""A provider in the stock wheel: it executes remote models alone."""


@pytest.mark.parametrize(
    ("engine", "kind", "option", "value"),
    [
        (engine, f"{scheme}.{container}", option, value)
        for container, engines in ENGINES_OF.items()
        for engine in engines
        for option, choice in OPTIONS[engine].items()
        for value in choice.values
        if value not in ("cuda", "tensorrt")
        for scheme in ("fp32", "w8a8")
    ],
)
def test_every_value_of_every_option_gives_the_scores_of_the_default(tiny, engine, kind, option, value):
    pytest.importorskip(PACKAGES[engine])
    container, model = kind.split(".")[1], tiny.model(kind)
    image = golden_input(GENERATOR, 3, (1, *tiny.shape))
    expected = open_engine(model, container, engine=engine).run(image).astype(np.float64)
    found = open_engine(model, container, engine=engine, options={option: value}).run(image)
    assert np.abs(found - expected).max() <= (1 if kind.startswith("w8a8") else 1e-6)


def test_the_kernels_are_really_exchanged(tiny):
    """Otherwise an option that reaches nobody would pass: LiteRT sums floats in another order without XNNPACK."""
    pytest.importorskip("ai_edge_litert")
    images = [golden_input(GENERATOR, seed, (1, *tiny.shape)) for seed in range(20)]
    engines = [
        open_engine(tiny.model("fp32.tflite"), "tflite", options={"kernels": one}) for one in ("xnnpack", "reference")
    ]
    assert any((engines[0].run(image) != engines[1].run(image)).any() for image in images)


@pytest.mark.parametrize("options", [{"kernels": "fast"}, {"optimization": "all"}, {"": ""}, {"delegate": ""}])
def test_an_unknown_option_is_refused_with_those_there_are(options):
    with pytest.raises(UsageError, match="kernels = xnnpack, builtin, reference; delegate = none, a library's path"):
        chosen_options("litert", options)


def test_what_is_not_chosen_has_its_default():
    assert chosen_options("onnxruntime", {}) == {"optimization": "all", "provider": "cpu"}
    assert chosen_options("litert", {"kernels": "builtin"}) == {"kernels": "builtin", "delegate": "none"}
    assert chosen_options("tflite-runtime", {"delegate": "x.so"}) == {"delegate": "x.so"}


def test_every_engine_has_a_module_a_package_options_and_a_container():
    assert (
        MODULES.keys() == PACKAGES.keys() == OPTIONS.keys() == {name for some in ENGINES_OF.values() for name in some}
    )


def test_the_preferred_installed_engine_is_taken(tiny, kind):
    tiny.need_engine(kind)
    container = kind.split(".")[1]
    assert open_engine(tiny.model(kind), container).name == installed_engine(container)


# Delegates


@pytest.fixture(params=["litert", "tflite-runtime"])
def tflite_engine(request):
    pytest.importorskip(PACKAGES[request.param])
    return request.param


@pytest.fixture
def library(tmp_path):
    """Compile C to a shared library."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")

    def build(code):
        (tmp_path / "delegate.c").write_text(code)
        command = [compiler, "-shared", "-fPIC", "-o", tmp_path / "delegate.so", tmp_path / "delegate.c"]
        subprocess.run(command, check=True)
        return str(tmp_path / "delegate.so")

    return build


# A delegate as tensorflow/lite/core/c/common.h declares it: what an interpreter reads of it, by layout.
DELEGATE = """
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct Delegate Delegate;
typedef struct { int size; int data[]; } Ints;
typedef struct { Ints *inputs, *outputs; } Node;
typedef struct { int type; void *data; } Tensor;
typedef struct {
  void *(*init)(void *context, const char *buffer, size_t length);
  void (*free)(void *context, void *buffer);
  int (*prepare)(void *context, Node *node);
  int (*invoke)(void *context, Node *node);
  const char *(*profiling_string)(const void *context, const Node *node);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *more[8];
} Registration;
typedef struct Context {
  size_t tensors_size;
  int (*GetExecutionPlan)(struct Context *, Ints **plan);
  void *tensors;
  void *impl;
  void *ResizeTensor, *ReportError, *AddTensors, *GetNodeAndRegistration;
  int (*ReplaceNodeSubsetsWithDelegateKernels)(struct Context *, Registration, const Ints *nodes, Delegate *);
} Context;
struct Delegate {
  void *data;
  int (*Prepare)(Context *, Delegate *);
  void *from, *to, *release;
  int64_t flags;
  void *opaque;
};

static int nothing(Context *context, Delegate *self) { return 0; }
static int refusal(Context *context, Delegate *self) { return 1; }
static int quiet(void *context, Node *node) { return 0; }
static int all(Context *context, Delegate *self) {
  Ints *plan;
  Registration kernel = {.prepare = quiet, .invoke = quiet, .custom_name = "Idle", .version = 1};
  if (context->GetExecutionPlan(context, &plan)) return 1;
  Ints *nodes = malloc(sizeof(Ints) + plan->size * sizeof(int));
  nodes->size = plan->size;
  for (int i = 0; i < plan->size; i++) nodes->data[i] = plan->data[i];
  int status = context->ReplaceNodeSubsetsWithDelegateKernels(context, kernel, nodes, self);
  free(nodes);
  return status;
}

static Delegate delegate;
void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  delegate.Prepare = PREPARE;
  if (!delegate.Prepare) { report("no device is connected"); return NULL; }
  return &delegate;
}
void tflite_plugin_destroy_delegate(void *delegate) {}
"""


def delegated(tiny, engine, path, kind="fp32.tflite"):
    return open_engine(tiny.model(kind), "tflite", engine=engine, options={"delegate": path})


def test_a_delegate_that_takes_the_model_executes_it(tiny, tflite_engine, library):
    """The kernel of this one does nothing: the scores of the real kernels, a distribution, can't come out."""
    engine = delegated(tiny, tflite_engine, library(DELEGATE.replace("PREPARE", "all")))
    scores = engine.run(golden_input(GENERATOR, 3, (1, *tiny.shape)))
    expected = open_engine(tiny.model("fp32.tflite"), "tflite", engine=tflite_engine)
    assert not np.allclose(scores, expected.run(golden_input(GENERATOR, 3, (1, *tiny.shape))))


def test_a_delegate_that_takes_nothing_is_refused(tiny, tflite_engine, library):
    with pytest.raises(ModelError, match="takes none of its"):
        delegated(tiny, tflite_engine, library(DELEGATE.replace("PREPARE", "nothing")))


def test_a_delegate_that_refuses_the_model_is_told(tiny, tflite_engine, library):
    with pytest.raises(ModelError, match="must take the model"):
        delegated(tiny, tflite_engine, library(DELEGATE.replace("PREPARE", "refusal")))


def test_a_delegate_without_its_device_is_a_missing_dependency(tiny, tflite_engine, library):
    with pytest.raises(DependencyError, match="no device is connected"):
        delegated(tiny, tflite_engine, library(DELEGATE.replace("PREPARE", "NULL")))


def test_a_library_that_is_no_delegate_is_refused(tiny, tflite_engine, library, capfd):
    with pytest.raises(DependencyError, match="has no tflite_plugin_create_delegate"):
        delegated(tiny, tflite_engine, library("int something;"))
    assert "Exception ignored" not in capfd.readouterr().err


def test_a_delegate_that_is_not_there_or_no_library_is_refused(tiny, tflite_engine, tmp_path, capfd):
    (tmp_path / "text.so").write_text("no library")
    for path, message in (("libnowhere.so.1", "No such file"), (str(tmp_path / "text.so"), "text.so")):
        with pytest.raises(DependencyError, match=message):
            delegated(tiny, tflite_engine, path)
    assert "Exception ignored" not in capfd.readouterr().err


# tflite-runtime


def test_tflite_runtime_under_numpy_2_is_a_missing_dependency(tiny, monkeypatch):
    if np.__version__.startswith("1."):
        pytest.skip("this is NumPy 1")
    module = types.ModuleType("tflite_runtime.interpreter")
    module.Interpreter = module.load_delegate = None
    monkeypatch.setitem(sys.modules, "tflite_runtime", types.ModuleType("tflite_runtime"))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", module)
    with pytest.raises(DependencyError, match=r"needs NumPy 1, but NumPy 2.*numpy<2"):
        open_engine(tiny.model("fp32.tflite"), "tflite", engine="tflite-runtime")


def test_tflite_runtime_that_is_not_installed_is_named_with_its_own_command(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    with pytest.raises(DependencyError, match=r"tflite-runtime==2\.14\.0"):
        open_engine(tiny.model("fp32.tflite"), "tflite", engine="tflite-runtime")
    assert install_command("litert") == 'pip install "edgeclf-device[litert]"'


def test_operators_too_new_for_an_engine_are_named(tiny, monkeypatch):
    """What tflite-runtime 2.14.0 says of a dynamic-range file."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")

    def refuse(**_):
        raise ValueError(
            "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'. An older version of this builtin might "
            "be supported. Are you using an old TFLite binary with a newer model?\nRegistration failed.\n"
        )

    monkeypatch.setattr(interpreter, "Interpreter", refuse)
    with pytest.raises(ModelError, match=r"too old for FULLY_CONNECTED of version 12.*run a w8a8 or fp32 file"):
        open_engine(tiny.model("fp32.tflite"), "tflite", engine="litert")


# Providers of ONNX Runtime


def with_provider(tiny, name, model=None):
    return open_engine(model or tiny.model("fp32.onnx"), "onnx", options={"provider": name})


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "CUDAExecutionProvider"])
def test_a_gpu_that_is_asked_for_and_absent_is_an_error(tiny, name, capfd):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime is built for GPUs")
    with pytest.raises(DependencyError, match=f"provider {name} must work here.*CPUExecutionProvider alone"):
        with_provider(tiny, name)
    assert "Falling back" not in capfd.readouterr().out


def test_the_cpu_has_two_names(tiny):
    pytest.importorskip("onnxruntime")
    image = golden_input(GENERATOR, 3, (1, *tiny.shape))
    assert np.array_equal(with_provider(tiny, "CPUExecutionProvider").run(image), with_provider(tiny, "cpu").run(image))


def test_a_provider_that_onnx_runtime_does_not_know_is_a_usage_error(tiny):
    pytest.importorskip("onnxruntime")
    with pytest.raises(UsageError, match=r"CUDAExecutionProvider.*'gpu'"):
        with_provider(tiny, "gpu")


def test_a_provider_that_takes_no_node_is_refused(tiny):
    azure_that_tells()
    for name in (AZURE, f"{AZURE}+cpu"):
        with pytest.raises(DependencyError, match="takes no node of this model"):
            with_provider(tiny, name)
    with pytest.raises(ModelError, match="refuses the model"):
        with_provider(tiny, AZURE, model=b"no model")


def azure_that_tells():
    onnxruntime = pytest.importorskip("onnxruntime")
    if AZURE not in onnxruntime.get_available_providers():
        pytest.skip("no provider is here beside the CPU's")
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("this ONNX Runtime does not tell which provider executes what")


def test_what_a_provider_leaves_to_the_cpu_is_named_unless_the_cpu_was_asked_for(tiny, monkeypatch):
    """The session is a real one of the CPU's provider; told is that another one took all but two kinds of its nodes."""
    azure_that_tells()
    left = {"Softmax", "Cast"}
    everything = onnx_providers.assignment

    def told(session):
        return [("CPUExecutionProvider" if kind in left else AZURE, kind) for _, kind in everything(session)]

    monkeypatch.setattr(onnx_providers, "assignment", told)
    with pytest.raises(DependencyError, match=r"must take every node, but leaves 2 of \d+ to the CPU .*1 Cast"):
        with_provider(tiny, AZURE)
    image = golden_input(GENERATOR, 3, (1, *tiny.shape))
    partial = with_provider(tiny, f"{AZURE}+cpu")
    assert np.array_equal(partial.run(image), with_provider(tiny, "cpu").run(image))


@pytest.mark.parametrize(
    ("made", "message"),
    [(RuntimeError("no CUDA-capable device is detected"), "no CUDA-capable device"), (None, "load")],
)
def test_a_provider_that_fails_or_is_dropped_is_never_exchanged_for_the_cpu(tiny, monkeypatch, made, message):
    """As onnxruntime-gpu does it: without a driver, an exception, or a session that has the CPU's provider alone."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession

    def create(model, settings, *, providers, enable_fallback):
        assert not enable_fallback
        if made is not None and providers[0][0] != "CPUExecutionProvider":
            raise made
        settings.add_session_config_entry(onnx_providers.NO_CPU, "0")
        return session(model, settings, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", create)
    with pytest.raises(DependencyError, match=f"cuda must work.*{message}.*onnxruntime-gpu in place of onnxruntime"):
        with_provider(tiny, "cuda")


def test_where_no_graph_can_be_recorded_the_network_runs_without(tiny, monkeypatch):
    """As with TensorRT where CUDA takes a part: a session that is to record one is refused, any other is not."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session, asked_for = onnxruntime.InferenceSession, []

    def create(model, settings, *, providers, enable_fallback):
        asked_for.append(providers[0][1])
        if "enable_cuda_graph" in providers[0][1]:
            raise RuntimeError("This session cannot use the graph capture feature")
        settings.add_session_config_entry(onnx_providers.NO_CPU, "0")
        return session(model, settings, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", create)
    monkeypatch.setattr("edgeclf_device.engines.onnxruntime.require_used", lambda *_: None)
    opened = open_session(tiny.model("fp32.onnx"), 1, chosen_options("onnxruntime", {"provider": "cuda"}), capture=True)
    assert opened.get_inputs()
    assert asked_for == [{"enable_cuda_graph": "1"}, {}]


def told(text, model, *, capture=True):
    return dict(onnx_providers.providers_of(onnx_providers.asked(text), model, capture=capture))


def test_cuda_records_a_graph_where_it_has_the_network_to_itself(tiny):
    model = tiny.model("fp32.onnx")
    assert told("cuda", model) == {"CUDAExecutionProvider": {"enable_cuda_graph": "1"}}
    assert told("cuda", model, capture=False) == {"CUDAExecutionProvider": {}}
    assert list(told("cuda+cpu", model, capture=False)) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert told("cpu", model) == {"CPUExecutionProvider": {}}


def test_tensorrt_computes_in_the_precision_of_the_file_and_keeps_its_plan(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLF_STATE", str(tmp_path / "state"))
    plain, quantized = (told("tensorrt", tiny.model(f"{scheme}.onnx")) for scheme in ("fp32", "w8a8"))
    assert list(plain) == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    fp32, int8 = plain["TensorrtExecutionProvider"], quantized["TensorrtExecutionProvider"]
    assert fp32["trt_cuda_graph_enable"] == int8["trt_cuda_graph_enable"] == "1"
    assert "trt_int8_enable" not in fp32
    assert int8["trt_int8_enable"] == "1"
    assert Path(fp32["trt_engine_cache_path"]).is_dir()
    assert fp32["trt_engine_cache_path"] != int8["trt_engine_cache_path"]


def test_tensorrt_works_without_a_place_for_its_plan(tiny, tmp_path, monkeypatch):
    (tmp_path / "state").write_text("no folder")
    monkeypatch.setenv("EDGECLF_STATE", str(tmp_path / "state"))
    assert told("tensorrt", tiny.model("fp32.onnx"))["TensorrtExecutionProvider"] == {"trt_cuda_graph_enable": "1"}


# A device with memory of its own: the binding is tried in the processor's


@pytest.fixture
def bound(tiny):
    onnxruntime = pytest.importorskip("onnxruntime")
    from edgeclf_device.engines.onnx_device import OnnxDevice

    session = open_session(tiny.model("fp32.onnx"), 1, chosen_options("onnxruntime", {}))
    return OnnxDevice(session, onnxruntime.__version__, "cpu")


def test_a_binding_gives_the_bytes_of_a_plain_run_each_in_memory_of_its_own(tiny, bound):
    plain = with_provider(tiny, "cpu")
    images = [golden_input(GENERATOR, seed, (1, *tiny.shape)) for seed in (1, 2)]
    outputs = [bound.run(image) for image in images]
    for image, output in zip(images, outputs, strict=True):
        assert np.array_equal(output, plain.run(image))
    assert not np.array_equal(*outputs)


def test_the_first_run_is_over_when_a_binding_is_there_and_its_addresses_stay(tiny, bound):
    binding = bound._binding_for(1)
    bound.run(golden_input(GENERATOR, 1, (1, *tiny.shape)))
    assert bound._binding_for(1) is binding
    assert np.allclose(bound._binding_for(1).get().sum(), 1, atol=1e-5)


def test_transfer_is_told_apart_from_the_time_of_the_device(tiny, bound):
    assert bound.transfer_ns is None
    begin = perf_counter_ns()
    bound.run(golden_input(GENERATOR, 1, (1, *tiny.shape)))
    assert 0 < bound.transfer_ns < perf_counter_ns() - begin


def test_an_open_batch_is_bound_for_each_number_of_images(tiny):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from edgeclf_calibration.onnx_batch import dynamic_batch
    from edgeclf_device.engines.onnx_device import OnnxDevice

    model = dynamic_batch(tiny.model("fp32.onnx"))
    plain = with_provider(tiny, "cpu", model=model)
    session = open_session(model, 1, chosen_options("onnxruntime", {}))
    opened = OnnxDevice(session, onnxruntime.__version__, "cpu")
    for images in (3, 1, 3):
        batch = np.concatenate([golden_input(GENERATOR, seed, (1, *tiny.shape)) for seed in range(images)])
        assert np.array_equal(opened.run(batch), plain.run(batch))


def test_a_batch_of_another_shape_is_a_model_error(tiny, bound):
    with pytest.raises(ModelError, match="can't run the model"):
        bound.run(np.zeros((1, 2, 2, 3), np.uint8))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_gpu_answers_as_the_cpu_does(tiny, name):
    onnxruntime = pytest.importorskip("onnxruntime")
    if onnx_providers.NAMES[name] not in onnxruntime.get_available_providers():
        pytest.skip(f"this ONNX Runtime is not built with {name}")
    on_gpu, plain = with_provider(tiny, name), with_provider(tiny, "cpu")
    for seed in range(5):
        image = golden_input(GENERATOR, seed, (1, *tiny.shape))
        assert np.allclose(on_gpu.run(image), plain.run(image), atol=5e-3)  # TF32 has 10 bits of mantissa
        assert on_gpu.transfer_ns > 0
