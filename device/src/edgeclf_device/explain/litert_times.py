"""Times of a .tflite model's operators from LiteRT's C interface, measured in a child process.

The Python interpreter of ai-edge-litert has no profiler, but the package's libLiteRt.so exports one for its
CompiledModel, which executes a model with the same kernels (litert/c/litert_profiler.h: LiteRtStartProfiler,
LiteRtGetProfileSummary). Its functions change from version to version without a sign (LiteRtCreateModelFromBuffer took
two arguments before it took an environment first), and a wrong call ends the process: hence the child, and hence
nothing that it says is taken unless it names the same operators as the interpreter. Tried with 2.3.0.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 120
WARMUP = 10
_CPU = 1
_PROGRAM = "import sys; sys.path[:] = {path!r}; from edgeclf_device.explain import litert_times; litert_times.main()"
_BUILTIN = re.compile(
    r"^\s*(\S.*?)(?:\s+\d+\.\d+){2}\s+(\d+\.\d+)(?:\s+\d+\.\d+%){2}\s+\S+\s+(\d+)\s+\[Builtin\]:(\d+)$"
)
_DELEGATE = re.compile(r"^Delegate/(\S.*?)\s+(\d+)\s+\d+\.\d+\s+\d+\s+\d+\s+(\d+)$")


@dataclass(frozen=True, kw_only=True)
class Times:
    """What the profiler tells of one run on average.

    Attributes:
        builtin: (kind, milliseconds) of every operator that the interpreter executes, by its place in the graph.
        delegate: (number, milliseconds of all) of the operators inside delegates by kind, as these call them.
    """

    builtin: dict[int, tuple[str, float]]
    delegate: dict[str, tuple[int, float]]


def litert_times(model: bytes, *, threads: int, runs: int) -> Times | None:
    """Measure a model with XNNPACK; None where this version of LiteRT can't be asked."""
    program = _PROGRAM.format(path=[entry or str(Path.cwd()) for entry in sys.path])
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(threads), str(runs)],
            input=model,
            capture_output=True,
            timeout=LIMIT_SECONDS,
            check=True,
        )
        return read_summary(str(json.loads(done.stdout.splitlines()[-1])), runs)
    except (subprocess.SubprocessError, OSError, ValueError, IndexError):
        return None


def read_summary(summary: str, runs: int) -> Times | None:
    """The times in LiteRT's summary of ``runs`` runs; None where operators are missing in some of them."""
    builtin: dict[int, tuple[str, float]] = {}
    delegate: dict[str, tuple[int, float]] = {}
    for line in summary.partition("Top by Computation Time")[0].splitlines():
        found = _BUILTIN.match(line)
        if found:
            kind, mean_ms, times, place = found.groups()
            if int(times) != runs:
                return None
            builtin[int(place)] = (kind, float(mean_ms))
    for line in summary.partition("Delegate Statistics")[2].splitlines():
        found = _DELEGATE.match(line)
        if found:
            kind, times, total_us = found.groups()
            delegate[kind] = (int(times) // runs, int(total_us) / 1e3 / runs)
    return Times(builtin=builtin, delegate=delegate) if builtin or delegate else None


def main() -> None:
    """The child: a model on standard input, threads and runs as arguments; the summary as JSON on the last line."""
    threads, runs = map(int, sys.argv[1:3])
    summary = _summary(sys.stdin.buffer.read(), threads, runs)
    sys.stdout.write("\n" + json.dumps(summary) + "\n")
    sys.stdout.flush()


class _Library:
    """libLiteRt.so, each call checked: every function of its C interface returns 0 where it succeeds."""

    def __init__(self) -> None:
        import ai_edge_litert

        self._library = ctypes.CDLL(str(Path(str(ai_edge_litert.__file__)).with_name("libLiteRt.so")))

    def call(self, name: str, *arguments: object) -> None:
        """Call ``LiteRt`` + ``name``."""
        function: Callable[..., int] = getattr(self._library, f"LiteRt{name}")
        status = function(*arguments)
        if status:
            raise ValueError(f"LiteRt{name} gave {status}")

    def handle(self, name: str, *arguments: object) -> ctypes.c_void_p:
        """Call it with the place of a new handle as its last argument; that handle."""
        made = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(made))
        return made


def _summary(model: bytes, threads: int, runs: int) -> str:
    litert, first, held = _Library(), ctypes.c_size_t(0), ctypes.create_string_buffer(model, len(model))
    environment = litert.handle("CreateEnvironment", 0, None)
    loaded = litert.handle("CreateModelFromBuffer", environment, held, ctypes.c_size_t(len(model)))
    texts = {"runtime_options_string": "enable_profiling = true", "xnnpack": f"num_threads = {threads}"}
    options, kept = _options(litert, texts)
    compiled = litert.handle("CreateCompiledModel", environment, loaded, options)
    signature = litert.handle("GetModelSignature", loaded, first)

    def buffer(end: str) -> Any:
        tensor = litert.handle(f"GetSignature{end}TensorByIndex", signature, first)
        kind = ctypes.create_string_buffer(1024)  # a structure whose content is of no matter here
        litert.call("GetRankedTensorType", tensor, kind)
        needs = litert.handle(f"GetCompiledModel{end}BufferRequirements", compiled, first, first)
        made = litert.handle("CreateManagedTensorBufferFromRequirements", environment, kind, needs)
        return (ctypes.c_void_p * 1)(made)

    one, source, target = ctypes.c_size_t(1), buffer("Input"), buffer("Output")
    profiler = litert.handle("CompiledModelGetProfiler", compiled)

    def run(times: int) -> None:
        for _ in range(times):
            litert.call("RunCompiledModel", compiled, first, one, source, one, target)

    run(WARMUP)
    litert.call("ResetProfiler", profiler)
    litert.call("StartProfiler", profiler)
    run(runs)
    litert.call("StopProfiler", profiler)
    text = ctypes.c_char_p()
    litert.call("GetProfileSummary", profiler, compiled, ctypes.byref(text))
    del kept
    return (text.value or b"").decode(errors="replace")


def _options(litert: _Library, texts: Mapping[str, str]) -> tuple[ctypes.c_void_p, list[object]]:
    """(LiteRT's options, what must outlive them); the texts are TOML."""
    options = litert.handle("CreateOptions")
    litert.call("SetOptionsHardwareAccelerators", options, _CPU)
    leave = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
    kept: list[object] = [leave]
    for name, text in texts.items():
        payload = ctypes.create_string_buffer(f"{text}\n".encode())
        kept.append(payload)
        litert.call("AddOpaqueOptions", options, litert.handle("CreateOpaqueOptions", name.encode(), payload, leave))
    return options, kept
