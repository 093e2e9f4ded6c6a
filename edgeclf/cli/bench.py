"""``edgeclf bench``: measure artifacts, or compare them in turn; keep limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgeclf.cli.app import JsonFile, app
from edgeclf.cli.progress import Bars


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
    from edgeclf.benchmarking.report import write_report
    from edgeclf.benchmarking.sweep import Ways, compare_all, find, sweep
    from edgeclf.cli.tables import bench_table, comparison_text, explain_all
    from edgeclf_device import bench as device
    from edgeclf_device.errors import UsageError

    if offline and rate is not None:
        raise UsageError(f"Give --offline or --rate, but both were given (--rate {rate:g}).")
    earlier = [] if compare is None else device.read_measurements(compare)
    frames, description = (None, "") if source is None else device.load_frames(source)
    options = {name: value for name, value in (("provider", provider), ("delegate", delegate)) if value is not None}
    found = find(paths, engine or ())
    for file in found.skipped:
        typer.echo(f"edgeclf: skipped, no engine to run it: {file}", err=True)
    ways = Ways(
        engines=tuple(engine or ()),
        threads=tuple(threads or (1,)),
        options=options,
        frames=frames,
        description=description,
    )
    in_turn = len(paths) > 1 and all(path.is_file() for path in paths) and not offline and rate is None
    with Bars() as progress:
        if in_turn:
            comparisons = compare_all(found, ways, seconds=2 * seconds, progress=progress)
            measurements = [taken for made in comparisons for taken in (made.base, made.other)]
        else:
            measurements = sweep(
                found,
                ways,
                scenario="offline" if offline else "single-stream" if rate is None else "fixed-rate",
                rate_fps=rate,
                plan=device.Plan(seconds=seconds, cold_starts=device.COLD_STARTS if cold_start else 0),
                progress=progress,
            )
            comparisons = []
    try:
        comparisons += [device.compare_with(earlier, taken) for taken in measurements if compare is not None]
    finally:  # what was measured is shown and kept, also where it can't be compared
        if json_file is not None:
            device.write_measurements(json_file, measurements, comparisons)
        if html is not None:
            write_report(html, measurements, comparisons)
        bench_table(measurements)
        comparison_text(comparisons)
    if explain:
        explain_all(found, ways)
    device.gate(measurements, comparisons, max_p90_ms=max_p90_ms, max_regression_percent=max_regression)


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
        frames, description = (None, "") if source is None else device.load_frames(source)
        ways = Ways(threads=tuple(thread_counts(usable_cores())), frames=frames, description=description)
        with Bars() as progress:
            measurements = sweep(find([path]), ways, plan=device.Plan(seconds=seconds), progress=progress)
    found = choose(measurements, max_ms=max_ms, min_accuracy=min_accuracy)
    if json_file is not None:
        write_text(json_file, json.dumps(found.to_json(), ensure_ascii=False, indent=2) + "\n")
    for line in recommendation_lines(found):
        typer.echo(line)
    if found.taken is None:
        raise GateError("No measured artifact keeps the limits; the nearest are above.")
