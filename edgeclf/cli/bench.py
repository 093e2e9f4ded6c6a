"""``edgeclf bench``: measure artifacts, or compare them in turn; keep limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeclf.cli.app import JsonFile, app
from edgeclf.cli.progress import Bars

if TYPE_CHECKING:
    from edgeclf.benchmarking.remote import HostsMeasured
    from edgeclf.benchmarking.sweep import Found, Ways
    from edgeclf_device.bench import Comparison, Measurement
    from edgeclf_device.errors import EdgeclfError


@app.command()
def bench(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Artifacts or bundles (every artifact of these); two or more artifacts are compared."),
    ],
    source: Annotated[str | None, typer.Option(help="Frames to measure with; default: a synthetic one.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="litert, onnxruntime, …; may be repeated.")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="Threads to compute with; may be repeated.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="What ONNX Runtime computes with: cpu, cuda, tensorrt, …")
    ] = None,
    delegate: Annotated[str | None, typer.Option(help="A library that runs .tflite on other hardware.")] = None,
    seconds: Annotated[
        float, typer.Option(help="Samples of each artifact, at most; fewer where the median is known.")
    ] = 10.0,
    offline: Annotated[bool, typer.Option("--offline", help="Give all frames at once: throughput.")] = False,
    rate: Annotated[float | None, typer.Option(help="Let so many frames a second come, late or not.")] = None,
    cold_start: Annotated[bool, typer.Option(help="Start new processes for the time to the first label.")] = True,
    host: Annotated[
        list[str] | None, typer.Option(help="Measure there, over ssh: user@board or an alias; may be repeated.")
    ] = None,
    host_python: Annotated[str, typer.Option(help="The Python of the hosts that has NumPy and an engine.")] = "python3",
    keep: Annotated[bool, typer.Option("--keep", help="Leave on the hosts what was sent, for the next time.")] = False,
    json_file: JsonFile = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with a picture of time and accuracy.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say too why each takes the time it takes.")] = False,
    compare: Annotated[Path | None, typer.Option(help="Compare with a file of bench --json.")] = None,
    max_p90_ms: Annotated[float | None, typer.Option(help="Exit 6 where p90 is higher.")] = None,
    max_regression: Annotated[
        float | None, typer.Option(help="Exit 6 where an artifact is surely slower by more percent.")
    ] = None,
) -> None:
    """Measure each stage of each artifact; compare two or more in turn: faster, slower or undecided."""
    from edgeclf.benchmarking.sweep import Ways, sweep
    from edgeclf.cli.tables import explain_all
    from edgeclf_device import bench as device
    from edgeclf_device.bench.measurement import Scenario
    from edgeclf_device.errors import UsageError

    if offline and rate is not None:
        raise UsageError(f"Give --offline or --rate, but both were given (--rate {rate:g}).")
    if host and explain:
        raise UsageError(
            "--explain looks at this machine, but --host was given; run `edgeclf-device bench --explain` on the board."
        )
    earlier = [] if compare is None else device.read_measurements(compare)
    options = {name: value for name, value in (("provider", provider), ("delegate", delegate)) if value is not None}
    scenario: Scenario = "offline" if offline else "single-stream" if rate is None else "fixed-rate"
    in_turn = len(paths) > 1 and all(path.is_file() for path in paths) and scenario == "single-stream"
    comparisons: list[device.Comparison] = []
    failures: list[EdgeclfError] = []
    ways = Ways(engines=tuple(engine or ()), threads=tuple(threads or (1,)), options=options)
    if host:
        flags = [f"--{name}={value}" for name, value in options.items()]
        flags += ["--offline"] * offline + ["--no-cold-start"] * (not cold_start)
        flags += [] if rate is None else [f"--rate={rate}"]
        made = _on_hosts(
            host,
            paths,
            ways,
            seconds=seconds,
            source=source,
            in_turn=in_turn,
            arguments=flags,
            host_python=host_python,
            keep=keep,
        )
        measurements, comparisons = list(made.measurements), list(made.comparisons)
        failures = [error for _, error in made.failures]
    else:
        ways = _with_frames(ways, source)
        found = _found(paths, ways)
        if in_turn:
            measurements, comparisons = _in_turn(found, ways, seconds=2 * seconds)
        else:
            plan = device.Plan(seconds=seconds, cold_starts=device.COLD_STARTS if cold_start else 0)
            with Bars() as progress:
                measurements = sweep(found, ways, scenario=scenario, rate_fps=rate, plan=plan, progress=progress)
    try:
        comparisons += [device.compare_with(earlier, taken) for taken in measurements if compare is not None]
    finally:  # what was measured is shown and kept, also where it can't be compared
        _keep_and_show(measurements, comparisons, json_file=json_file, html=html)
    _raise_first(failures)
    if explain:
        explain_all(found, ways)
    device.gate(measurements, comparisons, max_p90_ms=max_p90_ms, max_regression_percent=max_regression)


def _with_frames(ways: Ways, source: str | None) -> Ways:
    from edgeclf_device.bench import load_frames

    if source is None:
        return ways
    frames, description = load_frames(source)
    return replace(ways, frames=frames, description=description)


def _found(paths: Sequence[Path], ways: Ways) -> Found:
    """What is to be measured here; what can't be is named."""
    from edgeclf.benchmarking.sweep import find

    found = find(paths, ways.engines)
    for file in found.skipped:
        typer.echo(f"edgeclf: skipped, no engine to run it: {file}", err=True)
    return found


