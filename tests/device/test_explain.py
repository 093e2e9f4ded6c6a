from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from edgeclf_device.errors import ModelError, UsageError
from edgeclf_device.explain import (
    Facts,
    Operator,
    Profile,
    explain,
    explanation_lines,
    fp32_sibling,
    instruction_sets,
    litert_times,
    why_int8_is_slow,
)
from edgeclf_device.explain.lines import COLUMNS, _operators
from edgeclf_device.explain.observe import verdict
from edgeclf_device.explain.processor import busy_ticks, family_of
from edgeclf_device.explain.profile_onnx import numbers_of as onnx_numbers
from edgeclf_device.explain.profile_onnx import read_events
from edgeclf_device.explain.profile_tflite import delegated_nodes
from edgeclf_device.explain.profile_tflite import numbers_of as tflite_numbers

SHORT = 0.02
GOOD = Facts(
    family="x86",
    instruction_sets=frozenset({"avx2", "fma", "avx512_vnni"}),
    engine="onnxruntime",
    options={},
    scheme="w8a8",
    operators=27,
    integer=16,
    dynamic=0,
    real=0,
    rounding=2,
    rounding_in_file=77,
    rounding_share=0.02,
    delegated=None,
    partitions=0,
    left_over={},
    left_over_share=None,
    activations=frozenset({"uint8"}),
    threads=2,
    effective_threads=1.8,
    others=0.0,
    cores=4,
)


def why(**changes: object) -> str:
    return "\n".join(why_int8_is_slow(dataclasses.replace(GOOD, **changes)))


def text(explanation) -> str:
    return " ".join(" ".join(explanation_lines(explanation)).split())


# ---------------------------------------------------------------------------------------------- real artifacts


def test_every_artifact_is_explained_in_lines_that_fit_and_in_json(runnable, kind):
    found = explain(runnable, threads=1, seconds=SHORT)
    assert found.scheme == kind.split(".")[0]
    assert found.median_ms > 0
    assert 0 < found.effective_threads < 1.5
    lines = list(explanation_lines(found))
    assert max(map(len, lines)) <= COLUMNS
    assert lines[0].startswith(f"tiny-{kind}: ")
    value = json.loads(json.dumps(found.to_json()))
    assert value["format"] == [1, 1]
    assert sum(value["placement"].values()) == len(value["profile"]["operators"])
    assert sum(one["nodes"] for one in value["kinds"]) == len(value["profile"]["operators"])


def test_the_convolution_and_the_dense_layer_are_seen_to_multiply(runnable, kind):
    numbers = [one.numbers for one in explain(runnable, threads=1, seconds=SHORT).profile.operators]
    assert sorted(one for one in numbers if one != "none") == ["integer" if kind == "w8a8.tflite" else "float"] * 2


def test_onnxruntime_times_every_operator_and_the_times_add_up_to_less_than_a_run(tiny, tmp_path):
    tiny.need_engine("fp32.onnx")
    profile = explain(tiny.write(tmp_path, "fp32.onnx"), threads=1, seconds=SHORT).profile
    times = [one.mean_ms for one in profile.operators]
    assert profile.runs >= 5
    assert None not in times
    assert 0 < sum(times) <= profile.run_ms
    assert {one.provider for one in profile.operators} == {"CPUExecutionProvider"}


def test_a_profile_leaves_no_file_behind(tiny, tmp_path, monkeypatch):
    tiny.need_engine("fp32.onnx")
    path = tiny.write(tmp_path, "fp32.onnx")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    explain(path, threads=1, seconds=SHORT)
    assert list(elsewhere.iterdir()) == []


def test_litert_times_its_own_operators_and_those_inside_delegates_or_says_that_it_can_t(tiny, tmp_path):
    pytest.importorskip("ai_edge_litert")
    found = explain(tiny.write(tmp_path, "fp32.tflite"), engine="litert", threads=1, seconds=SHORT)
    if found.profile.runs:
        assert [one.kind for one in found.profile.operators if one.mean_ms is not None] == ["CAST"]
        assert any("Convolution" in one.kind for one in found.profile.inside)
        assert "LiteRT's CompiledModel in a process of its own" in text(found)
    else:
        assert "gives no times of single operators" in text(found)


