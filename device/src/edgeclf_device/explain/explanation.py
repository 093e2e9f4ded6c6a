"""An explanation as data: the processor, the operators as they are executed, threads, and what follows from them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

FORMAT = (1, 1)

Family = Literal["x86", "arm", "other"]
Numbers = Literal["integer", "dynamic", "float", "none"]
"""What an operator multiplies: integers; int8 weights with activations rounded at each run; floats; it does not."""

ROUNDING = frozenset({"QUANTIZE", "DEQUANTIZE", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
"""Operators that only turn floats into integers, integers into floats, or one scale into another."""


@dataclass(frozen=True, kw_only=True)
class InstructionSet:
    """One instruction set, what kernels gain by it, and whether this processor has it."""

    name: str
    speeds_up: str
    present: bool


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator as the engine executes it.

    Attributes:
        name: of the node, or of the tensor that it gives.
        kind: as the engine spells it.
        provider: what executes it: ONNX Runtime's provider, ``delegate``, or ``engine`` for the interpreter's own.
        numbers: what it multiplies.
        activations: dtype of its first input; empty where the engine does not tell.
        mean_ms: of one run; None where the engine gives no times, or a delegate executes it among others.
    """

    name: str
    kind: str
    provider: str
    numbers: Numbers
    activations: str
    mean_ms: float | None


@dataclass(frozen=True, kw_only=True)
class OperatorKind:
    """All operators of one kind: how many, how many of them a delegate executes, and the time of one run.

    ``mean_ms`` is the time of those that are timed; None where none is.
    """

    kind: str
    nodes: int
    delegated: int
    mean_ms: float | None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The operators that the engine executes.

    Attributes:
        operators: in the order of execution.
        inside: what delegates execute in place of operators, by their own kinds, as far as they are timed.
        runs: how many were timed, after a warm-up; 0 where the engine gives no times.
        run_ms: mean time of such a run as the engine measures it, slower than without measuring; None without times.
        partitions: parts that delegates took; None for an engine without delegates.
        rounding_in_file: quantizing and dequantizing operators before the engine rewrites the graph.
        notes: what limits this profile, as sentences.
    """

    operators: tuple[Operator, ...]
    inside: tuple[OperatorKind, ...]
    runs: int
    run_ms: float | None
    partitions: int | None
    rounding_in_file: int
    notes: tuple[str, ...]

    @property
    def kinds(self) -> tuple[OperatorKind, ...]:
        """The operators by kind: those that take most time first, without times the most frequent."""
        groups: dict[str, list[Operator]] = defaultdict(list)
        for operator in self.operators:
            groups[operator.kind].append(operator)
        found = [
            OperatorKind(
                kind=kind,
                nodes=len(members),
                delegated=sum(one.provider == "delegate" for one in members),
                mean_ms=total_ms([one for one in members if one.mean_ms is not None] or members),
            )
            for kind, members in groups.items()
        ]
        return tuple(sorted(found, key=lambda one: (-(one.mean_ms or 0.0), -one.nodes, one.kind)))

    @property
    def placement(self) -> tuple[tuple[str, int], ...]:
        """What executes operators, and how many; the one with most of them first."""
        return tuple(Counter(one.provider for one in self.operators).most_common())

    @property
    def whole_ms(self) -> float | None:
        """Time of all operators in one run; None where the engine gives no times."""
        if not self.runs:
            return None
        return sum(one.mean_ms or 0.0 for one in self.operators) + sum(one.mean_ms or 0.0 for one in self.inside)

    @property
    def delegated(self) -> int:
        """How many operators a delegate executes."""
        return sum(one.provider == "delegate" for one in self.operators)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An fp32 artifact of the same network, measured in turn with this one on the same engine.

    Attributes:
        artifact: its file name.
        median_ms, fp32_median_ms: of one inference of this artifact and of the fp32 one.
        verdict: of this artifact against fp32; undecided where the 95 % intervals of the medians overlap.
    """

    artifact: str
    median_ms: float
    fp32_median_ms: float
    verdict: Literal["faster", "slower", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why one artifact takes the time it takes on one engine.

    Attributes:
        artifact: file name; ``artifact_sha256`` is of its model bytes.
        scheme, container: of that file.
        engine, engine_version, options, threads: what executed it; ``options`` are those given.
        cores: number this process may use.
        family: of the processor; ``instruction_sets`` None where the system does not tell.
        median_ms: of one inference, without profiling, after a warm-up.
        effective_threads: processor time over elapsed time during these inferences; threads that spin count as well.
        others: cores that other programs kept busy meanwhile; None where that is not known.
        profile: the operators.
        comparison: with the fp32 sibling; None where there is none, or this is fp32 itself.
        causes: what holds int8 back, as sentences, the weightiest first; empty for fp32 and fp16.
    """

    artifact: str
    artifact_sha256: str
    scheme: str
    container: str
    engine: str
    engine_version: str
    options: dict[str, str]
    threads: int
    cores: int
    family: Family
    instruction_sets: tuple[InstructionSet, ...] | None
    median_ms: float
    effective_threads: float
    others: float | None
    profile: Profile
    comparison: Comparison | None
    causes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The explanation as ``bench --explain --json`` writes it."""
        return {
            "format": list(FORMAT),
            **asdict(self),
            "kinds": [asdict(kind) for kind in self.profile.kinds],
            "delegated": self.profile.delegated,
            "placement": dict(self.profile.placement),
        }


def total_ms(operators: Sequence[Operator]) -> float | None:
    """The time of all of them in one run; None where one has none."""
    times = [one.mean_ms for one in operators if one.mean_ms is not None]
    return sum(times) if len(times) == len(operators) else None
