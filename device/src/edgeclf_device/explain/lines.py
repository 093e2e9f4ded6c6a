"""An explanation as plain lines for people, none longer than 100 columns."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from edgeclf_device.explain.explanation import ROUNDING, Explanation, Operator, OperatorKind, Profile

COLUMNS = 100
MAX_KINDS = 8
MAX_SLOWEST = 5
_NAME, _KIND = 40, 42
_NUMBERS = {
    "integer": "in integers",
    "dynamic": "in integers that are rounded at each run",
    "float": "in float",
}


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """Everything an explanation says: time and threads, the processor, the operators, what holds int8 back."""
    given = "".join(f", {name}={value}" for name, value in explanation.options.items())
    yield from _wrapped(
        f"{explanation.artifact}: {explanation.scheme} on {explanation.engine} {explanation.engine_version}{given}", ""
    )
    yield from _wrapped(_time(explanation))
    yield from _wrapped(_processor(explanation))
    yield from _profile_lines(explanation.profile, explanation.median_ms)
    yield from _causes(explanation)


def _time(explanation: Explanation) -> str:
    spinning = (
        "its threads do not spin between operators"
        if explanation.engine == "onnxruntime"
        else "threads that spin while they wait for work count as well"
    )
    others = "" if explanation.others is None else f"; other programs kept {explanation.others:.2f} cores busy"
    return (
        f"{explanation.median_ms:.3f} ms for one inference (median); {explanation.effective_threads:.2f} of "
        f"{explanation.threads} threads at work on {_counted(explanation.cores, 'core')} ({spinning}){others}"
    )


def _processor(explanation: Explanation) -> str:
    sets = explanation.instruction_sets
    if sets is None:
        return "Instruction sets: this system does not tell"
    there = "; ".join(f"{one.name} ({one.speeds_up})" for one in sets if one.present) or "none that matter here"
    absent = ", ".join(one.name for one in sets if not one.present)
    return f"Instruction sets: {there}" + (f". Not there: {absent}" if absent else "")


def _profile_lines(profile: Profile, median_ms: float) -> Iterator[str]:
    yield from _wrapped(_operators(profile))
    whole, delegates = profile.whole_ms, profile.partitions is not None
    times = "" if whole is None else f" {'ms':>9} {'share':>7}"
    yield f"    {'operators':{_KIND}} {'number':>6}{'  delegated' if delegates else ''}{times}"
    for kind in profile.kinds[:MAX_KINDS]:
        yield _kind_line(kind, whole, delegates=delegates)
    yield from _rest(profile.kinds)
    if profile.inside:
        yield "    inside the delegates"
        for kind in profile.inside[:MAX_KINDS]:
            yield _kind_line(kind, whole, delegates=delegates)
        yield from _rest(profile.inside)
    if whole is not None:
        timed = [one for one in profile.operators if one.mean_ms is not None]
        yield "  Slowest operators" + (" that the interpreter keeps:" if delegates else ":")
        for one in sorted(timed, key=lambda one: -(one.mean_ms or 0.0))[:MAX_SLOWEST]:
            yield _operator_line(one, whole)
        runs = f"{profile.runs} runs" + ("" if profile.run_ms is None else f" of {profile.run_ms:.3f} ms on average")
        yield from _wrapped(
            f"The engine's profiler: {runs}, {whole:.3f} ms in operators; without it the median is {median_ms:.3f} ms, "
            "so the shares tell more than the times"
        )
    for note in profile.notes:
        yield from _wrapped(note)


def _rest(kinds: tuple[OperatorKind, ...]) -> Iterator[str]:
    more = len(kinds) - MAX_KINDS
    if more > 0:
        yield f"    and {_counted(more, 'more kind')} (see --json)"


def _operators(profile: Profile) -> str:
    parts = [f"{len(profile.operators)} operators are executed"]
    for numbers, words in _NUMBERS.items():
        count = sum(one.numbers == numbers for one in profile.operators)
        if count:
            parts.append(f"{count} multiply {words}")
    rounding = sum(one.kind in ROUNDING for one in profile.operators)
    parts.append(f"{rounding} only quantize or dequantize (the file has {profile.rounding_in_file})")
    if profile.partitions is None:
        parts.append("executed by " + ", ".join(f"{_short(name)} {count}" for name, count in profile.placement))
    else:
        left = len(profile.operators) - profile.delegated
        kinds = ", ".join(sorted({one.kind for one in profile.operators if one.provider != "delegate"}))
        took = f"delegates took {profile.delegated} in {_counted(profile.partitions, 'part')}"
        kept = f", the interpreter keeps {left}: {kinds}" if left else " and left none"
        parts.append((took if profile.delegated else "nothing is delegated") + kept)
    return "; ".join(parts)


def _kind_line(kind: OperatorKind, whole: float | None, *, delegates: bool) -> str:
    line = f"    {_cut(kind.kind, _KIND):{_KIND}} {kind.nodes:6}" + (f"  {kind.delegated:9}" if delegates else "")
    return line if kind.mean_ms is None or not whole else f"{line} {kind.mean_ms:9.3f} {kind.mean_ms / whole:7.1%}"


def _operator_line(one: Operator, whole: float) -> str:
    time = one.mean_ms or 0.0
    share = f"{time / whole:6.1%}" if whole else ""
    provider = _cut(_short(one.provider), 10)
    return f"    {time:9.3f} ms {share}  {_cut(one.kind, 20):20} {_cut(one.name, _NAME):{_NAME}} {provider}"


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


def _causes(explanation: Explanation) -> Iterator[str]:
    compared = explanation.comparison
    if compared is not None:
        yield from _wrapped(
            f"{explanation.scheme} is {compared.verdict}: {compared.median_ms:.3f} ms in turn with "
            f"{compared.fp32_median_ms:.3f} ms of {compared.artifact}"
            + (
                f", {compared.fp32_median_ms / compared.median_ms:.2f} times as fast"
                if compared.verdict != "undecided"
                else ""
            )
        )
    if explanation.causes:
        faster = compared is not None and compared.verdict == "faster"
        yield "  What still holds int8 back:" if faster else "  What holds int8 back:"
        for cause in explanation.causes:
            yield from _wrapped(cause, "    – ", "      ")
    elif compared is not None and compared.verdict != "faster":
        yield "  Nothing that is known to hold int8 back was found."


def _wrapped(text: str, first: str = "  ", then: str = "    ") -> list[str]:
    return wrap(text, COLUMNS, initial_indent=first, subsequent_indent=then)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[1 - width :]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
