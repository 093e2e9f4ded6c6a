"""ONNX Runtime's own profile: every operator of the optimized graph with its provider, dtypes and time.

Source: https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html. The file is a list of events with
``cat``, ``name``, ``ts`` and ``dur`` in whole microseconds: one ``model_run`` of ``cat`` Session for each run, and one
``NAME_kernel_time`` of ``cat`` Node for each operator in it, whose ``args`` hold ``op_name``, ``provider`` and
``input_type_shape``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.engines.onnx_providers import CPU
from edgeclf_device.engines.onnxruntime import open_session
from edgeclf_device.errors import ModelError, first_line
from edgeclf_device.explain.explanation import ROUNDING, Numbers, Operator, Profile

MAX_RUNS = 100
"""An event takes 0.7 kB: 100 runs of 300 operators are 20 MB to read."""
MIN_RUNS = 5
WARMUP = 5

_INTEGER = frozenset({"QLinearConv", "QLinearMatMul", "QGemm", "QAttention", "QLinearConvTranspose"})
_DYNAMIC = frozenset(
    {"ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
)
_FLOAT = frozenset(
    {"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Attention"}
)
_KERNEL_TIME = "_kernel_time"
_FOREIGN = "Times of operators on {} are those of starting them: such hardware computes on while the next is started."


def profile_onnx(
    model: bytes, batch: NDArray[Any], *, threads: int, options: Mapping[str, str], seconds: float
) -> Profile:
    """Profile an .onnx model on one batch.

    Args:
        model: model bytes.
        batch: what the model takes.
        threads: how many to compute with.
        options: every one of the engine's.
        seconds: how long to take runs; at least ``MIN_RUNS``, at most ``MAX_RUNS`` are taken.

    Raises:
        as ``open_session``.
    """
    events = _events(model, batch, threads=threads, options=options, seconds=seconds)
    unchanged = _events(model, batch, threads=threads, options={"optimization": "disabled", "provider": "cpu"})
    operators, run_ms, runs = read_events(events, warmup=WARMUP)
    before, _, _ = read_events(unchanged, warmup=0)
    others = sorted({one.provider for one in operators} - {CPU})
    return Profile(
        operators=operators,
        inside=(),
        runs=runs,
        run_ms=run_ms,
        partitions=None,
        rounding_in_file=sum(one.kind in ROUNDING for one in before),
        notes=tuple(_FOREIGN.format(provider) for provider in others),
    )


def read_events(events: Sequence[Mapping[str, Any]], *, warmup: int) -> tuple[tuple[Operator, ...], float, int]:
    """(operators in the order of execution, mean time of a run in milliseconds, runs) of a profile.

    Args:
        events: of ONNX Runtime's file.
        warmup: how many runs to leave out, fewer than there are.
    """
    runs = sorted((one for one in events if one["name"] == "model_run"), key=lambda one: float(one["ts"]))[warmup:]
    begin = float(runs[0]["ts"])
    nodes: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in sorted(events, key=lambda one: float(one["ts"])):
        if event["cat"] == "Node" and event["name"].endswith(_KERNEL_TIME) and float(event["ts"]) >= begin:
            nodes[f"{event['args'].get('node_index')} {event['name']}"].append(event)
    operators = tuple(_operator(times, len(runs)) for times in nodes.values())
    return operators, sum(float(one["dur"]) for one in runs) / len(runs) / 1e3, len(runs)


def numbers_of(kind: str) -> Numbers:
    """What operators of a kind multiply."""
    kinds: dict[Numbers, frozenset[str]] = {"integer": _INTEGER, "dynamic": _DYNAMIC, "float": _FLOAT}
    return next((numbers for numbers, names in kinds.items() if kind in names), "none")


def _operator(events: Sequence[Mapping[str, Any]], runs: int) -> Operator:
    first, args = events[0], events[0]["args"]
    inputs = args.get("input_type_shape") or [{}]
    return Operator(
        name=first["name"].removesuffix(_KERNEL_TIME),
        kind=args["op_name"],
        provider=args.get("provider", ""),
        numbers=numbers_of(args["op_name"]),
        activations=next(iter(inputs[0]), ""),
        mean_ms=sum(float(one["dur"]) for one in events) / runs / 1e3,
    )


def _events(
    model: bytes, batch: NDArray[Any], *, threads: int, options: Mapping[str, str], seconds: float | None = None
) -> list[dict[str, Any]]:
    """The profile of ``WARMUP`` runs and as many as ``seconds`` give; of one run where it is None."""
    with TemporaryDirectory() as folder:
        session = open_session(model, threads, options, profile=Path(folder) / "profile")
        feed = {session.get_inputs()[0].name: np.ascontiguousarray(batch)}
        try:
            _run(session, feed, seconds)
        except Exception as error:  # onnxruntime's own exceptions derive from Exception alone
            raise ModelError(f"ONNX Runtime can't run the model: {first_line(error)}; export it again.") from error
        finally:
            file = Path(session.end_profiling())
        events: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return events


def _run(session: Any, feed: Mapping[str, Any], seconds: float | None) -> None:
    if seconds is None:
        session.run(None, feed)
        return
    for _ in range(WARMUP):
        session.run(None, feed)
    end = perf_counter() + seconds
    for done in range(MAX_RUNS):
        if done >= MIN_RUNS and perf_counter() > end:
            return
        session.run(None, feed)