def _in_turn(found: Found, ways: Ways, *, seconds: float) -> tuple[list[Measurement], list[Comparison]]:
    """Each artifact against the first, and what was measured meanwhile."""
    from edgeclf.benchmarking.sweep import compare_all

    with Bars() as progress:
        comparisons = compare_all(found, ways, seconds=seconds, progress=progress)
    return [taken for made in comparisons for taken in (made.base, made.other)], comparisons


def _keep_and_show(
    measurements: Sequence[Measurement], comparisons: Sequence[Comparison], *, json_file: Path | None, html: Path | None
) -> None:
    """Write the files that were asked for, and print the tables."""
    from edgeclf.benchmarking.report import write_report
    from edgeclf.cli.tables import bench_table, comparison_text
    from edgeclf_device.bench import write_measurements

    if json_file is not None:
        write_measurements(json_file, measurements, comparisons)
    if not measurements:  # no host could measure
        return
    if html is not None:
        write_report(html, measurements, comparisons)
    bench_table(measurements)
    comparison_text(comparisons)


def _raise_first(failures: Sequence[EdgeclfError]) -> None:
    """End with the first error after the others were told."""
    for error in failures[1:]:
        typer.echo(f"edgeclf: {error}", err=True)
    if failures:
        raise failures[0]


def _on_hosts(
    hosts: Sequence[str],
    paths: Sequence[Path],
    ways: Ways,
    *,
    seconds: float,
    source: str | None,
    in_turn: bool,
    arguments: Sequence[str],
    host_python: str,
    keep: bool,
) -> HostsMeasured:
    """What the hosts measured, and the error of each that could not."""
    from edgeclf.benchmarking.remote import bench_hosts

    with Bars() as progress:
        return bench_hosts(
            hosts,
            paths,
            engines=ways.engines,
            threads=ways.threads,
            seconds=seconds,
            source=source,
            in_turn=in_turn,
            arguments=arguments,
            host_python=host_python,
            keep=keep,
            progress=progress,
            tell=lambda line: typer.echo(f"edgeclf: {line}", err=True),
        )


@app.command()
def recommend(
    path: Annotated[Path, typer.Argument(help="A bundle or an artifact to measure, or a file of bench --json.")],
    max_ms: Annotated[float | None, typer.Option(help="What p90 of a frame may take.")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="By the certificate, 0 to 1.")] = None,
    source: Annotated[str | None, typer.Option(help="Frames to measure with; default: a synthetic one.")] = None,
    seconds: Annotated[float, typer.Option(help="Samples of each combination, at most.")] = 5.0,
    json_file: JsonFile = None,
) -> None:
    """Say which artifact, engine and number of threads keeps the limits, or what is nearest (exit 6)."""
    from edgeclf.benchmarking.recommend import recommend as choose
    from edgeclf.benchmarking.recommend import recommendation_lines
    from edgeclf.benchmarking.sweep import Ways, find, sweep
    from edgeclf_device import bench as device
    from edgeclf_device.atomic import write_text
    from edgeclf_device.choice import usable_cores
    from edgeclf_device.errors import GateError, UsageError
    from edgeclf_device.tune import thread_counts

    if min_accuracy is not None and not 0 <= min_accuracy <= 1:
        raise UsageError(f"--min-accuracy must be a share from 0 to 1, but it is {min_accuracy:g}.")
    if max_ms is not None and max_ms <= 0:
        raise UsageError(f"--max-ms must be above 0, but it is {max_ms:g}.")
    if path.suffix == ".json" and path.is_file():
        measurements = device.read_measurements(path)
    else:
        ways = _with_frames(Ways(threads=tuple(thread_counts(usable_cores()))), source)
        with Bars() as progress:
            measurements = sweep(find([path]), ways, plan=device.Plan(seconds=seconds), progress=progress)
    found = choose(measurements, max_ms=max_ms, min_accuracy=min_accuracy)
    if json_file is not None:
        write_text(json_file, json.dumps(found.to_json(), ensure_ascii=False, indent=2) + "\n")
    for line in recommendation_lines(found):
        typer.echo(line)
    if found.taken is None:
        raise GateError("No measured artifact keeps the limits; the nearest are above.")