def test_litert_s_missing_operator_times_are_said_aloud(tiny, tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setattr(
        litert_times, "_PROGRAM", "import ctypes; ctypes.string_at(0)"
    )  # dies as a changed function does
    found = explain(tiny.write(tmp_path, "fp32.tflite"), engine="litert", threads=1, seconds=SHORT)
    assert found.profile.runs == 0
    assert all(one.mean_ms is None for one in found.profile.operators)
    assert "gives no times of single operators" in text(found)


def test_times_of_other_operators_than_the_interpreter_s_are_not_believed(tiny, tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    times = litert_times.Times(builtin={0: ("CAST", 0.1), 1: ("CONV_2D", 0.2)}, delegate={})
    monkeypatch.setattr("edgeclf_device.explain.observe.litert_times", lambda *_, **__: times)
    found = explain(tiny.write(tmp_path, "fp32.tflite"), engine="litert", threads=1, seconds=SHORT)
    assert found.profile.runs == 0
    assert found.profile.whole_ms is None


def test_what_xnnpack_took_and_what_it_left_is_named(tiny, tmp_path):
    pytest.importorskip("ai_edge_litert")
    found = explain(tiny.write(tmp_path, "w8a8.tflite"), engine="litert", threads=1, seconds=SHORT)
    left = {one.kind for one in found.profile.operators if one.provider == "engine"}
    taken = {one.kind for one in found.profile.operators if one.provider == "delegate"}
    assert {"CONV_2D", "FULLY_CONNECTED"} <= taken
    assert "CAST" in left
    assert found.profile.partitions == 1
    assert f"delegates took {found.profile.delegated} in 1 part, the interpreter keeps" in text(found)


def test_with_kernels_builtin_it_is_said_aloud_that_nothing_is_delegated(tiny, tmp_path):
    pytest.importorskip("ai_edge_litert")
    path = tiny.write(tmp_path, "w8a8.tflite")
    found = explain(path, engine="litert", threads=1, options={"kernels": "builtin"}, seconds=SHORT)
    assert found.profile.delegated == found.profile.partitions == 0
    assert "No operator is delegated" in found.causes[0]
    assert "kernels=builtin does that: leave it out" in found.causes[0]
    assert "nothing is delegated" in text(found)


def test_an_onnx_file_that_only_calls_itself_w8a8_is_found_out(tiny, tmp_path):
    tiny.need_engine("w8a8.onnx")
    found = explain(tiny.write(tmp_path, "w8a8.onnx"), threads=1, seconds=SHORT)
    assert found.profile.rounding_in_file == 1
    assert "the network in the file is not quantized" in found.causes[0]


def test_without_optimization_the_unfused_qdq_of_a_quantized_network_is_named(tiny, tmp_path):
    tiny.need_engine("w8a8.onnx")
    path = quantized(tiny, tmp_path)
    fused = explain(path, threads=1, seconds=SHORT)
    assert any(one.numbers == "integer" for one in fused.profile.operators)
    unfused = explain(path, threads=1, options={"optimization": "disabled"}, seconds=SHORT)
    assert not any(one.numbers == "integer" for one in unfused.profile.operators)
    assert fused.profile.rounding_in_file == unfused.profile.rounding_in_file > 5
    assert rounding(fused) < rounding(unfused) == unfused.profile.rounding_in_file
    assert "unfused QDQ" in text(unfused)
    assert "optimization=disabled keeps ONNX Runtime from fusing them" in text(unfused)


def rounding(explanation) -> int:
    return sum(one.kind in ("QuantizeLinear", "DequantizeLinear") for one in explanation.profile.operators)


def quantized(tiny, folder):
    """The tiny network with QuantizeLinear and DequantizeLinear round every operator, as an artifact."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(tiny.model("w8a8.onnx"))
    old, nodes = list(model.graph.node), []
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    extra = {
        "qdq_scale": np.float32(0.05),
        "qdq_zero": np.uint8(0),
        "w_scale": np.float32(0.05),
        "w_zero": np.int8(0),
    }
    extra["one_scale"], extra["zero_point"] = np.float32(0.05 * 0.05), np.int32(0)
    renamed = {}
    for node in old:
        inputs = [renamed.get(name, name) for name in node.input]
        if node.op_type in ("Conv", "Gemm"):
            for place, kind, scale in ((1, "w", 0.05), (2, "one", 0.05 * 0.05)):
                name, values = node.input[place], constants[node.input[place]]
                dtype = np.int8 if place == 1 else np.int32
                limit = 127 if place == 1 else 2**30
                extra[f"{name}_q"] = np.clip(np.rint(values / scale), -limit, limit).astype(dtype)
                zero = "w_zero" if place == 1 else "zero_point"
                nodes.append(
                    onnx.helper.make_node("DequantizeLinear", [f"{name}_q", f"{kind}_scale", zero], [f"{name}_dq"])
                )
                inputs[place] = f"{name}_dq"
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend(inputs)
        nodes.append(copy)
        if node.op_type not in ("Cast", "Mul", "Conv", "QuantizeLinear"):
            name = node.output[0]
            scale = ["qdq_scale", "qdq_zero"]
            nodes.append(onnx.helper.make_node("QuantizeLinear", [name, *scale], [f"{name}_q"]))
            nodes.append(onnx.helper.make_node("DequantizeLinear", [f"{name}_q", *scale], [f"{name}_dq"]))
            renamed[name] = f"{name}_dq"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in extra.items())
    onnx.checker.check_model(model)
    path = folder / "quantized-w8a8.onnx"
    from edgeclf_device import write_artifact

    write_artifact(path, model.SerializeToString(), tiny.manifest("w8a8.onnx"))
    return path


def test_in_a_bundle_int8_is_measured_in_turn_with_fp32_of_its_container(tiny, bundle):
    tiny.need_engine("w8a8.tflite")
    assert fp32_sibling(bundle / "tiny-w8a8.tflite") == bundle / "tiny-fp32.tflite"
    assert fp32_sibling(bundle / "tiny-fp32.tflite") is None
    found = explain(bundle / "tiny-w8a8.tflite", threads=1, seconds=SHORT)
    assert found.comparison.artifact == "tiny-fp32.tflite"
    assert f"w8a8 is {found.comparison.verdict}: " in text(found)


def test_an_artifact_by_itself_is_compared_with_the_one_named(tiny, tmp_path):
    tiny.need_engine("w8a8.tflite")
    mine, other = tiny.write(tmp_path, "w8a8.tflite"), tiny.write(tmp_path, "fp32.tflite")
    assert explain(mine, threads=1, seconds=SHORT).comparison is None
    assert explain(mine, threads=1, seconds=SHORT, against=other).comparison.artifact == other.name
    with pytest.raises(ModelError, match=r"compared with an fp32 artifact, but .* is w8a8"):
        explain(mine, threads=1, seconds=SHORT, against=mine)


def test_fp32_is_not_blamed_for_being_slow_int8(tiny, tmp_path):
    pytest.importorskip("ai_edge_litert")  # whose option kernels is
    found = explain(tiny.write(tmp_path, "fp32.tflite"), threads=1, options={"kernels": "builtin"}, seconds=SHORT)
    assert found.causes == ()
    assert "int8 back" not in text(found)


def test_a_duration_must_be_positive(some_artifact):
    with pytest.raises(UsageError, match="seconds above 0"):
        explain(some_artifact, seconds=0)


# ------------------------------------------------------------------------------------------------ pure functions


def test_nothing_is_found_where_nothing_holds_int8_back():
    assert why() == ""


def test_rounding_operators_that_were_not_fused_are_a_cause_with_their_share_of_the_time():
    found = why(
        rounding=77, operators=99, rounding_share=0.41, integer=0, real=16, options={"optimization": "disabled"}
    )
    assert "All 16 convolutions and matrix products compute in float" in found
    assert "77 of 99 operators executed only quantize or dequantize, and they take 41% of the time" in found
    assert "optimization=disabled" in found


def test_few_rounding_operators_are_a_cause_only_if_they_take_much_time():
    assert why(rounding=3, rounding_share=0.02) == ""
    assert "they take 30% of the time" in why(rounding=3, rounding_share=0.3)


def test_delegation_in_many_parts_is_a_cause_that_names_what_is_left():
    left = {"HARD_SWISH": 9, "CAST": 1}
    found = why(engine="litert", delegated=40, operators=50, partitions=9, left_over=left, rounding_share=None)
    assert "Delegates take 40 of 50 operators in 9 parts" in found
    assert "9 HARD_SWISH, 1 CAST" in found


def test_what_is_left_over_counts_by_its_time_where_that_is_known():
    left = {"HARD_SWISH": 19, "CAST": 1}
    few = {"engine": "litert", "delegated": 92, "operators": 112, "partitions": 20, "left_over": left}
    assert "which take 76% of the time" in why(**few, left_over_share=0.76)
    assert why(**few, left_over_share=0.01) == ""


def test_delegation_of_nearly_all_in_one_part_is_no_cause():
    assert why(engine="litert", delegated=47, operators=50, partitions=1, left_over={"CAST": 3}) == ""


def test_signed_activations_are_a_cause_on_x86_with_onnxruntime_alone():
    signed = frozenset({"int8"})
    arm = {"family": "arm", "instruction_sets": frozenset({"asimd", "asimddp"})}
    assert "S8S8" in why(activations=signed)
    assert why(activations=signed, **arm) == ""
    assert why(activations=signed, engine="litert", delegated=27, partitions=1) == ""


def test_a_processor_without_byte_products_is_a_cause_and_an_unknown_one_is_not():
    assert "none of avx512_vnni, avx_vnni, amx_int8" in why(instruction_sets=frozenset({"avx2", "fma"}))
    assert "neither asimddp nor i8mm" in why(family="arm", instruction_sets=frozenset({"asimd"}))
    assert why(instruction_sets=None) == ""
    assert why(family="other", instruction_sets=frozenset()) == ""


def test_threads_that_do_not_work_and_threads_without_a_core_are_causes():
    assert "Of 4 threads 1.3 are at work" in why(threads=4, effective_threads=1.3)
    assert "8 threads share 4 cores" in why(threads=8, effective_threads=3.9)
    assert why(threads=1, effective_threads=0.5) == ""


def test_threads_are_not_blamed_while_other_programs_have_the_cores():
    found = why(threads=4, effective_threads=1.3, others=2.2)
    assert "other programs keep 2.2 of 4 cores busy: measure again without them" in found
    assert "Try fewer threads" not in found
    assert "Try fewer threads" in why(threads=2, effective_threads=1.0, others=1.5)


def test_the_work_of_the_cores_that_count_is_summed_from_the_kernel_s_ticks():
    stat = "cpu  99 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 400 500 6 7 8 0 0\ncpu1 10 0 0 1 1 0 0 0 0 0\nintr 5 6\n"
    assert busy_ticks(stat, {0}) == 27
    assert busy_ticks(stat, {0, 1}) == 37
    assert busy_ticks("", {0}) == 0


def test_instruction_sets_are_read_as_the_kernel_spells_them():
    x86 = instruction_sets("processor : 0\nflags\t\t: fpu avx2 fma avx512f avx512_vnni\n", "x86")
    assert [one.name for one in x86 if one.present] == ["avx2", "fma", "avx512f", "avx512_vnni"]
    arm = instruction_sets("Features\t: fp asimd evtstrm asimdhp asimddp\nCPU part\t: 0xd0b\n", "arm")
    assert [one.name for one in arm if one.present] == ["asimd", "asimddp", "asimdhp"]
    assert [one.name for one in instruction_sets("Features : half neon vfpv4", "arm") if one.present] == ["asimd"]


def test_only_what_all_cores_have_counts():
    mixed = "Features : asimd asimddp\n\nFeatures : asimd\n"
    assert [one.name for one in instruction_sets(mixed, "arm") if one.present] == ["asimd"]


def test_where_the_system_does_not_tell_instruction_sets_are_unknown():
    assert instruction_sets("", "x86") is None
    assert instruction_sets("model name : x\n", "arm") is None
    assert instruction_sets("isa : rv64imafdc\n", "other") is None


@pytest.mark.parametrize(
    ("machine", "family"),
    [("x86_64", "x86"), ("AMD64", "x86"), ("aarch64", "arm"), ("arm64", "arm"), ("riscv64", "other")],
)
def test_machines_have_families(machine, family):
    assert family_of(machine) == family


def node(name, outputs, inputs):
    return {"op_name": name, "outputs": np.array(outputs), "inputs": np.array(inputs)}


def test_the_operators_between_a_part_s_ends_are_delegated_and_no_others():
    nodes = [node("CAST", [1], [0]), node("CONV_2D", [2], [1, 9]), node("ADD", [3], [2, 1]), node("SOFTMAX", [4], [3])]
    assert delegated_nodes(nodes) == set()
    assert delegated_nodes([*nodes, node("DELEGATE", [3], [1, 9])]) == {1, 2}
    assert delegated_nodes([*nodes, node("DELEGATE", [2], [1, 9]), node("DELEGATE", [4], [3])]) == {1, 3}


def event(category, name, begin, duration, **args):
    return {"cat": category, "name": name, "ts": begin, "dur": duration, "args": args}


def test_a_kind_s_time_is_that_of_its_timed_operators():
    def operator(mean_ms):
        provider = "delegate" if mean_ms is None else "engine"
        return Operator(name="", kind="ADD", provider=provider, numbers="none", activations="int8", mean_ms=mean_ms)

    def profile(*times):
        operators = tuple(map(operator, times))
        return Profile(operators=operators, inside=(), runs=9, run_ms=None, partitions=1, rounding_in_file=0, notes=())

    (kind,) = profile(0.25, None, 0.5).kinds
    assert (kind.nodes, kind.delegated, kind.mean_ms) == (3, 1, 0.75)
    assert profile(None).kinds[0].mean_ms is None


SUMMARY = """
==== Run Order ====
      [node type]  [start]  [first]  [avg ms]     [%]   [cdf%]  [mem KB] [times called]  [Name]
             CAST    0.000    0.003     0.003  0.195%   0.195%     0.000            20   [Builtin]:0
Delegate/Mean (ND)   0.000    0.030     0.010  6.514%  61.087%     0.000            40   [Delegate]:1
       HARD_SWISH    0.123    0.129     0.131  9.935%  14.762%     0.000            20   [Builtin]:5

==== Top by Computation Time ====
       HARD_SWISH    0.123    0.129     9.999  9.935%  14.762%     0.000            20   [Builtin]:5

==== Delegate Statistics ====
Op Name                          Count    Avg(us)    Min(us)    Max(us)  Total(us)
Delegate/Mean (ND)                  40       7.95          0         51       318
Delegate/Fully Connected (NC, QS8, QC8W) GEMM   20   10.27   0   67   206

Timings (microseconds): count=47 curr=131193
"""


def test_litert_s_summary_is_read_by_run():
    times = litert_times.read_summary(SUMMARY, 20)
    assert times.builtin == {0: ("CAST", 0.003), 5: ("HARD_SWISH", 0.131)}
    assert times.delegate == {"Mean (ND)": (2, 0.0159), "Fully Connected (NC, QS8, QC8W) GEMM": (1, 0.0103)}


def test_a_summary_that_misses_runs_or_holds_nothing_gives_no_times():
    assert litert_times.read_summary(SUMMARY, 21) is None
    assert litert_times.read_summary("", 20) is None


def test_runs_for_warm_up_do_not_count_in_a_profile():
    def run(begin, duration):
        args = {"op_name": "QLinearConv", "provider": "CPUExecutionProvider", "node_index": "3"}
        return [
            event(
                "Node", "conv_kernel_time", begin + 1, duration, **args, input_type_shape=[{"int8": [1]}, {"float": []}]
            ),
            event("Session", "model_run", begin, duration + 10),
        ]

    start = [event("Session", "session_initialization", 0, 9)]
    (operator,), run_ms, runs = read_events([*start, *run(100, 9000), *run(10000, 20), *run(20000, 40)], warmup=1)
    assert (operator.mean_ms, run_ms, runs) == (0.03, 0.04, 2)
    assert (operator.name, operator.numbers, operator.activations) == ("conv", "integer", "int8")


def test_what_executes_each_operator_is_counted_and_said():
    def node(begin, name, provider):
        return event("Node", f"{name}_kernel_time", begin, 5, op_name="Conv", provider=f"{provider}ExecutionProvider")

    run = event("Session", "model_run", 0, 100)
    operators, _, _ = read_events([run, node(1, "a", "CPU"), node(20, "b", "CUDA"), node(40, "c", "CUDA")], warmup=0)
    found = Profile(operators=operators, inside=(), runs=1, run_ms=0.1, partitions=None, rounding_in_file=0, notes=())
    assert found.placement == (("CUDAExecutionProvider", 2), ("CPUExecutionProvider", 1))
    assert "executed by CUDA 2, CPU 1" in _operators(found)


def test_operators_multiply_what_their_kinds_and_dtypes_say():
    assert tflite_numbers("CONV_2D", ["int8", "int8", "int32"]) == "integer"
    assert tflite_numbers("FULLY_CONNECTED", ["float32", "int8", "float32"]) == "dynamic"
    assert tflite_numbers("CONV_2D", ["float32", "float32", "float32"]) == "float"
    assert tflite_numbers("TRANSPOSE_CONV", ["int32", "int8", "int8"]) == "integer"
    assert tflite_numbers("ADD", ["int8", "int8"]) == "none"
    assert [onnx_numbers(one) for one in ("QGemm", "ConvInteger", "FusedConv", "Relu")] == [
        "integer",
        "dynamic",
        "float",
        "none",
    ]


def test_a_verdict_needs_medians_whose_intervals_lie_apart():
    fast = np.random.default_rng(0).integers(1000, 1100, 100)
    slow = fast + 1000
    assert verdict(fast, slow) == "faster"
    assert verdict(slow, fast) == "slower"
    assert verdict(fast, fast) == "undecided"
    assert verdict(fast[:2], slow[:2]) == "undecided"
