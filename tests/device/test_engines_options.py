"""What can be chosen of an engine changes how it calculates, never what the model is; nothing is taken instead."""

from __future__ import annotations

import shutil
import subprocess
import sys
import types

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
    open_engine,
)
from edgeclf_device.golden import GENERATOR, golden_input


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
    """Azure's provider is in the stock wheel and executes remote models alone."""
    onnxruntime = pytest.importorskip("onnxruntime")
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("no provider is here beside the CPU's")
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("this ONNX Runtime does not tell which provider executes what")
    with pytest.raises(DependencyError, match="takes no node of this model"):
        with_provider(tiny, "AzureExecutionProvider")
    with pytest.raises(ModelError, match="refuses the model"):
        with_provider(tiny, "AzureExecutionProvider", model=b"no model")


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
        if made is not None and providers != ["CPUExecutionProvider"]:
            raise made
        return session(model, settings, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", create)
    with pytest.raises(DependencyError, match=f"{message}.*onnxruntime-gpu in place of onnxruntime"):
        with_provider(tiny, "cuda")
