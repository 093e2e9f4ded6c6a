"""Providers of ONNX Runtime: what each is told, and whether it took the network. Never another in place of it.

What is asked for is ``cuda``, ``tensorrt`` or a provider's own name, and then executes every node, or opening fails;
``cuda+cpu`` lets the CPU execute what CUDA has no kernel for. Where all nodes are on the GPU and the shapes are static,
the first run is recorded as a CUDA graph and replayed from then on, which saves starting each node by itself.
Sources: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html and its TensorRT neighbour.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeclf_device.errors import DependencyError, UsageError

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
NAMES = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}
WITH_CPU = "+cpu"
TENSORRT_PLANS = "tensorrt"
"""The folder in the state folder where TensorRT keeps its plans, by the digest of the file that was opened."""

RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
NO_CPU = "session.disable_cpu_ep_fallback"
SKIP_CAPTURE = ("gpu_graph_id", "-1")
"""A run's setting: neither record it nor replay what was recorded."""

_HELPERS = {TENSORRT: (CUDA,)}
"""Providers that take the nodes that one does not know, on the same device."""
_DEVICES = {CUDA: "cuda", TENSORRT: "cuda"}
_MAX_KINDS = 4


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to execute a network.

    Attributes:
        text: as it was asked for.
        provider: its own name.
        whole: whether it must take every node.
    """

    text: str
    provider: str
    whole: bool

    @property
    def device(self) -> str | None:
        """ONNX Runtime's name for the memory that it computes in; None for the program's own."""
        return _DEVICES.get(self.provider)

    @property
    def own(self) -> tuple[str, ...]:
        """The provider and its helpers, in the order in which they are offered nodes."""
        return (self.provider, *_HELPERS.get(self.provider, ()))


def asked(text: str) -> Asked:
    """What ``text`` asks for."""
    name = text.removesuffix(WITH_CPU)
    provider = NAMES.get(name, name)
    return Asked(text=text, provider=provider, whole=provider != CPU and not text.endswith(WITH_CPU))


def providers_of(wanted: Asked, model: bytes, *, capture: bool) -> list[tuple[str, dict[str, str]]]:
    """The providers of a session, each with what it is told, the first that is offered a node first.

    Args:
        wanted: what is asked for.
        model: the model bytes.
        capture: record the first run as a CUDA graph.
    """
    told: dict[str, dict[str, str]] = {name: {} for name in (*wanted.own, *(() if wanted.whole else (CPU,)))}
    if wanted.provider == CUDA and capture:
        told[CUDA] = {"enable_cuda_graph": "1"}
    if wanted.provider == TENSORRT:
        told[TENSORRT] = _tensorrt(model, capture=capture)
    return list(told.items())


def _tensorrt(model: bytes, *, capture: bool) -> dict[str, str]:
    """Its precisions are those of the file; its plan, which takes minutes to make, lies in the state folder."""
    from edgeclf_device._graph_onnx import FLOAT16, element_types, operator_kinds  # which the CPU need not wait for

    options = {"trt_cuda_graph_enable": "1"} if capture else {}
    options |= {"trt_fp16_enable": "1"} if FLOAT16 in element_types(model) else {}
    options |= {"trt_int8_enable": "1"} if "QuantizeLinear" in operator_kinds(model) else {}
    folder = _plans(hashlib.sha256(model).hexdigest())
    if folder is not None:
        options |= {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1"}
        options["trt_engine_cache_path"] = str(folder)
    return options


def _plans(digest: str) -> Path | None:
    """The folder for the plans of a model, whose names tell the GPU and the versions; None: they can't be kept."""
    from edgeclf_device.state import state_folder  # as above

    state = state_folder()
    if state is None:
        return None
    folder = state / TENSORRT_PLANS / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def require_built(onnxruntime: Any, wanted: Asked) -> None:
    """Check that this build of ONNX Runtime has the provider.

    Raises:
        UsageError: ONNX Runtime knows no such provider.
        DependencyError: it is of another build.
    """
    there = onnxruntime.get_available_providers()
    if wanted.provider in there:
        return
    known = onnxruntime.get_all_providers()
    if wanted.provider not in known:
        raise UsageError(
            f"A provider must be {', '.join(NAMES)} or one of {', '.join(known)}, each with {WITH_CPU} or without, "
            f"but it is {wanted.text!r}."
        )
    raise unusable(wanted, f"ONNX Runtime {onnxruntime.__version__} was built with {', '.join(there)} alone")


def require_used(session: Any, wanted: Asked) -> None:
    """Check that the session has the provider, and, where ONNX Runtime tells, which nodes it took.

    Raises:
        DependencyError: it did not load, or took none, or not all where it must.
    """
    if wanted.provider not in session.get_providers():
        raise unusable(wanted, "it does not load")
    if wanted.provider == CPU:
        return
    assigned = assignment(session)
    if assigned is None:
        return
    if all(provider != wanted.provider for provider, _ in assigned):
        raise unusable(wanted, "it takes no node of this model")
    left = Counter(kind for provider, kind in assigned if provider not in wanted.own)
    if wanted.whole and left:
        kinds = ", ".join(f"{count} {kind}" for kind, count in left.most_common(_MAX_KINDS))
        more = "" if len(left) <= _MAX_KINDS else f" and {len(left) - _MAX_KINDS} more kinds"
        raise DependencyError(
            f"The provider {wanted.text} must take every node, but leaves {left.total()} of {len(assigned)} to the CPU "
            f"({kinds}{more}); take another scheme, or provider {wanted.text}{WITH_CPU}, which lets the CPU have them."
        )


def assignment(session: Any) -> list[tuple[str, str]] | None:
    """(provider, kind) of every node of a session that recorded it; None where ONNX Runtime does not tell (1.23)."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    parts = session.get_provider_graph_assignment_info()
    return [(part.ep_name, node.op_type) for part in parts for node in part.get_nodes()]


def unusable(wanted: Asked, reason: str) -> DependencyError:
    """The error of a provider that does not work here, with the remedy."""
    remedy = "install its drivers and libraries and the onnxruntime that is built for it, or leave the provider out"
    if wanted.provider in _DEVICES:
        remedy = (
            "install its drivers and libraries and onnxruntime-gpu in place of onnxruntime (pip uninstall onnxruntime; "
            'pip install "edgeclf-device[onnxruntime-gpu]"), or leave the provider out'
        )
    return DependencyError(f"The provider {wanted.text} must work here, but {reason}; {remedy}.")
