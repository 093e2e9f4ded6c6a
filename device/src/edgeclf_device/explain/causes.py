"""What holds int8 back, from facts alone: needs no engine and no model to be tested.

Where the sentences come from: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html (int8 gains
by VNNI or dot products; without, quantizing and dequantizing may cost more than it saves) and the warning of
onnxruntime/quantization/quantize.py on int8 activations outside QDQ ("it will lead to bad performance on x64"). Every
figure in a sentence is one of the facts given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgeclf_device.explain.explanation import ROUNDING, Family, InstructionSet, Operator, Profile, total_ms
from edgeclf_device.explain.processor import INT8_PRODUCTS

BORDERS = 2
"""Rounding operators that every integer graph needs: where the pixels come in and where the scores go out."""
MUCH = 0.1
"""Share of the time above which rounding is worth a word; of the operators, where the engine gives no times."""
MANY_PARTS = 3
"""Delegated parts from which handing tensors over is worth a word: operators at a network's ends make no part more."""
FEW_THREADS = 0.6
"""Share of the threads asked for below which they are said not to be used."""
MAX_KINDS = 4


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was seen of a quantized artifact.

    Attributes:
        family: of the processor; ``instruction_sets`` its names, None where the system does not tell.
        engine: its name; ``options`` those it was given.
        scheme: of the artifact.
        operators: number that the engine executes.
        integer, dynamic, real: how many of them multiply integers, int8 weights by activations rounded at each run, and
            floats.
        rounding: how many only quantize or dequantize; ``rounding_in_file`` before the engine rewrote the graph.
        rounding_share: of all operators' time; None where the engine gives no times.
        delegated: how many a delegate executes; None for an engine without delegates.
        partitions: parts that delegates took.
        left_over: kinds that no delegate took, each with its number.
        left_over_share: of all operators' time; None where the engine gives no times.
        activations: dtypes of what the integer ones multiply weights with.
        threads: asked for; ``effective_threads`` processor time over elapsed time; ``others``
            cores that other programs kept busy, None where unknown; ``cores`` those of this process.
    """

    family: Family
    instruction_sets: frozenset[str] | None
    engine: str
    options: Mapping[str, str]
    scheme: str
    operators: int
    integer: int
    dynamic: int
    real: int
    rounding: int
    rounding_in_file: int
    rounding_share: float | None
    delegated: int | None
    partitions: int
    left_over: Mapping[str, int]
    left_over_share: float | None
    activations: frozenset[str]
    threads: int
    effective_threads: float
    others: float | None
    cores: int


def facts_of(
    profile: Profile,
    sets: tuple[InstructionSet, ...] | None,
    *,
    family: Family,
    engine: str,
    options: Mapping[str, str],
    scheme: str,
    threads: int,
    effective_threads: float,
    others: float | None,
    cores: int,
) -> Facts:
    """The facts of a profile, beside what it was taken with."""
    numbers = Counter(one.numbers for one in profile.operators)
    rounding = [one for one in profile.operators if one.kind in ROUNDING]
    left = [one for one in profile.operators if one.provider != "delegate"]
    return Facts(
        family=family,
        instruction_sets=None if sets is None else frozenset(one.name for one in sets if one.present),
        engine=engine,
        options=options,
        scheme=scheme,
        operators=len(profile.operators),
        integer=numbers["integer"],
        dynamic=numbers["dynamic"],
        real=numbers["float"],
        rounding=len(rounding),
        rounding_in_file=profile.rounding_in_file,
        rounding_share=_share(rounding, profile),
        delegated=None if profile.partitions is None else profile.delegated,
        partitions=profile.partitions or 0,
        left_over=Counter(one.kind for one in left),
        left_over_share=_share(left, profile),
        activations=frozenset(one.activations for one in profile.operators if one.numbers == "integer"),
        threads=threads,
        effective_threads=effective_threads,
        others=others,
        cores=cores,
    )


def why_int8_is_slow(facts: Facts) -> tuple[str, ...]:
    """What holds int8 back, as sentences with a remedy each, the weightiest first; empty where nothing is found."""
    return tuple(
        sentence
        for rule in (_no_integers, _unfused, _delegation, _signed, _instructions, _threads)
        for sentence in rule(facts)
    )


def _no_integers(facts: Facts) -> Iterator[str]:
    if facts.integer or facts.dynamic or not facts.real:
        return
    if facts.rounding_in_file <= BORDERS:
        yield (
            f"The scheme is {facts.scheme}, but the network in the file is not quantized: it holds "
            f"{_counted(facts.rounding_in_file, 'quantizing or dequantizing operator')}, and all {facts.real} "
            "convolutions and matrix products compute in float. Export it again."
        )
    else:
        yield (
            f"All {facts.real} convolutions and matrix products compute in float: the engine fused none of them with "
            f"the {facts.rounding_in_file} quantizing and dequantizing operators of the file into an integer kernel."
        )


def _unfused(facts: Facts) -> Iterator[str]:
    share = facts.rounding_share
    weight = (facts.rounding - BORDERS) / max(1, facts.operators) if share is None else share
    if facts.rounding <= BORDERS or weight <= MUCH:
        return
    time = "" if share is None else f", and they take {share:.0%} of the time"
    remedy = "Quantize the operators between them too, or leave whole stretches of the network in float."
    why = "the network changes between integers and floats that often"
    if facts.engine == "onnxruntime":
        level, why = facts.options.get("optimization", "all"), "they were not fused into integer kernels (unfused QDQ)"
        if level != "all":
            remedy = f"The option optimization={level} keeps ONNX Runtime from fusing them: leave it out."
    yield (
        f"{facts.rounding} of {facts.operators} operators executed only quantize or dequantize{time}: {why}. {remedy}"
    )


def _delegation(facts: Facts) -> Iterator[str]:
    if facts.delegated is None or not facts.operators:
        return
    kinds = _kinds(facts.left_over)
    if facts.delegated == 0:
        asked = facts.options.get("kernels", "xnnpack")
        remedy = (
            f"The option kernels={asked} does that: leave it out for XNNPACK."
            if facts.engine == "litert" and asked != "xnnpack"
            else "Export it for this engine's version, or install a newer engine."
        )
        yield (
            f"No operator is delegated: the interpreter's own kernels compute all {facts.operators} ({kinds}), which "
            f"are slower than XNNPACK's. {remedy}"
        )
        return
    share = facts.left_over_share
    many = facts.delegated < facts.operators / 2 or facts.partitions >= MANY_PARTS
    if many if share is None else share > MUCH:
        time = "" if share is None else f", which take {share:.0%} of the time"
        yield (
            f"Delegates take {facts.delegated} of {facts.operators} operators in "
            f"{_counted(facts.partitions, 'part')}; left to the interpreter's own, slower kernels are {kinds}{time}, "
            "and between the parts tensors are handed over. Replace what can be replaced of these in the network, or "
            "compare another scheme: delegates take other operators of it."
        )


def _signed(facts: Facts) -> Iterator[str]:
    if facts.engine == "onnxruntime" and facts.family == "x86" and "int8" in facts.activations:
        yield (
            "Integer kernels multiply int8 activations by int8 weights (S8S8), but x86 multiplies uint8 by int8 in one "
            "instruction (VPMADDUBSW, VPDPBUSD). Export with uint8 activations (U8S8), or as QDQ, which ONNX Runtime "
            "turns into uint8 itself."
        )


def _instructions(facts: Facts) -> Iterator[str]:
    wanted = INT8_PRODUCTS.get(facts.family, ())
    if facts.instruction_sets is None or not wanted or facts.instruction_sets & set(wanted):
        return
    if facts.family == "x86":
        yield (
            f"This processor has none of {', '.join(wanted)}: a sum of byte products takes three instructions in place "
            "of one, so that int8 has little over float with FMA. Expect a smaller file rather than a faster one."
        )
    else:
        yield (
            f"This processor has neither {' nor '.join(wanted)} (Cortex-A53 and A72 have not): bytes are widened "
            "before they are multiplied, so that int8 has little over float. Expect a smaller file rather than a "
            "faster one."
        )


def _threads(facts: Facts) -> Iterator[str]:
    if facts.threads > facts.cores:
        yield (
            f"{facts.threads} threads share {_counted(facts.cores, 'core')}: they wait for each other. "
            f"Ask for at most {facts.cores}."
        )
        return
    if facts.threads == 1 or facts.effective_threads >= FEW_THREADS * facts.threads:
        return
    if facts.others is not None and facts.others > MUCH * facts.cores and facts.cores - facts.others < facts.threads:
        yield (
            f"Of {facts.threads} threads {facts.effective_threads:.1f} are at work on average, while other programs "
            f"keep {facts.others:.1f} of {_counted(facts.cores, 'core')} busy: measure again without them."
        )
    else:
        yield (
            f"Of {facts.threads} threads {facts.effective_threads:.1f} are at work on average: the operators leave too "
            "little to share out, and int8 leaves less than float. Try fewer threads, which keeps cores free."
        )


def _share(part: list[Operator], profile: Profile) -> float | None:
    time, whole = total_ms(part), profile.whole_ms
    return None if time is None or not whole else time / whole


def _kinds(numbers: Mapping[str, int]) -> str:
    ordered = sorted(numbers.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ", ".join(f"{number} {kind}" for kind, number in ordered[:MAX_KINDS])
    rest = sum(number for _, number in ordered[MAX_KINDS:])
    return f"{shown} and {rest} more" if rest else shown


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
